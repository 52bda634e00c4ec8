"""Measures speed and memory of public shapes with random weights: `python benchmarks/shapes.py --shape smollm2-135m`.

Rows are filled as for a long file. Prints tokens per second of prefill and of steps, the share of the device's
int8 products, and the memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from llmzip.engines.exact import ExactEngine
from llmzip.models.config import ExactConfig
from llmzip.models.families import read
from llmzip.models.matrix import Int8Matrix
from llmzip.models.model import ExactModel, LayerWeights

SHAPES = {
    "smollm2-135m": {
        "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True, "rope_theta": 100000.0,
    },
    "smollm2-360m": {
        "hidden_size": 960, "num_hidden_layers": 32, "num_attention_heads": 15, "num_key_value_heads": 5,
        "intermediate_size": 2560, "vocab_size": 49152, "tie_word_embeddings": True, "rope_theta": 100000.0,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True,
        "rope_theta": 500000.0,
    },
}  # fmt: skip


def random_model(shape: dict[str, object], context: int, planes: int) -> ExactModel:
    """Returns random integer weights of a shape; their values do not change the time."""
    family = read({"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
                   "max_position_embeddings": 8192, **shape})  # fmt: skip
    config = ExactConfig(planes=planes, context=context, start_token=0, **family.settings)
    random = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> tuple[Int8Matrix, np.ndarray]:
        weight = random.integers(-60, 61, (rows, columns), dtype=np.int8)
        return Int8Matrix(weight), np.full(rows, 2.0**-11, dtype=np.float32)

    def ones() -> np.ndarray:
        return np.ones(config.hidden_size, dtype=np.float32)

    hidden, heads = config.hidden_size, config.num_heads * config.head_dim
    qkv = heads + 2 * config.num_kv_heads * config.head_dim
    layers = tuple(
        LayerWeights(
            ones(), *matrix(qkv, hidden), *matrix(hidden, heads), ones(),
            *matrix(2 * config.mlp_size, hidden), *matrix(hidden, config.mlp_size),
        )
        for _ in range(config.num_layers)
    )  # fmt: skip
    embedding = matrix(config.vocab_size, hidden)
    return ExactModel(config, *embedding, *embedding, ones(), layers)


def measure(name: str, rows: int, context: int, planes: int, device: torch.device, steps: int) -> dict[str, object]:
    """Measures one shape."""
    model = random_model(SHAPES[name], context, planes)
    matrices = [t for key, t in model.tensors().items() if isinstance(t, Int8Matrix) and key != "embedding_q"]
    products = sum(matrix.size for matrix in matrices) + model.head_q.size
    engine = ExactEngine(model, device)
    frequencies = engine.readout().frequencies
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def timed(call: object, runs: int) -> float:
        best = float("inf")
        for _ in range(runs):
            wait()
            start = time.perf_counter()
            call()  # type: ignore[operator]
            wait()
            best = min(best, time.perf_counter() - start)
        return best

    random = np.random.default_rng(0)
    ids = random.integers(engine.vocab_size, size=(max(1, 1024 // context), context))
    prefill = timed(lambda: engine.masses(engine.forward(ids).reshape(ids.size, -1)), 2)
    cache = engine.new_cache(rows, 64, context)
    column = random.integers(engine.vocab_size, size=(rows, 1))
    while cache.length < context - steps - 1:
        engine.forward(np.repeat(column, min(32, context - steps - 1 - cache.length), 1), cache)

    def step() -> None:
        masses = engine.masses(engine.forward(column, cache)[:, 0])
        sums, bounds = frequencies.group_bounds(masses)
        frequencies.symbol_bounds(masses, sums, bounds, np.zeros(rows, dtype=np.int64))

    one = timed(step, steps)
    size = 4096
    a = torch.randint(-100, 100, (size, size), dtype=torch.int8, device=device)
    peak = 2 * size**3 / timed(lambda: torch._int_mm(a, a.T), 4)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "shape": name, "rows": rows, "context": context, "planes": planes, "device": str(device),
        "weights_bytes": model.weights_bytes, "encode_tokens_per_second": ids.size / prefill,
        "decode_tokens_per_second": rows / one, "int8_peak_ops": peak,
        "encode_share_of_peak": 2 * planes * products * ids.size / prefill / peak,
        "decode_share_of_peak": 2 * planes * products * rows / one / peak, "peak_memory_bytes": memory,
    }  # fmt: skip


def main() -> None:
    """Prints one line of JSON for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: all")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--planes", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in args.shape or SHAPES:
        line = json.dumps(measure(name, args.rows, args.context, args.planes, torch.device(args.device), args.steps))
        print(line, flush=True)
        if args.output:
            with args.output.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
