"""Measures what guesses save when rows are decoded one at a time: `make bench-guesses TEXTS="FILE ..."`.

Each text is encoded in one row and decoded with guesses and without in turn, and compared. `passes` are those of the
model for each token, `read` and `right` the guesses that a pass read on average and those that were right.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llmzip.codec.rows import FrameCoder
from llmzip.engines.cpu import lanes
from llmzip.format.plan import RowPlan
from llmzip.inference import load
from llmzip.inference.progress import ByteMeter
from llmzip.models.choice import choose_model
from llmzip.settings import EngineSettings


@contextmanager
def decodings(guessing: bool) -> Iterator[list[lanes.CpuDecoding]]:
    """Collects what decodes while the context is active; without guesses if they are not wanted."""
    original, seen = lanes.CpuRows.decoding, []

    def watched(rows: lanes.CpuRows, frames: Any, threads: int, guesser: Any = None) -> lanes.CpuDecoding:
        seen.append(original(rows, frames, threads, guesser if guessing else None))
        return seen[-1]

    setattr(lanes.CpuRows, "decoding", watched)  # noqa: B010
    try:
        yield seen
    finally:
        setattr(lanes.CpuRows, "decoding", original)  # noqa: B010


def measure(model: load.LoadedModel, text: bytes, times: int) -> dict[str, Any]:
    """Returns the medians of processor seconds with guesses and without, their ratio, and what came of the guesses."""
    tokens = model.tokenizer.encode(text)
    coder = FrameCoder(model.engine, model.vocabulary, followers=model.followers)
    plan = RowPlan(len(tokens), 1, max(1, model.engine.context // 2))
    payload = coder.encode(tokens, plan).payload
    seconds: dict[bool, list[float]] = {True: [], False: []}
    experience = None
    for _ in range(times):
        for guessing in (True, False):
            with decodings(guessing) as seen:
                begun = time.process_time()
                decoded = coder.decode(payload, plan, ByteMeter(model.table.num_bytes, len(text)))
                seconds[guessing].append(time.process_time() - begun)
            if not np.array_equal(decoded, tokens):
                raise SystemExit("what was decoded is not what was encoded")
            if guessing:
                experience = seen[0].experience
    assert experience is not None
    ratios = [without / guessed for guessed, without in zip(seconds[True], seconds[False], strict=True)]
    return {
        "bytes": len(text), "tokens": len(tokens), "with": statistics.median(seconds[True]),
        "without": statistics.median(seconds[False]), "ratio": statistics.median(ratios),
        "passes": experience.passes / len(tokens), "read": experience.read / experience.passes,
        "right": experience.right / experience.passes,
    }  # fmt: skip


def main() -> int:
    """Prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--model", default="default")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 20_000])
    parser.add_argument("--skip", type=int, default=5_000, help="bytes at the beginning of each file")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
    model = load.load(choose_model(args.model), EngineSettings(threads=1))
    rows = []
    print("| text | bytes | us/token without | with guesses | times as fast | passes/token | read/pass | right/pass |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for path in args.texts:
        data = path.read_bytes()[args.skip :]
        for size in args.sizes:
            row = {"text": path.stem, **measure(model, data[:size], args.times)}
            rows.append(row)
            without, guessed = (1e6 * row[name] / row["tokens"] for name in ("without", "with"))
            print(
                f"| {row['text']} | {row['bytes']:,} | {without:.0f} | {guessed:.0f} | {row['ratio']:.2f} | "
                f"{row['passes']:.2f} | {row['read']:.2f} | {row['right']:.2f} |",
                flush=True,
            )
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "guesses.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
