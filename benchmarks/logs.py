"""Measures the example of docs/training.md: new logs with a model of old ones; `make bench-logs MODEL=DIR LOGS=DIR`.

Compresses every file of the given days, or pieces of it, with llmzip at its default level, with the trained model and
with the embedded one, with zstd -19 and a dictionary that `zstd --train` made from the training days, and with xz -9e.
Each llmzip archive is decoded and compared. There is a dictionary for each service, because the logs of one service
resemble each other, and one for all files; the smaller result counts. Prints a Markdown table; --output DIR also writes
logs.json.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

import llmzip

_DICTIONARY_BYTES = 112_640
"""The default size of zstd --train."""

_SAMPLE_BYTES = 4096


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="made by llmzip train")
    parser.add_argument("--train", nargs="+", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--test", nargs="+", type=Path, required=True, help="what to compress")
    parser.add_argument("--no-embedded", action="store_true", help="leave out the embedded model")
    parser.add_argument("--piece-bytes", type=int, help="compress pieces of this size, cut at ends of lines, not files")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    models = [("trained", args.model)] + ([] if args.no_embedded else [("embedded", "default")])
    everything = dictionary(args.train)
    heads = ["file", "bytes", "xz -9e", "zstd -19", "zstd -19 --train", *(f"llmzip, {name}" for name, _ in models)]
    print("| " + " | ".join(heads) + " | of zstd --train |\n|---|" + "---:|" * len(heads), flush=True)
    rows = []
    for path in args.test:
        data = path.read_bytes()
        service = path.stem.rsplit("-", 1)[-1]
        alike = [other for other in args.train if other.stem.endswith(f"-{service}")]
        dictionaries = [everything] + ([dictionary(alike)] if alike else [])
        row = {"file": path.name, "bytes": len(data)} | dict.fromkeys(("xz", "zstd", "zstd_train"), 0)
        for piece in pieces(data, args.piece_bytes or len(data)):
            row["xz"] += len(lzma.compress(piece, preset=9 | lzma.PRESET_EXTREME))
            row["zstd"] += len(zstandard.ZstdCompressor(level=19).compress(piece))
            row["zstd_train"] += min(
                len(zstandard.ZstdCompressor(level=19, dict_data=made).compress(piece)) for made in dictionaries
            )
            for name, model in models:
                archive = llmzip.compress(piece, model=model)
                if llmzip.decompress(archive, model=None if model == "default" else model) != piece:
                    raise SystemExit(f"{path}: an archive does not decode to the text")
                row[name] = row.get(name, 0) + len(archive)
        rows.append(row)
        print(line(row, [name for name, _ in models]), flush=True)
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "file"} | {"file": "all"}
    print(line(total, [name for name, _ in models]))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "logs.json").write_text(json.dumps([*rows, total], indent=2) + "\n", encoding="utf-8")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cuts data into parts of at most `size` bytes, at ends of lines where possible."""
    start = 0
    while start < len(data):
        end = min(start + size, len(data))
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        yield data[start:end]
        start = end


def dictionary(paths: Sequence[Path]) -> zstandard.ZstdCompressionDict:
    """Returns the dictionary that zstd --train -B4096 makes from files."""
    samples = [
        data[start : start + _SAMPLE_BYTES]
        for path in paths
        for data in [path.read_bytes()]
        for start in range(0, len(data), _SAMPLE_BYTES)
    ]
    return zstandard.train_dictionary(_DICTIONARY_BYTES, samples, level=19)


def line(row: dict[str, int | str], models: Sequence[str]) -> str:
    """Returns one line of the table."""
    keys = ("bytes", "xz", "zstd", "zstd_train", *models)
    share = int(row[models[0]]) / int(row["zstd_train"])
    return f"| {row['file']} | " + " | ".join(f"{row[key]:,}" for key in keys) + f" | {share:.2f} |"


if __name__ == "__main__":
    main()
