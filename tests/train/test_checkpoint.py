"""Checkpoints: what is saved comes back; every damage, foreign file and hostile pickle is one clear error."""

from __future__ import annotations

import io
import os
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes.artifacts import ArtifactError
from train.checkpoint import load_checked, load_model, save_checked, save_model, zip_damage
from train.models import ModelConfig, build_model


@pytest.fixture
def saved(tmp_path: Path, tiny_config: ModelConfig) -> Path:
    torch.manual_seed(3)
    save_model(tmp_path / "model.pt", build_model(tiny_config), tiny_config, {"note": "x", "numbers": [1, 2.5, None]})
    return tmp_path / "model.pt"


def equal_states(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_network_comes_back(saved: Path, tiny_config: ModelConfig) -> None:
    torch.manual_seed(3)
    expected = build_model(tiny_config)
    model, config, extra = load_model(saved)
    assert config == tiny_config
    assert extra == {"note": "x", "numbers": [1, 2.5, None]}
    assert equal_states(model.state_dict(), expected.state_dict())
    assert not model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(images), expected.eval()(images))


def test_a_loaded_network_can_be_trained_on(saved: Path) -> None:
    model, _, _ = load_model(saved)
    before = model.get_parameter("stem.weight").detach().clone()
    model.train()
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(before, model.get_parameter("stem.weight"))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, saved: Path, tiny_config: ModelConfig) -> None:
    model, _, extra = load_model(saved)
    save_model(tmp_path / "again.pt", model, tiny_config, extra)
    assert (tmp_path / "again.pt").read_bytes() == saved.read_bytes()


def test_loading_does_not_move_the_random_numbers(saved: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(saved)
    assert torch.equal(torch.rand(3), expected)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.pt not found: run the stage before this one first") as error:
        load_model(tmp_path / "model.pt")
    assert error.value.exit_code == 4


def test_a_folder_or_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot read .*: is a directory"):
        load_model(tmp_path)


def test_every_flipped_bit_is_found_or_harmless(saved: Path) -> None:
    """One random bit in each of 400 places, and all of the zip's directory: an error, or exactly the same network."""
    good = saved.read_bytes()
    expected, config, extra = load_model(saved)
    generator = random.Random(1)
    places = generator.sample(range(len(good)), 400) + list(range(len(good) - 100, len(good)))
    refused = 0
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 1 << generator.randrange(8)
        saved.write_bytes(damaged)
        try:
            model, found_config, found_extra = load_model(saved)
        except ArtifactError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert equal_states(model.state_dict(), expected.state_dict())
            assert (found_config, found_extra) == (config, extra)
    assert refused > len(places) // 3  # the rest fell into the padding between the tensors


def test_every_flipped_bit_of_a_weight_is_found(saved: Path) -> None:
    good = saved.read_bytes()
    weight = load_model(saved)[0].get_parameter("classifier.weight").detach().numpy().tobytes()
    start = good.index(weight)
    for place in range(start, start + len(weight), 37):
        damaged = bytearray(good)
        damaged[place] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"does not match its CRC-32; delete .* and run its stage again"):
            load_model(saved)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file(saved: Path, part: float) -> None:
    good = saved.read_bytes()
    saved.write_bytes(good[: int(part * len(good))])
    with pytest.raises(ArtifactError, match="is damaged: not a whole checkpoint file"):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(5000), b"\x80\x04N.", b"PK\x03\x04" + bytes(100)])
def test_a_foreign_file(saved: Path, content: bytes) -> None:
    saved.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged: not a whole checkpoint file"):
        load_model(saved)


class Bomb:
    """Unpickling it runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["whole", "extra", "config", "state"])
def test_a_pickle_bomb_is_refused_and_not_run(saved: Path, tmp_path: Path, place: str) -> None:
    content: Any = load_checked(saved)
    bomb = Bomb(tmp_path / "exploded")
    torch.save(bomb if place == "whole" else {**content, place: bomb}, saved)
    with pytest.raises(ArtifactError, match="holds more than tensors and plain values, which is refused"):
        load_model(saved)
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_would_have_worked(tmp_path: Path) -> None:
    """Only with pickle itself, which the program never uses: so that the test above tests something."""
    import pickle

    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


def test_a_whole_module_is_refused(saved: Path, tiny_config: ModelConfig) -> None:
    torch.save(build_model(tiny_config), saved)
    with pytest.raises(ArtifactError, match="holds more than tensors"):
        load_model(saved)


def rewritten(path: Path, compression: int, change: Any = None) -> None:
    """Packs the file's members again."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content) if change else content)


