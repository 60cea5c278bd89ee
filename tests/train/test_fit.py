"""The training loop: early stopping, the best epoch, the schedule as applied, NaN anywhere, checkpoints of others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recipes.artifacts import ArtifactError
from recipes.recipe import AugmentSection, TrainSection
from train.augment import augment, generator_for
from train.checkpoint import load_checked, save_checked
from train.data import Dataset, to_float_nchw
from train.diagnose import TrainingError, first_nonfinite
from train.evaluate import accuracy, predict
from train.loop import AUGMENT, ORDER, RESUME_FILE, fit, remove_checkpoint
from train.models import ModelConfig, build_model
from train.regularize import smoothed_cross_entropy

SETTINGS = TrainSection(epochs=4, batch_size=32, warmup_epochs=0.5, learning_rate=5e-3, checkpoint_steps=4, threads=1)
SMALL = ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8, 12, 16), (1, 1, 2), dropout=0.1)


def network(seed: int = 1, config: ModelConfig = SMALL) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config)


def changed(**values: Any) -> TrainSection:
    return SETTINGS.model_copy(update=values)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


# what it gives


def test_it_learns_digits(digits: Dataset) -> None:
    model = network()
    result = fit(model, digits, changed(epochs=8, batch_size=32), seed=1)
    assert accuracy(model, digits.test) > 0.95
    assert result.epochs == 8 and [r.epoch for r in result.history] == list(range(1, 9))
    assert result.history[-1].train_loss < result.history[0].train_loss / 2
    assert not model.training


def test_the_result_is_that_of_the_best_epoch(few_digits: Dataset) -> None:
    """From the third epoch on the loss is turned round, so that the network gets worse."""
    model, calls = network(), 0
    smoothed = smoothed_cross_entropy(0.05)

    def turning(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return smoothed(logits, images, labels) * (1.0 if calls <= 12 else -1.0)

    result = fit(model, few_digits, changed(epochs=5, learning_rate=0.02), seed=1, loss=turning)
    accuracies = [r.validation_accuracy for r in result.history]
    assert result.best_epoch <= 3 and max(accuracies) == accuracies[result.best_epoch - 1] == result.best_accuracy
    assert accuracies[-1] < result.best_accuracy
    assert accuracy(model, few_digits.validation) == pytest.approx(result.best_accuracy)


class Frozen(nn.Module):
    """Nothing it could learn: every epoch is as good as the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


