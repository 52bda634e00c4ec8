"""Writes the tables that llmzip/numerics/stored.py reads: `python tools/make_tables.py`. They never change."""

from __future__ import annotations

from llmzip.mixing import tables as mixing_tables
from llmzip.numerics import stored, tables


def main() -> None:
    """Computes and writes each table."""
    assert tables and mixing_tables  # importing them registers the tables
    stored.FOLDER.mkdir(exist_ok=True)
    for name, make in stored.TABLES.items():
        (stored.FOLDER / f"{name}.bin").write_bytes(make().astype("<i4").tobytes())


if __name__ == "__main__":
    main()
