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

import torch

from llmzip.engines.exact import ExactEngine
from llmzip.engines.frequencies import Frequencies
from llmzip.models.config import ExactConfig
from llmzip.models.families import read
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
    random = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        weight = torch.randint(-60, 61, (rows, columns), dtype=torch.int8, generator=random)
        return weight, torch.full((rows,), 2.0**-11)

    hidden, heads = config.hidden_size, config.num_heads * config.head_dim
    qkv = heads + 2 * config.num_kv_heads * config.head_dim
    layers = tuple(
        LayerWeights(
            torch.ones(hidden), *matrix(qkv, hidden), *matrix(hidden, heads), torch.ones(hidden),
            *matrix(2 * config.mlp_size, hidden), *matrix(hidden, config.mlp_size),
        )
        for _ in range(config.num_layers)
    )  # fmt: skip
    embedding = matrix(config.vocab_size, hidden)
    return ExactModel(config, *embedding, *embedding, torch.ones(hidden), layers)


def measure(name: str, rows: int, context: int, planes: int, device: torch.device, steps: int) -> dict[str, object]:
    """Measures one shape."""
    model = random_model(SHAPES[name], context, planes)
    weights = sum(t.numel() * t.element_size() for t in model.tensors().values())
    products = sum(t.numel() for n, t in model.tensors().items() if t.dtype == torch.int8 and n != "embedding_q")
    products += model.head_q.numel()
    engine = ExactEngine(model, device)
    frequencies = Frequencies(engine.vocab_size)
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

    ids = torch.randint(engine.vocab_size, (max(1, 1024 // context), context), device=device)
    prefill = timed(lambda: engine.masses(engine.forward(ids).reshape(-1, engine.model.config.hidden_size)), 2)
    cache = engine.new_cache(rows, 64, context)
    column = torch.randint(engine.vocab_size, (rows, 1), device=device)
    while cache.length < context - steps - 1:
        engine.forward(column.expand(-1, min(32, context - steps - 1 - cache.length)).contiguous(), cache)

    def step() -> None:
        masses = engine.masses(engine.forward(column, cache)[:, 0])
        sums, bounds = frequencies.group_bounds(masses)
        groups = torch.zeros(rows, dtype=torch.int64, device=device)
        frequencies.symbol_bounds(masses, sums, bounds, groups)

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
        "weights_bytes": weights, "encode_tokens_per_second": ids.numel() / prefill,
        "decode_tokens_per_second": rows / one, "int8_peak_ops": peak,
        "encode_share_of_peak": 2 * planes * products * ids.numel() / prefill / peak,
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
