"""The report page: parsed as a browser would, every section there, nothing outside itself, hostile names harmless."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from host_tools.report_page import LayerRow, Report, Step, chosen_images, page, table
from host_tools.report_pictures import (
    MemoryUse,
    PlannedTensor,
    accuracy_picture,
    confusion_picture,
    image_picture,
    memory_picture,
    percent,
    plan_picture,
    thousands,
    tick_step,
)
from host_tools.results import (
    Accuracy,
    Answers,
    Device,
    LayerVerdict,
    LinkCounts,
    Results,
    Tolerance,
    confusion_matrix,
    per_class_accuracy,
    spread,
)

HOSTILE = '</title><script>alert(1)</script><img src=http://evil.example/x onerror="x">'
VOID = {"meta", "img", "br", "rect", "line", "circle", "link", "input", "hr"}


def sample_answers(images: int = 40, classes: int = 4) -> Answers:
    """Image i has the label i % classes; the board answers right except for image 7; image 9 differs from the simulator."""
    rng = np.random.default_rng(3)
    labels = np.arange(images) % classes
    outputs = rng.integers(-128, 0, (images, classes)).astype(np.int8)
    outputs[np.arange(images), labels] = 100
    outputs[7, (labels[7] + 1) % classes] = 120
    device = outputs.copy()
    device[9, 0] ^= 1
    return Answers(device, outputs, labels.astype(np.int64), np.full(images, 1000, np.uint32))


def sample_results(answers: Answers, names: tuple[str, ...]) -> Results:
    """Results as a run would write them for these answers."""
    confusion = confusion_matrix(answers.labels, answers.classes, len(names))
    identical = int(answers.identical.sum())
    return Results(
        recipe="digits",
        board="netduinoplus2",
        target="unicorn",
        model_hash="ab" * 32,
        arithmetic="double",
        images=len(answers.labels),
        identical=identical,
        different=len(answers.labels) - identical,
        accuracy=Accuracy(float=0.9889, pruned=0.9861, int8_onnx=0.9833, simulator=0.9806, device=0.9806),
        macs=412_320,
        weights_bytes=9_884,
        flash_bytes=31_204,
        ram_bytes=14_336,
        stack_bytes=4_096,
        stack_used_bytes=1_096,
        activations_bytes=6_144,
        instructions_per_inference=1000,
        cycles=spread(answers.counts, "instructions"),
        link=LinkCounts(frames=120, crc_errors=2, retries=3, resets=1),
        class_names=names,
        confusion=confusion,
        per_class_accuracy=per_class_accuracy(confusion),
        layers=(
            LayerVerdict(index=0, operator="conv2d", expected=0xDEADBEEF, device=0xDEADBEEF),
            LayerVerdict(index=1, operator="add", expected=0x01020304, device=0x0A0B0C0D),
        ),
        tolerance=(
            Tolerance(
                runtime="onnxruntime",
                images=40,
                bytes_compared=160,
                bytes_different=37,
                largest_difference=2,
                classes_different=0,
            ),
        ),
        simulated_images=40,
        resumed_images=0,
        seconds=14.0,
        stream_seconds=12.5,
        command="digits --board netduinoplus2 --target unicorn",
        device=Device(
            board="netduinoplus2",
            core="cortex-m4",
            clock_hz=168_000_000,
            build_id="0123456789abcdef",
            protocol=1,
            selftest="passed",
        ),
        versions={"python": "3.11.2", "numpy": "2.4.6"},
    )


def sample_report(names: tuple[str, ...] = ("zero", "one", "two", "three")) -> Report:
    """A small but complete report."""
    answers = sample_answers(classes=len(names))
    rng = np.random.default_rng(1)
    return Report(
        results=sample_results(answers, names),
        answers=answers,
        images=rng.integers(0, 256, (len(answers.labels), 8, 8, 1)).astype(np.uint8),
        steps=(
            Step("float", 0.9889, 1_204_000, 30_120),
            Step("prune", 0.9750, 412_320, 9_700),
            Step("finetune", 0.9861, 412_320, 9_700),
            Step("quantize", 0.9833, 412_320, 9_700),
            Step("simulator", 0.9806),
            Step("device", 0.9806),
        ),
        memory=(
            MemoryUse("flash", (("code", 12_000), ("weights", 9_884), ("tables", 9_320)), 1_048_576),
            MemoryUse("RAM", (("activations", 6_144), ("stack", 4_096), ("other", 4_096)), 131_072),
        ),
        plan=(
            PlannedTensor("input", 0, 1024, 0, 0),
            PlannedTensor("conv 0", 1024, 4096, 0, 2),
            PlannedTensor("conv 1", 0, 1024, 1, 2),
            PlannedTensor("add", 5120, 1024, 2, 3),
        ),
        layers=(
            LayerRow(0, "conv2d", "8x8x1 -> 8x8x16", 9_216, 208, 1024),
            LayerRow(1, "add", "8x8x16", 0, 0, 1024),
            LayerRow(2, "mean", "8x8x16 -> 16", 0, 0, 16),
        ),
    )


@dataclass
class Parsed(HTMLParser):
    """What a browser would see: tags with attributes, identifiers, texts, references to elsewhere."""

    tags: list[str] = field(default_factory=list)
    identifiers: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    text: str = ""
    open_tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open_tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.identifiers.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open_tags and self.open_tags.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(report: Report) -> Parsed:
    reader = Parsed()
    reader.feed(page(report))
    reader.close()
    assert not reader.open_tags
    return reader


def test_every_section_is_there_once() -> None:
    found = parsed(sample_report()).identifiers
    expected = ["verdict", "accuracy", "confusion", "memory", "layers", "link", "images", "tolerance", "versions"]
    assert found == expected


def test_the_file_refers_to_nothing_outside_itself() -> None:
    text = page(sample_report())
    reader = parsed(sample_report())
    assert reader.references and all(r.startswith("data:image/png;base64,") for r in reader.references)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    assert "url(" not in text and "@import" not in text
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text


def test_hostile_names_stay_text() -> None:
    report = sample_report((HOSTILE, "one", "<b>two</b>", "'\"&"))
    results = report.results
    hostile = replace(
        report,
        results=results.model_copy(
            update={
                "recipe": HOSTILE,
                "command": HOSTILE,
                "target": HOSTILE,
                "device": results.device.model_copy(update={"board": HOSTILE, "core": HOSTILE, "build_id": HOSTILE}),
                "versions": {HOSTILE: HOSTILE},
                "tolerance": (results.tolerance[0].model_copy(update={"note": HOSTILE}),),
            }
        ),
        layers=(LayerRow(0, HOSTILE, HOSTILE, 1, 1, 1),),
        plan=(PlannedTensor(HOSTILE, 0, 6144, 0, 3),),
        memory=(MemoryUse(HOSTILE, ((HOSTILE, 1), ("b", 2)), 10),),
        steps=(Step(HOSTILE, 0.5),),
    )
    plain, reader = parsed(sample_report()), parsed(hostile)
    assert "script" not in reader.tags and not reader.handlers
    assert reader.tags.count("img") == plain.tags.count("img")
    assert all(r.startswith("data:image/png;base64,") for r in reader.references)
    assert HOSTILE in reader.text


def test_the_verdict_says_how_many_differ() -> None:
    report = sample_report()
    verdict = "1 of 40 answers differ from the exact simulator; 1 of 2 layers of the first image differ, layer 1 first."
    assert verdict in parsed(report).text
    assert '<p id="verdict" class="verdict bad">' in page(report)
    same = replace(report.answers, device=report.answers.simulator)
    good = sample_results(same, report.results.class_names).model_copy(update={"layers": report.results.layers[:1]})
    agreed = replace(report, answers=same, results=good)
    assert '<p id="verdict" class="verdict good">' in page(agreed)
    assert "All 40 answers are bit-identical to the exact simulator." in parsed(agreed).text


def test_the_figures_stand_in_the_page() -> None:
    text = parsed(sample_report()).text
    for figure in (
        "98.06 %",
        "98.89 %",
        "412,320",
        "31,204",
        "1,096 of 4,096 bytes",
        "deadbeef ✓",
        "0a0b0c0d ✗, expected 01020304",
    ):
        assert figure in text, figure
    assert "37 of 160" in text and "python -m host_tools digits --board netduinoplus2 --target unicorn" in text
    assert "python -m firmware_export digits --board netduinoplus2" in text


def test_a_clock_is_told_where_there_is_one() -> None:
    report = sample_report()
    assert "cortex-m4 at 168 MHz, self-test passed." in parsed(report).text
    device = report.results.device.model_copy(update={"clock_hz": 0, "core": "host", "selftest": "failed"})
    process = replace(report, results=report.results.model_copy(update={"device": device}), memory=())
    text = parsed(process).text
    assert ", host, self-test failed." in text and "0 MHz" not in text
    assert "A process of this computer: no limits." in text


def test_colour_images_many_classes_and_long_names() -> None:
    names = tuple(f"class number {i} with a very long name that does not fit" for i in range(30))
    answers = sample_answers(images=90, classes=30)
    rng = np.random.default_rng(2)
    report = replace(
        sample_report(),
        results=sample_results(answers, names),
        answers=answers,
        images=rng.integers(0, 256, (90, 32, 32, 3)).astype(np.uint8),
    )
    reader = parsed(report)
    assert reader.tags.count("img") == 24
    assert "class number 29 with a very long name that does not fit" in reader.text  # whole in the table
    assert "class number …" in reader.text  # shortened in the picture


def test_commands_are_those_a_shell_takes() -> None:
    report = sample_report()
    command = "'my recipe.yaml' 'data.folder=/a b' --build b --board netduinoplus2 --target qemu --images 7"
    text = parsed(replace(report, results=report.results.model_copy(update={"command": command}))).text
    assert f"printed by python -m host_tools layers {command}" in text
    assert "python -m firmware_export 'my recipe.yaml' 'data.folder=/a b' --build b --board netduinoplus2" in text
    assert "python -m host_tools exact 'my recipe.yaml' 'data.folder=/a b' --build b --board netduinoplus2" in text


def test_answers_of_an_interrupted_run_do_not_count_for_the_speed() -> None:
    report = sample_report()
    text = parsed(report).text
    assert "images per second3.2" in text  # 40 images in 12.5 s
    resumed = report.results.model_copy(update={"resumed_images": 30})
    assert "images per second0.8" in parsed(replace(report, results=resumed)).text
    everything = report.results.model_copy(update={"resumed_images": 40, "stream_seconds": 0.0})
    assert "images per second–" in parsed(replace(report, results=everything)).text


def test_what_the_target_cannot_know_is_a_dash() -> None:
    report = sample_report()
    unknown = {
        "instructions_per_inference": None,
        "cycles": None,
        "stack_used_bytes": None,
        "flash_bytes": None,
        "ram_bytes": None,
    }
    less = replace(report, results=report.results.model_copy(update={**unknown, "tolerance": (), "layers": ()}))
    text = parsed(less).text
    assert "instructions per inference" not in text and "stack used" not in text
    assert "None was run." in text and "not compared" in text


def test_images_that_differ_come_first_then_wrong_ones() -> None:
    answers = sample_answers()
    assert chosen_images(answers, 4) == [9, 7, 0, 1]
    assert len(chosen_images(answers, 1000)) == 40


def test_right_answers_are_shown_too_when_many_are_wrong() -> None:
    answers = sample_answers()
    poor = replace(answers, labels=(answers.labels + (np.arange(40) < 30)) % 4)
    shown = chosen_images(poor, 9)
    assert shown == [9, 0, 1, 2, 3, 4, 7, 30, 31]  # image 7 was answered with the next class: now that is right


def test_a_table_has_one_cell_per_heading() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table(("a", "b"), [("1",)])
    assert '<td class="number">2</td>' in table(("a", "b"), [("1", "2")], (1,))


def test_percent_and_thousands() -> None:
    assert percent(0.98765) == "98.8 %" and percent(None) == "–" and percent(1.0, 2) == "100.00 %"
    assert thousands(1234567) == "1,234,567"


@pytest.mark.parametrize(("span", "step"), [(5.0, 1.0), (4.9, 1.0), (100.0, 20.0), (12.0, 5.0), (2.0, 0.5), (0.5, 0.1)])
def test_ticks_are_one_two_or_five_times_a_power_of_ten(span: float, step: float) -> None:
    assert tick_step(span) == pytest.approx(step)


def attributes(svg: str, tag: str, css: str) -> list[dict[str, str]]:
    """The attributes of every `tag` element of one class."""
    found = [dict(re.findall(r'([\w-]+)="([^"]*)"', e)) for e in re.findall(rf"<{tag} [^>]*>", svg)]
    return [a for a in found if a.get("class") == css]


def test_dots_stand_where_the_axis_says() -> None:
    svg = accuracy_picture([("first", 0.96), ("last", 1.0)])
    # The axis starts one point under the lowest value, at 95 %, and ends at 100 %: x = 150 + (v - 95) * (520 - 224) / 5.
    assert [float(a["cx"]) for a in attributes(svg, "circle", "dot")] == [pytest.approx(150 + 59.2, abs=0.1)]
    assert [float(a["cx"]) for a in attributes(svg, "circle", "dot last")] == [pytest.approx(446, abs=0.1)]
    assert "96.00 %" in svg and "95 %" in svg


def test_a_step_far_below_the_others_does_not_press_them_together() -> None:
    svg = accuracy_picture([("train", 0.99), ("prune", 0.1583), ("distill", 0.98)])
    assert len(attributes(svg, "circle", "dot")) == 1 and len(attributes(svg, "path", "dot")) == 1
    assert "15.83 %" in svg and ">98 %<" in svg and ">20 %<" not in svg
    near = accuracy_picture([("train", 0.99), ("prune", 0.90), ("distill", 0.98)])
    assert not attributes(near, "path", "dot") and ">90 %<" in near


def test_an_accuracy_of_zero_and_of_one_can_be_drawn() -> None:
    assert "0.00 %" in accuracy_picture([("bad", 0.0)])
    assert "100.00 %" in accuracy_picture([("good", 1.0)])


def test_memory_bars_are_in_proportion() -> None:
    svg = memory_picture([MemoryUse("flash", (("code", 250), ("weights", 500)), 1000)])
    (full,) = attributes(svg, "rect", "cell")
    (code,), (weights,) = attributes(svg, "rect", "part0"), attributes(svg, "rect", "part1")
    assert float(code["width"]) == pytest.approx(float(full["width"]) / 4, abs=0.01)
    assert float(weights["width"]) == pytest.approx(float(full["width"]) / 2, abs=0.01)
    assert float(weights["x"]) == pytest.approx(float(code["x"]) + float(code["width"]), abs=0.01)
    assert "750 of 1,000 bytes (75.0 %)" in svg and "</tspan> code 250" in svg and "</tspan> weights 500" in svg


def test_memory_without_a_limit_or_over_it_stays_in_the_picture() -> None:
    svg = memory_picture([MemoryUse("RAM", (("all", 10),), None), MemoryUse("flash", (("all", 300),), 200)])
    full = [float(a["width"]) for a in attributes(svg, "rect", "cell")]
    used = [float(a["width"]) for a in attributes(svg, "rect", "part0")]
    assert used == pytest.approx(full)
    assert ">10 bytes<" in svg


def test_planned_tensors_cover_their_bytes_and_layers() -> None:
    svg = plan_picture([PlannedTensor("a", 0, 50, 0, 0), PlannedTensor("b", 50, 50, 0, 1)], 100)
    (first,), (second,) = attributes(svg, "rect", "part0"), attributes(svg, "rect", "part1")
    assert float(second["width"]) + 2 == pytest.approx(2 * (float(first["width"]) + 2))
    assert float(first["height"]) == pytest.approx(float(second["height"])) == pytest.approx(119.0)
    assert float(second["y"]) < float(first["y"])  # higher offsets are drawn higher
    assert plan_picture([], 0).startswith("<svg")


def test_the_confusion_picture_marks_errors_and_counts() -> None:
    svg = confusion_picture(("cat", "dog"), ((3, 1), (0, 4)))
    assert svg.count(">3<") == 1 and svg.count(">1<") == 1 and svg.count(">4<") == 1
    assert "cat answered as dog: 1 of 4" in svg
    shades = [float(a["fill-opacity"]) for a in attributes(svg, "rect", "right")]
    assert shades == [pytest.approx(0.15 + 0.85 * 0.75, abs=1e-3), pytest.approx(1.0)]
    assert [float(a["fill-opacity"]) for a in attributes(svg, "rect", "wrong")] == [1.0, 0.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_test_image_is_embedded_pixel_by_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    url = image_picture(image)
    assert url.startswith("data:image/png;base64,")
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
    assert np.array_equal(back.reshape(image.shape), image)


def test_the_style_is_for_light_dark_phone_and_paper() -> None:
    text = page(sample_report())
    assert "@media screen and (prefers-color-scheme: dark)" in text  # on paper it stays light
    assert "@media print" in text and '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    used = set(re.findall(r"var\((--\w+)\)", text))
    defined = set(re.findall(r"(--\w+):", text.split("@media")[0]))
    assert used <= defined
