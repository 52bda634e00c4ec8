"""Measures sizes and speeds of the levels -1 to -9 for one or more models, as a table and a chart.

`make bench-levels TEXT=FILE` (2 models, 9 levels, each archive decoded and compared) takes a few minutes for 1 MB.
Times are the best of `--times` rounds over all levels, so that passing load slows all levels alike.
A level that another one beats, no larger and clearly faster in one direction, is named, and the exit status is 1.
`levels.py --redraw docs/speed.md` only draws docs/levels.svg from the table there.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

from speed import round_trip

from llmzip.bench import chart
from llmzip.inference import load
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, EngineSettings

_LEVELS = range(1, 10)
_COLOURS = {"base": "#c2410c", "small": "#1d4ed8"}
_OTHER = "#525252"

_NOISE = 0.05
"""Part by which a level must be faster to beat another: best times of one machine differ by as much."""


def measure(text: bytes, model: str, times: int, levels: list[int]) -> list[dict[str, Any]]:
    """Sizes and the best times of all levels."""
    load.load(choose_model(model), EngineSettings())
    round_trip(text[:3000], CompressSettings(model=model))
    best = dict.fromkeys(levels, (math.inf, math.inf))
    sizes = {}
    for _ in range(times):
        for level in levels:
            sizes[level], *seconds = round_trip(text, CompressSettings(level=level, model=model))
            best[level] = (min(best[level][0], seconds[0]), min(best[level][1], seconds[1]))
    return [
        {"model": model, "level": level, "bytes": len(text), "archive_bytes": sizes[level],
         "encode_seconds": best[level][0], "decode_seconds": best[level][1]}
        for level in levels
    ]  # fmt: skip


def beaten(rows: list[dict[str, Any]]) -> list[str]:
    """Says which levels of a model lack a place of their own: another one is no larger, and faster one way."""
    lines = []
    for row in rows:
        for other in rows:
            for way in ("encode", "decode"):
                if (
                    other["model"] == row["model"]
                    and other["level"] != row["level"]
                    and other["archive_bytes"] <= row["archive_bytes"]
                    and other[f"{way}_seconds"] < (1 - _NOISE) * row[f"{way}_seconds"]
                ):
                    lines.append(
                        f"{row['model']} -{row['level']}: -{other['level']} is no larger, and {way}s in "
                        f"{other[f'{way}_seconds']:.2f} instead of {row[f'{way}_seconds']:.2f} s"
                    )
    return lines


def recorded(document: Path) -> list[dict[str, Any]]:
    """Reads the rows of the table of levels in docs/speed.md, or in the results of an earlier run."""
    text = document.read_text(encoding="utf-8")
    if document.suffix == ".json":
        return list(json.loads(text))
    found = re.findall(r"^\| (-\d) \| [\d,]+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    size = 300_000  # of the text there
    return [
        {"model": "base", "level": -int(level), "bytes": size, "archive_bytes": float(bits) * size / 8,
         "encode_seconds": size / float(encode) / 1e3, "decode_seconds": size / float(decode) / 1e3}
        for level, bits, encode, decode in found
    ]  # fmt: skip


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Draws bits per byte against speed, a line for each model, as SVG for light and dark screens."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    models = list(dict.fromkeys(row["model"] for row in rows))
    with matplotlib.rc_context(chart.STYLE):
        figure = Figure(figsize=(9.0, 4.2), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharey=True)
        jobs = []
        for axes, (way, word) in zip(panels, (("encode", "compressing"), ("decode", "decompressing")), strict=True):
            chart.bare(axes)
            labels, lines = [], []
            for model in models:
                own = [row for row in rows if row["model"] == model]
                places = [(row["bytes"] / row[f"{way}_seconds"] / 1e3, 8 * row["archive_bytes"] / row["bytes"])
                          for row in own]  # fmt: skip
                colour = _COLOURS.get(model, _OTHER)
                axes.plot(*zip(*places, strict=True), color=colour, linewidth=1, alpha=0.5)
                axes.plot(*zip(*places, strict=True), color=colour, marker="D", markersize=6, linestyle="none")
                name = f" {model}" if len(models) > 1 else ""
                labels += [chart.Label(place, f"-{row['level']}{name}", colour)
                           for row, place in zip(own, places, strict=True)]  # fmt: skip
                lines.append(places)
            axes.set_xscale("log")
            speeds = [label.point[0] for label in labels]
            low, high = min(speeds) / 1.25, max(speeds) * 1.25
            axes.set_xlim(low, high)
            ticks = [
                digit * 10**power for power in range(7) for digit in (1, 2, 3, 5, 7) if low <= digit * 10**power <= high
            ]
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.set_xlabel(f"{word}, KB/s (1 KB = 1,000 bytes)")
            jobs.append((axes, labels, lines))
        panels[0].margins(y=0.12)
        panels[0].set_ylabel("bits per byte")
        size = max(row["bytes"] for row in rows)
        figure.suptitle(f"Levels of {' and '.join(models)}: size against speed, {size:,} bytes of prose", fontsize=12)
        chart.write_svg(figure, jobs, file)


def main() -> int:
    """Prints the table, writes the results and the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", default=["base", "small"])
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of the text, at most")
    parser.add_argument("--levels", type=int, nargs="+", default=list(_LEVELS))
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    parser.add_argument("--redraw", metavar="FILE", type=Path, help="draw levels.svg beside FILE from what it records")
    args = parser.parse_args()
    if args.redraw is not None:
        draw(recorded(args.redraw), args.redraw.with_name("levels.svg"))
        return 0
    if args.text is None:
        parser.error("which text?")
    text = args.text.read_bytes()[: args.bytes]
    rows: list[dict[str, Any]] = []
    print("| model | level | bits/byte | encode KB/s | decode KB/s |\n|---|---:|---:|---:|---:|")
    for model in args.models:
        found = measure(text, model, args.times, args.levels)
        rows += found
        for row in found:
            print(
                f"| {model} | -{row['level']} | {8 * row['archive_bytes'] / len(text):.3f} | "
                f"{len(text) / row['encode_seconds'] / 1e3:.1f} | {len(text) / row['decode_seconds'] / 1e3:.1f} |",
                flush=True,
            )
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "levels.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(rows, args.output / "levels.svg")
    for line in (lines := beaten(rows)):
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
