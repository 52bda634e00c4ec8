"""Prints SHA-256 of masses and archives that the engine computes for fixed integers; run by test_instruction_sets.py.

Everything it starts from is integers, so every machine, instruction set and library must print the same hashes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch

from llmzip.codec.writer import ArchiveWriter
from llmzip.engines.exact import ExactEngine
from llmzip.engines.reference import TorchForward
from llmzip.inference import load
from llmzip.models.choice import choose_model
from llmzip.models.convert import convert
from llmzip.settings import CompressSettings, EngineSettings

TEXT = """Exact arithmetic gives the same bits everywhere: on one thread or on many, with or without wide vectors.
for n in range(10):\n    print(n, n * n, sep="\\t")\n
Das Ergebnis hängt nicht von der Reihenfolge ab; 1 234 567 + 89 = 1 234 656. Voilà, c’est tout.\n""".encode()


def integers(size: int, seed: int) -> torch.Tensor:
    """A fixed sequence of `size` integers from 0 to 2^20."""
    n = torch.arange(size, dtype=torch.int64) + 1_000_003 * seed
    return ((n * n * 40_503 + n * 2_654_435_761) >> 9) & ((1 << 20) - 1)


def small_engine(compiled: bool) -> ExactEngine:
    """Two planes, norms of queries and keys, biases, a window in one of two layers: what the embedded model lacks."""
    config: dict[str, Any] = {
        "model_type": "qwen3", "hidden_act": "silu", "vocab_size": 300, "hidden_size": 72, "intermediate_size": 104,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "rope_theta": 1e6, "bos_token_id": 1,
        "use_sliding_window": True, "sliding_window": 10, "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (300, 72), "lm_head.weight": (300, 72), "model.norm.weight": (72,)}
    for layer in ("model.layers.0.", "model.layers.1."):
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = (72,)
        for name in ("q_norm", "k_norm"):
            shapes[f"{layer}self_attn.{name}.weight"] = (32,)
        for name, size in (("q_proj", (192, 72)), ("k_proj", (64, 72)), ("v_proj", (64, 72)), ("o_proj", (72, 192))):
            shapes[f"{layer}self_attn.{name}.weight"] = size
            shapes[f"{layer}self_attn.{name}.bias"] = size[:1]
        for name, size in (("gate_proj", (104, 72)), ("up_proj", (104, 72)), ("down_proj", (72, 104))):
            shapes[f"{layer}mlp.{name}.weight"] = size
    tensors = {}
    for seed, (name, size) in enumerate(shapes.items()):
        values = integers(torch.Size(size).numel(), seed).view(size).to(torch.float32)
        # From -1 to 1 in steps of 2^-19; matrices of larger numbers for sharper predictions.
        values = values * 2.0**-19 - 1.0
        tensors[name] = 1.0 + values * 0.25 if name.endswith(("norm.weight", "layernorm.weight")) else values * 0.375
    return ExactEngine(convert(config, tensors, planes=2, context=64), compiled=compiled)


def masses_digest(engine: ExactEngine, rows: int, prefill: int, steps: int) -> str:
    """SHA-256 of the masses of a prefill and of steps after it."""
    ids = (integers(rows * (prefill + steps), 5) % engine.vocab_size).view(rows, -1).numpy()
    cache = engine.new_cache(rows, prefill, prefill + steps)
    sha = hashlib.sha256()
    for begin, end in [(0, prefill), *((n, n + 1) for n in range(prefill, prefill + steps))]:
        hidden = engine.forward(ids[:, begin:end], cache)
        masses = engine.masses(hidden.reshape(-1, hidden.shape[-1]))
        sha.update(np.asarray(masses).astype("<i4").tobytes())
    return sha.hexdigest()


def archive_digest(level: int) -> str:
    """SHA-256 of an archive made with the embedded model."""
    writer = ArchiveWriter(CompressSettings(level=level))
    archive = writer.write(TEXT) + writer.finish()
    assert [frame.method for frame in writer.report.frames] == ["lm" if level == 1 else "mixed"]
    return hashlib.sha256(archive).hexdigest()


def transcript() -> dict[str, str]:
    """What must be equal everywhere."""
    embedded = load.load(choose_model("default"), EngineSettings()).engine
    small = masses_digest(small_engine(compiled=False), 5, 29, 20)
    assert masses_digest(small_engine(compiled=True), 5, 29, 20) == small
    return {
        "embedded model, prefill and steps": masses_digest(embedded, 3, 37, 6),
        "embedded model, one row": masses_digest(embedded, 1, 101, 2),
        "small model, prefill and steps": small,
        "archive at level 1": archive_digest(1),
        "archive at level 6": archive_digest(6),
    }


def main() -> None:
    hashes = transcript()
    forward_pass = small_engine(compiled=False).forward_pass
    assert isinstance(forward_pass, TorchForward)
    setting = {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "products": forward_pass.kernels.describe(),
    }
    print(json.dumps({"hashes": hashes, "setting": setting}))


if __name__ == "__main__":
    main()
