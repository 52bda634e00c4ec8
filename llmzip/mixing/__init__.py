"""Masses and statistics to binary decisions (the mixer), decisions and intervals to bytes (the range coder)."""

from __future__ import annotations

from collections.abc import Callable

on_compiling: Callable[[], None] | None = None
"""Called before the mixer is compiled, which takes long and happens once; the command line tells the user.

None again as soon as it is known whether there is machine code.
"""
