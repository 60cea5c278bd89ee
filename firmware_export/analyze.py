"""What a model holds and costs, and which boards it fits, without building anything.

Memory is that of a plan without stripes (striping.py), which take a long search: what is exported mostly needs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firmware_export.board import Board, board_names, load_board
from firmware_export.export import load_graph
from firmware_export.fit import Fit, estimate
from firmware_export.graph import Graph
from firmware_export.plan import Plan, plan
from firmware_export.report import network_info, report_text
from firmware_export.target import Target
from recipes.recipe import FirmwareExportSection


def analyze(model: Path, section: FirmwareExportSection) -> dict[str, Any]:
    """A model's operators, layers, memory and boards as plain JSON values.

    Returns:
        report.network_info's values, before stripes, for cores with DSP instructions, named after the file, and: file_bytes;
        operators, one entry {operator, layers, macs, weights_bytes} for each kind; boards, one entry (fit.Fit) for each board
        but `host`.
    Raises:
        GraphError: the model is damaged or not supported.
    """
    graph = load_graph(model, section, stripes=False)
    layouts: dict[Target, Plan] = {}
    fits = [_fit(graph, board, section, layouts) for board in map(load_board, board_names()) if not board.is_host]
    info = network_info(graph, _layout(graph, "host", section, layouts), model.name)
    operators = _operators(info["layers"])
    return {
        **info,
        "file_bytes": model.stat().st_size,
        "operators": operators,
        "boards": [fit.to_json() for fit in fits],
    }


def _layout(graph: Graph, core: str, section: FirmwareExportSection, layouts: dict[Target, Plan]) -> Plan:
    """The plan for a core; cores of one class share it."""
    target = Target.of(core, section.optimize)
    if target not in layouts:
        layouts[target] = plan(graph, target)
    return layouts[target]


def _fit(graph: Graph, board: Board, section: FirmwareExportSection, layouts: dict[Target, Plan]) -> Fit:
    return estimate(graph, _layout(graph, board.core, section, layouts), board, section.selftest_vectors)


def _operators(layers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers, MACs and bytes of weights of every kind of operator, in the order in which they first come."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = layer["operator"]
        row = found.setdefault(name, {"operator": name, "layers": 0, "macs": 0, "weights_bytes": 0})
        row["layers"] += 1
        row["macs"] += layer["macs"]
        row["weights_bytes"] += layer["weights_bytes"]
    return list(found.values())


def analysis_text(analysis: dict[str, Any]) -> str:
    """The whole analysis for a person: layers, operators, boards, a closing line."""
    fitting = [board["board"] for board in analysis["boards"] if board["fits"]]
    closing = (
        f"analyze: {len(analysis['layers'])} layers of {len(analysis['operators'])} operators, {analysis['macs']:,} MACs, "
        f"{analysis['weights_bytes']:,} bytes of weights, {analysis['memory']['activations_bytes']:,} bytes of activations; "
        f"fits {len(fitting)} of {len(analysis['boards'])} boards: {', '.join(fitting) or 'none'}; nothing was built"
    )
    return f"{report_text(analysis)}\n{tables_text(analysis)}\n\n{closing}"


def tables_text(analysis: dict[str, Any]) -> str:
    """The tables of operators and of boards."""
    return f"{_operator_table(analysis)}\n\n{_board_table(analysis['boards'])}"


def _operator_table(analysis: dict[str, Any]) -> str:
    keys = ("layers", "macs", "weights_bytes")
    total = {"operator": "total", "layers": len(analysis["layers"]), **{key: analysis[key] for key in keys[1:]}}
    rows = [(row["operator"], *(f"{row[key]:,}" for key in keys)) for row in (*analysis["operators"], total)]
    return _aligned([("operator", "layers", "MACs", "weights"), *rows], words=1)


def _board_table(boards: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            board["board"],
            board["core"],
            _verdict(board),
            _need(board["flash"]),
            "; ".join(f"{region['name']} {_need(region)}" for region in board["ram"]),
        )
        for board in boards
    ]
    return _aligned([("board", "core", "fits", "flash, about", "RAM with stack, before stripes"), *rows], words=5)


def _verdict(board: dict[str, Any]) -> str:
    if board["fits"]:
        return "yes"
    stripes = "" if board["short_of"] == board["flash"]["name"] else " without stripes"
    return f"no: {board['short_bytes']:,} bytes short of {board['short_of']}{stripes}"


def _need(region: dict[str, Any]) -> str:
    return f"{region['needed']:,} of {region['size']:,}"


def _aligned(rows: Sequence[tuple[str, ...]], words: int) -> str:
    """Rows in columns two spaces apart; the first `words` columns stand left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place < words else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
