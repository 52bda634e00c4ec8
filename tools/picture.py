"""Draws the picture at the top of README.md from the table there; `make picture`.

    python tools/picture.py [README.md] [--output docs]

Writes size-light.svg and size-dark.svg: a bar for each compressor, with its size and both speeds. Measures nothing, and
equal tables give equal files.
"""

from __future__ import annotations

import argparse
import re
import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
THEMES = {
    "light": {"text": "#262626", "muted": "#525252", "bar": "#94a3b8", "llmzip": "#c2410c"},
    "dark": {"text": "#e5e5e5", "muted": "#a3a3a3", "bar": "#64748b", "llmzip": "#fb923c"},
}
WIDTH, ROW_HEIGHT, BAR_HEIGHT, TOP = 860, 34, 20, 72
NAME_X, BAR_X, MAX_BAR_WIDTH, COMPRESS_X, DECOMPRESS_X = 138, 150, 350, 705, 845
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


class Bar(NamedTuple):
    """One compressor: its name, bytes of all files together, and speeds as the table writes them."""

    name: str
    size: int
    compress: str
    decompress: str


def recorded(text: str) -> tuple[int, list[Bar]]:
    """Reads the table between the markers of README.md.

    Returns:
        The number of files that were compressed, and the bars, largest first.

    Raises:
        ValueError: there is no such table.
    """
    table = text.partition("<!-- results: begin -->")[2].partition("<!-- results: end -->")[0]
    heading = re.search(r"^\| all (\d+) files \|", table, re.MULTILINE)
    rows = re.findall(r"^\| (\w.*?) \| ([\d,]+) \| [\d.]+ \| [\d.]+ \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    if heading is None or not rows:
        raise ValueError("no table of results")
    bars = [Bar(name, int(size.replace(",", "")), compress, decompress) for name, size, compress, decompress in rows]
    return int(heading[1]), sorted(bars, key=lambda bar: -bar.size)


def svg(num_files: int, bars: list[Bar], theme: str) -> str:
    """Returns the picture in the colours of a theme."""
    colours = THEMES[theme]
    height = TOP + ROW_HEIGHT * len(bars) + 6
    largest = max(bar.size for bar in bars)
    title = f"{num_files} text files of the Calgary and Canterbury corpora: compressed bytes"

    def text(x: float, y: float, words: str, colour: str, rest: str = "") -> str:
        return f'<text x="{x:g}" y="{y:g}" fill="{colours[colour]}"{rest}>{escape(words)}</text>'

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="{FONT}" font-size="14">',
        f"<title>{escape(title)}</title>",
        text(BAR_X, 24, title, "text", ' font-size="15" font-weight="600"'),
        text(COMPRESS_X, 52, "compress", "muted", ' text-anchor="end"'),
        text(DECOMPRESS_X, 52, "decompress", "muted", ' text-anchor="end"'),
    ]
    for number, bar in enumerate(bars):
        y = TOP + ROW_HEIGHT * number
        kind, weight = ("llmzip", ' font-weight="700"') if bar.name.startswith("llmzip") else ("bar", "")
        width = MAX_BAR_WIDTH * bar.size / largest
        baseline = y + 15
        lines += [
            text(NAME_X, baseline, bar.name, "text", f' text-anchor="end"{weight}'),
            f'<rect x="{BAR_X}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="2" fill="{colours[kind]}"/>',
            text(BAR_X + round(width) + 8, baseline, f"{bar.size:,}", "text", weight),
            text(COMPRESS_X, baseline, bar.compress, "muted", ' text-anchor="end"'),
            text(DECOMPRESS_X, baseline, bar.decompress, "muted", ' text-anchor="end"'),
        ]
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readme", type=Path, nargs="?", default=ROOT / "README.md")
    parser.add_argument("--output", metavar="DIR", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    try:
        num_files, bars = recorded(options.readme.read_text(encoding="utf-8"))
        for theme in THEMES:
            (options.output / f"size-{theme}.svg").write_text(svg(num_files, bars, theme), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"{options.readme}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
