"""What each level costs and brings: sizes and speeds of -1 to -9 for some models, as a table and a chart.

`make bench-levels TEXT=FILE` (2 models, 9 levels, each archive decoded and compared; some minutes for 1 MB). Times are
the best of `--times` rounds over all levels: a machine that is busy for a while slows no level more than others.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from speed import round_trip

from llmzip import models, runtime
from llmzip.settings import CompressSettings, EngineSettings

_LEVELS = range(1, 10)
_COLOURS = {"base": "#c2410c", "small": "#1d4ed8"}
_OTHER = "#525252"


def measure(text: bytes, model: str, times: int, levels: list[int]) -> list[dict[str, Any]]:
    """Sizes and the best times of all levels."""
    runtime.load(models.choose(model), EngineSettings())
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


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """Bits per byte against speed, a line for each model."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "llmzip", "font.size": 9.5}):
        figure = Figure(figsize=(9.0, 3.8), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, way in zip(panels, ("encode", "decode"), strict=True):
            for model in dict.fromkeys(row["model"] for row in rows):
                own = [row for row in rows if row["model"] == model]
                speed = [row["bytes"] / row[f"{way}_seconds"] / 1e3 for row in own]
                bits = [8 * row["archive_bytes"] / row["bytes"] for row in own]
                axes.plot(speed, bits, "o-", color=_COLOURS.get(model, _OTHER), label=model, markersize=4, linewidth=1)
                for row, x, y in zip(own, speed, bits, strict=True):
                    axes.annotate(f"-{row['level']}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
            axes.set_xlabel(f"{way[:-1]}ing, KB/s")
            axes.set_xscale("log")
            axes.grid(color="#e5e5e5")
            axes.set_axisbelow(True)
        panels[0].set_ylabel("bits per byte")
        panels[0].legend(frameon=False)
        figure.savefig(file, metadata={"Date": None})


def main() -> int:
    """Prints the table, writes the results and the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--models", nargs="+", default=["base", "small"])
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of the text, at most")
    parser.add_argument("--levels", type=int, nargs="+", default=list(_LEVELS))
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    args = parser.parse_args()
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
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
