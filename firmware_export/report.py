"""What an exported network costs: network_c_info.json for programs, network_report.txt, the same figures, for people."""

from __future__ import annotations

from typing import Any

from firmware_export.graph import Change, Graph, Tensor
from firmware_export.model_file import shown
from firmware_export.operators import operator_of
from firmware_export.plan import Place, Plan
from firmware_export.plan_text import plan_text
from firmware_export.stored_constants import StoredConstants

INFO_VERSION = 1


def network_info(graph: Graph, plan: Plan, name: str) -> dict[str, Any]:
    """Everything about a network as plain JSON values; the same graph gives the same values.

    Sizes are bytes, offsets count from the start of the activation buffer, shapes are NHWC. weights_bytes are the model's
    constants, constants_bytes what the generated C stores for them (multipliers included).
    """
    constants = StoredConstants.of(plan.codes)
    layers = [_layer(graph, plan, place, constants) for place in range(len(graph.nodes))]
    return {
        "version": INFO_VERSION,
        "name": name,
        "model_hash": graph.hash(),
        "arithmetic": graph.arithmetic,
        "inputs": [_edge(graph.tensors[index], plan.offsets[index]) for index in graph.inputs],
        "outputs": [_edge(graph.tensors[index], plan.offsets[index]) for index in graph.outputs],
        "passes": [_change(change) for change in graph.changes],
        "layers": layers,
        "blocks": _blocks(graph, plan),
        "macs": sum(layer["macs"] for layer in layers),
        "weights_bytes": graph.weights_bytes(),
        "constants_bytes": sum(layer["constants_bytes"] for layer in layers),
        "memory": {
            "activations_bytes": plan.size,
            **({"regions_bytes": list(plan.regions)} if plan.regions else {}),
            "lower_bound_bytes": plan.lower_bound,
            "proven_smallest": plan.proven,
            "unshared_bytes": _unshared(graph),
        },
    }


def _change(change: Change) -> dict[str, Any]:
    """Figures before and after a pass."""
    pairs = {"operators": change.operators, "macs": change.macs, "weights": change.weights}
    return {"name": change.name, **{key: list(pair) for key, pair in pairs.items()}}


def _blocks(graph: Graph, plan: Plan) -> list[dict[str, Any]]:
    """What lies where in the activation buffer during which layers, by time; `over`: the blocks that are read under it."""
    places = sorted(plan.places, key=lambda place: (place.first, place.last, place.offset))
    blocks = []
    for number, place in enumerate(places):
        over = [n for n, other in enumerate(places[:number]) if _meet(place, other)]
        sizes = {"offset": place.offset, "size": place.size, "first": place.first, "last": place.last}
        blocks.append({"name": _block_name(graph, place), **sizes, "over": over})
    return blocks


def _block_name(graph: Graph, place: Place) -> str:
    if place.owner is None:
        return f"scratch of {place.node}"
    if place.owner in graph.inputs:
        return f"input {graph.inputs.index(place.owner)}"
    maker = next(number for number, node in enumerate(graph.nodes) if place.owner in node.outputs)
    return f"{maker}: {graph.nodes[maker].op}"


def _meet(one: Place, other: Place) -> bool:
    """Whether two places have bytes in common at some time."""
    together = one.first <= other.last and other.first <= one.last
    return together and one.offset < other.offset + other.size and other.offset < one.offset + one.size


def _unshared(graph: Graph) -> int:
    """Bytes of all activations if none shared its place with another."""
    computed = {*graph.inputs, *(index for node in graph.nodes for index in node.outputs)}
    return sum(graph.tensors[index].nbytes for index in computed)


def _edge(tensor: Tensor, offset: int) -> dict[str, Any]:
    quantized = tensor.quantization is not None
    return {
        "name": shown(tensor.name),
        "type": tensor.dtype,
        "shape": list(tensor.shape),
        "scale": tensor.scale if quantized else None,
        "zero_point": tensor.zero_point if quantized else None,
        "offset": offset,
        "size": tensor.nbytes,
    }


