"""Measures Equal-Info windows next to the figures of arXiv 2404.03626: `make bench-windows TEXT=FILE MODEL=small`.

Cuts evenly spread pieces of a text into windows of several widths, by llmzip's rule and by the two published ones, and
prints how many bytes of text 8 bits of windows hold, which is the paper's unit. Next to it are arithmetic coding
without windows, static arithmetic coding of bytes, and gzip, for the same pieces. Every window of llmzip's rule is
decoded and compared. --round-trip also compresses whole files to archives of windows of each width and back, and prints
their speed next to that of ordinary rows (level -1).
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from window_rules import DelayWriter, PrintedWriter

from llmzip.codec.reader import decompress_stream
from llmzip.codec.rows import FrameCoder
from llmzip.codec.writer import compress_stream
from llmzip.format.plan import RowPlan
from llmzip.inference import load
from llmzip.inference.progress import ByteMeter
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings
from llmzip.windows import texts
from llmzip.windows.codes import WindowWriter

_PAPER = {16: 2.66, 24: 3.15, 32: 3.49, 64: 4.16, 128: 4.61}
_PAPER_KEPT, _PAPER_DELAY, _PAPER_PLAIN, _PAPER_STATIC, _PAPER_GZIP = 5.33, 2.20, 5.49, 1.73, 2.23


def entropy_bits(counts: np.ndarray) -> float:
    """Returns the entropy of a distribution in bits per symbol."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--bits", type=int, nargs="+", default=list(_PAPER))
    parser.add_argument("--pieces", type=int, default=32)
    parser.add_argument("--piece-bytes", type=int, default=4000)
    parser.add_argument("--round-trip", type=Path, nargs="+", metavar="FILE|DIR")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def _round_trips(files: list[Path], widths: list[int], model: str) -> None:
    """Prints sizes and speeds of archives, each of them decoded and compared."""
    size = sum(file.stat().st_size for file in files)
    print(f"\n{len(files)} files, {size:,} bytes, by windows and by rows:\n")
    print("| | archives | bits/byte | encode KB/s | decode KB/s |\n|---|---:|---:|---:|---:|")
    for name, settings in (
        ("rows, -1", CompressSettings(level=1, model=model)),
        *((f"W = {bits}", CompressSettings(model=model, window_bits=bits)) for bits in widths),
    ):
        packed, seconds = 0, [0.0, 0.0]
        for file in files:
            text, archive, back = file.read_bytes(), io.BytesIO(), io.BytesIO()
            seconds[0] += compress_stream(io.BytesIO(text), archive, settings).elapsed_seconds
            seconds[1] += decompress_stream(io.BytesIO(archive.getvalue()), back, DecompressSettings()).elapsed_seconds
            if back.getvalue() != text:
                raise SystemExit(f"{file}: {name}: the round trip FAILED")
            packed += len(archive.getvalue())
        speeds = " | ".join(f"{size / spent / 1e3:.1f}" for spent in seconds)
        print(f"| {name} | {packed:,} | {8 * packed / size:.3f} | {speeds} |", flush=True)


class Rates(NamedTuple):
    """The windows of one size.

    Attributes:
        rate: bytes of text for each 8 bits of windows, by rule.
        share: share of windows with 1, 2, 3 and 4 or more tokens.
        gain: bits per byte that a model of 8-bit token frequencies would save.
        seconds: time of llmzip's encoding.
    """

    rate: dict[str, float]
    share: dict[int, float]
    gain: float
    seconds: float


def measure(model: load.LoadedModel, tokens: list[np.ndarray], size: int, bits: int) -> Rates:
    """Encodes pieces by each rule, and decodes those of llmzip's.

    Args:
        model: the model.
        tokens: of each piece.
        size: of all pieces, in bytes.
        bits: of a window.
    """
    started = time.perf_counter()
    encoded = texts.encode(model.engine, tokens, bits, fresh=True)
    seconds = time.perf_counter() - started
    data = b"".join(windows.data for windows in encoded)
    for windows, ids in zip(encoded, tokens, strict=True):
        limits = np.full(len(windows.counts), len(ids))
        limits[-1] = windows.counts[-1]
        meter = ByteMeter(model.table.num_bytes, size)
        decoded = texts.WindowDecoder(model.engine, bits, meter).fresh(windows.data, np.arange(len(limits)), limits)
        if np.concatenate(decoded.tokens).tolist() != ids.tolist():
            raise SystemExit(f"W = {bits}: the windows did not come back")
    rate = {"llmzip": size / len(data)}
    for name, fresh, rule in (
        ("printed", True, PrintedWriter),
        ("delay", True, DelayWriter),
        ("kept", False, WindowWriter),
    ):
        other = texts.encode(model.engine, tokens, bits, fresh=fresh, make_writer=rule)
        rate[name] = size / sum(len(windows.data) for windows in other)
    lengths = collections.Counter(min(4, count) for windows in encoded for count in windows.counts.tolist())
    share = {length: lengths[length] / sum(lengths.values()) for length in (1, 2, 3, 4)}
    # Tokens of 16 bits are too many to count.
    gain = (8 - entropy_bits(np.bincount(np.frombuffer(data, np.uint8), minlength=256))) * len(data) / size
    return Rates(rate, share, gain, seconds)


def main() -> None:
    """Prints the table."""
    args = _arguments()
    model = load.load(choose_model(args.model), EngineSettings())
    text = args.text.read_bytes()
    step = max(1, (len(text) - args.piece_bytes) // max(1, args.pieces - 1))
    pieces = [text[n * step : n * step + args.piece_bytes] for n in range(args.pieces)]
    size = sum(map(len, pieces))
    tokens = [model.tokenizer.encode(piece) for piece in pieces]
    count = sum(map(len, tokens))
    print(f"{args.text.name}: {size:,} bytes in {len(pieces)} pieces, {count:,} tokens; model {model.name}\n")
    print("Bytes of text for 8 bits of windows (for 16 bits twice as many); gain: bits a byte that unigrams save.")
    print("| W | llmzip | decoded | printed rule | delay rule | context kept | paper | of 1, 2, 3, 4+ tokens | gain |")
    print("|---:|---:|---|---:|---:|---:|---:|---|---:|")
    facts: list[dict[str, object]] = []
    for bits in args.bits:
        rate, share, gain, seconds = measure(model, tokens, size, bits)
        facts.append({"window_bits": bits, "bytes_per_8_bits": rate, "tokens": share, "gain": gain, "seconds": seconds})
        shares = ", ".join(f"{100 * part:.0f} %" for part in share.values())
        print(
            f"| {bits} | {rate['llmzip']:.3f} | yes | {rate['printed']:.3f} | {rate['delay']:.3f} | "
            f"{rate['kept']:.3f} | {_PAPER.get(bits, '')} | {shares} | {gain:.3f} |",
            flush=True,
        )
    overlap = max(1, model.engine.context // 2)
    plain_bits = sum(FrameCoder(model.engine).encode(ids, RowPlan(len(ids), 1, overlap)).bits for ids in tokens)
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
    if args.round_trip:
        files = [f for path in args.round_trip for f in ([path] if path.is_file() else sorted(path.rglob("*")))]
        _round_trips([file for file in files if file.is_file()], args.bits, args.model)
    if args.output is not None:
        args.output.write_text(
            json.dumps({"text": args.text.name, "bytes": size, "model": model.name, "rows": facts}, indent=1)
        )


if __name__ == "__main__":
    main()
