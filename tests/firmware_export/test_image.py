"""The firmware image: its measured memory against binutils, fitting to the byte, equal bytes from equal input."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from firmware_builder import BOARDS, COMPILER, COMPILERS, ECHO_MAIN, compiler, echo_image, needs_gcc

from firmware_export import board as board_module
from firmware_export import image as image_module
from firmware_export.board import Board, load_board
from firmware_export.image import FitError, ImageReport, board_config, build_image, link_image, linker_script, toolchain_for
from firmware_export.toolchain import ToolchainError, host_toolchain
from recipes.artifacts import ArtifactError

NETWORK = {
    "network_config.h": """
#include "nn.h"
extern const nn_network tiny;
#define NETWORK tiny
#define NETWORK_ACTIVATIONS_SIZE 64
""",
    "tiny.c": """
#include "nn.h"
extern const nn_network tiny;
static const nn_tensor edge = {0, 4, 1.0f, 0, NN_INT8, 2, {1, 4}};
static nn_status run(void *activations) {
    (void)activations;
    return NN_OK;
}
static nn_status trace(void *activations, nn_observer observer, void *context) {
    observer(context, 0, 0, activations, 4);
    return NN_OK;
}
const nn_network tiny = {"tiny", {1}, NN_ARITHMETIC_DOUBLE, 1, 1, 1, 64, &edge, &edge, run, trace, run};
""",
}
FILES = ["firmware.bin", "firmware.elf", "firmware.hex", "firmware.map", "image.json"]


def output_of(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def with_region(board: Board, name: str, size: int) -> Board:
    """The board with another size of one memory region."""
    memory = tuple(m.model_copy(update={"size": size}) if m.name == name else m for m in board.memory)
    return board.model_copy(update={"memory": memory})


def echo(board: Board, work: Path, optimize: str = "2", kind: str = COMPILER) -> ImageReport:
    return link_image(board, [ECHO_MAIN], [], work, compiler(kind), optimize)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A generated network, written by hand."""
    folder = tmp_path / "export"
    folder.mkdir()
    for name, text in NETWORK.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("name", BOARDS)
def test_every_board_builds_with_every_compiler(name: str, kind: str) -> None:
    report = echo_image(name, kind)
    assert sorted(path.name for path in report.image.parent.iterdir()) == FILES
    assert report.board == name and report.toolchain == compiler(kind).label and report.optimize == "2"
    assert report.stack_bytes == load_board(name).stack_bytes
    assert 1000 < report.flash_bytes < 6000 and 1024 < report.ram_bytes < 1500


@needs_gcc
@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("name", BOARDS)
def test_sizes_are_those_of_binutils(name: str, kind: str) -> None:
    report = echo_image(name, kind)
    text, data, bss, *_ = map(int, output_of("arm-none-eabi-size", report.image).splitlines()[1].split()[:3])
    assert data > 0
    assert report.flash_bytes == text + data
    assert report.ram_bytes + report.stack_bytes == data + bss


