"""The tokenizers library with a model's tokenizer, loaded when a text is encoded; the only module that loads it.

Loading 262,144 tokens and their merges takes longer than coding a page with them. So a tokenizer whose tokens are kept
(token_cache.py) is read from there, which is enough for decoding, and a short text gets a library that knows only what
this text can use. It gives the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import TokenizerError
from ..system import forks
from . import token_cache
from .embedded import EMBEDDED
from .tokenizer_file import TokenizerFile

_MAX_REDUCED_CHARS = 1 << 13
"""Characters of texts for which the library is reduced: searching all tokens in more of them is slow."""
_MAX_REDUCED_TEXTS = 8
"""Texts after which the whole library is loaded, because there may be many more."""


class Library:
    """One object of the library.

    Args:
        description: contents of a tokenizer.json.

    Attributes:
        ids: (n,) int64: the library's id -> the model's; empty where they are the same.

    Raises:
        Exception: the library cannot load it, and raises nothing more special.
    """

    def __init__(self, description: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        self._fast = FastTokenizer.from_str(json.dumps(description))
        self.id_of = self._fast.token_to_id
        self.ids = np.zeros(0, dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """Returns the model's ids of each text, (n,) int64; None for a text that the library fails on."""
        try:
            encodings = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception:  # a Unigram that knows no token for the unknown, say; tokenizers raises bare Exception
            return [None] if len(texts) == 1 else [ids for text in texts for ids in self.encode([text])]
        arrays = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return [self.ids[ids] for ids in arrays] if len(self.ids) else list(arrays)


def _whole(file: TokenizerFile, vocab_size: int) -> Library:
    """Loads the library with a whole tokenizer.

    Raises:
        TokenizerError: it cannot be loaded.
    """
    try:
        description = file.exact_description(vocab_size)
        ids = _closed_gaps(description)
        library = Library(description)
        added = {str(entry["content"]): int(entry["id"]) for entry in description["added_tokens"]}
        model_ids = _model_ids(library, ids, added)
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(f"model {file.folder}: tokenizer.json cannot be loaded: {error}") from None
    if not np.array_equal(model_ids, np.arange(len(model_ids))):
        library.ids = model_ids
    return library


def _closed_gaps(description: dict[str, Any]) -> np.ndarray:
    """Renumbers a vocabulary whose ids have gaps: the library numbers new tokens from its size on, taken or not.

    Returns:
        (n,) int64: the library's id -> the model's.
    """
    vocab = description["model"]["vocab"]
    ids = sorted(set(vocab.values())) if isinstance(vocab, dict) else list(range(len(vocab)))
    if ids and ids[-1] >= len(ids):
        place = {i: n for n, i in enumerate(ids)}
        description["model"] = description["model"] | {"vocab": {text: place[i] for text, i in vocab.items()}}
    return np.array(ids, dtype=np.int64)


def _model_ids(library: Library, ids: np.ndarray, added: Mapping[str, int]) -> np.ndarray:
    """Returns the library's ids -> the model's.

    Args:
        library: that has numbered the added tokens.
        ids: the model's ids of the vocabulary that it was given.
        added: text -> the model's id of the added tokens.
    """
    numbers = {content: library.id_of(content) for content in added}
    size = max([len(ids), *(number + 1 for number in numbers.values() if number is not None)])
    model_ids = np.zeros(size, dtype=np.int64)
    model_ids[: len(ids)] = ids
    for content, number in numbers.items():
        if number is not None and number >= len(ids):
            model_ids[number] = added[content]
    return model_ids


def _reduced(kept: token_cache.KeptTokenizer, text: str) -> Library:
    """Loads the library with what one text can use."""
    reduced = kept.reduced(text)
    library = Library(reduced.description)
    library.ids = _model_ids(library, reduced.ids, reduced.added)
    return library


class Libraries:
    """The library of one tokenizer: the whole one, and reduced ones for short texts.

    Args:
        folder: with tokenizer.json, or vocab.json and merges.txt.
        vocab_size: V of the model.

    Attributes:
        entries: bytes of each of the model's tokens, as `TokenizerFile.byte_table` returns them.

    Raises:
        ModelNotFoundError: the folder holds no tokenizer.
        TokenizerError: it cannot be read, is not supported or does not fit the model.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self._folder, self._vocab_size, self._reduced_texts = folder, vocab_size, 0
        self._stamp = token_cache.stamp(folder)
        self._kept = token_cache.read(folder, vocab_size)
        self._file: TokenizerFile | None = None
        if self._kept is not None:
            self.entries = self._kept.entries
        else:
            self._file = TokenizerFile.read(folder)
            self.entries = self._file.byte_table(vocab_size)

    def prepare(self) -> None:
        """Loads the whole library now unless the tokenizer is kept, and keeps a large one: then it is known to load.

        Those of the embedded models are known to: theirs is loaded when something is encoded, and decoding needs none.

        Raises:
            TokenizerError: it cannot be loaded.
        """
        if self._file is not None and not any(self._folder == model.folder for model in EMBEDDED):
            assert self.whole is not None
            token_cache.keep(self._file, self.entries)
            self._file = None

    @forks.cached_property
    def whole(self) -> Library:
        """The library with the whole tokenizer.

        Raises:
            TokenizerError: it cannot be loaded, or its files have been replaced by those of another one.
        """
        file = TokenizerFile.read(self._folder) if self._file is None else self._file
        is_same = self._kept is None or token_cache.stamp(self._folder) == self._stamp
        if not is_same and file.byte_table(self._vocab_size) != self.entries:
            raise TokenizerError(f"model {self._folder}: its tokenizer was replaced by another one while it was in use")
        return _whole(file, self._vocab_size)

    def choose(self, texts: Sequence[str]) -> Library:
        """Returns a library that encodes texts as the whole one does.

        Args:
            texts: all that will be encoded by it.

        Raises:
            TokenizerError: the files have changed, and cannot be loaded any more.
        """
        is_loaded = "whole" in self.__dict__
        if self._kept is None or is_loaded or not self._kept.can_reduce or self._reduced_texts >= _MAX_REDUCED_TEXTS:
            return self.whole
        if sum(map(len, texts)) > _MAX_REDUCED_CHARS:
            return self.whole
        self._reduced_texts += 1
        try:
            return _reduced(self._kept, "\n".join(texts))
        except Exception:  # tokenizers raises bare Exception
            return self.whole
