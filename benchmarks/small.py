"""Measures what many small archives cost in one run: `make bench-small TEXT=FILE`.

Pieces of a text become an archive each. `llmzip -t` then decodes all of them, with tokens decoded ahead and without, in
turn and in one process with the model loaded. The figures are medians.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmzip.cli.main import main as llmzip
from llmzip.codec.ahead import DecodedAhead


@contextmanager
def looking_ahead(wanted: bool) -> Iterator[None]:
    """Lets runs look at upcoming inputs, or not."""
    original = DecodedAhead.upcoming
    if not wanted:
        setattr(DecodedAhead, "upcoming", lambda ahead, items, read: iter(items))  # noqa: B010
    try:
        yield
    finally:
        setattr(DecodedAhead, "upcoming", original)  # noqa: B010


def make_archives(folder: Path, text: bytes, args: argparse.Namespace, level: int) -> list[str]:
    """Compresses pieces of a text from places chosen with a fixed seed; returns the archives' names."""
    places = random.Random(level)
    names = []
    for number in range(args.files):
        begin = places.randrange(max(1, len(text) - args.size))
        path = folder / f"{level}-{number:05d}"
        path.write_bytes(text[begin : begin + args.size])
        names.append(str(path))
    if llmzip([f"-{level}", "-q", "-m", args.model, *names]):
        raise SystemExit("the texts cannot be compressed")
    return [f"{name}.llmz" for name in names]


def measure(names: list[str], times: int) -> dict[str, Any]:
    """Returns medians for each file in milliseconds, of clock and processor, with looking ahead and without."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for round_number in range(times + 1):
        for way in ("ahead", "in turn"):
            with looking_ahead(way == "ahead"):
                clock, processor = time.perf_counter(), time.process_time()
                if llmzip(["-t", "-q", *names]):
                    raise SystemExit("an archive does not decode")
                if round_number:  # the first one loads the model
                    seconds.setdefault((way, "clock"), []).append(time.perf_counter() - clock)
                    seconds.setdefault((way, "processor"), []).append(time.process_time() - processor)
    return {f"{way}, {kind}": 1e3 * statistics.median(several) / len(names) for (way, kind), several in seconds.items()}


def main() -> int:
    """Prints a table and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--size", type=int, default=1_000, help="bytes of each file")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
    text = args.text.read_bytes()
    rows = []
    print("| level | files | bytes | ms/file of the processor in turn | ahead | ms/file of the clock in turn | ahead |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for level in args.levels:
        with tempfile.TemporaryDirectory() as folder:
            taken = measure(make_archives(Path(folder), text, args, level), args.times)
        rows.append({"level": level, "files": args.files, "bytes": args.size, **taken})
        columns = [taken[f"{way}, {kind}"] for kind in ("processor", "clock") for way in ("in turn", "ahead")]
        print(f"| -{level} | {args.files} | {args.size:,} | " + " | ".join(f"{value:.1f}" for value in columns) + " |")
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "small.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
