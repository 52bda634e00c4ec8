"""The header of a GGUF file: its metadata, and where its tensors are. Must not know what either means.

Every number is checked against the size of the file before anything is made from it, so that a file that lies costs
no memory. The format is that of ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import collections
import functools
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelNotFoundError, ModelUnsupportedError
from ..mishaps import mishap, reason
from . import quantised

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 16
"""Fields of metadata, and tensors, of one file."""
_MAX_NAME_BYTES = 1 << 16
_MAX_TEXT_BYTES = 16 << 20  # 16 MiB, of one string
_MAX_STRINGS = 1 << 22
"""Strings of one array: a vocabulary of 300,000 tokens may have a few million merges."""
_MAX_DIMENSIONS = 4
_MAX_SIZE = 1 << 31
"""Largest size of a dimension."""
_MAX_PARTS = 1 << 12
_UINT32, _STRING, _ARRAY, _BOOL = 4, 8, 9, 7
_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", _UINT32: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""Kind of value -> its format, little-endian."""
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True)
class Array:
    """An array of the metadata, left in the file until it is asked for.

    Attributes:
        kind: of its elements, a number of the format.
        count: number of elements.
        data: bytes of the elements.
    """

    kind: int
    count: int
    data: memoryview

    def values(self) -> list[Any]:
        """Returns the elements: numbers, booleans, or strings with what is not valid UTF-8 replaced."""
        if self.kind != _STRING:
            return list(np.frombuffer(self.data, "<" + _FORMATS[self.kind], self.count).tolist())
        texts, place = [], 0
        for _ in range(self.count):
            (length,) = struct.unpack_from("<Q", self.data, place)
            place += 8 + length
            texts.append(str(self.data[place - length : place], "utf-8", "replace"))
        return texts


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        shape: rows first, as PyTorch has it.
        kind: quantisation, a number of the format.
        data: (bytes,) uint8, mapped.
    """

    shape: tuple[int, ...]
    kind: int
    data: np.ndarray

    def values(self, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """Returns the tensor in float32.

        Args:
            rows: rows to return, of a tensor that has rows; None for all.
        """
        last = self.shape[-1]
        raw = self.data.reshape(-1, quantised.row_bytes(self.kind, last) or 1)
        if len(self.shape) == 1:
            flat = quantised.values(self.kind, raw).reshape(last)
            return flat if rows is None else flat[rows]
        if rows is None:
            return quantised.values(self.kind, raw).reshape(self.shape)
        return quantised.values(self.kind, raw[rows]).reshape(-1, *self.shape[1:])


@dataclass(frozen=True)
class GgufFile:
    """A GGUF model: one file, or several parts of which the first holds the metadata.

    Attributes:
        path: of the file, or of the first part.
        metadata: fields by name: numbers, booleans, strings and `Array`s.
        tensors: by name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    def quantisations(self) -> dict[str, int]:
        """Returns how many tensors have each quantisation, the most frequent one first."""
        counts = collections.Counter(quantised.shown(tensor.kind) for tensor in self.tensors.values())
        return dict(counts.most_common())


def open_gguf(path: Path) -> GgufFile:
    """Reads the header of a GGUF file and of its other parts; the same object while the files do not change.

    Raises:
        ModelNotFoundError: a part is missing.
        ModelUnsupportedError: not a GGUF file, a damaged one, or one of an unknown version or quantisation.
    """
    parts = part_files(path)
    missing = next((part for part in parts if not part.is_file()), None)
    if missing is not None:
        raise ModelNotFoundError(f"model {path}: its part {missing.name} is missing in {missing.parent}")
    return _open(tuple(parts), tuple(_stamp(part) for part in parts))


