"""Bytes to token ids and back, exactly, for any bytes; must not know models or files of tokenizers.

Decoding needs only the table of tokens. Encoding may choose any ids whose bytes make up the input, so whatever the
tokenizer does with a text, its answer is checked byte for byte, and what it gets wrong is spelled in single bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import TokenizerError
from .token_table import TokenTable
from .tokenizer_library import Libraries, Library

_PIECE_CHARS = 1 << 15
"""Characters that go to the tokenizer at once."""
_SPELLED_CHARS = 8
"""Characters of a text that is spelled in single bytes rather than halved again."""
_BREAK = re.compile(r"\n(?=[^\s])|(?<=\S)(?= \S)")


class Tokenizer:
    """A tokenizer from a Hugging Face folder, with everything that loses bytes taken out.

    Args:
        folder: with tokenizer.json, or vocab.json and merges.txt.
        vocab_size: number of the model's own tokens.

    Attributes:
        table: the bytes of every token, byte tokens included.

    Raises:
        ModelNotFoundError: the folder holds no tokenizer.
        TokenizerError: it cannot be read, is not supported or does not fit the model.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._libraries = Libraries(folder, vocab_size)
        try:
            self.table = TokenTable(self._libraries.entries)
        except TokenizerError as error:
            raise TokenizerError(f"model {folder}: {error}") from None
        self._libraries.prepare()
        self._spelled = _spelled(self.table)

    def encode(self, data: bytes) -> np.ndarray:
        """Returns token ids whose bytes are exactly `data`.

        Args:
            data: any bytes.

        Returns:
            (n,) int64, n <= len(data).
        """
        # Bytes that are not valid UTF-8 become lone surrogates, which valid UTF-8 never decodes to.
        text = data.decode("utf-8", "surrogateescape")
        pieces: list[tuple[str, bool]] = []
        start = 0
        for spelled in self._spelled.finditer(text):
            pieces += [(piece, True) for piece in _split(text[start : spelled.start()])]
            pieces.append((spelled.group(), False))
            start = spelled.end()
        pieces += [(piece, True) for piece in _split(text[start:])]
        texts = [piece for piece, known in pieces if known]
        encoded = iter(self._encode_texts(texts, self._libraries.choose(texts)) if texts else ())
        spell = self.table.encode_bytes
        parts = [next(encoded) if known else spell(piece.encode("utf-8", "surrogateescape")) for piece, known in pieces]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])

    def _encode_texts(self, texts: list[str], library: Library) -> list[np.ndarray]:
        """Returns the ids of each text. A text that the library gets wrong is halved, and at last spelled."""
        parts: list[np.ndarray] = []
        for text, ids in zip(texts, library.encode(texts), strict=True):
            raw = text.encode()
            if ids is not None and len(ids) <= len(raw) and self._stand_for(ids, raw):
                parts.append(ids)
            elif len(text) <= _SPELLED_CHARS:
                parts.append(self.table.encode_bytes(raw))
            else:
                parts.append(np.concatenate(self._encode_texts(_halves(text), library)))
        return parts

    def _stand_for(self, ids: np.ndarray, raw: bytes) -> bool:
        """Whether ids stand for these bytes; special tokens beyond the model's vocabulary stand for nothing."""
        entries = self.table.entries
        if len(ids) and int(ids.max()) >= len(entries):
            return False
        return b"".join([entries[i] for i in ids.tolist()]) == raw


class TableTokenizer(Tokenizer):
    """A tokenizer of which only the table is known, which is all that decoding needs.

    Args:
        table: the bytes of every token.
    """

    def __init__(self, table: TokenTable) -> None:
        self.table = table

    def encode(self, data: bytes) -> np.ndarray:
        """Refuses: the rules for cutting a text are not known.

        Raises:
            TokenizerError: always.
        """
        raise TokenizerError("a carried model has no rules for cutting a text into tokens: it only decompresses")


def _spelled(table: TokenTable) -> re.Pattern[str]:
    """Returns what is spelled at once: bytes that no tokenizer sees, with up to 3 characters between two of them.

    Those are bytes that are not valid UTF-8, and characters of one byte that no token of the model contains. What is
    between is too short to be worth a tokenizer's call.
    """
    known = set(b"".join(table.entries[: table.vocab_size - table.num_byte_tokens]))
    odd = "\udc80-\udcff" + "".join(re.escape(chr(byte)) for byte in table.lacking if byte < 0x80 and byte not in known)
    return re.compile(f"[{odd}](?:[^{odd}]{{0,3}}[{odd}])*")


def _halves(text: str) -> list[str]:
    """Cuts a text in two, where a word or a line begins if one does near the middle."""
    middle = len(text) // 2
    near = _BREAK.search(text, middle, middle + len(text) // 4)
    end = middle if near is None else near.end()
    return [text[:end], text[end:]]


def _split(text: str) -> list[str]:
    """Cuts a text into pieces of about 32,768 characters, where words or lines begin if such a place is near.

    A place that the library gets wrong then costs one piece, and the library works on several at once.
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
