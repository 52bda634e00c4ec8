"""The plots of `llmzip entropy`: bits along a text, against the context, against the size of the model.

It must not know files, models or texts, only rows of figures. It imports matplotlib, which may be missing, when it
draws.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LLMZipError

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("png", "svg")
PARTS = 400
"""Number of parts of a text whose bits per byte make up its curve."""

_MAX_CURVES = 6
_MAX_NAME_CHARS = 40
_WIDTH_INCHES = 10.0
_PANEL_INCHES = 3.6
"""Height of a panel of a sweep."""

_CURVE_INCHES = 2.5
"""Height of a text's curve."""

_DPI = 150
_STYLE: Any = {"svg.hashsalt": "llmzip", "font.size": 9.5, "text.color": "#262626", "axes.edgecolor": "#a3a3a3"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_LINES = ("-", "--", ":")
_GRID_COLOUR = "#e5e5e5"
_MEAN_COLOUR = "#d55e00"


@dataclass(frozen=True)
class Row:
    """The bits of one text with one model and one context.

    Attributes:
        file: name of the text.
        model: name of the model.
        context: tokens that predictions are made from, at most.
        seen: the same in words: the context, or the whole text if that is shorter.
        parameters: number of the model's parameters.
        bits_per_byte: bits per byte of the whole text.
        num_bytes: size of the text.
        curve: (P,) float64, bits per byte of the text's parts, which are equally long.
    """

    file: str
    model: str
    context: int
    seen: str
    parameters: int
    bits_per_byte: float
    num_bytes: int
    curve: np.ndarray


def check_matplotlib() -> None:
    """Checks that matplotlib is installed, before anything takes long.

    Raises:
        LLMZipError: it is not; the message says how to install it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise LLMZipError("--plot needs matplotlib: pip install 'llmzip[bench]'")


def picture(rows: Sequence[Row], form: str) -> bytes:
    """Draws the plot and returns it as a file's bytes.

    Args:
        rows: at least one. With one model and one context each text has its curve; with several contexts there is a
            panel of bits against the context, with several models one of bits against their size.
        form: one of FORMATS.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sweeps: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.context):
        sweeps.setdefault((row.model, row.file), []).append(row)
    has_sweep = any(len(sweep) > 1 for sweep in sweeps.values())
    models = list(dict.fromkeys(row.model for row in rows))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(dpi=_DPI, layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
        FigureCanvasAgg(figure)
        if has_sweep or len(models) > 1:
            panels = has_sweep + (len(models) > 1)
            figure.set_size_inches(_WIDTH_INCHES, _PANEL_INCHES * panels)
            axes = list(figure.subplots(panels, 1, squeeze=False)[:, 0])
            if has_sweep:
                _against_context(axes.pop(0), sweeps)
            if len(models) > 1:
                _against_size(axes.pop(0), rows)
        else:
            shown = rows[:_MAX_CURVES]
            figure.set_size_inches(_WIDTH_INCHES, _CURVE_INCHES * len(shown) + 0.9 * (len(shown) == 1))
            for panel, row in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
                _along(panel, row)
            if len(rows) > len(shown):
                figure.suptitle(f"The first {len(shown)} of {len(rows)} texts")
        made = io.BytesIO()
        figure.savefig(made, format=form, metadata={"Date": None} if form == "svg" else None)
    return made.getvalue()


def _name(text: str) -> str:
    """Prepares a name for matplotlib: dollar signs do not begin formulas, and a long name is cut at its beginning."""
    text = "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")
    text = text if len(text) <= _MAX_NAME_CHARS else "\u2026" + text[-_MAX_NAME_CHARS:]
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins with it


def _bare(axes: Any) -> None:
    """Leaves of the frame only a light grid and the label of the vertical axis."""
    axes.grid(True, color=_GRID_COLOUR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, colors="#525252")
    axes.set_ylabel("bits per byte")


def _look(number: int) -> dict[str, Any]:
    """Returns colour, marker and line of a series; any two series differ in more than the colour."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
        "markersize": 5,
        "linewidth": 1.4,
    }


def _along(axes: Any, row: Row) -> None:
    """Draws bits per byte along a text, and their mean."""
    _bare(axes)
    parts = len(row.curve)
    edges = [row.num_bytes * n / parts for n in range(parts + 1)]
    axes.stairs(row.curve, edges, fill=True, color=_COLOURS[0], alpha=0.35, linewidth=0)
    axes.stairs(row.curve, edges, color=_COLOURS[0], linewidth=0.8, baseline=None)
    axes.axhline(
        row.bits_per_byte, color=_MEAN_COLOUR, linewidth=1.4, linestyle="--", label=f"mean {row.bits_per_byte:.3f}"
    )
    axes.set_xlim(0, row.num_bytes)
    axes.set_ylim(0, None)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(f"byte of the text; each step is {row.num_bytes / parts:,.0f} bytes")
    about = f"model {_name(row.model)}, context {row.seen}"
    axes.set_title(f"{_name(row.file)}: where the bits go, {about}", loc="left")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0)


def _against_context(axes: Any, sweeps: dict[tuple[str, str], list[Row]]) -> None:
    """Draws bits per byte against the context, a line for each model and text."""
    _bare(axes)
    files, models = {file for _, file in sweeps}, {model for model, _ in sweeps}
    for number, ((model, file), sweep) in enumerate(sweeps.items()):
        names = ([model] if len(models) > 1 else []) + ([file] if len(files) > 1 else [])
        bits = [row.bits_per_byte for row in sweep]
        axes.plot([row.context for row in sweep], bits, label=", ".join(map(_name, names)), **_look(number))
    axes.set_xscale("log", base=2)
    _ticks(axes, sorted({row.context for sweep in sweeps.values() for row in sweep}), "{:,}".format)
    axes.set_xlabel("context, tokens")
    about = f", {_name(next(iter(files)))}" if len(files) == 1 else ""
    axes.set_title(f"Bits against the context{about}", loc="left")
    _legend(axes, len(sweeps))


def _against_size(axes: Any, rows: Sequence[Row]) -> None:
    """Draws bits per byte against the number of parameters, each model with its longest context."""
    _bare(axes)
    best: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model = best.setdefault(row.file, {})
        if row.model not in by_model or row.context > by_model[row.model].context:
            by_model[row.model] = row
    sizes: dict[int, list[str]] = {}
    for number, (file, by_model) in enumerate(best.items()):
        line = sorted(by_model.values(), key=lambda row: row.parameters)
        bits = [row.bits_per_byte for row in line]
        axes.plot([row.parameters for row in line], bits, label=_name(file), **_look(number))
        for row in line:
            names = sizes.setdefault(row.parameters, [])
            if row.model not in names:
                names.append(row.model)
    axes.set_xscale("log")
    _ticks(axes, sorted(sizes), lambda size: f"{', '.join(map(_name, sizes[size]))}\n{_count(size)}")
    axes.margins(x=0.12)
    seen = {row.seen for by_model in best.values() for row in by_model.values()}
    axes.set_xlabel("parameters")
    about = f", context {seen.pop()}" if len(seen) == 1 else ", each with its longest context or the whole text"
    axes.set_title(f"Bits against the size of the model{about}", loc="left")
    _legend(axes, len(best))


def _ticks(axes: Any, places: list[int], name: Any) -> None:
    """Labels the horizontal axis at some places and nowhere else."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([name(place) for place in places]))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(axes: Any, count: int) -> None:
    """Adds a legend if there is more than one line."""
    if count > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)


def _count(number: int) -> str:
    """Writes a number of parameters in thousands, millions or billions."""
    for factor, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return str(number)
