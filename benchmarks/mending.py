"""Damages archives with recovery data at random, and counts how many are mended: `make bench-mending`.

The archive holds random bytes, so no model is needed. Every trial damages a fresh copy of the file, recovery data and
their headers included, and compares what comes back with the original byte for byte.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import Counter
from collections.abc import Callable

import llmzip
from llmzip.errors import LLMZipError
from llmzip.recovery.making import RecoveryWriter
from llmzip.recovery.repair import repair

_SECTOR_BYTES = 4096


def _overwrite(data: bytearray, begin: int, size: int, rng: random.Random) -> None:
    """Fills a part with random bytes, zeros or ones."""
    kind = rng.randrange(3)
    data[begin : begin + size] = rng.randbytes(size) if kind == 0 else bytes([0 if kind == 1 else 255]) * size


def _pieces(data: bytearray, left: int, rng: random.Random) -> None:
    """Damages pieces of 4 KiB to all that is left, of any size between."""
    while left >= _SECTOR_BYTES:
        size = int(_SECTOR_BYTES * (left / _SECTOR_BYTES) ** rng.random())
        _overwrite(data, rng.randrange(len(data) - size + 1), size, rng)
        left -= size


def one_piece(data: bytearray, left: int, rng: random.Random) -> None:
    """One piece of the whole share, anywhere."""
    _overwrite(data, rng.randrange(len(data) - left + 1), left, rng)


def sectors(data: bytearray, left: int, rng: random.Random) -> None:
    """Sectors of 4 KiB of a disk, which are read as zeros."""
    for sector in rng.sample(range(len(data) // _SECTOR_BYTES), left // _SECTOR_BYTES):
        data[sector * _SECTOR_BYTES : (sector + 1) * _SECTOR_BYTES] = bytes(_SECTOR_BYTES)


def small_pieces(data: bytearray, left: int, rng: random.Random) -> None:
    """Pieces of 4 KiB that begin at any byte."""
    for _ in range(left // _SECTOR_BYTES):
        _overwrite(data, rng.randrange(len(data) - _SECTOR_BYTES), _SECTOR_BYTES, rng)


def pieces(data: bytearray, left: int, rng: random.Random) -> None:
    """Pieces of all sizes from 4 KiB on, together the share."""
    _pieces(data, left, rng)


def scattered(data: bytearray, left: int, rng: random.Random) -> None:
    """A single byte for each 1,200 of the share, anywhere, then pieces with a tenth of the share."""
    for _ in range(left // 1200):
        data[rng.randrange(len(data))] = rng.randrange(256)
    _pieces(data, left // 10, rng)


def at_the_border(data: bytearray, left: int, rng: random.Random) -> None:
    """One piece of the share that begins before the recovery data and ends in it, headers included."""
    begin = data.index(b"\xf7LR\x01") - rng.randrange(left)
    _overwrite(data, min(begin, len(data) - left), left, rng)


Damage = Callable[[bytearray, int, random.Random], None]

DAMAGES: list[Damage] = [
    one_piece, sectors, small_pieces, pieces, scattered, at_the_border,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=10_000_000, help="size of the text")
    parser.add_argument("--percent", type=float, default=5.0, help="share that is damaged")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    archive = llmzip.compress(rng.randbytes(options.bytes))
    started = time.perf_counter()
    writer = RecoveryWriter(options.percent)
    writer.add(archive)
    whole = archive + b"".join(writer.finish())
    print(
        f"{len(archive):,} bytes of archive, {len(whole) - len(archive):,} of recovery data "
        f"({(len(whole) - len(archive)) / len(archive):.1%}), made in {time.perf_counter() - started:.2f} s"
    )
    share = int(len(whole) * options.percent / 100)
    mended: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    seconds = 0.0
    for trial in range(options.trials):
        damage = DAMAGES[trial % len(DAMAGES)]
        data = bytearray(whole)
        damage(data, share, rng)
        tried[damage.__name__] += 1
        out = io.BytesIO()
        started = time.perf_counter()
        try:
            repair(bytes(data), out)
            mended[damage.__name__] += out.getvalue() == whole
        except LLMZipError as error:
            print(f"trial {trial}, {damage.__name__}: {error}")
        seconds += time.perf_counter() - started
    for damage in DAMAGES:
        name = damage.__name__
        print(f"{name:<16} {mended[name]:>6,} of {tried[name]:>6,} mended   {damage.__doc__}")
    print(f"all              {mended.total():>6,} of {tried.total():>6,}, {seconds / options.trials:.2f} s each")


if __name__ == "__main__":
    main()
