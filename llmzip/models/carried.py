"""Models that files carry (docs/format.md section 5a): int8 weights and a table of tokens to bytes and back.

What a file carries is as untrusted as the rest of it: limits come before allocations, nothing is written to a disk, and
the digests of what was decoded are compared before anything uses it.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator

import numpy as np

from .._version import NUMERICS_VERSION
from ..errors import CorruptError, ModelError, ModelUnsupportedError, TokenizerError
from ..format.headers import (
    DIGEST_BYTES,
    MAX_CARRIED_TABLE_BYTES,
    MAX_CARRIED_WEIGHTS_BYTES,
    CarriedModel,
)
from ..format.lzma2 import lzma_filters
from ..format.numbers import pack_varint, varint_at
from . import weightfile
from .assembly import assemble
from .config import MISSTATED, ExactConfig
from .matrix import Int8Matrix
from .model import ExactModel
from .token_table import TokenTable

_MAX_VALUES_PER_BYTE = 16
"""Values that the weights may have for each of their bytes: trained ones have less than 2."""


def pack(model: ExactModel, table: TokenTable) -> CarriedModel:
    """Returns a model as a file carries it.

    Args:
        model: with the settings of the archives.
        table: its tokens.

    Raises:
        ModelUnsupportedError: readers would refuse it.
    """
    tensors = {
        name: np.ascontiguousarray(tensor.rows if isinstance(tensor, Int8Matrix) else tensor)
        for name, tensor in model.tensors().items()
    }
    weights = weightfile.pack(model.config.as_dict(), NUMERICS_VERSION, tensors)
    entries = table.entries[: table.vocab_size - table.num_byte_tokens]
    text = b"".join(pack_varint(len(entry)) for entry in entries) + b"".join(entries)
    if len(weights) > MAX_CARRIED_WEIGHTS_BYTES or len(text) > MAX_CARRIED_TABLE_BYTES:
        raise ModelUnsupportedError("the model is too large to be carried by a file")
    if sum(tensor.size for tensor in tensors.values()) > _MAX_VALUES_PER_BYTE * len(weights):
        raise ModelUnsupportedError("the model cannot be carried by a file: nearly all of its weights are equal")
    packed = lzma.compress(text, lzma.FORMAT_RAW, filters=lzma_filters(len(text)))
    digests = model.digest()[:DIGEST_BYTES], table.digest()[:DIGEST_BYTES]
    return CarriedModel(*digests, weights, packed, len(text), zlib.crc32(packed, zlib.crc32(weights)))


def unpack(carried: CarriedModel) -> tuple[ExactModel, TokenTable]:
    """Returns the model that a file carries, and its table of tokens.

    Raises:
        CorruptError: it is damaged, or not what its digests say.
        MemoryError: it does not fit into the memory.
    """
    try:
        config, numerics, tensors = weightfile.unpack(carried.weights, _MAX_VALUES_PER_BYTE)
        if numerics != NUMERICS_VERSION:
            raise ModelUnsupportedError(f"made for numerics version {numerics}")
        model = assemble(ExactConfig.from_dict(config), tensors.get)
        if odd := tensors.keys() - model.tensors().keys():
            raise ModelUnsupportedError(f"weights: unknown tensor {min(odd)}")
        table = TokenTable(list(_entries(carried, model.config.vocab_size)))
    except (ModelError, TokenizerError) as error:
        raise CorruptError(f"the carried model is damaged: {error}") from None
    except MISSTATED as error:
        raise CorruptError(f"the carried model is damaged: its configuration lacks or misstates {error}") from None
    for kind, expected, actual in (
        ("model", carried.model_digest, model.digest()),
        ("tokenizer", carried.tokenizer_digest, table.digest()),
    ):
        if not actual.startswith(expected):
            found = actual[: len(expected)].hex()
            raise CorruptError(
                f"the carried model is another one: expected {kind} digest {expected.hex()}, found {found}"
            )
    return model, table


def _entries(carried: CarriedModel, num_tokens: int) -> Iterator[bytes]:
    """Yields the bytes of each of the model's own tokens.

    Raises:
        CorruptError: the table is damaged.
    """
    text = _unlzma(carried.table, carried.table_bytes)
    lengths: list[int] = []
    place = 0
    try:
        while len(lengths) < num_tokens:
            length, place = varint_at(text, place)
            lengths.append(length)
    except ValueError:
        raise CorruptError("the carried model is damaged: its table of tokens is malformed") from None
    if place + sum(lengths) != len(text):
        raise CorruptError("the carried model is damaged: its table of tokens has another size than its tokens")
    for length in lengths:
        yield text[place : place + length]
        place += length


def _unlzma(data: bytes, size: int) -> bytes:
    """Decompresses a table of a known size in bytes.

    Raises:
        CorruptError: it is damaged, or of another size.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=lzma_filters(size))
    try:
        text = decompressor.decompress(data, size)
        # The end mark may be left, which gives no more bytes.
        rest = b"" if decompressor.eof else decompressor.decompress(b"", 1)
    except (lzma.LZMAError, EOFError):
        raise CorruptError("the carried model is damaged: its table of tokens cannot be decompressed") from None
    if len(text) != size or rest or not decompressor.eof or decompressor.unused_data:
        raise CorruptError("the carried model is damaged: its table of tokens has another size than it says")
    return text
