"""A second reader of weight files, from docs/weights.md alone; shares no code with the package."""

import json
import zlib
from pathlib import Path

import numpy as np


def read_weights(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The configuration, and the tensors by name."""
    data = path.read_bytes()
    return read_version_2(data) if data[3] == 2 else read_version_1(data)


def stated_digest(path: Path) -> str | None:
    """The digest of the model by its file; None for files of version 1, which do not say it."""
    data = path.read_bytes()
    return json.loads(data[12 : 12 + int.from_bytes(data[4:8], "little")])["digest"] if data[3] == 2 else None


def read_version_2(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Arrays as they are in memory; decoder.py compares the digest."""
    at = 12 + int.from_bytes(data[4:8], "little")
    assert data[:4] == b"\xf7LW\x02" and zlib.crc32(data[12:at]) == int.from_bytes(data[8:12], "little")
    header = json.loads(data[12:at])
    assert header["numerics"] == 1
    tensors: dict[str, np.ndarray] = {}
    for name, kind, shape, layout in header["tensors"]:
        for part in layout.split(" and "):
            while at % 64:
                assert data[at] == 0
                at += 1
            values = np.frombuffer(data, {"int8": "<i1", "float32": "<f4"}[kind], int(np.prod(shape)), at)
            at += values.nbytes
            if part == "tiles":
                n, k = np.ogrid[: shape[0], : shape[1]]
                values = values[n // 16 * 16 * shape[1] + k // 4 * 64 + n % 16 * 4 + k % 4]
            values = values.reshape(shape)
            assert name not in tensors or (tensors[name] == values).all()
            tensors[name] = values
    assert at == len(data)
    return header["config"], tensors


def read_version_1(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Entropy-coded arrays."""
    assert data[:4] == b"\xf7LW\x01" and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    at = 8 + int.from_bytes(data[4:8], "little")
    header = json.loads(data[8:at])
    assert header["numerics"] == 1
    lanes = int.from_bytes(data[at : at + 2], "little")
    at += 2

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value

    planes: list[tuple[np.ndarray, list[int] | None]] = []
    for _, kind, shape in header["tensors"]:
        size = int(np.prod(shape))
        for _ in range({"int8": 1, "float32": 4}[kind]):
            at += 1
            if data[at - 1] == 0:
                planes.append((np.frombuffer(data, np.uint8, size, at), None))
                at += size
            else:
                table: list[int] = []
                while len(table) < 256:
                    table.append(varint())
                    if table[-1] == 0:
                        table += [0] * varint()
                assert len(table) == 256 and sum(table) == 2**14
                planes.append((np.zeros(size, np.uint8), table))
    states = [int.from_bytes(data[at + 4 * lane :][:4], "little") for lane in range(lanes)]
    at += 4 * lanes
    words = np.frombuffer(data, "<u2", int.from_bytes(data[at : at + 4], "little"), at + 4)
    assert at + 4 + 2 * len(words) + 4 == len(data)
    decode_planes(planes, np.array(states, np.int64), words)
    parts = iter(plane for plane, _ in planes)
    tensors = {}
    for name, kind, shape in header["tensors"]:
        raw = np.array([next(parts) for _ in range({"int8": 1, "float32": 4}[kind])]).T.tobytes()
        tensors[name] = np.frombuffer(raw, {"int8": "<i1", "float32": "<f4"}[kind]).reshape(shape)
    return header["config"], tensors


def decode_planes(planes: list, states: np.ndarray, words: np.ndarray) -> None:
    """All lanes of a round at once; the states are int64, so nothing wraps around."""
    taken = 0
    for plane, table in planes:
        if table is None:
            continue
        ends = np.cumsum(table)
        begins = ends - table
        for start in range(0, len(plane), len(states)):
            x = states[: len(plane) - start]
            slot = x % 2**14
            symbol = np.searchsorted(ends, slot, side="right")
            plane[start : start + len(x)] = symbol
            x = np.array(table)[symbol] * (x // 2**14) + slot - begins[symbol]
            short = np.flatnonzero(x < 2**16)
            x[short] = x[short] * 2**16 + words[taken : taken + len(short)]
            taken += len(short)
            states[: len(x)] = x
    assert taken == len(words) and (states == 2**16).all()
