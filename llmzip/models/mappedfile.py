"""The weight file, version 2: named arrays as they are in memory, which readers map (docs/weights.md).

Must not know torch or models. Processes that map one file share its pages, and nothing is decoded. Whether the weights
are what was written is for the model's digest to say, which is in the header.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import ModelUnsupportedError
from .matrix import TILE_ROWS, TILE_TERMS, Int8Matrix, can_be_tiled, to_tiles
from .weightfile import MAGIC

VERSION = 2
ROWS, TILES, BOTH = "rows", "tiles", "rows and tiles"
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_PREFIX_BYTES = len(MAGIC) + 1 + 4 + 4
_MAX_HEADER_BYTES = 1 << 20  # 1 MiB
_MAX_DIMENSIONS = 8
_DIGEST = re.compile("[0-9a-f]{64}")
_WIDTHS = {"int8": 1, "float32": 4}  # bytes of a value


class Entry(NamedTuple):
    """What the header says of a tensor.

    Attributes:
        name: of the tensor.
        kind: int8 or float32.
        shape: sizes.
        layout: ROWS, TILES or BOTH; the latter two for matrices of whole tiles only.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layout: str

    @property
    def num_values(self) -> int:
        """Values of the tensor."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of one layout."""
        return self.num_values * _WIDTHS[self.kind]

    @property
    def copies(self) -> int:
        """How many layouts there are."""
        return 2 if self.layout == BOTH else 1


@dataclass(frozen=True)
class Header:
    """The header of a weight file.

    Attributes:
        config: of JSON's types.
        numerics: version of the arithmetic that the model is for.
        digest: SHA-256 of the model, as docs/numerics.md section 7 defines it.
        entries: the tensors, in the order of the file.
        begin: offset of the first array in bytes.
    """

    config: dict[str, Any]
    numerics: int
    digest: bytes
    entries: tuple[Entry, ...]
    begin: int

    @property
    def num_bytes(self) -> int:
        """Size of the whole file."""
        end = self.begin
        for entry in self.entries:
            for _ in range(entry.copies):
                end = _aligned(end) + entry.num_bytes
        return end


# -- writing ---------------------------------------------------------------------------------------------------------


