"""Stored speeds and what has become slower, for speed.py; measures nothing and must not import llmzip or torch.

A speed is kept as its ratio to that of a fixed loop on the same machine at the same moment, which most of what other
programs take away leaves alone. Machines differ in more than such a loop shows, so each kind has its own ratios.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

LOSS = 0.2
"""The part of a stored ratio by which a speed may fall short of it."""

Ratios = dict[str, float]


def machine_kind(processor: str, instructions: str, threads: int) -> str:
    """What machines with comparable ratios have in common."""
    return f"{' '.join(processor.split())}, {instructions}, {threads} thread{'s' * (threads != 1)}"


def name_of(model: str, level: int, text: bytes, direction: str) -> str:
    """The name of a measurement; another text is another one."""
    return f"{model} -{level}, {len(text):,} bytes ({hashlib.sha256(text).hexdigest()[:8]}), {direction}"


def compare(stored: Mapping[str, Ratios], kind: str, found: Ratios, loss: float = LOSS) -> tuple[list[str], list[str]]:
    """What has become slower.

    Args:
        stored: kind of machine -> name -> ratio.
        kind: of this machine.
        found: ratios of this run.
        loss: that is allowed.

    Returns:
        a line for each regression, and a line for each thing that could not be compared.
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
    """What to store after a run; other kinds of machines and what was not measured stay."""
    merged = {**stored.get(kind, {}), **{name: float(f"{ratio:.4g}") for name, ratio in found.items()}}
    return {**stored, kind: dict(sorted(merged.items()))}


def read(path: Path) -> dict[str, Ratios]:
    """The stored ratios; none if there is no such file.

    Raises:
        ValueError: the file holds something else.
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
    """Stores ratios, in an order that makes small differences."""
    path.write_text(json.dumps(dict(sorted(stored.items())), indent=1) + "\n", encoding="utf-8")
