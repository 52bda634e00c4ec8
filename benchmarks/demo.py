"""`make demo`: compresses a text with llmzip and back, next to gzip, bzip2, xz and zstd. Uses only the public API."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import time
from pathlib import Path

import zstandard

import llmzip


def main() -> int:
    """Prints the table; returns exit status 1 if a text does not come back unchanged."""
    path = Path(sys.argv[1])
    text = path.read_bytes()
    characters = len(text.decode("utf-8"))
    print(
        f"{path}: {len(text):,} bytes, {characters:,} characters; compressing with the embedded model ...", flush=True
    )
    llmzip.decompress(llmzip.compress(b"The model is loaded once."))
    start = time.perf_counter()
    archive = llmzip.compress(text)
    middle = time.perf_counter()
    back = llmzip.decompress(archive)
    end = time.perf_counter()
    if back != text:
        print("the round trip FAILED", file=sys.stderr)
        return 1
    sizes = {
        "gzip -9": len(gzip.compress(text, 9)),
        "bzip2 -9": len(bz2.compress(text, 9)),
        "zstd --ultra -22": len(zstandard.compress(text, 22)),
        "xz -9e": len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)),
        "llmzip": len(archive),
    }
    print(f"{'':18}{'bytes':>9}{'ratio':>8}{'bits/byte':>11}{'bits/char':>11}")
    for name, size in sizes.items():
        bits = 8 * size
        print(f"{name:18}{size:9,}{len(text) / size:8.2f}{bits / len(text):11.3f}{bits / characters:11.3f}")
    print(
        f"decompressed and compared: equal. Compressed at {len(text) / (middle - start) / 1000:.1f} KB/s, "
        f"decompressed at {len(text) / (end - middle) / 1000:.1f} KB/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
