"""The plain methods: stored, LZMA2 and Zstandard, from bytes to payload and back; knows no frames or files."""

from __future__ import annotations

import contextlib
import lzma
import math

import zstandard

from ..errors import CorruptError
from ..format.headers import LZMA, MAX_FRAME_BYTES, STORED, ZSTD
from ..format.lzma2 import lzma_filters

_ZSTD_LEVEL = 19

_MAX_TEXT_ENTROPY = 7.3
"""Order-0 entropy above which bytes are not text, in bits per byte."""

_MIN_NOISE_BYTES = 512
"""Inputs below this size have too few bytes for their entropy to mean anything."""

_READ_BYTES = 1 << 12
"""Bytes that a damaged Zstandard frame is read and written in: 4 KiB."""

_ZSTD_FLAGS = 0b11100111
"""Bits of a frame header's first byte for content size, single segment, checksum and dictionary (RFC 8878)."""


def compress_plain(data: bytes) -> tuple[int, bytes]:
    """Compresses by the smallest of the three, stored first where they are equal.

    Args:
        data: 1 to 2^26 bytes.

    Returns:
        Method and payload.
    """
    return min(plain_payloads(data), key=lambda choice: len(choice[1]))


def plain_payloads(data: bytes) -> list[tuple[int, bytes]]:
    """Compresses by each of the three; returns methods and payloads.

    Args:
        data: 1 to 2^26 bytes.
    """
    lz = lzma.compress(data, lzma.FORMAT_RAW, filters=lzma_filters(len(data)))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _ZSTD_LEVEL,
        source_size=len(data),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    zs = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    return [(STORED, data), (LZMA, lz), (ZSTD, zs)]


def decompress_plain(method: int, payload: bytes, original_bytes: int) -> bytes:
    """Returns the original bytes.

    Args:
        method: STORED, LZMA or ZSTD.
        payload: the compressed bytes, hostile ones too.
        original_bytes: how many bytes must come out, at most 2^26; nothing much larger is ever allocated.

    Raises:
        CorruptError: the payload is not an output of the method, or stands for another number of bytes.
    """
    if method == STORED:
        return payload
    try:
        if method == LZMA:
            return _unlzma(payload, original_bytes)
        if not payload or payload[0] & _ZSTD_FLAGS:
            # With a content size in the frame, the library would allocate that size, not ours.
            raise CorruptError("damaged: the zstd frame's header has fields that llmzip does not write")
        # The window cannot be larger than what the largest frame needs.
        decompressor = zstandard.ZstdDecompressor(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=2 * MAX_FRAME_BYTES
        )
        data = decompressor.decompress(payload, max_output_size=original_bytes, allow_extra_data=False)
    except (lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
        raise CorruptError(f"damaged: {error}") from None
    if len(data) != original_bytes:
        raise CorruptError(f"damaged: {len(data)} bytes came out, the frame promises {original_bytes}")
    return data


def zstd_beginning(payload: bytes, max_bytes: int) -> bytes:
    """Returns what comes out of a damaged Zstandard frame before its error, block by block.

    Args:
        payload: hostile bytes.
        max_bytes: how many bytes may come out, at most 2^26.
    """
    if not payload or payload[0] & _ZSTD_FLAGS:
        return b""
    decompressor = zstandard.ZstdDecompressor(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=2 * MAX_FRAME_BYTES
    )
    out = bytearray()
    with contextlib.suppress(zstandard.ZstdError):
        for part in decompressor.read_to_iter(payload, read_size=_READ_BYTES, write_size=_READ_BYTES):
            out += part
            if len(out) >= max_bytes:
                break
    return bytes(out[:max_bytes])


def lzma_decompressor(original_bytes: int) -> lzma.LZMADecompressor:
    """Returns a decompressor for a payload of method lzma that stands for so many bytes."""
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(original_bytes))


def _unlzma(payload: bytes, original_bytes: int) -> bytes:
    decompressor = lzma_decompressor(original_bytes)
    data = decompressor.decompress(payload, original_bytes)
    if len(data) == original_bytes and not decompressor.eof:
        decompressor.decompress(b"", 0)  # the end marker gives no bytes
    if not decompressor.eof or decompressor.unused_data or len(data) != original_bytes:
        raise CorruptError(f"damaged: the frame does not end after the {original_bytes} bytes it promises")
    return data


def looks_random(data: bytes) -> bool:
    """Whether bytes are so evenly spread that no language model needs to be asked.

    No text in any encoding that a tokenizer knows has more than 7.3 bits of order-0 entropy per byte. Below 512 bytes
    noise cannot be distinguished from text in this way.
    """
    if len(data) < _MIN_NOISE_BYTES:
        return False
    counts = [data.count(byte) for byte in range(256)]
    entropy = -sum(n / len(data) * math.log2(n / len(data)) for n in counts if n)
    return entropy > _MAX_TEXT_ENTROPY
