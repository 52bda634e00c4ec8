"""Round trip and sizes of many files, beside other compressors; `make bench CORPUS=DIR`. Uses only the public API.

Each file is compressed, decompressed and compared; a row that did not come back equal stops the run. Results go to
OUTPUT/results.jsonl as they come, so a run that was stopped goes on where it was, and to OUTPUT/results.md at the end.
Sizes of the others: gzip -9, bzip2 -9, xz -9e, zstd -19 and --ultra -22, brotli -q 11 with a 16 MiB window, as
libraries; xz and zstd with the headers of their file formats.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import importlib.metadata
import json
import lzma
import platform
import resource
import sys
from pathlib import Path

import brotli
import zstandard

import llmzip
from llmzip.codec import compress_stream, decompress_stream
from llmzip.report import CharacterCounter
from llmzip.settings import CompressSettings, DecompressSettings

_PEERS = {
    "gzip -9": lambda data: gzip.compress(data, 9, mtime=0),
    "bzip2 -9": lambda data: bz2.compress(data, 9),
    "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    "zstd -19": lambda data: zstandard.compress(data, 19),
    "zstd --ultra -22": lambda data: zstandard.compress(data, 22),
    "brotli -q 11": lambda data: brotli.compress(data, quality=11, lgwin=24),
}


def measure(path: Path, level: int, model: str) -> dict[str, object]:
    """One verified round trip of a file, and the sizes of the others.

    Raises:
        SystemExit: the file did not come back equal.
    """
    data = path.read_bytes()
    packed, unpacked = Path(f"{path.name}.bench.llmz"), Path(f"{path.name}.bench.out")
    try:
        with path.open("rb") as source, packed.open("wb") as sink:
            report = compress_stream(source, sink, CompressSettings(level=level, model=model))
        archive = packed.read_bytes()
        with packed.open("rb") as source, unpacked.open("wb") as sink:
            back = decompress_stream(source, sink, DecompressSettings())
        if unpacked.read_bytes() != data:
            raise SystemExit(f"{path}: the round trip FAILED")
    finally:
        packed.unlink(missing_ok=True)
        unpacked.unlink(missing_ok=True)
    characters = CharacterCounter()
    characters.add(data)
    bound = [frame.bound_bits for frame in report.frames if frame.bound_bits is not None]
    return {
        "file": path.name,
        "folder": path.parent.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "characters": characters.finish(),
        "level": level,
        "model": model,
        "llmzip_bytes": len(archive),
        "archive_sha256": hashlib.sha256(archive).hexdigest(),
        "methods": sorted({frame.method for frame in report.frames}),
        "bound_bits": sum(bound) if len(bound) == len(report.frames) else None,
        "compress_seconds": report.elapsed_seconds,
        "decompress_seconds": back.elapsed_seconds,
        "peers_bytes": {name: len(compress(data)) for name, compress in _PEERS.items()},
    }


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    packages = ("torch", "constriction", "numpy", "tokenizers", "zstandard", "brotli")
    return {
        "llmzip": llmzip.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: sizes in bytes, bits per byte, speed in KB/s of original bytes (KB = 1,000 bytes)."""
    names = list(_PEERS)
    lines = [
        "| file | bytes | "
        + " | ".join(names)
        + " | llmzip | bits/byte | compress KB/s | decompress KB/s | within bound |",
        "|---" * (len(names) + 7) + "|",
    ]
    for row in rows:
        size, mine, peers = row["bytes"], row["llmzip_bytes"], row["peers_bytes"]
        limit = min(peers["xz -9e"], peers["zstd -19"]) * 1.001 + 16
        lines.append(
            f"| {row['folder']}/{row['file']} | {size:,} | "
            + " | ".join(f"{peers[name]:,}" for name in names)
            + f" | {mine:,} | {8 * mine / size if size else 0:.3f} | {size / row['compress_seconds'] / 1000:.1f} | "
            f"{size / row['decompress_seconds'] / 1000:.1f} | {'yes' if mine <= limit else 'NO'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit code 1 if a file came out larger than allowed: min(xz -9e, zstd -19) + 0.1 % + 16 bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, nargs="+", help="files, or folders that are searched")
    parser.add_argument("--level", type=int, default=6)
    parser.add_argument("--model", default="default", help="an embedded model's name")
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    parser.add_argument("--most-bytes", type=int, default=None, help="leave out larger files")
    args = parser.parse_args()
    files = [file for root in args.corpus for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    files = [f for f in files if f.is_file() and (args.most_bytes is None or f.stat().st_size <= args.most_bytes)]
    args.output.mkdir(parents=True, exist_ok=True)
    log = args.output / "results.jsonl"
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["sha256"], row["level"], row["model"], row["file"]): row for row in known}
    llmzip.decompress(llmzip.compress(b"The model is loaded before the first measurement.", model=args.model))
    rows = []
    for file in sorted(files, key=lambda path: path.stat().st_size):
        key = (hashlib.sha256(file.read_bytes()).hexdigest(), args.level, args.model, file.name)
        row = done.get(key)
        if row is None:
            row = measure(file, args.level, args.model)
            with log.open("a") as sink:
                sink.write(json.dumps(row) + "\n")
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    (args.output / "results.md").write_text(table(rows))
    (args.output / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n")
    limit = [
        r
        for r in rows
        if r["llmzip_bytes"] > min(r["peers_bytes"]["xz -9e"], r["peers_bytes"]["zstd -19"]) * 1.001 + 16
    ]
    for row in limit:
        print(f"{row['file']}: larger than allowed", file=sys.stderr)
    return 1 if limit else 0


if __name__ == "__main__":
    sys.exit(main())