def _layer(graph: Graph, plan: Plan, place: int, stored: StoredConstants) -> dict[str, Any]:
    node = graph.nodes[place]
    operator = operator_of(node)
    code = plan.codes[place]
    constants = [t for t in graph.input_tensors(node) if t is not None and t.is_constant]
    return {
        "index": place,
        "operator": node.op,
        "summary": code.summary,
        "input_offsets": [plan.offsets[index] for index in graph.activation_inputs(node)],
        "output_shapes": [list(graph.tensors[index].shape) for index in node.outputs],
        "output_offsets": [plan.offsets[index] for index in node.outputs],
        "output_bytes": sum(graph.tensors[index].nbytes for index in node.outputs),
        "macs": operator.macs(graph, node),
        "weights_bytes": sum(tensor.nbytes for tensor in constants),
        "constants_bytes": stored.layer_bytes(place),
        "scratch_bytes": code.scratch_bytes,
        "scratch_offset": plan.scratch.get(place),
    }


COLUMNS = ("layer", "operator", "output", "MACs", "weights", "constants", "offset", "bytes", "scratch")
TEXT_COLUMNS = 3
"""The first columns are words and stand left; the others are numbers and stand right."""


def report_text(info: dict[str, Any]) -> str:
    """The table of network_report.txt from `network_info`'s values."""
    memory = info["memory"]
    proven = ", proven the smallest for these kernels" if memory["proven_smallest"] else ""
    lines = [
        f"{info['name']}: {len(info['layers'])} layers, {info['macs']:,} MACs, {info['weights_bytes']:,} bytes of weights",
        f"model {info['model_hash']}",
        f"arithmetic {info['arithmetic']}",
        *map(pass_line, info["passes"]),
        "",
        *(_edge_line("input", place, edge) for place, edge in enumerate(info["inputs"])),
        *(_edge_line("output", place, edge) for place, edge in enumerate(info["outputs"])),
        "",
        *_table([COLUMNS, *(_row(layer) for layer in info["layers"]), _totals(info)]),
        "",
        f"activation buffer {memory['activations_bytes']:,} bytes (at least {memory['lower_bound_bytes']:,} live at once; "
        f"{memory['unshared_bytes']:,} without sharing){proven}",
        *_regions_line(memory),
        f"constants in flash {info['constants_bytes']:,} bytes",
        "",
        "what lies where (* is written over what is read)",
        *plan_text(info["blocks"], memory["activations_bytes"], len(info["layers"])),
    ]
    return "\n".join(lines) + "\n"


def _regions_line(memory: dict[str, Any]) -> list[str]:
    """How the buffer is divided, if it is."""
    if "regions_bytes" not in memory:
        return []
    first, second = memory["regions_bytes"]
    return [f"in two regions: {first:,} bytes in the first, the {second:,} from offset {first:,} on in the second"]


def pass_line(change: dict[str, Any]) -> str:
    """What one pass has made smaller, e.g. "remove dead channels: MACs 7,489,664 -> 3,727,313, weights 208,112 -> 29,066"."""
    figures = [("operators", change["operators"]), ("MACs", change["macs"]), ("weights", change["weights"])]
    texts = [f"{what} {before:,} -> {after:,}" for what, (before, after) in figures if before != after]
    return f"{change['name'].replace('_', ' ')}: {', '.join(texts)}"


def _edge_line(what: str, place: int, edge: dict[str, Any]) -> str:
    shape = "x".join(map(str, edge["shape"]))
    real = "" if edge["scale"] is None else f", real = {edge['scale']:.9g} * (stored - {edge['zero_point']})"
    return f"{what} {place} '{edge['name']}': {edge['type']} {shape}, {edge['size']:,} bytes at {edge['offset']:,}{real}"


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    shapes = " ".join("x".join(map(str, shape)) for shape in layer["output_shapes"])
    offsets = " ".join(f"{offset:,}" for offset in layer["output_offsets"])
    figures = (layer["macs"], layer["weights_bytes"], layer["constants_bytes"])
    sizes = (f"{layer['output_bytes']:,}", f"{layer['scratch_bytes']:,}")
    return (str(layer["index"]), layer["operator"], shapes, *(f"{figure:,}" for figure in figures), offsets, *sizes)


def _totals(info: dict[str, Any]) -> tuple[str, ...]:
    figures = tuple(f"{info[key]:,}" for key in ("macs", "weights_bytes", "constants_bytes"))
    scratch = max(layer["scratch_bytes"] for layer in info["layers"])
    return ("total", "", "", *figures, "", "", f"{scratch:,}")


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows in columns two spaces apart, a rule below the first and above the last."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(_cell(text, width, column) for column, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line.rstrip() for line in lines]
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < TEXT_COLUMNS else text.rjust(width)
