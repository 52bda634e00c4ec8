"""Rewrites a weight file in the newest version: `python tools/rewrite_weights.py llmzip/embedded/*/model.llmzw`.

The model stays the same: its digest is compared before the file is replaced.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmzip.models.int8form import load_int8, save_int8
from llmzip.models.layout import INT8


def rewrite(path: Path) -> tuple[int, int]:
    """Rewrites a file that is named model.llmzw; returns its size before and after, in bytes."""
    if path.name != INT8:
        raise SystemExit(f"{path}: not named {INT8}")
    before, model = path.stat().st_size, load_int8(path)
    save_int8(model, path.parent)
    if load_int8(path).digest() != model.digest():
        raise SystemExit(f"{path}: the digest has changed")
    return before, path.stat().st_size


def main() -> None:
    """Rewrites the files that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="model.llmzw of any version")
    for path in parser.parse_args().files:
        before, after = rewrite(path)
        print(f"{path}: {before:,} bytes before, {after:,} now")


if __name__ == "__main__":
    main()