@needs_gcc
@pytest.mark.parametrize("kind", COMPILERS)
def test_binary_and_hex_are_those_of_objcopy(tmp_path: Path, kind: str) -> None:
    image = echo_image("nucleo_h743zi", kind).image
    for format_, name in (("binary", "firmware.bin"), ("ihex", "firmware.hex")):
        output_of("arm-none-eabi-objcopy", "-O", format_, image, tmp_path / name)
    binary = (tmp_path / "firmware.bin").read_bytes()
    assert (image.parent / "firmware.bin").read_bytes() == binary
    output_of("arm-none-eabi-objcopy", "-I", "ihex", "-O", "binary", image.parent / "firmware.hex", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == binary


@pytest.mark.parametrize("kind", COMPILERS)
def test_contributors_are_the_symbols_of_the_image(kind: str) -> None:
    regions = {region.name: region for region in echo_image("nucleo_h743zi", kind).regions}
    assert [name for name, _ in regions["DTCM"].largest] == ["stack", "ring", "zeroed"]
    assert dict(regions["DTCM"].largest)["stack"] == 4096 and dict(regions["DTCM"].largest)["zeroed"] == 64
    assert regions["AXI_SRAM"].largest == (("activations", 64),) and regions["AXI_SRAM"].used == 64
    assert {"vectors", "stm32_start"} & {name for name, _ in regions["FLASH"].largest}
    assert regions["FLASH"].size == 2 << 20


@pytest.mark.parametrize("kind", COMPILERS)
def test_map_lists_sections_and_symbols(kind: str) -> None:
    text = (echo_image("nucleo_f446re", kind).image.parent / "firmware.map").read_text()
    sections, symbols = text.split("\n\n")
    assert [line.split()[0] for line in sections.splitlines()[1:]] == [".text", ".stack", ".data", ".activations", ".bss"]
    data = next(line.split() for line in sections.splitlines() if line.startswith(".data"))
    assert int(data[1], 16) >= 0x20001000 and 0x08000000 < int(data[2], 16) < 0x08002000 and int(data[3]) >= 4
    rows = [line.split() for line in symbols.splitlines()[1:]]
    assert rows == sorted(rows, key=lambda row: (int(row[0], 16), row[2]))
    assert {"main", "vectors", "stack", "ring"} <= {row[2] for row in rows}


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("region", ["FLASH", "DTCM", "AXI_SRAM"])
def test_fits_with_no_slack_and_not_with_a_byte_less(tmp_path: Path, kind: str, region: str) -> None:
    board = load_board("nucleo_h743zi")
    used = {use.name: use.used for use in echo_image(board.name, kind).regions}[region]
    tight = echo(with_region(board, region, used), tmp_path / "tight", kind=kind)
    assert {use.name: use.used for use in tight.regions}[region] == used
    with pytest.raises(FitError) as error:
        echo(with_region(board, region, used - 1), tmp_path / "over", kind=kind)
    assert (error.value.region, error.value.bytes_over, error.value.exit_code) == (region, 1, 7)
    assert list((tmp_path / "over").iterdir()) == []


def test_message_of_what_does_not_fit(tmp_path: Path) -> None:
    main = tmp_path / "large_main.c"
    main.write_text(
        "#include <stdint.h>\nint main(void);\nstatic volatile uint8_t large[20000];\nint main(void) { return large[7]; }\n"
    )
    board = with_region(load_board("nucleo_f103rb"), "SRAM", 16384).model_copy(update={"name": "small_board"})
    board = board.model_copy(update={"name": "nucleo_f103rb"})
    with pytest.raises(FitError) as error:
        link_image(board, [main], [], tmp_path / "work", compiler(COMPILER))
    message = str(error.value)
    needed = 2048 + 20000
    assert message.startswith("does not fit nucleo_f103rb: SRAM needs ") and "\n" not in message
    assert [name for name, _ in error.value.largest][:2] == ["large", "stack"]
    assert needed - 16384 <= error.value.bytes_over <= needed - 16384 + 1200, "the ring may have been left out as unused"
    assert "largest: large 20,000, stack 2,048" in message and message.endswith("take a smaller model or a larger board")


def test_the_worst_region_is_named(tmp_path: Path) -> None:
    board = with_region(with_region(load_board("nucleo_f446re"), "FLASH", 1000), "SRAM", 6000)
    with pytest.raises(FitError) as error:
        echo(board, tmp_path)
    uses = {use.name: use.used for use in echo_image("nucleo_f446re").regions}
    over = {"FLASH": uses["FLASH"] - 1000, "SRAM": uses["SRAM"] - 6000}
    assert error.value.region == max(over, key=lambda name: over[name])
    assert error.value.bytes_over == max(over.values())


@pytest.mark.parametrize("kind", COMPILERS)
def test_what_cannot_be_linked_is_no_question_of_size(tmp_path: Path, kind: str) -> None:
    main = tmp_path / "main.c"
    main.write_text("int main(void);\nint elsewhere(void);\nint main(void) { return elsewhere(); }\n")
    with pytest.raises(ToolchainError, match=r"linking huge.elf: .*elsewhere") as error:
        link_image(load_board("nucleo_f446re"), [main], [], tmp_path / "work", compiler(kind))
    assert "\n" not in str(error.value) and list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize("kind", COMPILERS)
def test_same_input_same_bytes_wherever_it_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Another checkout, another output folder, another time, language and working directory."""
    first = echo_image("nucleo_g071rb", kind)
    copy = tmp_path / "another checkout" / "firmware_export"
    shutil.copytree(image_module.BOARDS, copy / "boards")
    main = shutil.copy(ECHO_MAIN, tmp_path)
    monkeypatch.setattr(board_module, "BOARDS", copy / "boards")
    monkeypatch.setattr(image_module, "BOARDS", copy / "boards")
    monkeypatch.setenv("LANG", "tr_TR.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.chdir(tmp_path)
    second = link_image(load_board("nucleo_g071rb"), [Path(main)], [], tmp_path / "work", compiler(kind))
    assert hashes(first.image.parent) == hashes(second.image.parent)
    assert replace(first, image=second.image) == second


def test_host_image_is_reproducible_too(tmp_path: Path) -> None:
    reports = [link_image(load_board("host"), [ECHO_MAIN], [], tmp_path / name, host_toolchain()) for name in ("a", "b")]
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert reports[0].stack_bytes == 0 and reports[0].regions == ()
    assert reports[0].flash_bytes > 1000 and reports[0].ram_bytes >= 64


def test_build_id_follows_what_decides_the_image(tmp_path: Path) -> None:
    board = load_board("nucleo_f446re")
    base = echo_image(board.name)
    assert len(base.build_id) == 16 and int(base.build_id, 16) >= 0
    other = tmp_path / "echo_main.c"
    other.write_text(ECHO_MAIN.read_text() + "/* changed */\n")
    changed = {
        "options": echo(board, tmp_path / "o", "s"),
        "source": link_image(board, [other], [], tmp_path / "s", compiler(COMPILER)),
        "board.toml": echo(board.model_copy(update={"stack_bytes": 8192}), tmp_path / "b"),
        "board": echo_image("netduinoplus2"),
    }
    assert len({base.build_id, *(report.build_id for report in changed.values())}) == 5
    assert base.build_id.encode() in base.image.read_bytes()


def test_header_of_the_export_decides_the_build_id(tmp_path: Path, export: Path) -> None:
    board, tools = load_board("nucleo_f446re"), compiler(COMPILER)
    first = build_image(board, export, tmp_path / "first", tools)
    config = export / "network_config.h"
    config.write_text(config.read_text().replace("64", "128"))
    second = build_image(board, export, tmp_path / "second", tools)
    assert first.build_id != second.build_id
    assert second.ram_bytes - first.ram_bytes == 64


def test_headers_that_are_included_decide_the_build_id(tmp_path: Path) -> None:
    """Directly, through another header, by a path; not those that merely lie there."""
    folder = tmp_path / "more"
    (folder / "deep").mkdir(parents=True)
    main = tmp_path / "main.c"
    main.write_text('# include "first.h"\nint main(void);\nint main(void) { return SECOND; }\n')
    (folder / "first.h").write_text('#pragma once\n#include "deep/second.h"\n')
    (folder / "deep" / "second.h").write_text('#pragma once\n#include "../first.h"\n#define SECOND 2\n')
    (folder / "unused.h").write_text("")

    def build_id() -> str:
        board = load_board("nucleo_f103rb")
        return link_image(board, [main], [folder], tmp_path / "work", compiler(COMPILER)).build_id

    ids = [build_id()]
    (folder / "unused.h").write_text("/* changed */\n")
    assert build_id() == ids[0]
    for name in ("first.h", "deep/second.h"):
        (folder / name).write_text((folder / name).read_text() + "/* changed */\n")
        ids.append(build_id())
    assert len(set(ids)) == 3


def test_report_is_plain_json(tmp_path: Path) -> None:
    report = echo(load_board("nucleo_g071rb"), tmp_path)
    stored = json.loads((tmp_path / "image.json").read_text())
    assert stored == json.loads(json.dumps(report.to_json()))
    assert stored["image"] == "firmware.elf" and stored["flash_bytes"] == report.flash_bytes
    assert stored["regions"][1] == {
        "name": "SRAM",
        "used": report.regions[1].used,
        "size": 36864,
        "largest": [list(entry) for entry in report.regions[1].largest],
    }


@pytest.mark.parametrize("kind", COMPILERS)
def test_exported_network_with_server_and_runtime(tmp_path: Path, export: Path, kind: str) -> None:
    report = build_image(load_board("nucleo_f103rb"), export, tmp_path / "work", compiler(kind))
    symbols = (tmp_path / "work" / "firmware.map").read_text()
    for name in ("nn_server_poll", "nn_crc32", "tiny", "activations", "server"):
        assert f" {name}\n" in symbols, name
    assert "nn_softmax" not in symbols, "operators that no layer calls are left out"
    assert "nn_dense" not in symbols and "nn_server_init" in symbols
    assert report.ram_bytes > 64 + 1024


@pytest.mark.parametrize("sanitize", [False, True])
def test_host_executable(tmp_path: Path, export: Path, sanitize: bool) -> None:
    tools = host_toolchain()
    if sanitize and tools.kind == "zig":
        pytest.skip("zig has no address sanitizer for C")
    report = build_image(load_board("host"), export, tmp_path / "work", tools, sanitize=sanitize)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["firmware", "image.json"]
    result = subprocess.run([str(report.image)], input=b"\0\0", capture_output=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (b"__asan_init" in report.image.read_bytes()) == sanitize


def test_export_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"network_config.h not found: run the export first"):
        build_image(load_board("nucleo_f446re"), tmp_path, tmp_path / "work", compiler(COMPILER))


def test_toolchain_for_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLCHAIN", raising=False)
    monkeypatch.delenv("CC", raising=False)
    assert toolchain_for(load_board("nucleo_f446re"), "zig").kind == "zig"
    assert toolchain_for(load_board("host"), "zig") == host_toolchain()


def test_board_config_of_a_part() -> None:
    text = board_config(load_board("nucleo_g071rb"))
    for line in (
        '#define BOARD_NAME "nucleo_g071rb"',
        '#define BOARD_CORE "cortex-m0plus"',
        "#define BOARD_HAS_DWT 0",
        "#define BOARD_HAS_FPU 0",
        "#define BOARD_UART_BASE 0x40004400u",
        "#define BOARD_UART_IRQ 28u",
        '#define BOARD_UART_DRIVER "stm32_usart_v2.h"',
        "#define BOARD_CLOCK_HZ 64000000u",
        "#define BOARD_STACK_BYTES 2048u",
    ):
        assert line in text.splitlines()
    assert "BOARD_UART" not in board_config(load_board("host"))


def test_linker_script_is_filled_in() -> None:
    text = linker_script(load_board("nucleo_h743zi"))
    assert "@" not in text
    assert "    DTCM (rwx) : ORIGIN = 0x20000000, LENGTH = 131072\n" in text
    assert "    FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 2097152\n" in text
    assert "> AXI_SRAM" in text
    other = linker_script(load_board("nucleo_h743zi"), {"FLASH": 1, "DTCM": 2, "AXI_SRAM": 3})
    assert [f"LENGTH = {size}\n" in other for size in (1, 2, 3)] == [True] * 3
