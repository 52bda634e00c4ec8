"""The look of the page of surprisal: its colours, its style (page.css) and its script (page.js), each read once.

The colours are one hue, from light to dark, or from dark to light on a dark screen, so that they can be told apart
by lightness alone; text has a contrast of at least 5 to 1 on each of them.
"""

from __future__ import annotations

import functools
from pathlib import Path

LEVELS = (0.5, 1.5, 3.0, 5.0, 7.5, 10.0, 13.0, 16.0)
"""Bits at which the next colour begins; there is one colour more."""

BAR_STEPS = 20
"""Widths of the bars next to the lines, not counting 0."""

_LIGHT = (
    ("#fefbfa", "#1c1917"), ("#fdece5", "#1c1917"), ("#fbdbcd", "#1c1917"), ("#f8c6b0", "#1c1917"),
    ("#f2aa8b", "#1c1917"), ("#e7885d", "#1c1917"), ("#af4803", "#ffffff"), ("#833401", "#ffffff"),
    ("#562001", "#ffffff"),
)  # fmt: skip
"""Background and text for each colour on a light screen, from few bits to many."""

_DARK = (
    ("#1e1916", "#f0ebe4"), ("#322318", "#f0ebe4"), ("#452d1c", "#f0ebe4"), ("#5b3922", "#f0ebe4"),
    ("#744624", "#f0ebe4"), ("#8e5224", "#f0ebe4"), ("#e0843e", "#1a1410"), ("#f6a56d", "#1a1410"),
    ("#fed0b2", "#1a1410"),
)  # fmt: skip
"""The same on a dark screen."""


@functools.cache
def style() -> str:
    """Returns the page's style sheet: page.css, with rules for the colours and the bars in place of two comments."""
    bars = "".join(f".w{n}{{background-size:{100 * n // BAR_STEPS}% 100%}}" for n in range(BAR_STEPS + 1))
    sheet = _read("page.css")
    sheet = sheet.replace("/* widths of the bars, light colours */", bars + _colour_rules(_LIGHT))
    return sheet.replace("/* dark colours */", _colour_rules(_DARK))


@functools.cache
def script() -> str:
    """Returns the page's script, page.js."""
    return _read("page.js")


def _read(name: str) -> str:
    """Reads a text file next to this module, with a newline before it."""
    return "\n" + Path(__file__).with_name(name).read_text(encoding="utf-8")


def _colour_rules(colours: tuple[tuple[str, str], ...]) -> str:
    """Writes the CSS rules for colours, class c0 being the one for the fewest bits."""
    return "".join(f".c{number}{{background:{back};color:{ink}}}" for number, (back, ink) in enumerate(colours))
