"""What the tests with real models share: the model files and some texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORPORA = Path(__file__).resolve().parents[2] / "corpora"


def corpus(name: str, size: int, begin: int = 0) -> bytes:
    """Some bytes of a file of corpora/."""
    data = (CORPORA / name).read_bytes()[begin : begin + size]
    assert len(data) == size
    return data


@dataclass(frozen=True)
class RealModel:
    """A GGUF file.

    Attributes:
        name: a short name.
        path: of the file.
    """

    name: str
    path: Path

    def __str__(self) -> str:
        return str(self.path)
