"""A vocabulary's table of token ids to bytes, and of single bytes to ids (format section 6); knows no tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ..errors import TokenizerError
from .config import MAX_VOCAB


class TokenTable:
    """The bytes of every token, which is all that decoding needs.

    Bytes that no token of the model stands for by itself get tokens of their own, after the model's (format section 6).

    Args:
        entries: bytes of each of the model's tokens; an id that stands for nothing has b"".

    Attributes:
        entries: bytes of each token, those of the byte tokens at the end.
        lacking: the bytes that the model has no token for, in rising order: the byte tokens.

    Raises:
        TokenizerError: no token of the model stands for anything, or there are more than 300,000 with the byte tokens.
    """

    def __init__(self, entries: Sequence[bytes]) -> None:
        if not any(entries):
            raise TokenizerError("the tokenizer has no token that stands for text")
        singles = {entry for entry in entries if len(entry) == 1}
        self.lacking = bytes(byte for byte in range(256) if bytes([byte]) not in singles)
        self.entries = [*entries, *(bytes([byte]) for byte in self.lacking)]
        if self.lacking and self.vocab_size > MAX_VOCAB:
            raise TokenizerError(
                f"the tokenizer has no token for {len(self.lacking)} of the 256 bytes, and there is no room for them: "
                f"a vocabulary has at most {MAX_VOCAB:,} tokens"
            )
        self._lengths = np.array([len(entry) for entry in self.entries], dtype=np.int64)
        self._single = np.zeros(256, dtype=np.int64)
        for i in range(len(self.entries) - 1, -1, -1):
            if len(self.entries[i]) == 1:
                self._single[self.entries[i][0]] = i

    @property
    def vocab_size(self) -> int:
        """V, the number of ids, byte tokens included."""
        return len(self.entries)

    @property
    def num_byte_tokens(self) -> int:
        """The number of byte tokens, whose ids follow the model's; 0 if the model has a token for each byte."""
        return len(self.lacking)

    def digest(self) -> bytes:
        """Returns the SHA-256 of the table (format section 6)."""
        sha = hashlib.sha256(b"llmzip tokens %d\n" % len(self.entries))
        for entry in self.entries:
            sha.update(len(entry).to_bytes(4, "little") + entry)
        return sha.digest()

    def num_bytes(self, ids: np.ndarray) -> int:
        """Counts the bytes that ids stand for, without building them."""
        return int(self._lengths[ids].sum())

    def decode(self, ids: np.ndarray) -> bytes:
        """Returns the bytes of ids, (n,) integers in [0, V)."""
        entries = self.entries
        return b"".join([entries[i] for i in ids.tolist()])

    def encode_bytes(self, data: bytes) -> np.ndarray:
        """Returns ids that spell `data` byte by byte, (len(data),) int64."""
        ids: np.ndarray = self._single[np.frombuffer(data, dtype=np.uint8)]
        return ids

    def single_bytes(self) -> np.ndarray:
        """Returns (256,) int64: for each byte the lowest id that stands for just it."""
        return self._single


def lacking_text(lacking: bytes) -> str:
    """Says which bytes have no token of their own, as in "no token for 4 bytes (04 c0-c2): coded as byte tokens".

    Returns "" for none.

    Args:
        lacking: as in `TokenTable`.
    """
    if not lacking:
        return ""
    many = "1 byte" if len(lacking) == 1 else f"{len(lacking)} bytes"
    return f"no token for {many} ({_ranges(lacking)}): coded as byte tokens"


def _ranges(values: bytes) -> str:
    """Writes rising bytes in hexadecimal, runs of three and more as ranges: "04 c0 c1 f5-ff"."""
    parts: list[str] = []
    begin = 0
    for end in range(1, len(values) + 1):
        if end < len(values) and values[end] == values[end - 1] + 1:
            continue
        run = values[begin:end]
        parts += [f"{run[0]:02x}-{run[-1]:02x}"] if len(run) > 2 else [f"{byte:02x}" for byte in run]
        begin = end
    return " ".join(parts)
