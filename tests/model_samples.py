"""Texts for tiny models to learn, and what keeps their norms and biases from being the ones they began with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

LACKING = bytes([4, 6, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)])
"""The 21 bytes that SmolLM2's vocabulary has no token for."""

_LINE = "the keeper lamp was lit at dusk and put out dawn wind came over hills nobody asked about light again"
WORDS = _LINE.split()


def sentences(size: int, seed: int) -> bytes:
    """Text of few words that does not repeat itself."""
    chance = random.Random(seed)
    out = ""
    while len(out) < size:
        out += " ".join(chance.choice(WORDS) for _ in range(chance.randrange(4, 9))).capitalize() + ". "
    return out[:size].encode()


def take_bytes_away(path: Path, lacking: bytes) -> None:
    """Takes the tokens of single bytes, which no merge may need, from a byte-level tokenizer.json."""
    from llmzip.models.tokenizer_file import byte_alphabet

    description = json.loads(path.read_text(encoding="utf-8"))
    vocab = description["model"]["vocab"]
    for letter, byte in byte_alphabet().items():
        if byte in lacking:
            vocab[f"qz{byte:02x}zq"] = vocab.pop(letter)  # which no text has
    path.write_text(json.dumps(description), encoding="utf-8")


def stir(model: Any) -> None:
    """Gives a new model of transformers biases and norm weights that matter; torch's seed decides which."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
            elif "norm" in name or ".ln_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))


def sentencepiece_model(kind: str, vocab: list[str], byte_tokens: bool) -> dict[str, Any]:
    """The model in the description of a tokenizer of SentencePiece's form: a BPE or a Unigram of these tokens."""
    model: dict[str, Any] = {"type": kind, "byte_fallback": byte_tokens}
    if kind == "BPE":
        merges = [[w[:-1], w[-1]] for w in vocab if len(w) > 1 and w[:-1] in vocab and w[-1] in vocab]
        model |= {"vocab": {word: n for n, word in enumerate(vocab)}, "merges": merges, "unk_token": "<unk>"}
        model |= {"fuse_unk": True}
    else:
        model |= {"vocab": [[word, -10.0 - n / 1000] for n, word in enumerate(vocab)], "unk_id": 0}
    return model
