"""The chart of ratio against speed, and the look and labels of all charts. There is none without matplotlib."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .report import cut_text
from .results import LLMZIP, PROGRAM, Total
from .units import round_speed_text

_WIDTH_INCHES = 11.0
_ROW_INCHES = 4.4
_DPI = 150
_DIRECTIONS = ("compress", "decompress")
_COLOURS = {LLMZIP: "#c2410c", PROGRAM: "#7c3aed"}
_OTHERS, _TEXT, _TICKS, _FRAME, _GRID = "#1d4ed8", "#262626", "#525252", "#a3a3a3", "#e5e5e5"
_DARK = {
    _TEXT: "#e5e5e5",
    _TICKS: "#a3a3a3",
    _FRAME: "#737373",
    _GRID: "#404040",
    _OTHERS: "#60a5fa",
    _COLOURS[LLMZIP]: "#fb923c",
    _COLOURS[PROGRAM]: "#a78bfa",
}
"""Colours on a light screen -> colours on a dark screen."""

STYLE: Any = {
    "svg.hashsalt": "llmzip",
    "font.size": 9.5,
    "text.color": _TEXT,
    "axes.edgecolor": _FRAME,
    "axes.labelcolor": _TEXT,
}

_MARKERS = {LLMZIP: "D", PROGRAM: "s"}
_MAX_TICKS = 6
_LABEL_POINTS = 8.5  # size of the labels' font


def draw(totals: Sequence[Total], folder: Path) -> str | None:
    """Writes chart.png and chart.svg: a column for each direction, a row for whole files and for pieces.

    Returns:
        why there is no chart; None if there is one.

    Raises:
        OSError: a file cannot be written.
    """
    shown = [total for total in totals if total.figures()["compress_bytes_per_second"] and total.decompress_seconds]
    if not shown:
        return "no compressor has figures for all files"
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        return "matplotlib is not installed: pip install 'llmzip[bench]'"
    cuts = list(dict.fromkeys(total.piece_bytes for total in shown))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(_WIDTH_INCHES, 1 + _ROW_INCHES * len(cuts)), dpi=_DPI, layout=ConstrainedLayoutEngine(wspace=0.06)
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(cuts), 2, sharey=True, sharex="col", squeeze=False)
        jobs = [
            (axes, [total for total in shown if total.piece_bytes == cut], direction)
            for row, cut in zip(panels, cuts, strict=True)
            for axes, direction in zip(row, _DIRECTIONS, strict=True)
        ]
        for axes, chosen, direction in jobs:
            _points(axes, chosen, direction)
        for axes, direction in zip(panels[-1], _DIRECTIONS, strict=True):
            _scales(axes, shown, direction)
        for row, cut in zip(panels, cuts, strict=True):
            row[0].set_ylabel(f"ratio, original / compressed bytes\n{cut_text(cut)}")
        _legend(figure, shown)
        files, size = shown[0].of_files, max(total.original_bytes for total in shown)
        count = "1 file" if files == 1 else f"{files} files"
        figure.suptitle(f"Ratio against speed: {count}, {size:,} bytes, without model size", fontsize=12)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # nothing moves from here on, so labels stay where they fit
        for axes, chosen, direction in jobs:
            _labels(figure, axes, chosen, direction)
        figure.savefig(folder / "chart.png")
        figure.savefig(folder / "chart.svg", metadata={"Date": None})
    return None


def _place(total: Total, direction: str) -> tuple[float, float]:
    figures = total.figures()
    return figures[f"{direction}_bytes_per_second"], figures["ratio"]


def _short(total: Total) -> str:
    """Returns the label without details that no chart needs."""
    return re.sub(r" --\S+| \(program\)", "", total.name)


def _scales(axes: Any, totals: Sequence[Total], direction: str) -> None:
    """Sets the scale of the speeds, which a column of panels shares, and that of the ratios, which all share."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    places = [_place(total, direction) for total in totals]
    axes.set_xscale("log")
    lowest, highest = min(x for x, _ in places), max(x for x, _ in places)
    spread = max((highest / lowest) ** 0.12, 2.0)
    axes.set_xlim(lowest / spread, highest * spread**1.7)  # most labels are on the right
    ratios = [y for _, y in places]
    room = max(max(ratios) - min(ratios), 0.1) * 0.14
    axes.set_ylim(min(ratios) - room, max(ratios) + room)
    axes.xaxis.set_major_locator(FixedLocator(_round_speeds(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: round_speed_text(value)))
    axes.set_xlabel(f"{direction}ion speed, original bytes per second (1 KB = 1,000 bytes)")


def _round_speeds(left: float, right: float) -> list[float]:
    """Returns the speeds to mark on an axis: powers of ten, or 1, 2 and 5 times those where fewer than two fit."""
    decades = [10.0**power for power in range(-4, 13)]
    speeds = [decade for decade in decades if left <= decade <= right]
    if len(speeds) < 2:
        return [step * decade for decade in decades for step in (1, 2, 5) if left <= step * decade <= right]
    return speeds[:: -(-len(speeds) // _MAX_TICKS)]


def _points(axes: Any, totals: Sequence[Total], direction: str) -> None:
    """Draws markers, and lines through the levels of llmzip."""
    bare(axes)
    for line in _lines(totals):
        places = [_place(total, direction) for total in line]
        axes.plot(*zip(*places, strict=True), color=_COLOURS[LLMZIP], linewidth=1, alpha=0.5)
    for total in totals:
        colour = _COLOURS.get(total.via, _OTHERS)
        axes.plot(
            *_place(total, direction), marker=_MARKERS.get(total.via, "o"), markersize=7, color=colour, linestyle="none"
        )


def _lines(totals: Sequence[Total]) -> list[list[Total]]:
    """Returns the levels of llmzip that a line joins: those of one model."""
    groups: dict[str, list[Total]] = {}
    for total in totals:
        if total.via == LLMZIP:
            groups.setdefault(total.compressor.split()[-1], []).append(total)
    return [sorted(group, key=lambda total: total.compressor) for group in groups.values() if len(group) > 1]


def _legend(figure: Any, totals: Sequence[Total]) -> None:
    """Says what the markers mean, if there are several kinds."""
    from matplotlib.lines import Line2D

    names = {LLMZIP: "llmzip, levels of a model joined" if _lines(totals) else "llmzip", PROGRAM: "programs"}
    handles = [
        Line2D(
            [], [], marker=_MARKERS.get(via, "o"), color=_COLOURS.get(via, _OTHERS), linestyle="none",
            label=names.get(via, "libraries"),
        )
        for via in dict.fromkeys(total.via for total in totals)
    ]  # fmt: skip
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def bare(axes: Any) -> None:
    """Gives a panel its look: a light grid, no frame."""
    axes.grid(True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, colors=_TICKS)


def for_light_and_dark(svg: str) -> str:
    """Returns a picture that has brighter colours on dark screens; it should have no background."""
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    head, end, rest = svg.partition("</style>")
    return f"{head}@media (prefers-color-scheme: dark){{{rules}}}{end}{rest}"


def write_svg(
    figure: Any, panels: Sequence[tuple[Any, Sequence[Label], Sequence[Sequence[Point]]]], file: Path
) -> None:
    """Labels the panels of a finished figure, and writes it for light and dark screens.

    Args:
        figure: the figure, complete but for its labels.
        panels: axes of the figure, each with its labels and the points that lines join, as `place_labels` takes them.
        file: the file to write; replaced if it exists.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")  # nothing moves from here on, so labels stay where they fit
    for axes, labels, joined in panels:
        place_labels(figure, axes, labels, joined)
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    file.write_text(for_light_and_dark(svg.getvalue()), encoding="utf-8")


# -- labels ----------------------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]
Point = tuple[float, float]


class Label(NamedTuple):
    """A text next to a point of the data."""

    point: Point
    text: str
    colour: str


def _labels(figure: Any, axes: Any, totals: Sequence[Total], direction: str) -> None:
    """Places the names of the compressors."""
    labels = [Label(_place(total, direction), _short(total), _COLOURS.get(total.via, _OTHERS)) for total in totals]
    place_labels(figure, axes, labels, [[_place(total, direction) for total in line] for line in _lines(totals)])


def place_labels(figure: Any, axes: Any, labels: Sequence[Label], joined: Sequence[Sequence[Point]]) -> None:
    """Puts each label as near to its point as possible without covering another label, a marker or a line.

    Args:
        figure, axes: drawn, with a layout that no longer changes.
        labels: labels with points in data coordinates, each of which has a marker.
        joined: points that lines join, line by line.
    """
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 72

    def place(point: Point) -> Point:
        x, y = axes.transData.transform(point)
        return float(x), float(y)

    points = [place(label.point) for label in labels]
    boxes: list[Box] = [(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in points]
    lines: list[Point] = []
    for line in joined:
        for first, second in itertools.pairwise(line):
            lines += _between(place(first), place(second))
    frame = axes.get_window_extent(renderer)
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    for label, point in sorted(zip(labels, points, strict=True), key=lambda pair: (-pair[1][1], pair[1][0])):
        text = axes.text(0, 0, label.text, fontsize=_LABEL_POINTS, transform=None)
        extent = text.get_window_extent(renderer)
        text.remove()
        candidates = _candidates(point, extent.width, extent.height, scale)
        box, distance = min(candidates, key=lambda c: _cost(c[0], c[1], point, boxes, lines, inside))
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        boxes.append((box[0] - 3 * scale, box[1], box[2] + 3 * scale, box[3]))
        leader = None
        if distance > 1:
            leader = {"arrowstyle": "-", "color": _FRAME, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 5}
            lines += _between(point, middle)
        axes.annotate(
            label.text, xy=label.point, textcoords="offset points", ha="center", va="center",
            xytext=((middle[0] - point[0]) / scale, (middle[1] - point[1]) / scale),
            fontsize=_LABEL_POINTS, color=label.colour, arrowprops=leader,
        )  # fmt: skip


def _between(first: Point, second: Point) -> list[Point]:
    """Returns points along a line."""
    steps = [number / 20 for number in range(1, 20)]
    return [(first[0] + s * (second[0] - first[0]), first[1] + s * (second[1] - first[1])) for s in steps]


def _candidates(point: Point, width: float, height: float, scale: float) -> list[tuple[Box, int]]:
    """Returns boxes around a point, and how far out they are."""
    boxes = []
    for distance in range(1, 8):
        gap = (3 + 6 * distance) * scale
        for side, rise in ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            left = point[0] + side * (gap + width / 2) * (1 if rise == 0 else 0.9) - width / 2
            bottom = point[1] + rise * (gap + height / 2) - height / 2
            boxes.append(((left, bottom, left + width, bottom + height), distance))
    return boxes


def _cost(box: Box, distance: int, point: Point, boxes: Sequence[Box], lines: Sequence[Point], inside: Box) -> float:
    """Returns how bad a place is: what it covers, what its leader crosses, how far out it is."""
    left, bottom, right, top = box
    covered = sum(
        max(0.0, min(right, other[2]) - max(left, other[0])) * max(0.0, min(top, other[3]) - max(bottom, other[1]))
        for other in boxes
    )
    outside = max(0.0, inside[0] - left, right - inside[2]) + max(0.0, inside[1] - bottom, top - inside[3])
    crossed = sum(left < x < right and bottom < y < top for x, y in lines)
    if distance > 1:
        leader = _between(point, ((left + right) / 2, (bottom + top) / 2))
        others = [box for box in boxes if not (box[0] < point[0] < box[2] and box[1] < point[1] < box[3])]
        crossed += sum(other[0] < x < other[2] and other[1] < y < other[3] for x, y in leader for other in others)
    return 100 * covered + 1000 * outside + 20 * crossed + distance
