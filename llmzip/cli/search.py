"""The search of `llmzip grep` through one text: what is printed of it. Knows no files, archives or options."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .matching import Matcher

_PIECE_BYTES = 1 << 20
"""Text that is decoded and cut into lines at once, 1 MiB."""

_MATCH, _NAME, _NUMBER, _SEPARATOR = "01;31", "35", "32", "36"
"""Colours, as grep has them: bold red, magenta, green, cyan."""


class Show(enum.Enum):
    """What is printed of a text."""

    LINES = "lines"
    MATCHES = "matches"
    COUNT = "count"
    NAMES = "names of texts with a selected line"
    OTHER_NAMES = "names of texts without one"
    NOTHING = "nothing"


class Binary(enum.Enum):
    """What is done with a text that has a NUL byte."""

    SAY = "say that it matches"
    TEXT = "print its lines all the same"
    SKIP = "nothing in it matches"


@dataclass
class Style:
    """How results are printed; one for all texts of a run.

    Attributes:
        show: what is printed.
        binary: what is done with a text that has a NUL byte.
        names: whether the name of the text is before each line.
        numbers: whether the number of the line is.
        null: whether a NUL byte ends a name instead of what follows it otherwise.
        coloured: whether matches, names and numbers are coloured.
        inverted: whether the lines that do not match are selected.
        max_count: number of selected lines of a text after which the search ends; None for no limit.
        before, after: lines of context.
        separated: whether lines that do not follow each other are separated, even if there is no context.
        has_printed: whether lines were printed before, so that a separator comes first.
    """

    show: Show = Show.LINES
    binary: Binary = Binary.SAY
    names: bool = False
    numbers: bool = False
    null: bool = False
    coloured: bool = False
    inverted: bool = False
    max_count: int | None = None
    before: int = 0
    after: int = 0
    separated: bool = False
    has_printed: bool = field(default=False, init=False)


class Search:
    """The search through one text, which arrives in pieces.

    Args:
        matcher: the patterns.
        style: how results are printed.
        name: name of the text, as it is printed.
        write: takes what is printed.

    Attributes:
        num_selected: number of lines selected so far.
        is_over: whether the rest of the text changes nothing any more.
    """

    def __init__(self, matcher: Matcher, style: Style, name: bytes, write: Callable[[bytes], object]) -> None:
        self._matcher, self._style, self._write = matcher, style, write
        self._name = name
        self._number = 0  # of the last line
        self._last_printed = -1  # of this text: none, so that even the first line of it follows no other
        self._after_left = 0
        self._before: deque[tuple[int, str]] = deque(maxlen=style.before)
        self._rest: list[bytes] = []  # the line that has not ended yet
        self._printed: list[bytes] = []
        self._is_binary = False
        self.num_selected = 0
        self.is_over = style.max_count == 0

    def add(self, data: bytes) -> None:
        """Searches the next piece of the text, and prints what it has found."""
        for begin in range(0, len(data), _PIECE_BYTES):
            piece = data[begin : begin + _PIECE_BYTES]
            self._note_binary(piece)
            if self.is_over:
                return
            end = piece.rfind(b"\n")
            if end >= 0:
                lines = b"".join([*self._rest, piece[:end]])
                self._rest = [piece[end + 1 :]]
                self._lines(lines)
            else:
                self._rest.append(piece)

    def finish(self) -> None:
        """Ends the text: searches its last line if that has no line feed, and prints counts and names."""
        if not self.is_over and (last := b"".join(self._rest)):
            self._lines(last)
        style = self._style
        if style.show is Show.COUNT:
            name = self._named(b"\0" if style.null else self._separator(b":")) if style.names else b""
            self._write(name + b"%d\n" % self.num_selected)
        elif style.show in (Show.NAMES, Show.OTHER_NAMES) and (self.num_selected > 0) == (style.show is Show.NAMES):
            self._write(self._named(b"\0" if style.null else b"\n"))

    def _note_binary(self, piece: bytes) -> None:
        """Looks for what makes a text binary, in all of the piece before its first line."""
        if self._style.binary is not Binary.TEXT and not self._is_binary and b"\0" in piece:
            self._is_binary = True
            self.is_over = self._style.binary is Binary.SKIP

    # -- lines

    def _lines(self, data: bytes) -> None:
        """Searches whole lines."""
        style, matches = self._style, self._matcher.matches
        is_limited = style.max_count is not None
        for line in data.decode("utf-8", "surrogateescape").split("\n"):
            self._number += 1
            if matches(line) != style.inverted and not (is_limited and self._is_enough):
                self._selected(line)
            elif self._after_left:
                self._after_left -= 1
                self._line(self._number, line, b"-")
            elif style.before:
                self._before.append((self._number, line))
            if self.is_over or (is_limited and self._is_enough and not self._after_left):
                self.is_over = True
                break
        if self._printed:
            self._write(b"".join(self._printed))
            self._printed.clear()

    @property
    def _is_enough(self) -> bool:
        """Whether no further line is selected."""
        return self._style.max_count is not None and self.num_selected >= self._style.max_count

    def _selected(self, line: str) -> None:
        style = self._style
        self.num_selected += 1
        if style.show is Show.COUNT:
            return
        if style.show not in (Show.LINES, Show.MATCHES):
            self.is_over = True
            return
        if self._is_binary:
            self._printed.append(b"Binary file " + self._name + b" matches\n")
            self.is_over = True
            return
        for number, before in self._before:
            self._line(number, before, b"-")
        self._before.clear()
        self._line(self._number, line, b":")
        self._after_left = style.after

    def _line(self, number: int, line: str, separator: bytes) -> None:
        """Prints a line, selected or of the context; where only matches are printed, each on a line of its own."""
        style = self._style
        if style.separated and style.has_printed and number != self._last_printed + 1:
            self._printed.append(self._separator(b"--") + b"\n")
        style.has_printed, self._last_printed = True, number
        is_match = separator == b":" and not style.inverted
        if style.show is Show.MATCHES:
            parts = [line[begin:end] for begin, end in self._matcher.spans(line)] if is_match else []
            texts = [self._coloured(_encoded(part), _MATCH) for part in parts]
        else:
            texts = [self._marked(line) if is_match and style.coloured else _encoded(line)]
        place = self._place(number, separator)
        self._printed += [place + text + b"\n" for text in texts]

    def _marked(self, line: str) -> bytes:
        """Returns a line whose matches are coloured."""
        parts, place = [], 0
        for begin, end in self._matcher.spans(line):
            parts += [_encoded(line[place:begin]), self._coloured(_encoded(line[begin:end]), _MATCH)]
            place = end
        return b"".join([*parts, _encoded(line[place:])])

    # -- what is before a line

    def _place(self, number: int, separator: bytes) -> bytes:
        """Returns the name and the number before a line, as far as they are wanted."""
        style, mark = self._style, self._separator(separator)
        name = self._named(b"\0" if style.null else mark) if style.names else b""
        return name + (self._coloured(b"%d" % number, _NUMBER) + mark if style.numbers else b"")

    def _named(self, end: bytes) -> bytes:
        return self._coloured(self._name, _NAME) + end

    def _separator(self, text: bytes) -> bytes:
        return self._coloured(text, _SEPARATOR)

    def _coloured(self, text: bytes, colour: str) -> bytes:
        return b"\x1b[%bm%b\x1b[m" % (colour.encode("ascii"), text) if self._style.coloured else text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
