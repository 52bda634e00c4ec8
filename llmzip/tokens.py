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
from typing import Any

import numpy as np

from .errors import ModelNotFoundError, TokenizerError

_PIECE_CHARS = 1 << 15
# Bytes that are no UTF-8, with up to 3 characters between them: too short to be worth a tokenizer's call.
_NOT_UTF8 = re.compile("[\udc80-\udcff](?:[^\udc80-\udcff]{0,3}[\udc80-\udcff])*")
_BREAK = re.compile(r"\n(?=[^\s])|(?<=\S)(?= \S)")


class Tokens:
    """The table id -> bytes, which is all that decoding needs.

    Args:
        table: bytes of each token; an id that stands for nothing has b"" and is never encoded.
    """

    def __init__(self, table: Sequence[bytes]) -> None:
        self.table = list(table)
        self._lengths = np.array([len(entry) for entry in self.table], dtype=np.int64)

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
        """Bytes that the ids stand for, without building them."""
        return int(self._lengths[ids].sum())

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes of the ids, (n,) integers in [0, V)."""
        table = self.table
        return b"".join([table[i] for i in ids.tolist()])

    def single_bytes(self) -> np.ndarray:
        """(256,) int64: for each byte the lowest id that stands for just it.

        Raises:
            TokenizerError: some byte has none, so not every input could be represented.
        """
        ids = np.full(256, -1, dtype=np.int64)
        for i in range(len(self.table) - 1, -1, -1):
            if len(self.table[i]) == 1:
                ids[self.table[i][0]] = i
        missing = np.flatnonzero(ids < 0)
        if len(missing):
            raise TokenizerError(
                f"the tokenizer has no token for {len(missing)} of the 256 bytes (first: {missing[0]:#04x}), "
                "so it cannot represent every input"
            )
        return ids


class Tokenizer:
    """A byte-level BPE tokenizer from a Hugging Face tokenizer.json, with everything that loses bytes taken out."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        description = _read(folder)
        self.tokens = Tokens(_byte_table(description, vocab_size, folder))
        self._bytes = self.tokens.single_bytes()
        # Normalisers change text, added tokens swallow `<|endoftext|>` and the blanks beside it, post-processors add
        # tokens: none of them may see the input. A prefix space would be one more byte.
        description |= dict.fromkeys(("normalizer", "post_processor", "truncation", "padding"))
        description["added_tokens"] = []
        description["model"]["dropout"] = None  # it would make archives random
        _drop_prefix_space(description.get("pre_tokenizer"))
        try:
            self._fast = FastTokenizer.from_str(json.dumps(description))
        except Exception as error:  # tokenizers raises bare Exception
            raise TokenizerError(f"model {folder}: tokenizer.json cannot be loaded: {error}") from None

    def encode(self, data: bytes) -> np.ndarray:
        """Token ids whose bytes are exactly `data`.

        Args:
            data: any bytes.

        Returns:
            (n,) int64, n <= len(data).
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
        encodings = iter(self._fast.encode_batch_fast([p for p, valid in pieces if valid], add_special_tokens=False))
        parts = [np.zeros(0, dtype=np.int64)]
        for piece, valid in pieces:
            raw = piece.encode("utf-8", "surrogateescape")
            ids = np.array(next(encodings).ids, dtype=np.int64) if valid else None
            if ids is None or len(ids) > len(raw) or self.tokens.decode(ids) != raw:
                ids = self._bytes[np.frombuffer(raw, dtype=np.uint8)]
            parts.append(ids)
        return np.concatenate(parts)


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


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"model {folder}: no tokenizer.json in this folder") from None
    except (OSError, ValueError) as error:
        raise TokenizerError(f"model {folder}: tokenizer.json cannot be read: {error}") from None
    if not isinstance(description, dict) or not isinstance(description.get("model"), dict):
        raise TokenizerError(f"model {folder}: tokenizer.json describes no tokenizer")
    return description


def byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as one character: itself if it is printable in Latin-1, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _byte_table(description: dict[str, Any], vocab_size: int, folder: Path) -> list[bytes]:
    """id -> bytes of a byte-level BPE; special and unknown ids stand for nothing."""
    model = description["model"]
    vocab = model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(vocab, dict) or not _is_byte_level(description):
        raise TokenizerError(f"model {folder}: its tokenizer is no byte-level BPE, the only kind supported")
    alphabet = byte_alphabet()
    try:
        special = {str(entry["content"]) for entry in description.get("added_tokens") or ()}
    except (TypeError, KeyError):
        raise TokenizerError(f"model {folder}: tokenizer.json lists added tokens without content") from None
    table = [b""] * vocab_size
    for text, i in vocab.items():
        if not isinstance(i, int) or not 0 <= i < vocab_size:
            raise TokenizerError(f"model {folder}: token {i} is outside the model's vocabulary of {vocab_size}")
        # A special token's text is not written in the alphabet; it is never produced and stands for nothing.
        if text not in special and all(character in alphabet for character in text):
            table[i] = bytes(alphabet[character] for character in text)
    return table


def _is_byte_level(description: dict[str, Any]) -> bool:
    return "ByteLevel" in json.dumps([description.get("pre_tokenizer"), description.get("decoder")])


def _drop_prefix_space(part: Any) -> None:
    """Turns `add_prefix_space` off, wherever it is nested."""
    if isinstance(part, dict):
        if "add_prefix_space" in part:
            part["add_prefix_space"] = False
        for value in part.values():
            _drop_prefix_space(value)
    elif isinstance(part, list):
        for value in part:
            _drop_prefix_space(value)
