"""Stored speeds, and which speeds have fallen, for speed.py. Must not import llmzip or torch.

A speed is stored as its ratio to the speed of a fixed loop on the same machine at the same time, because the load of
other programs slows both. Machines differ in more than such a loop shows, so each kind has its own ratios.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

LOSS = 0.2
"""Fraction of a stored ratio by which a speed may fall short of it."""

Ratios = dict[str, float]


def machine_kind(processor: str, instructions: str, threads: int) -> str:
    """Returns the properties that machines with comparable ratios share."""
    return f"{' '.join(processor.split())}, {instructions}, {threads} thread{'s' * (threads != 1)}"


def name_of(model: str, level: int, text: bytes, direction: str) -> str:
    """Returns the name of a measurement, which depends on the text's content."""
    return f"{model} -{level}, {len(text):,} bytes ({hashlib.sha256(text).hexdigest()[:8]}), {direction}"


def compare(stored: Mapping[str, Ratios], kind: str, found: Ratios, loss: float = LOSS) -> tuple[list[str], list[str]]:
    """Finds speeds that have fallen.

    Args:
        stored: kind of machine -> name -> ratio.
        kind: the kind of this machine.
        found: the ratios of this run.
        loss: the fraction of a stored ratio that may be lost.

    Returns:
        a line for each regression, and a line for each measurement that could not be compared.
    """
    known = stored.get(kind)
    if known is None:
        return [], [f"no ratio is stored for this kind of machine ({kind}): nothing is compared; --update stores them"]
    slower, unknown = [], []
    for name, ratio in found.items():
        before = known.get(name)
        if before is None:
            unknown.append(f"no ratio is stored for {name}")
        elif ratio < (1 - loss) * before:
            slower.append(
                f"REGRESSION: {name}: {ratio:.3g} bytes per round of the fixed loop, stored {before:.3g}: "
                f"{100 * (1 - ratio / before):.0f} % less, {100 * loss:.0f} % are allowed"
            )
    return slower, unknown


def updated(stored: Mapping[str, Ratios], kind: str, found: Ratios) -> dict[str, Ratios]:
    """Returns what to store after a run: other kinds of machines and other measurements stay."""
    merged = {**stored.get(kind, {}), **{name: float(f"{ratio:.4g}") for name, ratio in found.items()}}
    return {**stored, kind: dict(sorted(merged.items()))}


def read(path: Path) -> dict[str, Ratios]:
    """Reads the stored ratios; returns {} if there is no such file.

    Raises:
        ValueError: the file does not hold ratios.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    for ratios in stored.values() if isinstance(stored, dict) else [None]:
        if not isinstance(ratios, dict) or not all(type(r) in (int, float) and r > 0 for r in ratios.values()):
            raise ValueError(f"{path} holds no ratios of speeds")
    return {str(kind): ratios for kind, ratios in stored.items()}


def write(path: Path, stored: Mapping[str, Ratios]) -> None:
    """Stores ratios in a fixed order, so that changes make small diffs."""
    path.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n", encoding="utf-8")
