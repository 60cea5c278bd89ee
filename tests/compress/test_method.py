"""Methods are found by looking into the folder; a recipe's steps are checked before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import compress
from compress.distill import DistillSettings
from compress.fold import fold_batch_norm
from compress.method import Candidate, Context, Method, Step, methods, plan_steps
from compress.prune import PruneSettings
from compress.quantize import QuantizeSettings
from recipes.artifacts import UsageError
from recipes.recipe import CompressSection, Section


def plan(*steps: dict[str, object]) -> list[Step]:
    return plan_steps(CompressSection.model_validate({"steps": list(steps)}))


def test_the_three_methods_are_found() -> None:
    assert {name: method.settings for name, method in methods().items()} == {
        "distill": DistillSettings,
        "prune": PruneSettings,
        "quantize": QuantizeSettings,
    }


def test_a_file_dropped_in_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shrug.py").write_text(
        "from compress.method import Method\nfrom recipes.recipe import Section\n\n"
        "class ShrugSettings(Section):\n    times: int = 1\n\n"
        "METHOD = Method(ShrugSettings, lambda candidate, settings, context: candidate)\n"
    )
    monkeypatch.setattr(compress, "__path__", [*compress.__path__, str(tmp_path)])
    methods.cache_clear()
    try:
        (step,) = plan({"shrug": {"times": 2}})
        assert step.name == "shrug" and step.settings.model_dump() == {"times": 2}
    finally:
        methods.cache_clear()


def test_steps_keep_their_order_and_settings() -> None:
    steps = plan({"prune": {"ratio": 0.25}}, {"distill": {"epochs": 7}}, {"quantize": {"method": "ptq"}})
    assert [step.name for step in steps] == ["prune", "distill", "quantize"]
    assert steps[0].settings == PruneSettings(ratio=0.25)
    assert steps[1].settings == DistillSettings(epochs=7)
    assert steps[2].settings == QuantizeSettings(method="ptq")


def test_a_step_without_settings_takes_the_defaults() -> None:
    (step,) = plan({"quantize": None})
    assert step.settings == QuantizeSettings()


def test_no_steps_are_allowed() -> None:
    assert plan() == []


def test_a_method_may_come_twice() -> None:
    assert [step.name for step in plan({"prune": {}}, {"distill": {}}, {"prune": {}}, {"distill": {}})] == [
        "prune",
        "distill",
    ] * 2


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            ({"prun": {}},),
            r"compress.steps.0: unknown method 'prun'; did you mean 'prune'\?; known: distill, prune, quantize",
        ),
        (({"prune": {}}, {"zzz": {}}), r"compress.steps.1: unknown method 'zzz'; known: "),
        (({"prune": {"ration": 0.5}},), r"compress.steps.0.prune: unknown key 'ration'; did you mean 'ratio'\?"),
        (({"prune": {"ratio": "much"}},), r"compress.steps.0.prune: 'ratio' is 'much'"),
        (({"prune": {}, "distill": {}},), r"compress.steps.0 holds 2 keys; expected one method"),
        (({},), r"compress.steps.0 holds 0 keys"),
        (({"quantize": {}}, {"distill": {}}), r"compress.steps.0: 'quantize' must be the last step; 'distill' follows it"),
        (({"quantize": {}}, {"quantize": {}}), r"'quantize' must be the last step"),
    ],
)
def test_wrong_steps_are_named_in_one_line(steps: tuple[dict[str, object], ...], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        plan(*steps)
    assert raised.value.exit_code == 2 and "\n" not in str(raised.value)


def test_every_setting_has_a_default() -> None:
    for method in methods().values():
        assert all(not field.is_required() for field in method.settings.model_fields.values())


def test_a_step_applies_its_method_with_its_settings(trained: Candidate, context: Context) -> None:
    seen: list[object] = []

    class Settings(Section):
        number: int = 3

    def apply(candidate: Candidate, settings: Settings, context: Context) -> Candidate:
        seen.append((settings.number, context))
        return candidate

    step = Step("any", Method(Settings, apply), Settings(number=4))
    assert step.apply(trained, context) is trained
    assert seen == [(4, context)]


def test_every_step_has_checkpoints_of_its_own(context: Context, tmp_path: Path) -> None:
    assert context.for_step(0, "prune").work is None
    with_work = replace(context, work=tmp_path)
    assert with_work.for_step(0, "prune").work == tmp_path / "0_prune"
    assert with_work.for_step(2, "prune").work == tmp_path / "2_prune"


def test_the_current_network_is_the_quantized_one_once_there_is_one(trained: Candidate) -> None:
    assert trained.current is trained.model
    graph = fold_batch_norm(trained.model)
    assert replace(trained, quantized=graph).current is graph
