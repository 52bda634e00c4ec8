"""The decoder written from the documents alone reads models that files carry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import decoder
import pytest
from model_samples import sentences

import llmzip

VECTORS = Path(__file__).parents[1] / "vectors"
NOWHERE = Path("/nowhere")


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*-carried-*.llmz")), ids=lambda path: path.stem)
def test_vectors(path: Path) -> None:
    if path.stem.startswith("good-"):
        assert decoder.decode(path.read_bytes(), NOWHERE) == path.with_suffix(".txt").read_bytes()
        return
    errors = (decoder.ArchiveError, AssertionError, FileNotFoundError, IndexError, ValueError)
    with pytest.raises(errors):
        decoder.decode(path.read_bytes(), NOWHERE)


@pytest.mark.usefixtures("only_models")
def test_what_the_package_carries(
    make_tokenizer: Callable[..., Path], random_checkpoint: Callable[..., object],
    write_checkpoint: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    config, tensors = random_checkpoint(vocab_size=320, qk_norm=True)  # type: ignore[misc]
    folder = write_checkpoint(make_tokenizer(tmp_path / "m", lacking=b"\x00\xff"), config, tensors)
    text = sentences(150, 3) + b"\x00\xff"
    data = llmzip.compress(text, model=folder, level=1, with_model=True)
    assert decoder.decode(data, NOWHERE) == llmzip.decompress(data) == text
