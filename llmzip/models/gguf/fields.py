"""Typed access to the metadata of a GGUF file; must not know what its fields mean."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ModelUnsupportedError
from .reader import Array, GgufFile

_MAX_LISTED = 1 << 16


class Fields:
    """The fields of a file's architecture: `get("block_count")` is the metadata's llama.block_count.

    Args:
        file: whose metadata they are.

    Attributes:
        file: the same.
        architecture: name of the architecture; "" if there is none.
    """

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture", ""))

    def full(self, name: str) -> str:
        """Returns the name of a field as the metadata have it."""
        return f"{self.architecture}.{name}"

    def get(self, name: str) -> Any:
        """Returns a field as it is, None if it is missing."""
        return self.file.metadata.get(self.full(name))

    def integer(self, name: str, default: int | None = None) -> int:
        """Returns a field that is an integer of 0 or more.

        Args:
            name: of the field.
            default: value if it is missing; None if it must not be.

        Raises:
            ModelUnsupportedError: it is missing, or something else.
        """
        return self._integer(self.get(name), name, default)

    def same(self, name: str, default: int | None = None) -> int:
        """Returns an integer that the metadata may list for each layer, if it is the same for all."""
        values = self.listed(name)
        if values is None:
            return self.integer(name, default)
        if len(set(values)) != 1:
            raise ModelUnsupportedError(f"layers of different shapes are not supported ({self.full(name)})")
        return self._integer(values[0], name, None)

    def number(self, name: str, default: float | None = None) -> float:
        """Returns a field that is a finite number; arguments and errors are those of `integer`."""
        value = self.get(name)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self._misstated(name, value)
        return float(value)

    def listed(self, name: str) -> list[Any] | None:
        """Returns a field that is an array; None if it is missing or something else."""
        value = self.get(name)
        if not isinstance(value, Array):
            return None
        if value.count > _MAX_LISTED:
            raise ModelUnsupportedError(f"the field {self.full(name)} lists {value.count:,} values")
        return value.values()

    def _integer(self, value: Any, name: str, default: int | None) -> int:
        if value is None and default is not None:
            return default
        if type(value) is not int or value < 0:
            raise self._misstated(name, value)
        return value

    def _misstated(self, name: str, value: Any) -> ModelUnsupportedError:
        if value is None:
            return ModelUnsupportedError(f"its metadata lack {self.full(name)}")
        return ModelUnsupportedError(f"its metadata misstate {self.full(name)}: {str(value)[:50]}")
