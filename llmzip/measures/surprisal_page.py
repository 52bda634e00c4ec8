"""The page of surprisal: a scored text as one HTML file; must not know models, files or how anything is measured.

The page needs no network and may contain any text. Each line is a `div` whose `p` has an `i` for each unit; a byte that
is not part of a visible character is in a `u` as hexadecimal digits, and an empty `s` precedes each newline. What is
shown of a token under the pointer is kept in arrays. The page's policy names its own script and style by their digests,
so that no other one would run even if the escaping of the text were wrong.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .surprisal import Lines, Units, lines_of, profile
from .surprisal_style import BAR_STEPS, LEVELS, script, style

if TYPE_CHECKING:
    import numpy as np

    from .scoring import Scores

MAX_BYTES = 1_000_000
MAX_TOKENS = 300_000
"""The page shows the beginning of a text that is longer than either of the two."""

_SCALE = 1024
"""The page has bits in multiples of 1/1024."""

_ROW_UNITS = 2000
"""Units of a row: longer lines become several rows, which browsers draw when they come into view."""

_PICTURE_PARTS = 300
_PICTURE_HEIGHT = 64
"""Height of the picture of the whole text in pixels."""

_MAX_WORD_CHARS = 60
_JOINERS = "\u200c\u200d"
_SIGNS = {" ": "\u2423", "\n": "\u21b5", "\t": "\u2192"}


@dataclass(frozen=True)
class Subject:
    """The text and the model that a page is about.

    Attributes:
        name: name of the text.
        model: name of the model.
        vocabulary: the bytes of each id.
        characters: number of characters in the text; None if it is not valid UTF-8.
        coded_bits: bits that a coder would need for the text.
        context: what predictions are made from, in words.
    """

    name: str
    model: str
    vocabulary: list[bytes]
    characters: int | None
    coded_bits: float
    context: str


def page(subject: Subject, units: Units, scores: Scores) -> Iterator[bytes]:
    """Yields the page in parts.

    Args:
        subject: the text and the model.
        units: the text in units.
        scores: the text's scores, with ranks and alternatives.
    """
    shown = _shown(units)
    end = int(units.ends[shown - 1])
    part = Units(units.data[:end], units.bits[:shown], units.ends[:shown], units.token_ends[:shown])
    title = _escaped(_word(subject.name.encode("utf-8", "surrogateescape"), spaces=True))
    yield _HEAD.format(policy=_policy(), title=title, style=style()).encode()
    yield _summary(title, subject, units, scores, shown).encode("utf-8", "replace")
    for row in _rows(part):
        yield row.encode()
    yield b"</div>\n</main>\n"
    yield _FOOT.encode()
    yield f'<script type="application/json" id="data">{_payload(subject, part, scores)}</script>\n'.encode()
    yield f"<script>{script()}</script>\n</body>\n</html>\n".encode()


def _shown(units: Units) -> int:
    """Returns how many units the page shows."""
    import numpy as np  # not before it is needed: --help must be quick

    by_bytes = np.searchsorted(units.ends, MAX_BYTES, side="right")
    by_tokens = np.searchsorted(units.token_ends, MAX_TOKENS, side="right")
    return max(1, int(min(by_bytes, by_tokens)))


# -- text ------------------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """Escapes text for HTML, quotation marks included."""
    return html.escape(text, quote=True)


def _is_visible(character: str) -> bool:
    """Checks whether a character can be seen, or only changes how its neighbours look, as it should."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def marked(raw: bytes) -> str:
    """Turns bytes into HTML that shows all of them, as hexadecimal digits where they cannot be seen.

    That also keeps out of the page what HTML itself would change, such as carriage returns, and what would reorder it,
    such as the marks of writing direction.
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return _escaped(text)
    parts = []
    for character in text:
        if character == "\n":
            parts.append("<s></s>\n")
        elif character == "\t" or _is_visible(character):
            parts.append(_escaped(character))
        else:
            parts.append(f"<u>{character.encode('utf-8', 'surrogateescape').hex().upper()}</u>")
    return "".join(parts)


def _word(raw: bytes, spaces: bool = False) -> str:
    """Turns a token into plain text with signs for what cannot be seen; a long one is cut unless it may have spaces."""
    parts = []
    for character in raw.decode("utf-8", "surrogateescape"):
        if character in _SIGNS:
            parts.append(character if spaces and character == " " else _SIGNS[character])
        elif _is_visible(character):
            parts.append(character)
        else:
            code = character.encode("utf-8", "surrogateescape").hex().upper()
            parts.append(f"\u27e8{code}\u27e9")
    text = "".join(parts)
    if not text:
        return "\u27e8\u27e9"
    return text if spaces or len(parts) <= _MAX_WORD_CHARS else "".join(parts[:_MAX_WORD_CHARS]) + "\u2026"


# -- what comes before the text --------------------------------------------------------------------------------------


def _summary(title: str, subject: Subject, units: Units, scores: Scores, shown: int) -> str:
    """Writes the totals, the picture of the whole text, the legend and the heads of the columns."""
    bits, size, tokens = float(units.bits.sum()), len(units.data), len(scores.tokens)
    figures = [
        ("bits per byte", f"{bits / size:.4f}", ""),
        ("bits per character", "\u2013" if not subject.characters else f"{bits / subject.characters:.4f}", ""),
        ("bits per token", f"{bits / tokens:.4f}", ""),
        ("tokens", f"{tokens:,}", ""),
        ("bytes", f"{size:,}", "" if subject.characters is None else f"{subject.characters:,} characters"),
        ("total bits", f"{bits:,.0f}", f"{subject.coded_bits / 8:,.0f} bytes, {subject.coded_bits / 8 / size:.1%}"),
    ]
    cards = "".join(
        f"<div><dt>{name}</dt><dd>{value}{f' <small>{more}</small>' if more else ''}</dd></div>"
        for name, value, more in figures
    )
    end = int(units.ends[shown - 1])
    note = "" if end == size else _NOTE.format(end=f"{end:,}", size=f"{size:,}")
    model = _escaped(_word(subject.model.encode("utf-8", "surrogateescape"), spaces=True))
    return _SUMMARY.format(
        title=title,
        about=f"Model {model}, context {subject.context}",
        cards=cards,
        picture=_picture(units),
        legend=_legend(),
        note=note,
    )


def _picture(units: Units) -> str:
    """Draws bits per byte along the text, as SVG."""
    heights = profile(units, _PICTURE_PARTS)
    top = max(float(heights.max()), 1e-9)
    steps = "".join(f"V{_PICTURE_HEIGHT * (1 - height / top):.1f}h1" for height in heights.tolist())
    return (
        f'<figcaption>Bits per byte along the text, 0 to {top:.1f}; click to go there</figcaption><svg id="along" '
        f'data-bytes="{len(units.data)}" viewBox="0 0 {len(heights)} {_PICTURE_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="Bits per byte along the text"><path d="M0 {_PICTURE_HEIGHT}{steps}'
        f'V{_PICTURE_HEIGHT}z"/></svg>'
    )


def _legend() -> str:
    """Writes the legend: the range of bits of each colour."""
    edges = [f"{edge:g}" for edge in LEVELS]
    names = [f"under {edges[0]}"] + [f"{low}\u2013{high}" for low, high in itertools.pairwise(edges)]
    return "".join(f'<li class="c{n}">{name}</li>' for n, name in enumerate([*names, f"{edges[-1]} and more"]))


# -- the text --------------------------------------------------------------------------------------------------------


def _rows(units: Units) -> Iterator[str]:
    """Yields each line as a row, long ones as several."""
    import numpy as np

    lines = lines_of(units)
    edges = np.union1d(units.ends, lines.ends)  # a unit may be in several lines
    begins = np.append(0, edges[:-1])
    unit = np.searchsorted(units.ends, begins, side="right")
    line = np.searchsorted(lines.ends, begins, side="right")
    colours = np.searchsorted(LEVELS, units.bits, side="right").tolist()
    row_starts = np.flatnonzero(np.diff(line, prepend=-1)).tolist()
    margins = _Margins(lines)
    data, places = units.data, begins.tolist()
    for first, last in zip(row_starts, [*row_starts[1:], len(edges)], strict=True):
        number = int(line[first])
        for start in range(first, last, _ROW_UNITS):
            stop = min(last, start + _ROW_UNITS)
            cells = [
                f'<i class="c{colours[n]}">{marked(data[a:b])}</i>'
                for n, a, b in zip(
                    unit[start:stop].tolist(), places[start:stop], edges[start:stop].tolist(), strict=True
                )
            ]
            margin = margins.of(number) if start == first else "<b></b><b></b><b></b>"
            where = f'data-u="{unit[start]}" data-b="{places[start]}"'
            yield f'<div class="row" {where}>{margin}<p>{"".join(cells)}</p></div>\n'


class _Margins:
    """The cells before each line: its number, its bits, and its bits per byte with a bar."""

    def __init__(self, lines: Lines) -> None:
        self._bits = lines.bits.tolist()
        self._sizes = (lines.ends - lines.begins).tolist()
        rates = (b / n for b, n in zip(self._bits, self._sizes, strict=True) if n >= 8)
        self._max_rate = max(rates, default=0.0) or 8.0

    def of(self, number: int) -> str:
        """Returns the three cells of a line."""
        bits, size = self._bits[number], self._sizes[number]
        if not bits:  # nothing begins here, such as in a line that ends a run of newlines
            return f"<b>{number + 1}</b><b></b><b></b>"
        width = min(BAR_STEPS, round(BAR_STEPS * bits / size / self._max_rate))
        return f'<b>{number + 1}</b><b>{bits:.1f}</b><b class="w{width}">{bits / size:.2f}</b>'


# -- what is shown of a token ----------------------------------------------------------------------------------------


def _payload(subject: Subject, units: Units, scores: Scores) -> str:
    """Packs ids, bits, ranks and alternatives of the tokens as JSON that cannot end the element it is in."""
    import numpy as np

    if scores.ranks is None or scores.alternatives is None or scores.alternative_bits is None:
        raise ValueError("the page needs ranks and alternatives")
    count = int(units.token_ends[-1])
    likely = scores.alternatives[:count]
    used, places = np.unique(np.concatenate([scores.tokens[:count], likely.ravel()]), return_inverse=True)
    places = places.ravel()

    def parts_of_bits(bits: np.ndarray) -> np.ndarray:
        whole: np.ndarray = np.minimum(np.rint(bits * _SCALE), 65535).astype(np.int64)
        return whole

    facts: dict[str, Any] = {
        "scale": _SCALE,
        "alternatives": likely.shape[1],
        "vocabulary": len(subject.vocabulary),
        "words": [_word(subject.vocabulary[token]) for token in used.tolist()],
        "ids": _column(places[:count]),
        "bits": _column(parts_of_bits(scores.model_bits[:count])),
        "ranks": _column(scores.ranks[:count]),
        "likely": _column(places[count:]),
        "likelyBits": _column(parts_of_bits(scores.alternative_bits[:count].ravel())),
        "sizes": _column(np.diff(units.token_ends, prepend=0)),
    }
    text = json.dumps(facts, separators=(",", ":"))
    for character in "<>&":  # inside of strings only
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _column(values: np.ndarray) -> list[int | str]:
    """Packs numbers as their width in bytes and base64 of little-endian integers."""
    largest = int(values.max(initial=0))
    width = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    return [width, base64.b64encode(values.astype(f"<u{width}").tobytes()).decode("ascii")]


# -- the frame -------------------------------------------------------------------------------------------------------


def _policy() -> str:
    """Returns the page's content security policy, which allows its own style and script alone."""
    sources = f"script-src {_digest(script())}; style-src {_digest(style())}"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    """Names a style or script by its digest, as policies do."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} \u2013 where the bits go</title>
<style>{style}</style>
</head>
<body>
"""

_SUMMARY = """<header>
<h1>{title}</h1>
<p class="about">{about}</p>
<dl>{cards}</dl>
<figure>{picture}</figure>
<figure><figcaption>Bits of each token: n bits are a probability of 1 in 2<sup>n</sup></figcaption>\
<ul class="legend">{legend}</ul></figure>
{note}</header>
<main>
<div class="head"><span>line</span><span>bits</span><span>bits/byte</span><span>text</span></div>
<div id="rows">
"""

_NOTE = """<p class="note">The text below is the first {end} of {size} bytes. The totals and the picture are for the \
whole text.</p>
"""

_FOOT = """<footer>Point at a token to see its bits, its probability, its rank and the tokens that the model thought \
likelier. A token that is in several lines counts in the one that it begins in. Small boxes show bytes that are not \
visible characters, in hexadecimal.</footer>
<div id="tip" hidden></div>
"""
