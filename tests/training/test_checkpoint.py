"""Checks checkpoints: they come back bit for bit, the last whole one always survives, and damage is named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmzip.errors import LLMZipError
from llmzip.training import checkpoint
from llmzip.training.checkpoint import exists, load, remove, restore, save

FACTS: dict[str, Any] = {
    "shape": {"vocab_size": 300},
    "history": [[1, 2.5, {"Größe": 0.1}]],
    "seconds": 1 / 3,
    "none": None,
}


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Of every kind that might occur, with odd bits among the floats."""
    random = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(1 << 31), (1 << 31) - 1, (7, 5), generator=random, dtype=torch.int32)
    return {
        "bits": bits.view(torch.float32),
        "turned": torch.randn(4, 6, generator=random).T,
        "part": torch.randn(9, 3, generator=random)[2:5],
        "narrow": torch.randn(3, 3, generator=random).to(torch.bfloat16),
        "one": torch.tensor(-0.0),
        "empty": torch.zeros(0, 4),
        "trained": torch.nn.Parameter(torch.randn(2, generator=random)),
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        (tensor.dtype, tensor.shape) == (expected[name].dtype, expected[name].shape)
        and tensor.contiguous().view(torch.uint8).equal(expected[name].detach().contiguous().view(torch.uint8))
        for name, tensor in found.items()
        if tensor.ndim
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a training."""
    made = tmp_path / "model" / checkpoint.FOLDER
    made.mkdir(parents=True)
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- whole ones --------------------------------------------------------------------------------------------------------


def test_checkpoints_come_back_bit_for_bit(folder: Path) -> None:
    save(folder, 12, tensors(), FACTS)
    step, found, facts = load(folder)
    assert step == 12 and facts == FACTS
    assert same(found, tensors())
    assert str(found["one"]) == "tensor(-0.)"
    assert names(folder) == ["step-00000012.safetensors"]


def test_only_the_newest_is_kept(folder: Path) -> None:
    assert not exists(folder)
    for step in (0, 9, 10, 123_456_789):
        save(folder, step, tensors(step), FACTS)
        assert exists(folder) and names(folder) == [f"step-{step:08}.safetensors"]
        assert load(folder)[0] == step and same(load(folder)[1], tensors(step))
    save(folder, 123_456_789, tensors(5), FACTS)
    assert same(load(folder)[1], tensors(5))


def test_of_several_the_newest_is_taken(folder: Path, tmp_path: Path) -> None:
    """As when a process dies between writing one and removing the other."""
    for step in (99, 100):
        save(tmp_path, step, tensors(step), FACTS)
        shutil.copy(tmp_path / f"step-{step:08}.safetensors", folder)
    assert load(folder)[0] == 100
    save(folder, 101, tensors(), FACTS)
    assert names(folder) == ["step-00000101.safetensors"]


def test_unfinished_and_other_files_are_ignored(folder: Path) -> None:
    others = ["step-00000099.tmp", "step-.safetensors", "step-x.safetensors", "step-00000098.safetensors.tmp", "a"]
    for name in others:
        (folder / name).write_bytes(b"half of it")
    assert not exists(folder)
    with pytest.raises(LLMZipError, match=f"^{folder.parent}: no unfinished training here$"):
        load(folder)
    save(folder, 7, tensors(), FACTS)
    assert load(folder)[0] == 7
    assert names(folder) == sorted([*others, "step-00000007.safetensors"])
    with pytest.raises(LLMZipError, match="no unfinished training here"):
        load(folder / "not there")


def test_all_checkpoints_can_be_removed(folder: Path, tmp_path: Path) -> None:
    for step in (99, 100):
        save(tmp_path, step, tensors(step), FACTS)
        shutil.copy(tmp_path / f"step-{step:08}.safetensors", folder)
    (folder / "tokens.bin").write_bytes(b"")
    remove(folder)
    assert not exists(folder) and names(folder) == ["tokens.bin"]
    remove(folder)


# -- disks that are full, and worse ------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_the_one_before_is_kept_until_the_new_one_is_whole(
    call: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, 1, tensors(), FACTS)

    def fail(*arguments: object) -> None:
        assert "step-00000001.safetensors" in names(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(LLMZipError, match=r"checkpoint of step 2 cannot be written: .*No space.* step 1 is kept$"):
            save(folder, 2, tensors(2), FACTS)
    assert names(folder) == ["step-00000001.safetensors"] and same(load(folder)[1], tensors())
    save(folder, 2, tensors(2), FACTS)
    assert same(load(folder)[1], tensors(2))


def test_a_folder_that_is_gone_is_named(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(LLMZipError, match=f"^{folder}: the checkpoint of step 1,234 cannot be written: ") as caught:
        save(folder, 1234, tensors(), FACTS)
    assert "\n" not in str(caught.value) and "kept" not in str(caught.value)


def test_a_folder_that_is_a_file_is_named(folder: Path) -> None:
    folder.rmdir()
    folder.write_bytes(b"")
    with pytest.raises(LLMZipError, match="cannot be written"):
        save(folder, 1, tensors(), FACTS)


LIMITED = """
import resource, sys, torch
from pathlib import Path
from llmzip.errors import LLMZipError
from llmzip.training import checkpoint
folder = Path(sys.argv[1])
checkpoint.save(folder, 1, {"a": torch.arange(10.0)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(folder, 2, {"a": torch.zeros(100_000)}, {})
except LLMZipError as error:
    print(error)
print(*sorted(path.name for path in folder.iterdir()))
"""


def test_a_file_that_may_not_grow_is_an_error_and_the_one_before_is_kept(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, folder], capture_output=True, text=True, check=True, timeout=60
    )
    said, left = result.stdout.splitlines()
    assert said.startswith(f"{folder}: the checkpoint of step 2 cannot be written: ")
    assert "File too large" in said and said.endswith("that of step 1 is kept")
    assert left == "step-00000001.safetensors"
    assert torch.equal(load(folder)[1]["a"], torch.arange(10.0))


# -- damage ------------------------------------------------------------------------------------------------------------


def refused(folder: Path, words: str = "this checkpoint cannot be read: ") -> None:
    with pytest.raises(LLMZipError, match=words) as caught:
        load(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_truncated_checkpoints_are_named(folder: Path) -> None:
    save(folder, 3, tensors(), FACTS)
    path = folder / "step-00000003.safetensors"
    data = path.read_bytes()
    for length in [*range(0, len(data), 41), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(folder)


def test_damaged_headers_are_named(folder: Path, rng: np.random.Generator) -> None:
    save(folder, 3, {"a": torch.arange(4.0)}, {"seed": 1})
    path = folder / "step-00000003.safetensors"
    data = path.read_bytes()
    for place in range(8):
        path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
        refused(folder)
    for _ in range(50):
        place = int(rng.integers(8, len(data) - 16))
        path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
        refused(folder)


def test_damaged_tensors_are_named(folder: Path) -> None:
    save(folder, 3, {"a": torch.arange(4.0)}, {"seed": 1})
    path = folder / "step-00000003.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-2] + b"\x55" + data[-1:])
    refused(folder, "this checkpoint is damaged: its digest is wrong")


def with_metadata(folder: Path, metadata: dict[str, str] | None) -> None:
    save_file({"a": torch.zeros(2)}, folder / "step-00000003.safetensors", metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        *({"llmzip": text} for text in ("", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "step": "x"}')),
    ],
    ids=str,
)
def test_foreign_files_are_named(metadata: dict[str, str] | None, folder: Path) -> None:
    with_metadata(folder, metadata)
    refused(folder)


@pytest.mark.parametrize("text", ["null", "3", '"x"', '{"version": 1, "step": Infinity}'])
def test_facts_of_another_kind_are_named(text: str, folder: Path) -> None:
    with_metadata(folder, {"llmzip": text})
    refused(folder)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_other_versions_are_named(version: object, folder: Path) -> None:
    with_metadata(folder, {"llmzip": json.dumps({"version": version, "step": 3})})
    refused(folder, f"a checkpoint of version {version}, this llmzip reads version 1")


# -- restoring ---------------------------------------------------------------------------------------------------------


def test_restoring_fills_what_is_there(folder: Path) -> None:
    save(folder, 3, tensors(), FACTS)
    targets = {name: torch.full_like(tensor.detach(), 7) for name, tensor in tensors().items()}
    places = {name: tensor.data_ptr() for name, tensor in targets.items()}
    targets["trained"] = torch.nn.Parameter(targets["trained"])
    restore(targets, load(folder)[1])
    assert same(dict(targets), tensors())
    assert {name: tensor.data_ptr() for name, tensor in targets.items()} == places


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights.b": None}, r"weights\.b is only in one of them"),
        ({"weights.c": torch.zeros(1)}, r"weights\.c is only in one of them"),
        ({"weights.b": torch.zeros(3, 2)}, r"weights\.b is \(3, 2\), not \(2, 3\)"),
        ({"weights.b": torch.zeros(6)}, r"weights\.b is \(6,\), not \(2, 3\)"),
        ({"weights.b": torch.zeros(2, 3, dtype=torch.float64)}, r"of another shape: weights\.b"),
    ],
)
def test_checkpoints_of_another_shape_change_nothing(change: dict[str, torch.Tensor | None], words: str) -> None:
    targets = {"weights.a": torch.ones(2), "weights.b": torch.ones(2, 3)}
    other = {"weights.a": torch.zeros(2), "weights.b": torch.zeros(2, 3)} | change
    with pytest.raises(LLMZipError, match=words):
        restore(targets, {name: tensor for name, tensor in other.items() if tensor is not None})
    assert all(bool((tensor == 1).all()) for tensor in targets.values())
