"""Measures an exact model on one thread, next to transformers: `python benchmarks/kernels.py FOLDER`.

Prints tokens per processor second: of a prefill without the head, of masses, and of steps of 1, 8 and 64 rows with
their masses, for each number of planes and for transformers in float32 and bfloat16 where it is installed. The way from
logits to probabilities belongs to both. The share of the peak compares the int8 operations of the matrix products with
the most that torch's int8 product reaches here on a large matrix. All take turns, and the best of the turns counts: on
a busy machine ratios within one run are worth more than the speeds.
"""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmzip.engines.arrays import Array
from llmzip.engines.exact import ExactEngine
from llmzip.models.matrix import Int8Matrix
from llmzip.models.weights import load_model
from llmzip.system import threads

PREFILL_TOKENS, MASS_ROWS, STEP_ROWS = 512, 64, (1, 8, 64)
PEAK_SIZE = 1536
"""Rows and columns of the matrices whose int8 product gives the peak."""

Measured = dict[str, tuple[int, Callable[[], Any]]]
"""Name of a measurement -> tokens of a run, and the run."""


def exact(engine: ExactEngine, ids: np.ndarray, past: int) -> Measured:
    """Returns the measurements of the exact engine.

    Args:
        engine: with the model.
        ids: (64, past + 1) int64, tokens.
        past: positions that are cached before a step.
    """
    prefill = ids.reshape(1, -1)[:, :PREFILL_TOKENS]
    hidden = engine.forward(prefill)[0, :MASS_ROWS]
    measured: Measured = {
        "prefill": (prefill.size, lambda: engine.forward(prefill)),
        "masses": (MASS_ROWS, lambda: engine.masses(hidden)),
    }
    for rows in STEP_ROWS:
        cache = engine.new_cache(rows, past, past + 1)
        engine.forward(ids[:rows, :past], cache)

        def step(rows: int = rows, cache: Any = cache) -> Array:
            state = engine.forward(ids[:rows, past:], cache)
            cache.length -= 1  # the next run repeats it
            return engine.masses(state[:, 0])

        measured[f"step of {rows}"] = (rows, step)
    return measured


def floating(model: Any, tokens: np.ndarray, past: int) -> Measured:
    """Returns the same measurements of a model of transformers; the other arguments are those of `exact`."""
    ids = torch.from_numpy(tokens)
    prefill = ids.reshape(1, -1)[:, :PREFILL_TOKENS]
    body, head = model.base_model, model.get_output_embeddings()

    def masses(states: torch.Tensor) -> torch.Tensor:
        return torch.softmax(head(states).float(), -1)

    hidden = body(prefill).last_hidden_state[0, :MASS_ROWS]
    measured: Measured = {
        "prefill": (prefill.numel(), lambda: body(prefill)),
        "masses": (MASS_ROWS, lambda: masses(hidden)),
    }
    # Versions of transformers from 5.24 on call it "cache".
    name = "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"
    for rows in STEP_ROWS:
        cache = getattr(body(ids[:rows, :past], use_cache=True), name)

        def step(rows: int = rows, cache: Any = cache) -> torch.Tensor:
            # The cache grows by one position at each turn.
            return masses(body(ids[:rows, past:], use_cache=True, **{name: cache}).last_hidden_state[:, 0])

        measured[f"step of {rows}"] = (rows, step)
    return measured


def peak() -> Measured:
    """Returns the int8 product of the peak; its tokens are operations."""
    a = torch.randint(-127, 128, (PEAK_SIZE, PEAK_SIZE), dtype=torch.int8)
    return {"peak": (2 * PEAK_SIZE**3, lambda: torch._int_mm(a, a.T))}


def models(folder: Path, planes: list[int], compare: bool) -> dict[str, Any]:
    """Returns the exact engines, and transformers' models if there are to be any, by name."""
    found: dict[str, Any] = {f"{n} plane{'s' * (n > 1)}": ExactEngine(load_model(folder, planes=n)) for n in planes}
    if compare:
        try:
            import transformers
        except ImportError:
            print("transformers is not installed")
            return found
        for dtype in (torch.float32, torch.bfloat16):
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
            found[f"transformers {str(dtype).removeprefix('torch.')}"] = model.eval()
    return found


def speeds(measured: dict[str, Measured], turns: int) -> dict[str, dict[str, float]]:
    """Returns tokens per processor second by the names of model and measurement: the best of some turns."""
    found: dict[str, dict[str, float]] = {name: {} for name in measured}
    for name in sorted({name for part in measured.values() for name in part}):
        for _ in range(turns):
            for who, part in measured.items():
                if name in part:
                    tokens, run = part[name]
                    started = time.thread_time()
                    run()
                    speed = tokens / (time.thread_time() - started)
                    found[who][name] = max(found[who].get(name, 0.0), speed)
    return found


def shares(engine: ExactEngine, found: dict[str, float], ops: float) -> dict[str, float]:
    """Returns the share of the int8 peak that the products of a prefill and of masses reach."""
    model = engine.model
    head = model.head_q.size
    body = sum(t.size for layer in model.layers for t in vars(layer).values() if isinstance(t, Int8Matrix))
    planes = model.config.planes
    return {name: 2 * planes * size * found[name] / ops for name, size in (("prefill", body), ("masses", head))}


@torch.inference_mode()
def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkpoint in the layout of transformers")
    parser.add_argument("--planes", type=int, action="append", choices=(1, 2), help="default: both")
    parser.add_argument("--past", type=int, default=256, help="positions that are cached before a step")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="do not compare with transformers")
    args = parser.parse_args()
    threads.set_count(1)  # so that the time of the thread is that of all the work
    found = models(args.folder, args.planes or [1, 2], not args.alone)
    vocab = next(engine.vocab_size for engine in found.values() if isinstance(engine, ExactEngine))
    ids = np.random.default_rng(1).integers(vocab, size=(max(STEP_ROWS), args.past + 1))
    measured = {
        name: (exact if isinstance(model, ExactEngine) else floating)(model, ids, args.past)
        for name, model in found.items()
    }
    result = speeds({"": peak(), **measured}, args.turns)
    ops = result.pop("")["peak"]
    print(f"int8 peak: {ops / 1e9:.0f} GOP/s, tokens per processor second:")
    names = ["prefill", "masses", *(f"step of {rows}" for rows in STEP_ROWS)]
    print(f"{'':24}" + "".join(f"{name:>12}" for name in names))
    for who, row in result.items():
        print(f"{who:24}" + "".join(f"{row[name]:12,.1f}" for name in names))
        if isinstance(found[who], ExactEngine):
            share = shares(found[who], row, ops)
            print(f"{'  ' + found[who].kernels_text + ', of the peak':24}" + "".join(
                f"{share[name]:12.0%}" if name in share else f"{'':12}" for name in names
            ))  # fmt: skip


if __name__ == "__main__":
    main()