def part_files(path: Path) -> list[Path]:
    """Returns the files of a model by the name of its first part, NAME-00001-of-00003.gguf; else just the file.

    Raises:
        ModelUnsupportedError: the name is that of another part than the first.
    """
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    number, count = int(match["number"]), int(match["count"])
    names = [f"{match['stem']}-{n:05d}-of-{count:05d}{path.suffix}" for n in range(1, min(count, _MAX_PARTS) + 1)]
    if number != 1 and number <= len(names):
        raise ModelUnsupportedError(f"it is part {number} of {count}: name the first part, {names[0]}")
    return [path.with_name(name) for name in names] if 1 < count <= _MAX_PARTS else [path]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ModelUnsupportedError(f"it cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


@functools.lru_cache(maxsize=2)
def _open(parts: tuple[Path, ...], stamps: tuple[tuple[int, ...], ...]) -> GgufFile:
    del stamps  # only there so that changed files are read again
    metadata: Mapping[str, Any] = {}
    tensors: dict[str, Stored] = {}
    for number, part in enumerate(parts):
        shown = f"{part.name}: " if len(parts) > 1 else ""
        try:
            fields, stored = _Header(_mapped(part)).read()
        except ModelUnsupportedError as error:
            raise ModelUnsupportedError(f"{shown}{error}") from None
        count = fields.get("split.count", 1)
        if count not in (0, len(parts)) or (len(parts) > 1 and fields.get("split.no") != number):
            raise ModelUnsupportedError(f"{shown}it is one of {count} parts, unlike what its name says: rename it back")
        twice = next((name for name in stored if name in tensors), None)
        if twice is not None:
            raise ModelUnsupportedError(f"{shown}tensor {twice} is in several parts")
        metadata = metadata or fields
        tensors |= stored
    return GgufFile(parts[0], metadata, tensors)


def _mapped(path: Path) -> np.ndarray:
    """Maps a file into memory after a look at its first bytes."""
    if why := mishap(path):
        raise ModelUnsupportedError(f"it cannot be read: {why}")
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise ModelUnsupportedError(f"it cannot be read: {reason(path, error)}") from None
    if bytes(data[:4]) != MAGIC:
        hint = "; of a checkpoint name the folder" if path.suffix in (".safetensors", ".json", ".bin") else ""
        raise ModelUnsupportedError(f"it is not a GGUF file{hint}")
    return data


class _Header:
    """The parser of one file's header."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data
        self._view: memoryview = data.data
        self._place = len(MAGIC)

    def read(self) -> tuple[dict[str, Any], dict[str, Stored]]:
        """Returns metadata and tensors.

        Raises:
            ModelUnsupportedError: something that is wrong or not supported; names the first such thing.
        """
        version = self._number(_UINT32)
        if version not in _VERSIONS:
            if int.from_bytes(int(version).to_bytes(4, "little"), "big") in _VERSIONS:
                raise ModelUnsupportedError("a GGUF file in big-endian byte order is not supported")
            raise ModelUnsupportedError(f"GGUF version {version} is not supported, only {_VERSIONS[0]} and 3")
        num_tensors, num_fields = self._number(10), self._number(10)
        if max(num_tensors, num_fields) > _MAX_ENTRIES:
            raise ModelUnsupportedError(f"damaged: {num_tensors:,} tensors and {num_fields:,} fields in its header")
        metadata: dict[str, Any] = {}
        for _ in range(num_fields):
            name = self._text("a field's name", _MAX_NAME_BYTES)
            if name in metadata:
                raise ModelUnsupportedError(f"damaged: the field {name:.100} appears twice")
            metadata[name] = self._value(self._number(_UINT32), name)
        places = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise ModelUnsupportedError("damaged: general.alignment is out of range")
        begin = -(-self._place // alignment) * alignment
        tensors: dict[str, Stored] = {}
        left = len(self._data) - begin  # tensors that share bytes would take more memory than the file has
        for name, shape, kind, offset in places:
            if name in tensors:
                raise ModelUnsupportedError(f"damaged: tensor {name:.100} appears twice")
            size = self._tensor_bytes(name, shape, kind)
            if offset % alignment or begin + offset + size > len(self._data):
                raise ModelUnsupportedError(
                    f"tensor {name:.100} reaches beyond the end of the file: it is damaged, or the download incomplete"
                )
            left -= size
            if left < 0:
                raise ModelUnsupportedError(f"damaged: tensor {name:.100} overlaps others")
            tensors[name] = Stored(shape, kind, self._data[begin + offset : begin + offset + size])
        return metadata, tensors

    def _skip(self, count: int) -> int:
        """Returns the place of the next bytes, and moves on; refuses what is beyond the end of the file."""
        place = self._place
        if count > len(self._data) - place:
            raise ModelUnsupportedError("its header is cut off: it is damaged, or the download incomplete")
        self._place = place + count
        return place

    def _number(self, kind: int) -> Any:
        form = "<" + _FORMATS[kind]
        (value,) = struct.unpack_from(form, self._view, self._skip(struct.calcsize(form)))
        return value

    def _text(self, what: str, max_bytes: int) -> str:
        length = self._number(10)
        if length > max_bytes:
            raise ModelUnsupportedError(f"damaged: {what} of {length:,} bytes")
        place = self._skip(length)
        return str(self._view[place : place + length], "utf-8", "replace")

    def _value(self, kind: int, name: str) -> Any:
        if kind == _STRING:
            return self._text(f"the field {name:.100}", _MAX_TEXT_BYTES)
        if kind == _ARRAY:
            return self._array(name)
        if kind not in _FORMATS:
            raise ModelUnsupportedError(f"damaged: the field {name:.100} is of the unknown kind {kind}")
        return self._number(kind)

    def _array(self, name: str) -> Array:
        kind, count = self._number(_UINT32), self._number(10)
        begin = self._place
        if kind == _STRING:
            if count > _MAX_STRINGS:
                raise ModelUnsupportedError(f"damaged: the field {name:.100} has {count:,} strings")
            self._skip_strings(count)
        elif kind in _FORMATS:
            self._skip(count * struct.calcsize("<" + _FORMATS[kind]))
        else:
            raise ModelUnsupportedError(f"damaged: the field {name:.100} is an array of the kind {kind}")
        return Array(kind, count, self._view[begin : self._place])

    def _skip_strings(self, count: int) -> None:
        """Moves on behind strings; a loop of its own, because vocabularies are long."""
        view, length_at, end, place = self._view, struct.Struct("<Q").unpack_from, len(self._data), self._place
        for _ in range(count):
            if place + 8 > end:
                break
            place += 8 + length_at(view, place)[0]
        else:
            if place <= end:
                self._place = place
                return
        self._skip(end)  # which is too much

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Returns name, shape, kind and offset of the next tensor."""
        name = self._text("a tensor's name", _MAX_NAME_BYTES)
        count = self._number(_UINT32)
        if not 1 <= count <= _MAX_DIMENSIONS:
            raise ModelUnsupportedError(f"damaged: tensor {name:.100} has {count} dimensions")
        sizes = tuple(self._number(10) for _ in range(count))
        if not all(1 <= size <= _MAX_SIZE for size in sizes):
            raise ModelUnsupportedError(f"damaged: tensor {name:.100} has the dimensions {sizes}")
        return name, sizes[::-1], self._number(_UINT32), self._number(10)

    def _tensor_bytes(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        if quantised.name(kind) is None:
            raise ModelUnsupportedError(
                f"tensor {name:.100} has the quantisation {quantised.shown(kind)}, which is not supported"
            )
        row = quantised.row_bytes(kind, shape[-1])
        if row is None:
            raise ModelUnsupportedError(
                f"damaged: tensor {name:.100} of quantisation {quantised.name(kind)} has rows of {shape[-1]:,} values"
            )
        return math.prod(shape[:-1]) * row