def nothing(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return logits.sum() * 0


@pytest.mark.parametrize(("patience", "epochs", "expected"), [(3, 20, 4), (1, 20, 2), (9, 5, 5)])
def test_early_stopping_counts_epochs_without_a_better_one(
    few_digits: Dataset, patience: int, epochs: int, expected: int
) -> None:
    settings = changed(epochs=epochs, patience=patience, weight_decay=0.0)
    result = fit(Frozen(), few_digits, settings, seed=1, loss=nothing)
    assert (result.best_epoch, result.epochs) == (1, expected)


def test_equal_accuracy_with_less_loss_is_better(few_digits: Dataset) -> None:
    """The logits only grow: the accuracy stays, the validation loss changes."""
    model = Frozen()
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.copy_(torch.arange(10.0) / 10)

    def flatten(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return model.linear.bias.square().sum()

    settings = changed(epochs=3, patience=1, weight_decay=0.0, optimizer="sgd", learning_rate=1e-3, momentum=0.0)
    result = fit(model, few_digits, settings, seed=1, loss=flatten)
    assert len({r.validation_accuracy for r in result.history}) == 1
    losses = [r.validation_loss for r in result.history]
    assert losses == sorted(losses, reverse=True) and result.best_epoch == 3


def test_history_figures_against_an_independent_count(few_digits: Dataset) -> None:
    model = network()
    result = fit(model, few_digits, changed(epochs=1, label_smoothing=0.2), seed=1)
    record = result.history[0]
    logits = predict(model, few_digits.validation.images).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -log_p[np.arange(len(logits)), few_digits.validation.labels].mean()
    assert record.validation_loss == pytest.approx(expected, abs=1e-5)
    assert record.validation_accuracy == np.mean(logits.argmax(1) == few_digits.validation.labels)


# what it does on the way


class Recorder:
    """A loss that keeps what it is given."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.training: list[bool] = []
        self._loss = smoothed_cross_entropy(0.0)

    def __call__(self, logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        assert logits.shape == (len(images), 10)
        self.images.append(images.clone())
        self.labels.append(labels.clone())
        return self._loss(logits, images, labels)


def test_an_epoch_shows_every_image_at_most_once_in_a_new_order(few_digits: Dataset) -> None:
    recorder = Recorder()
    fit(network(), few_digits, changed(epochs=2), seed=1, loss=recorder)
    known = to_float_nchw(few_digits.train.images)
    orders = []
    for epoch in range(2):
        shown = torch.cat(recorder.images[6 * epoch : 6 * epoch + 6]).numpy()
        labels = torch.cat(recorder.labels[6 * epoch : 6 * epoch + 6]).numpy()
        assert len(shown) == 192  # 200 // 32 full batches
        order = np.random.default_rng((1, ORDER, epoch)).permutation(200)[:192]
        assert np.array_equal(shown, known[order]) and np.array_equal(labels, few_digits.train.labels[order])
        orders.append(order.tolist())
    assert orders[0] != orders[1] and len(set(orders[0])) == 192


def test_the_loss_gets_the_augmented_images(few_digits: Dataset) -> None:
    settings = AugmentSection(shift=1, rotate=10)
    recorder = Recorder()
    fit(network(), few_digits, changed(epochs=1, augment=settings), seed=3, loss=recorder)
    order = np.random.default_rng((3, ORDER, 0)).permutation(200)
    batch = torch.from_numpy(to_float_nchw(few_digits.train.images[order[64:96]]))
    assert torch.equal(recorder.images[2], augment(batch, settings, generator_for(3, AUGMENT, 0, 2)))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_schedule_is_applied_step_by_step(few_digits: Dataset, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import train.loop as loop

    rates: list[float] = []
    make = loop.make_optimizer

    def watched(model: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
        result = make(model, settings)
        result.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return result

    monkeypatch.setattr(loop, "make_optimizer", watched)
    result = fit(network(), few_digits, changed(epochs=3, optimizer=optimizer, learning_rate=0.01), seed=1)
    warm = [0.01 * (step + 1) / 3 for step in range(3)]
    cosine = [0.005 * (1 + math.cos(math.pi * step / 15)) for step in range(15)]
    assert rates == pytest.approx(warm + cosine)
    assert [r.learning_rate for r in result.history] == pytest.approx([rates[5], rates[11], rates[17]])


def test_both_groups_get_the_rate_and_keep_their_decay(few_digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import train.loop as loop

    seen: set[tuple[float, float]] = set()
    make = loop.make_optimizer

    def watched(model: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
        result = make(model, settings)
        result.register_step_pre_hook(lambda o, *_: seen.update((g["lr"], g["weight_decay"]) for g in o.param_groups))
        return result

    monkeypatch.setattr(loop, "make_optimizer", watched)
    fit(network(), few_digits, changed(epochs=1, weight_decay=0.125), seed=1)
    assert {decay for _, decay in seen} == {0.125, 0.0} and len({rate for rate, _ in seen}) * 2 == len(seen)


def test_a_batch_larger_than_the_data(few_digits: Dataset) -> None:
    assert fit(network(), few_digits, changed(epochs=1, batch_size=1000), seed=1).epochs == 1


def test_same_seed_same_bits_other_seed_other_bits(few_digits: Dataset) -> None:
    settings = changed(epochs=2, augment=AugmentSection(shift=0.5, rotate=5))
    states = []
    for seed, disturb in ((1, 0), (1, 99), (2, 0)):
        model = network()
        torch.manual_seed(disturb)  # the global generator must not matter
        fit(model, few_digits, settings, seed=seed)
        states.append(state_of(model))
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_the_global_generator_is_as_it_was(few_digits: Dataset) -> None:
    model = network()
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    fit(model, few_digits, changed(epochs=1), seed=1)
    assert torch.equal(torch.rand(2), expected)


def test_every_epoch_is_a_line(few_digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    fit(network(), few_digits, changed(epochs=2), seed=1, label="train digits")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("train digits: epoch 1/2, loss ") and " %, validation " in lines[0]


# NaN and infinity


def poison(model: nn.Module, name: str, value: float) -> None:
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stem.weight", math.nan, r"epoch 1, step 1: the loss is nan; first NaN or infinity in layer 'stem' \(weight\)"),
        ("body.0.bn1.weight", math.inf, r"first NaN or infinity in layer 'body\.0\.bn1' \(weight\)"),
        ("body.1.conv2.weight", -math.inf, r"layer 'body\.1\.conv2' \(weight\)"),
        ("classifier.bias", math.nan, r"layer 'classifier' \(bias\)"),
        ("classifier.weight", 3e38, r"layer 'classifier' \(its output\)|the loss itself"),
    ],
)
def test_bad_weights_are_named(few_digits: Dataset, tmp_path: Path, name: str, value: float, message: str) -> None:
    model = network()
    poison(model, name, value)
    if value == 3e38:
        model.get_parameter(name).data.fill_(value)
    with pytest.raises(TrainingError, match=message) as error:
        fit(model, few_digits, SETTINGS, seed=1, work=tmp_path, label="train digits")
    assert error.value.exit_code == 9 and "\n" not in str(error.value)
    assert "lower train.learning_rate (now 0.005)" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_bad_running_statistics_show_in_the_validation(few_digits: Dataset) -> None:
    model = network()
    poison(model, "body.0.bn2.running_var", math.nan)
    with pytest.raises(
        TrainingError,
        match=r"epoch 1, step 6: the validation loss is nan; first NaN or infinity in layer 'body\.0\.bn2' \(running",
    ):
        fit(model, few_digits, SETTINGS, seed=1)


def test_a_learning_rate_far_too_high(few_digits: Dataset) -> None:
    settings = changed(optimizer="sgd", learning_rate=1e30, warmup_epochs=0.0)
    with pytest.raises(
        TrainingError, match=r"failed at epoch 1, step [2-6]: the loss is (nan|inf); first NaN or infinity in layer"
    ):
        fit(network(), few_digits, settings, seed=1)


def test_a_loss_that_turns_nan_names_its_step(few_digits: Dataset) -> None:
    calls = 0

    def failing(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return logits.sum() * (math.nan if calls == 9 else 0.0)

    with pytest.raises(
        TrainingError, match="epoch 2, step 3: the loss is nan; every layer's output is finite: the loss itself"
    ):
        fit(network(), few_digits, SETTINGS, seed=1, loss=failing)


def test_the_first_bad_layer_is_found_in_order_of_execution() -> None:
    model = network().eval()
    assert first_nonfinite(model, torch.rand(2, 1, 8, 8)) is None
    poison(model, "classifier.bias", math.nan)
    poison(model, "body.0.conv2.weight", math.inf)
    assert first_nonfinite(model, torch.rand(2, 1, 8, 8)) == "layer 'body.0.conv2' (weight)"
    assert not any(m._forward_hooks for m in model.modules())


def test_an_infinity_between_finite_weights_is_its_output() -> None:
    model = network().eval()
    model.get_parameter("stem.weight").data.fill_(3e38)
    assert first_nonfinite(model, torch.ones(2, 1, 8, 8)) == "layer 'stem' (its output)"


# checkpoints


def test_without_a_folder_nothing_is_written(few_digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(network(), few_digits, changed(epochs=1), seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_training_is_not_repeated(few_digits: Dataset, tmp_path: Path) -> None:
    first = network()
    result = fit(first, few_digits, SETTINGS, seed=1, work=tmp_path)
    second = network(seed=2)

    def never(*_: Tensor) -> Tensor:
        raise AssertionError("a step was made")

    again = fit(second, few_digits, SETTINGS, seed=1, work=tmp_path, loss=never)
    assert again == result and same(state_of(first), state_of(second)) and not second.training


def test_saving_does_not_change_the_training(few_digits: Dataset, tmp_path: Path) -> None:
    plain, saved, often = network(), network(), network()
    fit(plain, few_digits, SETTINGS, seed=1)
    fit(saved, few_digits, SETTINGS, seed=1, work=tmp_path)
    remove_checkpoint(tmp_path)
    fit(often, few_digits, changed(checkpoint_steps=1), seed=1, work=tmp_path)
    assert same(state_of(plain), state_of(saved)) and same(state_of(plain), state_of(often))


@pytest.mark.parametrize(
    "other",
    [
        {"settings": changed(learning_rate=1e-3)},
        {"settings": changed(augment=AugmentSection(flip=True))},
        {"seed": 2},
        {"label": "finetune"},
        {"model": network(1, ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8, 12, 20), (1, 1, 2)))},
    ],
)
def test_a_checkpoint_of_another_training_is_not_resumed(few_digits: Dataset, tmp_path: Path, other: dict[str, Any]) -> None:
    fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)
    recorder = Recorder()
    options = {"settings": SETTINGS, "seed": 1, "label": "train", "model": network(), **other}
    fit(
        options["model"],
        few_digits,
        options["settings"],
        seed=options["seed"],
        label=options["label"],
        work=tmp_path,
        loss=recorder,
    )
    assert len(recorder.images) == 24


def test_threads_and_checkpoint_steps_may_change_between(few_digits: Dataset, tmp_path: Path) -> None:
    fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)
    recorder = Recorder()
    fit(network(), few_digits, changed(checkpoint_steps=7), seed=1, work=tmp_path, loss=recorder)
    assert recorder.images == []


def test_a_damaged_checkpoint_is_one_clear_error(few_digits: Dataset, tmp_path: Path) -> None:
    fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)
    path = tmp_path / RESUME_FILE
    good = path.read_bytes()
    place = good.index(network().state_dict()["stem.weight"].shape.numel().to_bytes(1, "little"))
    for damaged in (good[:-100], b"", bytes([good[0] ^ 1]) + good[1:], good[:place]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"checkpoint\.pt is damaged.*delete"):
            fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)


@pytest.mark.parametrize("missing", ["model", "optimizer", "at"])
def test_a_checkpoint_with_a_part_missing(few_digits: Dataset, tmp_path: Path, missing: str) -> None:
    fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)
    content = load_checked(tmp_path / RESUME_FILE)
    for replacement in (None, {"wrong": 1}):
        save_checked(tmp_path / RESUME_FILE, {**content, missing: replacement})
        with pytest.raises(ArtifactError, match=r"is not a whole checkpoint .*; delete it and run again"):
            fit(network(), few_digits, SETTINGS, seed=1, work=tmp_path)


def test_removing_takes_the_halves_of_killed_writes_too(few_digits: Dataset, tmp_path: Path) -> None:
    fit(network(), few_digits, changed(epochs=1), seed=1, work=tmp_path)
    (tmp_path / f".{RESUME_FILE}.123.tmp").write_bytes(b"half")
    (tmp_path / "history.json").write_text("{}")
    remove_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]
    remove_checkpoint(tmp_path)
