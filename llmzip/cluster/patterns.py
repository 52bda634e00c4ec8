"""Patterns of names with *, ?, [] and **, matched one folder at a time, so that no listing is held as a whole."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

_MAGIC = re.compile(r"[*?\[]")


def has_magic(text: str) -> bool:
    """Whether a text has characters that a pattern gives a meaning to."""
    return _MAGIC.search(text) is not None


@dataclass(frozen=True)
class Match:
    """What a name below a folder is to a pattern.

    Attributes:
        is_whole: whether the pattern ends with this name.
        states: where in the pattern names below this one may continue; nothing below matches if it is empty.
    """

    is_whole: bool
    states: frozenset[int]


class Pattern:
    """A pattern of several parts. As in shells, * matches no leading dot, and no part of it crosses a "/".

    Args:
        parts: the pattern's parts between "/"; ** stands for any number of folders, at the end for all files below.
    """

    def __init__(self, parts: list[str]) -> None:
        self._parts = [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]
        self._matchers = [re.compile(fnmatch.translate(part)) for part in self._parts]

    @property
    def start(self) -> frozenset[int]:
        """The states of names right in the folder where the pattern begins."""
        return frozenset({0})

    @property
    def is_open(self) -> bool:
        """Whether the pattern ends in a wildcard, and so says nothing about what the names end in."""
        return self._parts[-1][-1] in "*?]"

    def match(self, states: frozenset[int], name: str, *, is_folder: bool) -> Match:
        """Matches one name in a folder.

        Args:
            states: where in the pattern the folder's names are: `start`, or a `Match`'s.
            name: the name, without "/".
            is_folder: whether it is a folder's.
        """
        is_whole = False
        following: set[int] = set()
        last = len(self._parts) - 1
        for state in self._with_empty(states):
            part = self._parts[state]
            if part == "**":
                if not name.startswith("."):
                    following.add(state)
                    is_whole |= state == last and not is_folder
            elif self._matches(state, name):
                if state == last:
                    is_whole = True
                else:
                    following.add(state + 1)
        return Match(is_whole, frozenset(following))

    def _with_empty(self, states: frozenset[int]) -> set[int]:
        """Returns the states with those that are reached if ** stands for no folder."""
        last = len(self._parts) - 1
        return set(states) | {state + 1 for state in states if self._parts[state] == "**" and state < last}

    def _matches(self, state: int, name: str) -> bool:
        if name.startswith(".") and not self._parts[state].startswith("."):
            return False
        return self._matchers[state].match(name) is not None
