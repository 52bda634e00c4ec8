"""Equal-Info windows beside the figures of arXiv 2404.03626: `make bench-windows TEXT=FILE MODEL=small`.

Cuts evenly spread pieces of a text into windows of several widths, by llmzip's rule and by the two that were published,
and prints how many bytes of text 8 bits of windows hold: the paper's unit. Beside it arithmetic coding without windows,
static arithmetic coding of bytes, and gzip, of the same pieces. Every window of llmzip's rule is decoded and compared.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import time
from pathlib import Path

import numpy as np

from llmzip import models, runtime, windowed
from llmzip.plan import RowPlan
from llmzip.rows import encode
from llmzip.settings import EngineSettings
from llmzip.windowrules import DelayWriter, PrintedWriter
from llmzip.windows import WindowWriter

_PAPER = {16: 2.66, 24: 3.15, 32: 3.49, 64: 4.16, 128: 4.61}
_PAPER_KEPT, _PAPER_DELAY, _PAPER_PLAIN, _PAPER_STATIC, _PAPER_GZIP = 5.33, 2.20, 5.49, 1.73, 2.23


def entropy_bits(counts: np.ndarray) -> float:
    """Of one symbol of a distribution."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--bits", type=int, nargs="+", default=list(_PAPER))
    parser.add_argument("--pieces", type=int, default=32)
    parser.add_argument("--piece-bytes", type=int, default=4000)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> None:
    """Prints the table."""
    args = _arguments()
    model = runtime.load(models.choose(args.model), EngineSettings())
    text = args.text.read_bytes()
    step = max(1, (len(text) - args.piece_bytes) // max(1, args.pieces - 1))
    pieces = [text[n * step : n * step + args.piece_bytes] for n in range(args.pieces)]
    size = sum(map(len, pieces))
    tokens = [model.tokenizer.encode(piece) for piece in pieces]
    table = model.tokenizer.tokens
    count = sum(map(len, tokens))
    print(f"{args.text.name}: {size:,} bytes in {len(pieces)} pieces, {count:,} tokens; model {model.name}\n")
    print("| W | llmzip | decoded | printed rule | delay rule | context kept | paper | of 1, 2, 3, 4+ tokens | gain |")
    print("|---:|---:|---|---:|---:|---:|---:|---|---:|")
    facts: list[dict[str, object]] = []
    for bits in args.bits:
        started = time.perf_counter()
        found = windowed.encode(model.engine, tokens, bits, True)
        seconds = time.perf_counter() - started
        rate = {"llmzip": size / sum(len(windows.data) for windows in found)}
        for windows, ids in zip(found, tokens, strict=True):
            limits = np.full(len(windows.counts), len(ids))
            limits[-1] = windows.counts[-1]
            numbers = np.arange(len(limits))
            back = windowed.decode(model.engine, windows.data, bits, numbers, limits, table.num_bytes, len(text))
            if np.concatenate(back.tokens).tolist() != ids.tolist():
                raise SystemExit(f"W = {bits}: the windows did not come back")
        for name, rule in (("printed", PrintedWriter), ("delay", DelayWriter)):
            other = windowed.encode(model.engine, tokens, bits, True, make_writer=rule)
            rate[name] = size / sum(len(windows.data) for windows in other)
        kept = windowed.encode(model.engine, tokens, bits, False, make_writer=WindowWriter)
        rate["kept"] = size / sum(len(windows.data) for windows in kept)
        lengths = collections.Counter(min(4, count) for windows in found for count in windows.counts.tolist())
        share = {length: lengths[length] / sum(lengths.values()) for length in (1, 2, 3, 4)}
        data = b"".join(windows.data for windows in found)
        # What a model that only knows how often each 8-bit token occurs would save.
        gain = (8 - entropy_bits(np.bincount(np.frombuffer(data, np.uint8), minlength=256))) * len(data) / size
        facts.append({"window_bits": bits, "bytes_per_8_bits": rate, "tokens": share, "gain": gain, "seconds": seconds})
        shares = ", ".join(f"{100 * share[length]:.0f} %" for length in share)
        print(
            f"| {bits} | {rate['llmzip']:.3f} | yes | {rate['printed']:.3f} | {rate['delay']:.3f} | "
            f"{rate['kept']:.3f} | {_PAPER.get(bits, '')} | {shares} | {gain:.3f} |",
            flush=True,
        )
    overlap = max(1, model.engine.context // 2)
    plain_bits = sum(encode(model.engine, ids, RowPlan(len(ids), 1, overlap))[1] for ids in tokens)
    counts = np.bincount(np.frombuffer(b"".join(pieces), np.uint8), minlength=256)
    zipped = sum(len(gzip.compress(piece, 9, mtime=0)) for piece in pieces)
    for name, value, paper in (
        ("arithmetic coding, no windows", 8 * size / plain_bits, _PAPER_PLAIN),
        ("static arithmetic coding of bytes", 8 / entropy_bits(counts), _PAPER_STATIC),
        ("gzip", size / zipped, _PAPER_GZIP),
    ):
        facts.append({"name": name, "bytes_per_8_bits": value})
        print(f"\n{name}: {value:.3f} (paper {paper})", end="")
    print(f"\nThe paper's other figures, W = 16: context kept {_PAPER_KEPT}, delay rule {_PAPER_DELAY}.")
    if args.output is not None:
        args.output.write_text(
            json.dumps({"text": args.text.name, "bytes": size, "model": model.name, "rows": facts}, indent=1)
        )


if __name__ == "__main__":
    main()
