"""A tiny model that knows a text, and what fake_hub.py makes around it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from fake_hub import TEXT, Program, Server

from llmzip.models import hub

VOCABULARY = 320


@pytest.fixture(scope="session")
def checkpoint(
    make_tokenizer: Callable[..., Path], write_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A Llama that knows the text pair by pair: its embedding is the identity, its layer does nothing."""
    from llmzip.models.tokenizer import Tokenizer

    folder = make_tokenizer(tmp_path_factory.mktemp("models") / "bigrams", vocab_size=VOCABULARY)
    tokens = [0, *Tokenizer(folder, VOCABULARY).encode(TEXT).tolist()]
    counts = torch.full((VOCABULARY, VOCABULARY), 0.01)
    for first, second in itertools.pairwise(tokens):
        counts[second, first] += 1
    config = {
        "model_type": "llama", "hidden_act": "silu", "vocab_size": VOCABULARY, "hidden_size": VOCABULARY,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 16, "rms_norm_eps": 1e-6, "max_position_embeddings": 256, "rope_theta": 10000.0, "bos_token_id": 0,
    }  # fmt: skip
    layer = "model.layers.0."
    tensors = {
        "model.embed_tokens.weight": torch.eye(VOCABULARY),
        "lm_head.weight": counts.log() / VOCABULARY**0.5,
        "model.norm.weight": torch.ones(VOCABULARY),
        layer + "input_layernorm.weight": torch.ones(VOCABULARY),
        layer + "post_attention_layernorm.weight": torch.ones(VOCABULARY),
        layer + "self_attn.o_proj.weight": torch.zeros(VOCABULARY, 32),
        layer + "mlp.gate_proj.weight": torch.zeros(16, VOCABULARY),
        layer + "mlp.up_proj.weight": torch.zeros(16, VOCABULARY),
        layer + "mlp.down_proj.weight": torch.zeros(VOCABULARY, 16),
    }
    tensors |= {f"{layer}self_attn.{name}_proj.weight": torch.zeros(32, VOCABULARY) for name in "qkv"}
    return write_checkpoint(folder, config, tensors)


@pytest.fixture(scope="session")
def files(checkpoint: Path) -> dict[str, bytes]:
    """Name -> content of the model's files."""
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


@pytest.fixture(scope="session")
def other_files(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model, one weight changed."""
    weights = bytearray(files["model.safetensors"])
    weights[-2] ^= 64
    return files | {"model.safetensors": bytes(weights)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that this process uses, without a network, and nothing is stored."""
    from huggingface_hub import constants

    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert hub.forbidden_by_environment()
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    """A Hub without models."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        for repository in running.repositories.values():
            repository.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def program(tmp_path: Path, server: Server) -> Program:
    """Runs llmzip beside a text, and noise that is stored whatever the model, without loading one."""
    (tmp_path / "book.txt").write_bytes(TEXT)
    (tmp_path / "noise.bin").write_bytes(Random(1).randbytes(500))
    return Program(tmp_path, server.address)
