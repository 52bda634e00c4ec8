"""Headers, frames and indexes to bytes, as docs/format.md defines them; knows no model and no file."""

from __future__ import annotations

import zlib

from .._version import FORMAT_VERSION
from .headers import (
    ENGINE_FLOAT,
    INDEX,
    INDEX_MAGIC,
    LAST_FLAG,
    MAGIC,
    MAX_NAME_BYTES,
    MAX_RECORD_BYTES,
    PROMPT_FLAG,
    FrameHeader,
    Header,
)
from .numbers import bytes_needed, crc8, pack_varint


def pack_header(header: Header) -> bytes:
    """The bytes of format section 2."""
    out = MAGIC + bytes([FORMAT_VERSION | header.model_code << 4])
    if header.model is None:
        return out
    model = header.model
    record = bytes([model.engine | (PROMPT_FLAG if model.prompt_digest else 0), model.numerics, model.planes])
    record += pack_varint(model.context) + pack_varint(model.start_token)
    record += model.model_digest + model.tokenizer_digest
    if model.engine == ENGINE_FLOAT:
        environment = model.environment.encode("ascii")
        record += pack_varint(len(environment)) + environment
    record += model.prompt_digest
    room = min(MAX_NAME_BYTES, MAX_RECORD_BYTES - len(record))
    record += model.name.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").encode("utf-8")
    return out + pack_varint(len(record)) + record


def pack_frame(header: FrameHeader, payload: bytes, crc32: int, prefix: bytes = b"") -> bytes:
    """The bytes of format section 3.

    Args:
        header: with payload_bytes == len(payload).
        payload: the compressed bytes.
        crc32: of the original bytes.
        prefix: the archive's header before its first frame, which the check covers; it is part of the result.
    """
    numbers = (header.original_bytes, header.payload_bytes, header.num_tokens)
    width = bytes_needed(numbers)
    tag = header.method | LAST_FLAG * header.last | (width - 1) << 4 | header.profile << 6
    head = prefix + bytes([tag]) + b"".join(n.to_bytes(width, "little") for n in numbers)
    body = head + _pack_records(header) + payload
    return body + bytes([crc8(body)]) + crc32.to_bytes(4, "little")


def frame_bytes(header: FrameHeader) -> int:
    """Size of the packed frame."""
    width = bytes_needed((header.original_bytes, header.payload_bytes, header.num_tokens))
    return 1 + 3 * width + len(_pack_records(header)) + header.payload_bytes + 1 + 4


def _pack_records(header: FrameHeader) -> bytes:
    numbers: tuple[int, ...] = (header.rows, header.overlap) if header.profile == 3 else ()
    if header.windows is not None:
        record = header.windows
        numbers = (record.window_bits, record.count, record.last_tokens, record.group)
    return b"".join(map(pack_varint, numbers))


def pack_index(entries: list[tuple[int, int]]) -> bytes:
    """The bytes of format section 5; entries are (frame bytes, original bytes)."""
    body = index_entries(entries)
    head = bytes([INDEX]) + pack_varint(len(body))
    total = len(head) + len(body) + 4 + 4 + len(INDEX_MAGIC)
    return head + body + zlib.crc32(body).to_bytes(4, "little") + total.to_bytes(4, "little") + INDEX_MAGIC


def index_entries(entries: list[tuple[int, int]]) -> bytes:
    return b"".join(pack_varint(size) + pack_varint(original) for size, original in entries)
