"""The recipe: one YAML file per experiment, sections named after the programs.

`load_recipe` reads a file, applies `section.key=value` overrides and checks every key and type. An unknown key is an
error that names the nearest known one. Compression steps have their schema beside each method (compress/<method>.py)
and are checked with the same `parse`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from recipes.artifacts import UsageError, did_you_mean

RECIPES = Path(__file__).parent


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are checked, an instance never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class DataSection(Section):
    """Which data set, and how the training part is split."""

    name: str = "digits"
    folder: str | None = Field(None, description="folder that holds the data set's files (DATA=); default: download")
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    limit: int | None = Field(None, ge=1, description="use only this many images of each split (quick trials)")


class ModelSection(Section):
    """The network: family, width (channels of the first stage) and depth (blocks)."""

    family: Literal["resnet", "dscnn"] = "resnet"
    width: int = Field(16, ge=4, le=256)
    depth: int = Field(3, ge=1, le=16)
    stem_stride: Literal[1, 2] = 1
    activation: Literal["relu", "relu6"] = "relu"


class AugmentSection(Section):
    """Random changes of training images; 0 turns one off."""

    shift: float = Field(0.0, ge=0, le=8, description="pixels, each direction")
    rotate: float = Field(0.0, ge=0, le=45, description="degrees, each direction")
    scale: float = Field(0.0, ge=0, lt=0.5, description="fraction, smaller or larger")
    flip: bool = Field(False, description="mirror left-right")


class TrainSection(Section):
    """Regularised training."""

    model: ModelSection = ModelSection()
    epochs: int = Field(30, ge=1, le=10000)
    batch_size: int = Field(64, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    patience: int = Field(10, ge=1, description="epochs without a better validation accuracy before stopping")
    augment: AugmentSection = AugmentSection()
    checkpoint_steps: int = Field(50, ge=1, description="steps between checkpoints")
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 takes all cores")


class CompressSection(Section):
    """A list of steps, each a one-key mapping {method: {its settings}}, run in order."""

    steps: list[dict[str, dict[str, Any]]] = []

    @field_validator("steps", mode="before")
    @classmethod
    def _empty_settings(cls, steps: Any) -> Any:
        """`- quantize:` without settings reads as null in YAML and means the defaults."""
        if not isinstance(steps, list):
            return steps
        return [{k: {} if v is None else v for k, v in s.items()} if isinstance(s, dict) else s for s in steps]


def _digit_as_text(value: object) -> object:
    """2 and 3 are numbers in YAML and on the command line."""
    return str(value) if type(value) is int else value


class FirmwareExportSection(Section):
    """From the int8 model to C and the firmware image."""

    arithmetic: Literal["double", "float32"] = "double"
    name: str = Field("network", pattern=r"^[a-z][a-z0-9_]{0,30}$", description="prefix of the generated files and symbols")
    optimize: Literal["balanced", "time", "ram", "flash"] = Field("balanced", description="what the kernels are chosen for")
    compiler_level: Annotated[Literal["s", "2", "3"], BeforeValidator(_digit_as_text)] = Field(
        "s", description="compiler optimisation level -O"
    )
    selftest_vectors: int = Field(2, ge=1, le=16)


class HostToolsSection(Section):
    """Streaming the test images."""

    images: int | None = Field(None, ge=1, description="how many test images; default: all")


class Recipe(Section):
    """A whole experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    seed: int = Field(1, ge=0, lt=2**31)
    data: DataSection = DataSection()
    train: TrainSection = TrainSection()
    compress: CompressSection = CompressSection()
    firmware_export: FirmwareExportSection = FirmwareExportSection()
    host_tools: HostToolsSection = HostToolsSection()


S = TypeVar("S", bound=Section)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe, applies overrides such as "train.epochs=3" or "compress.steps.0.prune.ratio=0.4", and checks it.

    Args:
        path: a YAML file, or the bare name of one in recipes/ ("digits").
    Raises:
        UsageError: no such recipe, not YAML, or a key or value that is not known ("did you mean ...").
    """
    file = find_recipe(path)
    try:
        content = yaml.load(file.read_text(), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read recipe {file}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{file} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds {type(content).__name__}; expected sections such as 'train:'")
    content.setdefault("name", file.stem)
    for override in overrides:
        apply_override(content, override)
    return parse(Recipe, content, str(file))


class _Loader(yaml.SafeLoader):
    """As yaml.safe_load, but a key given twice is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys all differ."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key '{key}' is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def find_recipe(path: str | Path) -> Path:
    """The recipe's file; a bare name is looked up in recipes/."""
    file = Path(path)
    if file.is_file():
        return file
    if file.suffix == "" and len(file.parts) == 1 and (RECIPES / f"{file}.yaml").is_file():
        return RECIPES / f"{file}.yaml"
    known = sorted(p.stem for p in RECIPES.glob("*.yaml"))
    raise UsageError(f"no recipe {path}; known: {', '.join(known)}{did_you_mean(file.stem, known)}")


def apply_override(content: dict[str, Any], override: str) -> None:
    """Sets one dotted key in a nested mapping; numbers select list entries; the value is read as YAML."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise UsageError(f"override '{override}' is not of the form section.key=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise UsageError(f"override '{override}': the value is not YAML") from None
    target: Any = content
    for part in parts[:-1]:
        target = _enter(target, part, override)
    if isinstance(target, list):
        target[_list_index(target, parts[-1], override)] = value
    elif isinstance(target, dict):
        target[parts[-1]] = value
    else:
        raise UsageError(f"override '{override}': '{'.'.join(parts[:-1])}' is a value, not a section")


def _enter(target: Any, part: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_list_index(target, part, override)]
    if not isinstance(target, dict):
        raise UsageError(f"override '{override}': '{part}' lies below a value, not a section")
    if target.get(part) is None:
        target[part] = {}
    return target[part]


def _list_index(target: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(target):
        raise UsageError(f"override '{override}': '{part}' is not one of the entries 0 to {len(target) - 1}")
    return int(part)


def parse(section: type[S], values: Mapping[str, Any], where: str) -> S:
    """Checks values against a section's schema.

    Raises:
        UsageError: one line naming the first key that is wrong, with the nearest known key.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{where}: {_explain(section, first)}") from None


def _explain(section: type[Section], error: Any) -> str:
    dotted = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = _known_keys(section, error["loc"][:-1])
        return f"unknown key '{dotted}'{did_you_mean(str(error['loc'][-1]), known)}; known: {', '.join(known)}"
    message = error["msg"]
    return f"'{dotted}' is {error['input']!r}: {message[0].lower()}{message[1:]}"


def _known_keys(section: type[Section], location: tuple[Any, ...]) -> list[str]:
    """The keys of the (nested) section that a location leads to."""
    for part in location:
        field = section.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, Section):
            section = annotation
    return sorted(section.model_fields)
