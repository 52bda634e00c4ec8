"""A vocabulary's table of token ids to bytes, and of single bytes to ids (format section 6); knows no tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..errors import CorruptError, TokenizerError


class TokenTable:
    """The bytes of every token, which is all that decoding needs.

    If some byte has no token of its own, bytes are escaped: the lowest id that stands for nothing, then the id at the
    byte's place among the ids that stand for something, in rising order (format section 6).

    Args:
        entries: bytes of each token; an id that stands for nothing has b"".

    Attributes:
        entries: the same, as a list.
        escape: id that announces an escaped byte; None if every byte has a token.
    """

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.entries = list(entries)
        self._lengths = np.array([len(entry) for entry in self.entries], dtype=np.int64)
        self._single = np.full(256, -1, dtype=np.int64)
        for i in range(len(self.entries) - 1, -1, -1):
            if len(self.entries[i]) == 1:
                self._single[self.entries[i][0]] = i
        self.escape: int | None = None
        if (self._single < 0).any():
            self._find_escape()

    def _find_escape(self) -> None:
        empty, full = np.flatnonzero(self._lengths == 0), np.flatnonzero(self._lengths)
        if len(empty) and len(full) >= 256:
            self.escape = int(empty[0])
            self._escaped = full[:256]
            self._lengths[self._escaped] = 0  # after an escape they are one byte: never count more than there is

    @property
    def vocab_size(self) -> int:
        """V, the number of ids."""
        return len(self.entries)

    def digest(self) -> bytes:
        """Returns the SHA-256 of the table (format section 6)."""
        sha = hashlib.sha256(b"llmzip tokens %d\n" % len(self.entries))
        for entry in self.entries:
            sha.update(len(entry).to_bytes(4, "little") + entry)
        return sha.digest()

    def num_bytes(self, ids: np.ndarray) -> int:
        """Counts the bytes that ids stand for, without building them; a lower bound where bytes may be escaped."""
        return int(self._lengths[ids].sum())

    def decode(self, ids: np.ndarray) -> bytes:
        """Returns the bytes of ids, (n,) integers in [0, V).

        Raises:
            CorruptError: an escape without its byte.
        """
        entries = self.entries
        if self.escape is None:
            return b"".join([entries[i] for i in ids.tolist()])
        values = {int(i): bytes([byte]) for byte, i in enumerate(self._escaped)}
        parts, rest = [], iter(ids.tolist())
        for i in rest:
            part = values.get(next(rest, -1)) if i == self.escape else entries[i]
            if part is None:
                raise CorruptError("damaged: an escape without its byte")
            parts.append(part)
        return b"".join(parts)

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """Returns ids that spell `data` byte by byte, (n,) int64; n = len(data) if nothing is escaped.

        Raises:
            TokenizerError: a byte has neither a token nor an escape.
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
        """Refuses a table that cannot represent every input.

        Raises:
            TokenizerError: naming the first byte without a token.
        """
        missing = np.flatnonzero(self._single < 0)
        if len(missing) and self.escape is None:
            raise TokenizerError(
                f"the tokenizer has no token for {len(missing)} of the 256 bytes (first: {missing[0]:#04x}), "
                "so it cannot represent every input"
            )

    def single_bytes(self) -> np.ndarray:
        """Returns (256,) int64: for each byte the lowest id that stands for just it, -1 if there is none."""
        return self._single
