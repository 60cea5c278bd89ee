"""Networks and training states on disk: tensors and plain values only, written atomically, checked before they are used.

A file is torch's own zip. Its members are stored, not compressed, and each carries a CRC-32 that torch does not look at;
`load_checked` does, so that a flipped bit is found, and refuses members larger than the file. What is unpickled is
restricted to tensors and plain types (weights_only).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recipes.artifacts import ArtifactError, write_bytes_atomic
from train.models import ModelConfig, build_model

FORMAT = 1


def save_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values; a reader sees the old file or the new one, never a part."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_bytes_atomic(path, buffer.getvalue())


def load_checked(path: Path) -> dict[str, Any]:
    """Reads what save_checked wrote.

    Raises:
        ArtifactError: missing, damaged (a flipped bit, cut short), or holding anything but tensors and plain values.
    """
    advice = f"delete {path} and run its stage again"
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found: run the stage before this one first (make pipeline runs them all)") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if damage := zip_damage(packed):
        raise ArtifactError(f"{path} is damaged: {damage}; {advice}")
    try:
        content = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises whatever its unpickler met; all of it means a file that save_checked did not write
        raise ArtifactError(
            f"{path} holds more than tensors and plain values, which is refused ({type(error).__name__}); {advice}"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArtifactError(f"{path} is not a version {FORMAT} checkpoint; {advice}")
    return content


def zip_damage(packed: bytes) -> str | None:
    """What is wrong with a zip of stored members, or None: bad structure, a compressed or oversized member, a wrong CRC-32."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            if any(m.compress_type != zipfile.ZIP_STORED for m in members):
                return "a member is compressed, which torch never writes"
            if sum(m.file_size for m in members) > len(packed):
                return "its members claim more bytes than the file has"
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        return f"not a whole checkpoint file ({error})"
    return f"member {bad} does not match its CRC-32" if bad else None


def save_model(path: Path, model: nn.Module, config: ModelConfig, extra: Mapping[str, Any] | None = None) -> None:
    """Saves a network as config and weights.

    Args:
        extra: tensors and plain values to keep with it.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    save_checked(path, {"config": config.to_json(), "state": state, "extra": dict(extra or {})})


def load_model(path: Path) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """(network in eval mode, its config, what was kept with it).

    Raises:
        ArtifactError: see load_checked; or the weights do not fit the config, or are not finite.
    """
    content = load_checked(path)
    try:
        config = ModelConfig.from_json(content["config"])
        with torch.device("meta"):  # no memory for what a config merely claims
            model = build_model(config)
        check_state(model.state_dict(), content["state"])
        model.load_state_dict(content["state"], assign=True)
        extra = dict(content["extra"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ArtifactError(f"{path} is not a network of this program ({error}); delete it and run its stage again") from None
    return model.eval(), config, extra


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have the same names, shapes and types, and every value found is finite."""
    if unknown := sorted(expected.keys() ^ found.keys()):
        raise ValueError(f"tensor '{unknown[0]}' is missing or unknown")
    for name, tensor in expected.items():
        other = found[name]
        if other.shape != tensor.shape or other.dtype != tensor.dtype:
            raise ValueError(f"'{name}' is {other.dtype} {list(other.shape)}, expected {tensor.dtype} {list(tensor.shape)}")
        if not bool(torch.isfinite(other).all()):
            raise ValueError(f"'{name}' holds NaN or infinity")
