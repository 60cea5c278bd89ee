"""Float model in, int8 ONNX model out: runs a recipe's compression steps."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import get_args

import torch

import train
from compress.method import Candidate, Context, Step, methods, plan_steps
from compress.outputs import INT8_ONNX, MODEL, Measurement, figures, measure, summary, table, write_float, write_int8
from recipes.artifacts import OneLineParser, Stage, run_program, source_hash
from recipes.recipe import Recipe, load_recipe
from train.checkpoint import load_model
from train.data import load_dataset

CHECKPOINTS = "checkpoints"


def main(arguments: list[str]) -> int:
    """Runs the stage `compress`; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    recipe = load_recipe(options.recipe, options.overrides)
    steps = plan_steps(recipe.compress)
    if options.check:
        print(f"check: recipe {recipe.name}, steps {', '.join(step.name for step in steps) or 'none'}", flush=True)
        return 0
    root = Path(options.build) / recipe.name
    with Stage(root, "compress", _config(recipe), [root / "train" / MODEL]) as stage:
        if stage.unchanged:
            print(stage.again(), flush=True)
            return 0
        _compress(recipe, steps, root / "train" / MODEL, stage)
    return 0


def _compress(recipe: Recipe, steps: list[Step], source: Path, stage: Stage) -> None:
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    dataset = load_dataset(recipe.data, recipe.seed)
    model, config, _ = load_model(source)
    start = Candidate(model, config)
    context = Context(dataset, recipe.train, model, recipe.seed, stage.work / CHECKPOINTS)
    final, measured = run_steps(start, steps, context)
    write_float(final, dataset, stage.work)
    int8 = write_int8(final, dataset, stage.work)
    numbers = figures(measured, int8)
    print(table(measured), flush=True)
    if int8:
        print(f"{INT8_ONNX} in onnxruntime: {int8.text()}", flush=True)
    shutil.rmtree(stage.work / CHECKPOINTS, ignore_errors=True)
    stage.finish(numbers, summary(numbers, stage.folder))


def run_steps(candidate: Candidate, steps: list[Step], context: Context) -> tuple[Candidate, list[Measurement]]:
    """Applies the steps in order; measures the network before the first and after each."""
    measured = [measure("train", candidate, context.dataset)]
    for index, step in enumerate(steps):
        print(f"step {index + 1}/{len(steps)}: {step.name}", flush=True)
        candidate = step.apply(candidate, context.for_step(index, step.name))
        measured.append(measure(step.name, candidate, context.dataset))
        print(f"{step.name}: {measured[-1].text()}", flush=True)
    return candidate, measured


def _config(recipe: Recipe) -> dict[str, object]:
    """Everything that decides the result. Not the data's folder: its files are checked by their SHA-256."""
    return {
        "seed": recipe.seed,
        "data": recipe.data.model_dump(exclude={"folder"}),
        "train": recipe.train.model_dump(),
        "compress": recipe.compress.model_dump(),
        "source": source_hash(Path(__file__).parent, Path(train.__file__).parent),
    }


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m compress",
        description=__doc__,
        epilog=_methods_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the bare name of one in recipes/, such as digits")
    parser.add_argument(
        "overrides",
        metavar="section.key=value",
        nargs="*",
        help="changes of the recipe, such as compress.steps.0.prune.ratio=0.4",
    )
    parser.add_argument("--build", metavar="DIR", default="build", help="folder of all artifacts (default: build)")
    parser.add_argument("--check", action="store_true", help="only check the recipe and its steps")
    return parser


def _methods_help() -> str:
    """Every method with its settings, from their sections."""
    lines = [
        "Reads build/<recipe>/train/model.pt, writes build/<recipe>/compress: model_float.onnx, model_int8.onnx, model.pt.",
        "The recipe's section compress.steps lists methods, run in order; any may be left out:",
    ]
    for name, method in methods().items():
        lines.append(f"\n  {name}: {(method.apply.__doc__ or '').splitlines()[0]}")
        for key, field in method.settings.model_fields.items():
            choices = " | ".join(get_args(field.annotation))
            notes = ", ".join(note for note in (choices, field.description) if note)
            lines.append(f"    {key}={field.default}" + (f"  ({notes})" if notes else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    run_program(main)
