"""What the system reports about its processor; must not know what it is asked for."""

from __future__ import annotations

import platform

_CPUINFO = "/proc/cpuinfo"

_MAX_CPUINFO_BYTES = 1 << 16
"""More than any processor has; the first one is enough."""


def facts() -> dict[str, str]:
    """Returns what Linux reports of the first processor, as names and values; {} on other systems."""
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as file:
            first = file.read(_MAX_CPUINFO_BYTES).partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def name() -> str:
    """Returns the processor's name as its maker gives it, or what Python knows of it, which may be nothing."""
    return facts().get("model name") or platform.processor()


def instructions() -> set[str]:
    """Returns the instruction sets that the processor has, as Linux names them; empty on other systems."""
    known = facts()
    return set(known.get("flags", known.get("Features", "")).split())