def write(
    file: BinaryIO,
    config: Mapping[str, Any],
    numerics: int,
    digest: bytes,
    tensors: Mapping[str, np.ndarray | Int8Matrix],
    layouts: Mapping[str, str],
) -> None:
    """Writes a weight file, one tensor after the other.

    Args:
        file: empty, to write to.
        config: of JSON's types.
        numerics: version of the arithmetic that the model is for.
        digest: SHA-256 of the model.
        tensors: name -> float32 or int8 array, or int8 matrix; written in the order of their names.
        layouts: name -> ROWS, TILES or BOTH, for those whose layout is not ROWS.
    """
    listed = sorted(tensors.items())
    entries = [
        Entry(name, "int8" if tensor.dtype == np.int8 else "float32", tensor.shape, layouts.get(name, ROWS))
        for name, tensor in listed
    ]
    header = {
        "config": config,
        "digest": digest.hex(),
        "numerics": numerics,
        "tensors": [[entry.name, entry.kind, list(entry.shape), entry.layout] for entry in entries],
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")
    file.write(MAGIC + bytes([VERSION]) + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little"))
    file.write(text)
    at = _PREFIX_BYTES + len(text)
    for entry, (_, tensor) in zip(entries, listed, strict=True):
        for array in _layouts(tensor, entry.layout):
            file.write(bytes(_aligned(at) - at))
            file.write(array.data if array.size else b"")
            at = _aligned(at) + array.nbytes


def _layouts(tensor: np.ndarray | Int8Matrix, layout: str) -> Iterator[np.ndarray]:
    """Yields a tensor's arrays in the order of the file."""
    if tensor.dtype != np.int8:
        yield np.ascontiguousarray(tensor, "<f4")
        return
    if layout in (ROWS, BOTH):
        yield np.ascontiguousarray(tensor)
    if layout in (TILES, BOTH):
        yield (tensor if isinstance(tensor, Int8Matrix) else Int8Matrix(tensor)).tiles


def _aligned(offset: int) -> int:
    return offset + -offset % _ALIGNMENT


# -- reading ---------------------------------------------------------------------------------------------------------


def is_mapped_form(path: Path) -> bool:
    """Whether a file begins as one of this version does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(MAGIC) + 1) == MAGIC + bytes([VERSION])


def read_header(path: Path) -> Header:
    """Reads the header of a weight file, and no weights.

    Raises:
        ModelUnsupportedError: not a file of this version, or a damaged one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _read_header(file, file.seek(0, 2))


def read(path: Path) -> tuple[Header, dict[str, np.ndarray | Int8Matrix]]:
    """Maps a weight file.

    Args:
        path: of a file that is replaced as a whole or not at all as long as the arrays are in use.

    Returns:
        the header, and name -> read-only float32 array or int8 matrix. The caller compares the model's digest.

    Raises:
        ModelUnsupportedError: not a file of this version, or a damaged one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        header = _read_header(file, size)
        data = _mapped(file, size)
    tensors: dict[str, np.ndarray | Int8Matrix] = {}
    at = header.begin
    padding = []
    for entry in header.entries:
        arrays = []
        for _ in range(entry.copies):
            begin = _aligned(at)
            padding.append(data[at:begin])
            at = begin + entry.num_bytes
            arrays.append(data[begin:at])
        tensors[entry.name] = _tensor(entry, arrays)
    if any(part.any() for part in padding):
        raise ModelUnsupportedError("weight file: damaged: bytes between its arrays are not 0")
    return header, tensors


def _tensor(entry: Entry, arrays: list[np.ndarray]) -> np.ndarray | Int8Matrix:
    """Returns the bytes of a tensor as what they are.

    Args:
        entry: that of the tensor.
        arrays: uint8, one for each layout.
    """
    if entry.kind == "float32":
        return arrays[0].view("<f4").astype(np.float32, copy=False).reshape(entry.shape)
    if len(entry.shape) != 2:
        return arrays[0].view(np.int8).reshape(entry.shape)
    tiled = (entry.shape[0] // TILE_ROWS, entry.shape[1] // TILE_TERMS, TILE_ROWS, TILE_TERMS)
    rows = None if entry.layout == TILES else arrays[0].view(np.int8).reshape(entry.shape)
    tiles = None if entry.layout == ROWS else arrays[-1].view(np.int8).reshape(tiled)
    if rows is not None and tiles is not None and not np.array_equal(to_tiles(rows), tiles):
        raise ModelUnsupportedError(f"weight file: damaged: rows and tiles of {entry.name} differ")
    return Int8Matrix(rows, tiles)


def _mapped(file: BinaryIO, size: int) -> np.ndarray:
    """Returns the bytes of a file: mapped, or where a file system cannot do that, read."""
    try:
        return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), dtype=np.uint8)
    except (OSError, ValueError):
        whole = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        data = whole[-whole.ctypes.data % _ALIGNMENT :][:size]
        file.seek(0)
        if file.readinto(data) != size:  # type: ignore[attr-defined]
            raise ModelUnsupportedError("weight file: truncated") from None
        data.flags.writeable = False
        return data


def _read_header(file: BinaryIO, size: int) -> Header:
    """Reads the header, and compares what it says with the size of the file.

    Args:
        file: to read.
        size: of the file in bytes.
    """
    file.seek(0)
    prefix = file.read(_PREFIX_BYTES)
    if prefix[: len(MAGIC)] != MAGIC:
        raise ModelUnsupportedError("weight file: not one of llmzip's")
    if prefix[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        raise ModelUnsupportedError(f"weight file: not of version {VERSION}")
    length, checksum = (int.from_bytes(prefix[4 + at : 8 + at], "little") for at in (0, 4))
    if length > _MAX_HEADER_BYTES:
        raise ModelUnsupportedError("weight file: damaged: its header is too long")
    if len(prefix) < _PREFIX_BYTES or size < _PREFIX_BYTES + length:
        raise ModelUnsupportedError("weight file: truncated")
    text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise ModelUnsupportedError("weight file: damaged: the crc32 of its header is wrong")
    try:
        fields = json.loads(text.decode())
        config, numerics = dict(fields["config"]), _size(fields["numerics"])
        digest, entries = _digest(fields["digest"]), tuple(_entries(fields["tensors"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelUnsupportedError(f"weight file: damaged: its header is wrong ({error})") from None
    header = Header(config, numerics, digest, entries, _PREFIX_BYTES + length)
    # Python's integers do not overflow, so this holds for whatever sizes a file claims.
    if size != header.num_bytes:
        what = "truncated" if size < header.num_bytes else "damaged: bytes are left over"
        raise ModelUnsupportedError(f"weight file: {what}")
    return header


def _entries(listed: Iterable[Any]) -> Iterator[Entry]:
    """Yields the header's tensors.

    Raises:
        ValueError, TypeError: one that no file may have, or two of one name.
    """
    names = set()
    for name, kind, shape, layout in listed:
        if type(name) is not str or kind not in _WIDTHS or name in names:
            raise ValueError(f"{name!r} of kind {kind!r} is not a tensor, or there are two of it")
        names.add(name)
        sizes = tuple(_size(size) for size in shape)
        if len(sizes) > _MAX_DIMENSIONS:
            raise ValueError("a tensor of too many dimensions")
        if layout != ROWS and (layout not in (TILES, BOTH) or kind != "int8" or not can_be_tiled(sizes)):
            raise ValueError(f"layout {layout!r} of {name!r}")
        yield Entry(name, kind, sizes, layout)


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"{value!r} is not a size")
    return value


def _digest(value: object) -> bytes:
    if type(value) is not str or not _DIGEST.fullmatch(value):
        raise ValueError("the digest is not a SHA-256")
    return bytes.fromhex(value)
