"""Bytes to token ids and back, exactly, for any bytes; the only module that imports tokenizers, and it knows no model.

Decoding needs only the table id -> bytes. Encoding may choose any ids whose bytes make up the input, so whatever the
tokenizer does with a text, its answer is checked byte for byte, and what it gets wrong goes through single-byte tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import CorruptError, TokenizerError
from . import token_tables

_PIECE_CHARS = 1 << 15
_SPELLED_CHARS = 8
# Bytes that are no UTF-8, with up to 3 characters between them: too short to be worth a tokenizer's call.
_NOT_UTF8 = re.compile("[\udc80-\udcff](?:[^\udc80-\udcff]{0,3}[\udc80-\udcff])*")
_BREAK = re.compile(r"\n(?=[^\s])|(?<=\S)(?= \S)")


class Tokens:
    """The table id -> bytes, which is all that decoding needs.

    Where some byte has no token of its own, bytes are escaped: the lowest id that stands for nothing, then the id at
    the byte's place among the ids that stand for something, in rising order (format section 6).

    Args:
        table: bytes of each token; an id that stands for nothing has b"".
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self.table = list(table)
        self._lengths = np.array([len(entry) for entry in self.table], dtype=np.int64)
        self._single = np.full(256, -1, dtype=np.int64)
        for i in range(len(self.table) - 1, -1, -1):
            if len(self.table[i]) == 1:
                self._single[self.table[i][0]] = i
        self.escape: int | None = None
        if (self._single < 0).any():
            self._find_escape()

    def _find_escape(self) -> None:
        empty, full = np.flatnonzero(self._lengths == 0), np.flatnonzero(self._lengths)
        if len(empty) and len(full) >= 256:
            self.escape = int(empty[0])
            self._escaped = full[:256]
            self._lengths[self._escaped] = 0  # behind an escape they are one byte: never count more than there is

    @property
    def vocab_size(self) -> int:
        """V, the number of ids."""
        return len(self.table)

    def digest(self) -> bytes:
        """SHA-256 of the table (format section 6)."""
        sha = hashlib.sha256(b"llmzip tokens %d\n" % len(self.table))
        for entry in self.table:
            sha.update(len(entry).to_bytes(4, "little") + entry)
        return sha.digest()

    def num_bytes(self, ids: np.ndarray) -> int:
        """Bytes that the ids stand for, without building them; fewer where bytes may be escaped."""
        return int(self._lengths[ids].sum())

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes of the ids, (n,) integers in [0, V).

        Raises:
            CorruptError: an escape without its byte.
        """
        table = self.table
        if self.escape is None:
            return b"".join([table[i] for i in ids.tolist()])
        values = {int(i): bytes([byte]) for byte, i in enumerate(self._escaped)}
        parts, rest = [], iter(ids.tolist())
        for i in rest:
            part = values.get(next(rest, -1)) if i == self.escape else table[i]
            if part is None:
                raise CorruptError("damaged: an escape without its byte")
            parts.append(part)
        return b"".join(parts)

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """Ids of single bytes, (n,) int64, n = len(data) where nothing is escaped.

        Raises:
            TokenizerError: some byte can be represented in no way.
        """
        values = np.frombuffer(data, dtype=np.uint8)
        ids = self._single[values]
        missing = ids < 0
        if not missing.any():
            return ids
        if self.escape is None:
            raise TokenizerError(f"the tokenizer has no token for the byte {values[missing][0]:#04x}")
        counts = np.where(missing, 2, 1)
        out = np.full(int(counts.sum()), self.escape, dtype=np.int64)
        out[np.cumsum(counts) - 1] = np.where(missing, self._escaped[values], ids)
        return out

    def check_complete(self) -> None:
        """Refuses a table with which some input cannot be represented.

        Raises:
            TokenizerError: naming the first byte.
        """
        missing = np.flatnonzero(self._single < 0)
        if len(missing) and self.escape is None:
            raise TokenizerError(
                f"the tokenizer has no token for {len(missing)} of the 256 bytes (first: {missing[0]:#04x}), "
                "so it cannot represent every input"
            )

    def single_bytes(self) -> np.ndarray:
        """(256,) int64: for each byte the lowest id that stands for just it, -1 if there is none."""
        return self._single


class Tokenizer:
    """A tokenizer from a Hugging Face folder, with everything that loses bytes taken out."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        description = token_tables.read(folder)
        self.tokens = Tokens(token_tables.byte_table(description, vocab_size, folder))
        self.tokens.check_complete()
        try:
            self._fast = FastTokenizer.from_str(json.dumps(token_tables.exact_description(description, vocab_size)))
            renamed = token_tables.added_ids(description, vocab_size, self._fast.token_to_id)
        except Exception as error:  # tokenizers raises bare Exception
            raise TokenizerError(f"model {folder}: tokenizer.json cannot be loaded: {error}") from None
        self._ids = np.arange(max(vocab_size, *renamed, *renamed.values()) + 1 if renamed else 0)
        for found, wanted in renamed.items():
            self._ids[found] = wanted

    def encode(self, data: bytes) -> np.ndarray:
        """Token ids whose bytes are exactly `data`.

        Args:
            data: any bytes.

        Returns:
            (n,) int64; n <= len(data) where no byte is escaped.
        """
        # What is no UTF-8 becomes lone surrogates, which valid UTF-8 never decodes to.
        text = data.decode("utf-8", "surrogateescape")
        pieces: list[tuple[str, bool]] = []
        start = 0
        for bad in _NOT_UTF8.finditer(text):
            pieces += [(piece, True) for piece in _split(text[start : bad.start()])]
            pieces.append((bad.group(), False))
            start = bad.end()
        pieces += [(piece, True) for piece in _split(text[start:])]
        found = iter(self._encode_texts([piece for piece, valid in pieces if valid]))
        bare = self.tokens.encode_bytes
        parts = [next(found) if valid else bare(piece.encode("utf-8", "surrogateescape")) for piece, valid in pieces]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def _encode_texts(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text. Where they are not those of its bytes, the text is halved, and at last spelled."""
        parts: list[np.ndarray] = []
        for text, ids in zip(texts, self._ids_of(texts), strict=True):
            raw = text.encode()
            if ids is not None and len(ids) <= len(raw) and self._gives(ids, raw):
                parts.append(ids)
            elif len(text) <= _SPELLED_CHARS:
                parts.append(self.tokens.encode_bytes(raw))
            else:
                parts.append(np.concatenate(self._encode_texts(_halves(text))))
        return parts

    def _ids_of(self, texts: list[str]) -> list[np.ndarray | None]:
        """What the library makes of each text; None where it does not know how."""
        try:
            encodings = self._fast.encode_batch_fast(texts, add_special_tokens=False)
        except Exception:  # a Unigram that knows no token for the unknown, say; tokenizers raises bare Exception
            return [None] if len(texts) == 1 else [ids for text in texts for ids in self._ids_of([text])]
        found = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return [self._ids[ids] for ids in found] if len(self._ids) else list(found)

    def _gives(self, ids: np.ndarray, raw: bytes) -> bool:
        """Whether the ids stand for these bytes; an id that escapes may not come from the tokenizer itself."""
        if self.tokens.escape is not None and (ids == self.tokens.escape).any():
            return False
        table = self.tokens.table
        return b"".join([table[i] for i in ids.tolist()]) == raw


def _halves(text: str) -> list[str]:
    """Two parts, cut where a word or a line begins if one does near the middle."""
    middle = len(text) // 2
    near = _BREAK.search(text, middle, middle + len(text) // 4)
    end = middle if near is None else near.end()
    return [text[:end], text[end:]]


def _split(text: str) -> list[str]:
    """Pieces of some 32,768 characters, cut where words or lines begin if such a place is near.

    One odd place then costs one piece, and the tokenizer works on several at once.
    """
    pieces, start = [], 0
    while len(text) - start > _PIECE_CHARS + _PIECE_CHARS // 2:
        near = _BREAK.search(text, start + _PIECE_CHARS, start + _PIECE_CHARS + _PIECE_CHARS // 2)
        end = start + _PIECE_CHARS if near is None else near.end()
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    return pieces
