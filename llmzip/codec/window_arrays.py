"""Arrays of windows, for training models on compressed text, and back to archives; knows no model and no options.

The array has the bits of all windows, frame after frame, N bits to a token, the first bit of a token being its highest;
the rest of a frame's last token is zeros. FILE.npy.json has what else frames need, so archives come back bit for bit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ..errors import CorruptError, SettingsError
from ..format import headers, writing
from ..format.headers import FrameHeader, WindowsRecord
from ..system import fileops
from .parts import PartReader

_SCHEMA = 1
_DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}


def save(path: Path, reader: PartReader, token_bits: int) -> None:
    """Writes FILE.npy and FILE.npy.json.

    Args:
        path: FILE.npy.
        reader: reads one archive.
        token_bits: N, 8 or 16.

    Raises:
        SettingsError: a frame of the archive has no windows, or the file has several archives.
        OSError.
    """
    dtype = _DTYPES[token_bits]
    parts: list[np.ndarray] = []
    frames: list[dict[str, Any]] = []
    archives = {place.frame.archive for place in reader.places}
    if len(archives) > 1:
        raise SettingsError("the file has several archives: export each by itself")
    for place in reader.places:
        header, record = place.frame.header, place.frame.header.windows
        if record is None:
            raise SettingsError(f"frame {place.frame.number} has no windows: its method is {header.method_name}")
        data = reader.data(place)
        windows = data[: record.data_bytes]
        windows += bytes(-len(windows) % dtype.itemsize)
        parts.append(np.frombuffer(windows, dtype=dtype.newbyteorder(">")).astype(dtype))
        frames.append(
            {
                "tokens": len(parts[-1]), "original_bytes": header.original_bytes, "model_tokens": header.num_tokens,
                "profile": header.profile, "window_bits": record.window_bits, "windows": record.count,
                "last_tokens": record.last_tokens, "group": record.group,
                "directory": data[record.data_bytes :].hex(), "crc32": place.frame.crc32,
                "line_feeds": place.frame.line_feeds,
            }
        )  # fmt: skip
    header_hex = writing.pack_header(archives.pop()).hex()
    facts = {"schema": _SCHEMA, "token_bits": token_bits, "header": header_hex, "frames": frames}
    with fileops.new_file(str(_beside(path)), force=True) as beside:
        beside.write(json.dumps(facts, indent=1).encode("ascii") + b"\n")
    with fileops.new_file(str(path), force=True) as file:
        np.save(cast("IO[bytes]", file), np.concatenate(parts))


def load(path: Path) -> bytes:
    """Returns the archive that an array was made of.

    Raises:
        CorruptError: the files do not belong together, or tokens are out of range.
        OSError.
    """
    facts_path = _beside(path)
    try:
        tokens = np.load(path, allow_pickle=False)
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
    except (ValueError, EOFError, RecursionError) as error:
        reason = f"not an array of tokens, or {facts_path.name} does not describe it: {error}"
        raise CorruptError(f"damaged: {reason}") from None
    try:
        if facts["schema"] != _SCHEMA:
            raise CorruptError(f"{facts_path.name} has the schema {facts['schema']}, which this version does not know")
        bits, frames = facts["token_bits"], facts["frames"]
        count = sum(frame["tokens"] for frame in frames)
        if tokens.dtype.kind not in "iu" or tokens.shape != (count,):
            raise CorruptError(f"damaged: an array of {tokens.dtype} {tokens.shape}, not {count:,} whole numbers")
        if count and not 0 <= int(tokens.min()) <= int(tokens.max()) < 1 << bits:
            raise CorruptError(
                f"damaged: tokens must be 0 to {(1 << bits) - 1:,}, not {tokens.min():,} to {tokens.max():,}"
            )
        return _archive(tokens.astype(_DTYPES[bits].newbyteorder(">")), bytes.fromhex(facts["header"]), frames)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CorruptError(f"damaged: {facts_path.name} lacks or misstates {error}") from None


def _archive(tokens: np.ndarray, prefix: bytes, frames: list[dict[str, Any]]) -> bytes:
    """Packs the frames again, after the archive's header.

    Args:
        tokens: of all frames, highest byte first.
        prefix: the header.
        frames: what FILE.npy.json has of each.
    """
    out, at = b"", 0
    entries: list[tuple[int, int, int]] = []
    for number, facts in enumerate(frames):
        record = WindowsRecord(facts["window_bits"], facts["windows"], facts["last_tokens"], facts["group"])
        windows = tokens[at : at + facts["tokens"]].tobytes()[: record.data_bytes]
        at += facts["tokens"]
        payload = windows + bytes.fromhex(facts["directory"])
        header = FrameHeader(
            headers.WINDOWS,
            facts["original_bytes"],
            len(payload),
            num_tokens=facts["model_tokens"],
            profile=facts["profile"],
            windows=record,
            last=number == len(frames) - 1,
        )
        frame = writing.pack_frame(header, payload, facts["crc32"], prefix)
        if len(frames) > 1:  # one frame alone has no index
            line_feeds = facts["line_feeds"]
            if not 0 <= line_feeds <= header.original_bytes:
                raise ValueError(f"{line_feeds:,} line feeds of a frame of {header.original_bytes:,} bytes")
            entries.append((len(frame) - len(prefix), header.original_bytes, line_feeds))
        out, prefix = out + frame, b""
    return out + (writing.pack_index(entries) if entries else b"")


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")