def test_a_zip_bomb_is_not_unpacked(saved: Path) -> None:
    rewritten(saved, zipfile.ZIP_DEFLATED, lambda name, content: content + bytes(1 << 20))
    assert saved.stat().st_size < 1 << 20
    with pytest.raises(ArtifactError, match="a member is compressed, which torch never writes"):
        load_model(saved)


def test_a_member_that_claims_more_than_the_file() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", bytes(100))
    packed = bytearray(buffer.getvalue())
    directory = packed.index(b"PK\x01\x02")
    packed[directory + 24 : directory + 28] = (1 << 30).to_bytes(4, "little")
    assert zip_damage(bytes(packed)) == "its members claim more bytes than the file has"


def test_a_plain_zip_is_no_checkpoint(saved: Path) -> None:
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ArtifactError, match="refused"):
        load_model(saved)


def changed_content(saved: Path, change: Any) -> None:
    content = load_checked(saved)
    change(content)
    torch.save(content, saved)


def drop(content: dict[str, Any], *keys: str) -> None:
    target = content
    for key in keys[:-1]:
        target = target[key]
    del target[keys[-1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=99), "not a version 1 checkpoint"),
        (lambda c: drop(c, "format"), "not a version 1 checkpoint"),
        (lambda c: drop(c, "config"), "not a network of this program"),
        (lambda c: drop(c, "extra"), "not a network of this program"),
        (lambda c: drop(c, "state", "stem.weight"), r"'stem\.weight' is missing or unknown"),
        (lambda c: c["state"].update(surprise=torch.zeros(1)), "'surprise' is missing or unknown"),
        (lambda c: c["state"].update({"stem.weight": torch.zeros(4, 1, 3, 4)}), r"float32 \[4, 1, 3, 4\], expected"),
        (lambda c: c["state"].update({"stem.weight": torch.zeros(4, 1, 3, 3).double()}), r"float64 \[4, 1, 3, 3\], expected"),
        (lambda c: c["state"].update({"stem.weight": [1, 2]}), "not a network of this program"),
        (lambda c: c["state"]["classifier.bias"].fill_(float("nan")), r"'classifier\.bias' holds NaN or infinity"),
        (lambda c: c["state"]["stem_bn.running_var"].fill_(float("inf")), r"'stem_bn\.running_var' holds NaN"),
        (lambda c: c.update(state=[1]), "not a network of this program"),
        (lambda c: c.update(config=7), "not a network of this program"),
        (lambda c: c["config"].update(family="vgg"), "model family 'vgg' is not one of resnet, dscnn"),
        (lambda c: c["config"].update(widths=[60000, 60000, 60000]), "expected torch.float32"),
    ],
)
def test_contents_that_are_no_network(saved: Path, change: Any, message: str) -> None:
    changed_content(saved, change)
    with pytest.raises(ArtifactError, match=message):
        load_model(saved)


def test_a_list_is_no_checkpoint(saved: Path) -> None:
    torch.save([1, 2, 3], saved)
    with pytest.raises(ArtifactError, match="is not a version 1 checkpoint"):
        load_checked(saved)


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    """A file-size limit of 2,000 bytes stands for the full disk."""
    target = tmp_path / "model.pt"
    save_checked(target, {"value": 1})
    before = target.read_bytes()
    code = (
        "import sys, pathlib, torch\nfrom recipes.artifacts import one_line_errors\nfrom train.checkpoint import save_checked\n"
        "with one_line_errors():\n    save_checked(pathlib.Path(sys.argv[1]), {'value': torch.zeros(10000)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert done.returncode == 4 and "cannot write" in done.stderr and "Traceback" not in done.stderr
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
