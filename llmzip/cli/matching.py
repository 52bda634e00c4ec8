"""Patterns of `llmzip grep`: which lines match, and where. Knows no files, archives or options of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..errors import SettingsError

_FLAGS = re.compile(r"\(\?[aiLmsux]+\)")
"""Flags at the beginning of a pattern, which must stay there whatever is put around it."""


class Matcher:
    """Matches lines with regular expressions of Python's `re`, of which any may match.

    Lines are text without their line feed. Bytes that are not valid UTF-8 are the characters of `surrogateescape`, in
    lines as in patterns.

    Args:
        patterns: expressions; a line feed in one separates two.
        fixed: whether they are plain strings instead.
        ignore_case: whether upper and lower case are the same.
        whole_words: whether a match must not touch another word character on either side.
        whole_lines: whether a match must be the whole line.

    Raises:
        SettingsError: a pattern is not a regular expression.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        *,
        fixed: bool = False,
        ignore_case: bool = False,
        whole_words: bool = False,
        whole_lines: bool = False,
    ) -> None:
        flags = re.IGNORECASE if ignore_case else 0
        texts = dict.fromkeys(text for pattern in patterns for text in pattern.split("\n"))
        wraps = (r"\A(?:", r")\Z") if whole_lines else (r"(?<!\w)(?:", r")(?!\w)") if whole_words else None
        self._expressions = [_compiled(re.escape(text) if fixed else text, wraps, flags) for text in texts]
        self._only = self._expressions[0].search if len(self._expressions) == 1 else None

    def matches(self, line: str) -> bool:
        """Whether any pattern matches somewhere in a line."""
        if self._only is not None:
            return self._only(line) is not None
        return any(expression.search(line) for expression in self._expressions)

    def spans(self, line: str) -> Iterator[tuple[int, int]]:
        """Yields where a line matches, from its beginning on: of each place the longest match, none of them empty."""
        place = 0
        while place < len(line):
            found = [match.span() for expression in self._expressions if (match := _next(expression, line, place))]
            if not found:
                return
            begin = min(begin for begin, _ in found)
            place = max(end for first, end in found if first == begin)
            yield begin, place


def _compiled(text: str, wraps: tuple[str, str] | None, flags: int) -> re.Pattern[str]:
    """Compiles a pattern, put between two others.

    Raises:
        SettingsError: it is not a regular expression.
    """
    try:
        compiled = re.compile(text, flags)  # alone first: the message must be about what was typed
        if wraps is None:
            return compiled
        head = match.group() if (match := _FLAGS.match(text)) else ""
        # A comment of a verbose pattern must not swallow what follows.
        end = "\n" if compiled.flags & re.VERBOSE else ""
        return re.compile(head + wraps[0] + text[len(head) :] + end + wraps[1], flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise SettingsError(f"{text!r} is not a regular expression of Python's re: {error}") from None


def _next(expression: re.Pattern[str], line: str, place: int) -> re.Match[str] | None:
    """Returns the next match from a place on that is not empty."""
    while place <= len(line) and (match := expression.search(line, place)) is not None:
        if match.end() > match.start():
            return match
        place = match.end() + 1
    return None
