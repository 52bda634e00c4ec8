"""Packs headers, frames and indexes into bytes, as docs/format.md defines them; must not know models or files."""

from __future__ import annotations

import zlib

from .._version import FORMAT_VERSION
from .headers import (
    CARRIED_MODEL,
    ENGINE_FLOAT,
    INDEX,
    INDEX_MAGIC,
    LAST_FLAG,
    MAGIC,
    MAX_NAME_BYTES,
    MAX_RECORD_BYTES,
    PROMPT_FLAG,
    CarriedModel,
    FrameHeader,
    Header,
)
from .numbers import bytes_needed, crc8, pack_varint


def pack_header(header: Header) -> bytes:
    """Packs an archive's header (format section 2); a name that is too long is cut at a whole character."""
    out = MAGIC + bytes([FORMAT_VERSION | header.model_code << 4])
    if header.model is None:
        return out
    model = header.model
    record = bytes([model.engine | (PROMPT_FLAG if model.prompt_digest else 0), model.numerics, model.number_format])
    record += pack_varint(model.context) + pack_varint(model.start_token)
    record += model.model_digest + model.tokenizer_digest
    if model.engine == ENGINE_FLOAT:
        environment = model.environment.encode("ascii")
        record += pack_varint(len(environment)) + environment
    record += model.prompt_digest
    room = min(MAX_NAME_BYTES, MAX_RECORD_BYTES - len(record))
    record += model.name.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").encode("utf-8")
    return out + pack_varint(len(record)) + record


def pack_carried(model: CarriedModel) -> bytes:
    """Packs a model that a file carries (format section 5a), to be written before an archive."""
    head = MAGIC + bytes([FORMAT_VERSION | CARRIED_MODEL << 4]) + model.model_digest + model.tokenizer_digest
    head += b"".join(size.to_bytes(4, "little") for size in (len(model.weights), len(model.table), model.table_bytes))
    data = model.weights + model.table
    return head + zlib.crc32(head).to_bytes(4, "little") + data + zlib.crc32(data).to_bytes(4, "little")


def pack_frame(header: FrameHeader, payload: bytes, crc32: int, prefix: bytes = b"") -> bytes:
    """Packs a frame (format section 3).

    Args:
        header: the frame's fields, with payload_bytes == len(payload).
        payload: the compressed bytes.
        crc32: checksum of the original bytes.
        prefix: the archive's header if the frame is its first one; the check covers it, and the result begins with it.
    """
    numbers = (header.original_bytes, header.payload_bytes, header.num_tokens)
    width = bytes_needed(numbers)
    tag = header.method | LAST_FLAG * header.last | (width - 1) << 4 | header.profile << 6
    head = prefix + bytes([tag]) + b"".join(n.to_bytes(width, "little") for n in numbers)
    body = head + _pack_records(header) + payload
    return body + bytes([crc8(body)]) + crc32.to_bytes(4, "little")


def frame_bytes(header: FrameHeader) -> int:
    """Returns the size of the packed frame in bytes, without an archive's header before it."""
    width = bytes_needed((header.original_bytes, header.payload_bytes, header.num_tokens))
    return 1 + 3 * width + len(_pack_records(header)) + header.payload_bytes + 1 + 4


def _pack_records(header: FrameHeader) -> bytes:
    """Packs the rows record or the windows record, whichever the frame has."""
    numbers: tuple[int, ...] = (header.rows, header.overlap) if header.has_explicit_rows else ()
    if header.windows is not None:
        record = header.windows
        numbers = (record.window_bits, record.count, record.last_tokens, record.group)
    return b"".join(map(pack_varint, numbers))


def pack_index(entries: list[tuple[int, int, int]]) -> bytes:
    """Packs an archive's index (format section 5) from (frame bytes, original bytes, line feeds) of each frame."""
    body = index_entries(entries)
    head = bytes([INDEX]) + pack_varint(len(body))
    total = len(head) + len(body) + 4 + 4 + len(INDEX_MAGIC)
    return head + body + zlib.crc32(body).to_bytes(4, "little") + total.to_bytes(4, "little") + INDEX_MAGIC


def index_entries(entries: list[tuple[int, int, int]]) -> bytes:
    """Packs the part of the index that the frames determine."""
    return b"".join(pack_varint(number) for entry in entries for number in entry)
