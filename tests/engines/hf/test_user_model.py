"""Checks archives made with a user's own checkpoint: round trips, the header's record, wrong and missing models."""

from __future__ import annotations

import io
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from safetensors.torch import load_file, save_file

import llmzip
from llmzip.models.tokenizer import Tokenizer

VOCABULARY = 320
TEXT = b"""Every morning the keeper of the lighthouse writes down the wind, the sea and the ships that went by.
Every evening the keeper of the lighthouse reads what the morning said and writes below it what came true.
"""


@pytest.fixture(scope="module")
def model(make_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama that knows the text by heart."""
    import transformers

    folder = make_tokenizer(tmp_path_factory.mktemp("models") / "lighthouse", vocab_size=VOCABULARY)
    tokens = torch.from_numpy(Tokenizer(folder, VOCABULARY).encode(TEXT * 2))
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    network = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for _ in range(80):
        starts = torch.randint(len(tokens) - 41, (8, 1))
        ids = tokens[starts + torch.arange(40)]
        ids[0] = torch.cat([torch.zeros(1, dtype=torch.long), tokens[:39]])
        loss = network(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("level", [1, 6, 9])
def test_texts_come_back(model: Path, level: int) -> None:
    # Longer than the model's context of 64 tokens, so that contexts begin anew.
    for text in (TEXT[:90], TEXT * 3):
        archive = llmzip.compress(text, model=model, level=level)
        assert llmzip.info(archive).archives[0].frames[0].method == ("lm" if level == 1 else "mixed")
        assert llmzip.decompress(archive, model=model) == text
        assert llmzip.decompress(archive, model=str(model)) == text


def test_the_header_names_the_model(model: Path) -> None:
    archive = llmzip.compress(TEXT, model=model)
    (entry,) = llmzip.info(archive).archives
    assert (entry.model_code, entry.model) == (15, "lighthouse")
    assert len(entry.model_digest or "") == len(entry.tokenizer_digest or "") == 32
    assert entry.tokenizer_digest == Tokenizer(model, VOCABULARY).table.digest()[:16].hex()


def test_the_name_of_the_folder_does_not_matter(model: Path, tmp_path: Path) -> None:
    archive = llmzip.compress(TEXT, model=model)
    moved = shutil.copytree(model, tmp_path / "elsewhere" / "other name")
    assert llmzip.decompress(archive, model=moved) == TEXT
    with llmzip.open(io.BytesIO(archive), model=moved) as file:
        assert file.read() == TEXT
    assert llmzip.Decompressor(model=moved).decompress(archive) == TEXT


def test_without_the_model_it_is_named(model: Path, tmp_path: Path) -> None:
    archive = llmzip.compress(TEXT, model=model)
    digest = llmzip.info(archive).archives[0].model_digest
    with pytest.raises(
        llmzip.ModelNotFoundError,
        match=f"needs model 'lighthouse' with digest {digest}, which is not in .*give its folder",
    ):
        llmzip.decompress(archive)
    with pytest.raises(llmzip.ModelNotFoundError, match="is neither a folder nor a file"):
        llmzip.decompress(archive, model=tmp_path / "nowhere")
    with pytest.raises(llmzip.ModelNotFoundError, match=r"no config\.json"):
        llmzip.decompress(archive, model=tmp_path)


def test_other_weights_are_told_apart(model: Path, tmp_path: Path) -> None:
    archive = llmzip.compress(TEXT, model=model)
    other = shutil.copytree(model, tmp_path / "lighthouse")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.0001
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    expected = llmzip.info(archive).archives[0].model_digest
    found = llmzip.info(llmzip.compress(TEXT, model=other)).archives[0].model_digest
    assert expected != found
    with pytest.raises(llmzip.ModelMismatchError, match=f"expected model digest {expected}, found {found}"):
        llmzip.decompress(archive, model=other)


def test_another_tokenizer_is_told_apart(model: Path, make_tokenizer: Callable[..., Path], tmp_path: Path) -> None:
    archive = llmzip.compress(TEXT, model=model)
    other = shutil.copytree(model, tmp_path / "lighthouse")
    make_tokenizer(other, vocab_size=VOCABULARY - 1)
    with pytest.raises(llmzip.ModelMismatchError, match="another tokenizer than the archive's"):
        llmzip.decompress(archive, model=other)


def test_a_model_that_changes_on_disk_is_loaded_again(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "changing")
    before = llmzip.compress(TEXT, model=folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 2
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    after = llmzip.compress(TEXT, model=folder)
    assert llmzip.info(before).archives[0].model_digest != llmzip.info(after).archives[0].model_digest
    with pytest.raises(llmzip.ModelMismatchError):
        llmzip.decompress(before, model=folder)


def test_what_the_archive_says_wins_over_the_config(model: Path, tmp_path: Path) -> None:
    """The context and the start token that the archive was made with are in its header, so a config may say more."""
    import json

    archive = llmzip.compress(TEXT * 2, model=model)
    other = shutil.copytree(model, tmp_path / "lighthouse")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config |= {"max_position_embeddings": 4096, "bos_token_id": 17}
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert llmzip.decompress(archive, model=other) == TEXT * 2


def test_archives_without_the_model_in_them_do_not_need_it(model: Path) -> None:
    noise = bytes(range(256)) * 3
    archive = llmzip.compress(noise, model=model)
    assert llmzip.info(archive).archives[0].model is None
    assert llmzip.decompress(archive) == noise


def test_archives_of_several_models_follow_each_other(model: Path) -> None:
    both = llmzip.compress(TEXT, model=model) + llmzip.compress(b"The embedded model reads this.")
    assert llmzip.decompress(both, model=model) == TEXT + b"The embedded model reads this."


@pytest.mark.parametrize("size", [5, 40, 200])
def test_a_small_file_is_hardly_larger_than_others_make_it(model: Path, size: int, tmp_path: Path) -> None:
    named: dict[str, Any] = {"model": shutil.copytree(model, tmp_path / ("n" * 200))}
    text = TEXT[:size]
    best = min(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)), len(zstandard.compress(text, 19)))
    assert len(llmzip.compress(text, **named)) <= best + 16 + len(text) // 1000
