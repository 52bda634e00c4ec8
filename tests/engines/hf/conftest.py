"""Tiny checkpoints of every family, made and trained by transformers, and what it says a text costs in bits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from model_samples import stir

VOCABULARY = 96
SEQUENCE = 300


@dataclass(frozen=True)
class Family:
    """A shape: the class of its config and the fields that matter."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def config(self) -> transformers.PreTrainedConfig:
        common = {
            "vocab_size": VOCABULARY,
            "hidden_size": 96,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
            "initializer_range": 0.08,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": None,
        }
        return getattr(transformers, f"{self.kind}Config")(**common | self.fields)


def pattern_tokens(length: int, seed: int) -> list[int]:
    """A text that can be learnt and still surprises: phrases in a random order, with one token in nine replaced."""
    generator = torch.Generator().manual_seed(99)
    phrases = torch.randint(3, VOCABULARY, (8, 7), generator=generator).tolist()
    generator.manual_seed(seed)
    out: list[int] = []
    while len(out) < length:
        out += phrases[int(torch.randint(8, (1,), generator=generator))]
    noise = torch.rand(length, generator=generator) < 1 / 9
    random = torch.randint(3, VOCABULARY, (length,), generator=generator)
    return torch.where(noise, random, torch.tensor(out[:length])).tolist()


@pytest.fixture(scope="session")
def make_family() -> type[Family]:
    """The class Family."""
    return Family


@pytest.fixture(scope="session")
def train() -> Callable[[Family], Any]:
    """Makes a model of a family and trains it until its predictions are sharp here and unsure there."""

    def run(family: Family, steps: int = 60) -> Any:
        torch.manual_seed(20)
        model = transformers.AutoModelForCausalLM.from_config(family.config(), attn_implementation="eager").train()
        stir(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(steps):
            ids = torch.tensor([[1, *pattern_tokens(95, 1000 + 8 * step + row)] for row in range(8)])
            loss = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.eval()

    return run


@pytest.fixture(scope="session")
def sequence() -> list[int]:
    """Tokens that the models have not seen."""
    return pattern_tokens(SEQUENCE, 5)


@pytest.fixture(scope="session")
def float_bits() -> Callable[..., torch.Tensor]:
    """The cost in bits of each token after the start token, by transformers in float32, eager attention."""

    def cost(folder: Path, tokens: list[int]) -> torch.Tensor:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("rope_parameters")
        if stored != getattr(model.config, "rope_parameters", None):
            # GPT-NeoX with transformers 5.0: it reads a quarter of the rotated part, whatever the file says.
            pytest.skip("this version of transformers does not read back the configuration that it wrote")
        with torch.no_grad():
            logits = model(torch.tensor([[1, *tokens[:-1]]])).logits[0].double()
        return -logits.log_softmax(-1)[torch.arange(len(tokens)), tokens] / math.log(2)

    return cost
