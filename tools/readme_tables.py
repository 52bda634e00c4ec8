"""Rewrites the tables of results from what `llmzip bench` measured; `make readme-tables`.

    python tools/readme_tables.py bench-results/results.json [README.md [docs/benchmarks.md]]

README.md gets a row for each compressor, docs/benchmarks.md all files and all columns. Only what is between the two
markers changes. Exit status 1, and nothing is written, if a row failed or is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from llmzip.bench.report import COLUMNS, cells
from llmzip.bench.results import LLMZIP, OK, Row, totals
from llmzip.bench.units import number_text

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
PROSE = (
    "book1", "book2", "paper1", "paper2", "paper3", "paper4", "paper5", "paper6",
    "alice29.txt", "asyoulik.txt", "lcet10.txt", "plrabn12.txt",
)  # fmt: skip
PROSE_NAME = "the twelve above"
NOT_SHOWN = ("zstd -19",)  # next to --ultra -22, which is never larger by more than a few bytes
SHORT_COLUMNS = ("bytes", "ratio", "bits/byte", "compress", "decompress")
"""Columns of the table in README.md."""


def base_name(row: Row) -> str:
    """Returns the name of a row's file without its folder."""
    return row.file.rpartition("/")[2]


def short(label: str) -> str:
    """Returns a label without the flags that only set the window size."""
    return re.sub(r" --(long|lgwin)=\d+", "", label)


def size_table(rows: list[Row]) -> list[str]:
    """Returns the table of bytes by file: prose first, with its sum; the smallest size of each file in bold.

    The last column has the bits/byte of the first llmzip.
    """
    names = [name for name in dict.fromkeys(row.name for row in rows) if name not in NOT_SHOWN]
    lead = next(row.name for row in rows if row.via == LLMZIP)
    by_file: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_file.setdefault(row.file, {})[row.name] = row
    order = {name: place for place, name in enumerate(PROSE)}
    files = sorted(by_file, key=lambda file: order.get(base_name(next(iter(by_file[file].values()))), len(order)))
    lines = [
        "| file | bytes | " + " | ".join(map(short, names)) + " | bits/byte |",
        "|---|---:|" + "---:|" * (len(names) + 1),
    ]

    def line(name: str, group: list[dict[str, Row]]) -> str:
        original = sum(row[lead].original_bytes for row in group)
        sizes = [sum(row[n].compressed_bytes or 0 for row in group) for n in names]
        marked = [f"**{size:,}**" if size == min(sizes) else f"{size:,}" for size in sizes]
        bits = 8 * sum(row[lead].compressed_bytes or 0 for row in group) / original if original else None
        return f"| {name} | {original:,} | " + " | ".join(marked) + f" | {number_text(bits, 3)} |"

    prose = [by_file[file] for file in files if base_name(by_file[file][lead]) in PROSE]
    for place, file in enumerate(files):
        lines.append(line(base_name(by_file[file][lead]), [by_file[file]]))
        if place + 1 == len(prose) == len(PROSE):
            lines.append(line(PROSE_NAME, prose))
    return [*lines, line(f"all {len(files)}", [by_file[file] for file in files])]


def total_table(rows: list[Row]) -> list[str]:
    """Returns the table of all files together: sizes with and without the model, speeds, memory."""
    sums = totals(rows)
    heading = f"all {sums[0].of_files} files"
    lines = [f"| {heading} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    return [*lines, *(f"| {total.name} | " + " | ".join(cells(total)) + " |" for total in sums)]


def short_table(rows: list[Row]) -> list[str]:
    """Returns the table of README.md: a row for each compressor over all files."""
    places = [COLUMNS.index(name) for name in SHORT_COLUMNS]
    sums = [total for total in totals(rows) if total.name not in NOT_SHOWN]
    lines = [f"| all {sums[0].of_files} files | " + " | ".join(SHORT_COLUMNS) + " |", "|---|" + "---:|" * len(places)]
    for total in sums:
        values = cells(total)
        lines.append(f"| {short(total.name)} | " + " | ".join(values[place] for place in places) + " |")
    return lines


def blocks(facts: dict[str, Any]) -> tuple[str, str]:
    """Returns what belongs between the markers of README.md and of docs/benchmarks.md.

    Raises:
        ValueError: a row has no figures, or no row is llmzip's.
    """
    rows = [Row.from_dict(row) for row in facts["rows"] if row["piece_bytes"] is None]
    problems = [f"{row.file}: {row.name}: {row.error}" for row in rows if row.status != OK]
    problems += [f"{problem['file']}: {problem['error']}" for problem in facts["problems"]]
    problems += [f"{total.name}: not of all files" for total in totals(rows) if not total.is_complete]
    if problems or not any(row.via == LLMZIP for row in rows):
        raise ValueError("; ".join(problems) or "no row is llmzip's")
    machine = facts["run"]["machine"]
    commit = f", commit {machine['commit'][:12]}" if machine.get("commit") else ""
    versions = ", ".join(dict.fromkeys(row.version for row in rows if row.via != LLMZIP))
    below = (
        f"Measured with llmzip {machine['llmzip']}{commit} on {machine['processor']}, {machine['cores']} cores, "
        f"Python {machine['python']}; {versions}."
    )
    return "\n".join(short_table(rows)), "\n".join([*size_table(rows), "", *total_table(rows), "", below])


def replaced(text: str, block: str) -> str:
    """Returns a document with `block` between its markers.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main() -> int:
    """Rewrites both documents, or neither."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results.json of llmzip bench --output")
    root = Path(__file__).parents[1]
    parser.add_argument("readme", type=Path, nargs="?", default=root / "README.md")
    parser.add_argument("document", type=Path, nargs="?", default=root / "docs" / "benchmarks.md")
    options = parser.parse_args()
    current = options.results
    try:
        written = blocks(json.loads(options.results.read_text(encoding="utf-8")))
        texts = {}
        for current, block in zip((options.readme, options.document), written, strict=True):
            texts[current] = replaced(current.read_text(encoding="utf-8"), block)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{current}: {error}", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
