"""`python -m train RECIPE`: data in, regularised float model out."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from recipes.artifacts import OneLineParser, Stage, run_program, source_hash, write_json_atomic
from recipes.recipe import Recipe, Section, TrainSection, load_recipe
from train.checkpoint import save_model
from train.curves import draw_curves
from train.data import load_dataset
from train.evaluate import accuracy
from train.loop import FitResult, fit, remove_checkpoint
from train.models import build_model, config_for, count_macs, count_weights

HELP = """\
Trains the float network of a recipe, with data augmentation, weight decay, dropout, label smoothing, a cosine schedule
with warm-up, and early stopping. A run that was killed is resumed where its last checkpoint was; a run whose recipe,
settings and code are unchanged is not repeated.

Makes, in DIR/<recipe>/train:
  model.pt        the network of the best epoch (config and weights)
  history.json    loss and accuracy of every epoch
  training.png    the same as a picture
  manifest.json   settings, versions, accuracy on the test images, SHA-256 of each file

Data: digits needs no files. The four .gz files of fashion_mnist are read from data.folder=DIR, or downloaded once from their
publisher into ~/.cache/edge-inference (another folder: EDGE_CACHE=DIR; a mirror: FASHION_MNIST_URL=http://...).

Exit codes: 0 done or unchanged, 2 usage or recipe, 3 data, 4 artifact or disk, 9 training failed (NaN), 130 interrupted.
"""


def main(arguments: list[str]) -> int:
    """Runs the stage `train`; 0, or a PipelineError."""
    options = parser().parse_intermixed_args(arguments)
    recipe = load_recipe(options.recipe, options.overrides)
    with Stage(Path(options.build) / recipe.name, "train", stage_config(recipe)) as stage:
        if stage.unchanged:
            print(stage.again())
        else:
            train(recipe, stage)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line, with every setting of the recipe's section train and its default."""
    result = OneLineParser(
        prog="python -m train", description=HELP, epilog=settings_help(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("recipe", help="a recipe file, or the bare name of one in recipes/, e.g. digits")
    result.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes a setting, e.g. train.epochs=3")
    result.add_argument("--build", default="build", metavar="DIR", help="where the results go (default: build)")
    return result


def settings_help() -> str:
    """One line per setting that this program reads."""
    recipe = Recipe(name="defaults")
    return "\n".join(
        ["settings and their defaults:", *section_lines("data", recipe.data), *section_lines("train", recipe.train)]
    )


def section_lines(prefix: str, section: Section) -> list[str]:
    """`  prefix.key=default  (description)` for each setting of a section and the sections in it."""
    lines = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, Section):
            lines += section_lines(f"{prefix}.{key}", value)
        else:
            lines.append(f"  {prefix}.{key}={value}" + (f"  ({field.description})" if field.description else ""))
    return lines


def stage_config(recipe: Recipe) -> dict[str, Any]:
    """What decides the result. Not the folder the data lies in: its files are checked by their SHA-256."""
    return {
        "seed": recipe.seed,
        "data": recipe.data.model_dump(exclude={"folder"}),
        "train": recipe.train.model_dump(),
        "source": source_hash(Path(__file__).parent),
    }


def train(recipe: Recipe, stage: Stage) -> None:
    """Trains and writes the stage's files."""
    settings = recipe.train
    dataset = load_dataset(recipe.data, recipe.seed)
    config = config_for(settings.model, dataset.input_shape, dataset.classes, settings.dropout)
    torch.manual_seed(recipe.seed)
    model = build_model(config)
    macs, weights = count_macs(model, dataset.input_shape), count_weights(model)
    print(opening_line(recipe.name, settings, len(dataset.train), macs, weights), flush=True)
    result = fit(model, dataset, settings, seed=recipe.seed, work=stage.work, label=f"train {recipe.name}")
    figures = {
        "accuracy": {"test": accuracy(model, dataset.test), "validation": result.best_accuracy},
        "macs": macs,
        "weights": weights,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
    }
    save_model(stage.work / "model.pt", model, config, {"recipe": recipe.name, "dataset": dataset.name})
    write_json_atomic(stage.work / "history.json", [asdict(record) for record in result.history])
    draw_curves(result, f"{recipe.name}, {settings.model.family}, {weights:,} weights", stage.work / "training.png")
    remove_checkpoint(stage.work)
    stage.finish(figures, closing_line(recipe.name, figures, result, stage.folder))


def opening_line(name: str, settings: TrainSection, images: int, macs: int, weights: int) -> str:
    """What is about to be trained."""
    return (
        f"train {name}: {settings.model.family}, {weights:,} weights, {macs:,} MACs; {images:,} images, "
        f"{settings.epochs} epochs, {torch.get_num_threads()} threads"
    )


def closing_line(name: str, figures: dict[str, Any], result: FitResult, folder: Path) -> str:
    """What, figures, where."""
    return (
        f"train {name}: test accuracy {100 * figures['accuracy']['test']:.2f} %, {figures['weights']:,} weights, "
        f"{figures['macs']:,} MACs, best epoch {result.best_epoch} of {result.epochs} -> {folder / 'model.pt'}"
    )


if __name__ == "__main__":
    run_program(main)
