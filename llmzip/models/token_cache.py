"""Large tokenizers in a form that is read in milliseconds, kept on the disk; must not load tokenizers or know models.

A tokenizer.json of 262,144 tokens takes a second to parse, and the library that encodes with it takes another one. What
is kept are the tokens' bytes, which is all that decoding needs, and the vocabulary and merges as arrays. From those a
description is cut out that holds only what a short text can use (`KeptTokenizer.reduced`).

A kept file is a shortcut and nothing else: one that is missing, damaged or of other files is ignored, and rewritten.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..system import cache
from .layout import is_gguf
from .tokenizer_file import BLANK, TokenizerFile, byte_alphabet

_VERSION = 1
_MIN_KEPT_TOKENS = 1 << 14
"""Smaller vocabularies are parsed in a blink."""
_MAX_FILE_BYTES = 1 << 28  # 256 MiB
_SOURCES = ("tokenizer.json", "vocab.json", "merges.txt")
_ARRAYS = {
    "entry_bytes": np.uint8,
    "entry_lengths": np.uint32,
    "text_bytes": np.uint8,
    "text_lengths": np.uint32,
    "text_ids": np.int32,
    "always": np.int32,
    "merges": np.int32,
    "description": np.uint8,
}
"""Name -> type of the arrays in a file. `entry_*` are the table, `text_*` the vocabulary as the library writes it, in
its order, `always` the places in it that no text may leave out, `merges` (m, 3) the places of left part, right part and
both together, `description` all else as JSON."""

_DIGEST = "digest"
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)


class Reduced(NamedTuple):
    """What the library needs to encode one text.

    Attributes:
        description: contents of a tokenizer.json.
        ids: (n,) int64: the library's id -> the model's.
        added: text -> the model's id of the added tokens, which the library may number after the others.
    """

    description: dict[str, Any]
    ids: np.ndarray
    added: dict[str, int]


class KeptTokenizer:
    """A tokenizer as it is kept.

    Args:
        arrays: those of the file.

    Attributes:
        entries: bytes of each of the model's tokens.
        can_reduce: whether `reduced` can be asked.

    Raises:
        ValueError, KeyError, TypeError: the arrays contradict each other.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.entries = _pieces(arrays["entry_bytes"], arrays["entry_lengths"])
        description = json.loads(arrays["description"].tobytes())
        self._description: dict[str, Any] = {**description}
        self._model: dict[str, Any] = {**description["model"]}
        self._added = {str(entry["content"]): entry for entry in description["added_tokens"]}
        self._blob, self._lengths = arrays["text_bytes"].tobytes(), arrays["text_lengths"].astype(np.int64)
        self._ends = np.cumsum(self._lengths)
        self._ids, self._always, self._merges = arrays["text_ids"], arrays["always"], arrays["merges"]
        count = len(self._lengths)
        if self._lengths.sum() != len(self._blob) or self._ids.shape != (count,) or self._merges.shape[1:] != (3,):
            raise ValueError("sizes that contradict each other")
        for values, end in ((self._ids, len(self.entries)), (self._merges, count), (self._always, count)):
            if values.size and not 0 <= int(values.min()) <= int(values.max()) < end:
                raise ValueError("a place outside of what it points to")
        self.can_reduce = count > 0

    def reduced(self, text: str) -> Reduced:
        """Returns a tokenizer that encodes a text as the whole one does.

        A merge joins two neighbours into a part of the text, so tokens that the text does not contain are never asked
        for; the merges that are left keep their order.

        Args:
            text: of some thousand characters: the whole vocabulary is searched for in it.
        """
        chosen = self._occurring(text)
        places = np.flatnonzero(chosen)
        ends, lengths = self._ends[places].tolist(), self._lengths[places].tolist()
        texts = [
            self._blob[end - length : end].decode("utf-8", "surrogatepass")
            for end, length in zip(ends, lengths, strict=True)
        ]
        number = np.cumsum(chosen) - 1  # of a chosen token in the reduced vocabulary
        pairs = number[self._merges[chosen[self._merges].all(1), :2]].tolist()
        model = self._model | {
            "vocab": {token: i for i, token in enumerate(texts)},
            "merges": [[texts[left], texts[right]] for left, right in pairs],
        }
        added = [entry for content, entry in self._added.items() if content in text]
        return Reduced(
            self._description | {"model": model, "added_tokens": added},
            self._ids[places].astype(np.int64),
            {str(entry["content"]): int(entry["id"]) for entry in added},
        )

    def _occurring(self, text: str) -> np.ndarray:
        """Returns (n,) bool: the tokens that encoding a text may ask for, and some more, which do no harm."""
        forms = [text, text.replace(" ", BLANK)]
        steps = [self._description.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]
        if "ByteLevel" in json.dumps(steps):
            character_of = {byte: character for character, byte in byte_alphabet().items()}
            forms.append("".join([character_of[byte] for byte in text.encode("utf-8", "surrogatepass")]))
        searched = "\n".join(forms).encode("utf-8", "surrogatepass")
        pairs = np.frombuffer(searched + b"\n", dtype=np.uint8).astype(np.int64)
        seen = np.zeros(1 << 16, dtype=bool)
        seen[pairs[:-1] << 8 | pairs[1:]] = True
        # Most tokens begin or end with two bytes that are nowhere next to each other in the text.
        blob, starts = np.frombuffer(self._blob + b"\0", dtype=np.uint8).astype(np.int64), self._ends - self._lengths
        possible = seen[blob[starts] << 8 | blob[starts + 1]] & seen[blob[self._ends - 2] << 8 | blob[self._ends - 1]]
        places = np.flatnonzero(possible | (self._lengths < 2))
        ends, lengths = self._ends[places].tolist(), self._lengths[places].tolist()
        chosen = np.zeros(len(self._lengths), dtype=bool)
        chosen[places] = [self._blob[end - length : end] in searched for end, length in zip(ends, lengths, strict=True)]
        chosen[self._always] = True
        return chosen


def read(folder: Path, vocab_size: int) -> KeptTokenizer | None:
    """Reads what is kept of a folder's tokenizer; returns None if that is missing or damaged in any way.

    Args:
        folder: of the model.
        vocab_size: V of the model.
    """
    path = _kept_path(folder, vocab_size)
    try:
        if path is None or path.stat().st_size > _MAX_FILE_BYTES:
            return None
        arrays = _unpacked(path.read_bytes())
        if arrays.pop(_DIGEST).tobytes() != _digest(arrays):
            return None
        if {name: array.dtype for name, array in arrays.items()} != _ARRAYS:
            return None
        kept = KeptTokenizer(arrays)
        return kept if len(kept.entries) == vocab_size else None
    except _DAMAGED:
        return None


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a file of safetensors.

    Raises:
        ValueError: it is none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def keep(file: TokenizerFile, entries: Sequence[bytes]) -> None:
    """Keeps a large tokenizer that the library has loaded; one that cannot be written is parsed again the next time.

    Args:
        file: its description.
        entries: bytes of each of the model's tokens.
    """
    path = _kept_path(file.folder, len(entries))
    if path is None or len(entries) < _MIN_KEPT_TOKENS:
        return
    arrays = {**_joined("entry", entries), **_library_arrays(file, len(entries))}
    arrays = {name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in _ARRAYS.items()}
    arrays[_DIGEST] = np.frombuffer(_digest(arrays), dtype=np.uint8)
    from safetensors.numpy import save

    data = save(arrays)
    if len(data) <= _MAX_FILE_BYTES and cache.replace(path, lambda name: Path(name).write_bytes(data)):
        cache.remove_older(path)


def stamp(folder: Path) -> bytes | None:
    """Returns what changes when the files of a folder's tokenizer do; None if there are none.

    Args:
        folder: of the model; or a GGUF file, whose first part holds the tokenizer.
    """
    try:
        return b"".join(map(cache.identity, _files(folder))) or None
    except OSError:
        return None


def _files(folder: Path) -> list[Path]:
    """Returns the files of a tokenizer, in an order that stays."""
    return [folder] if is_gguf(folder) else [folder / name for name in _SOURCES if (folder / name).exists()]


def _kept_path(folder: Path, vocab_size: int) -> Path | None:
    """Returns the file for a folder's tokenizer, named after the tokenizer's files; None if there is no place."""
    base = cache.folder("models")
    try:
        files = _files(folder)
        name = cache.name(f"tokens {_VERSION} {vocab_size}", files)
    except OSError:
        return None
    return base / f"{name}.tokens" if base is not None and files else None


def _library_arrays(file: TokenizerFile, vocab_size: int) -> dict[str, np.ndarray]:
    """Returns what `KeptTokenizer.reduced` needs; without vocabulary where a text may ask for tokens it does not hold.

    Args:
        file: a description that the library has loaded.
        vocab_size: V of the model.
    """
    description = file.exact_description(vocab_size)
    model = dict(description["model"])
    vocab, merges = model.pop("vocab"), model.pop("merges", None)
    needed = {model.get("unk_token"), *(f"<0x{byte:02X}>" for byte in range(256))}
    texts: list[str] = []
    merged = np.zeros((0, 3), dtype=np.int32)
    blanks = re.findall('"replacement": "(.*?)"', json.dumps(description.get("pre_tokenizer"), ensure_ascii=False))
    if model.get("type") == "BPE" and not model.get("end_of_word_suffix") and set(blanks) <= {BLANK}:
        place = {token: i for i, token in enumerate(vocab)}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
        with contextlib.suppress(KeyError, ValueError):  # merges of a form that only the library reads
            found = np.array([[place[a], place[b], place[a + b]] for a, b in pairs], dtype=np.int32).reshape(-1, 3)
            # Tokens that stand for something else than their text would be merged to what no text contains.
            if needed.isdisjoint(itertools.chain.from_iterable(pairs)) and len(set(vocab.values())) == len(vocab):
                texts, merged = list(vocab), found
    rest = description | {"model": model}
    return {
        **_joined("text", [token.encode("utf-8", "surrogatepass") for token in texts]),
        "text_ids": np.array([vocab[token] for token in texts]),
        "always": np.array([i for i, token in enumerate(texts) if token in needed]),
        "merges": merged,
        "description": np.frombuffer(json.dumps(rest).encode("ascii"), dtype=np.uint8),
    }


def _joined(name: str, pieces: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Returns strings of bytes as two arrays; `_pieces` cuts them apart."""
    return {
        f"{name}_bytes": np.frombuffer(b"".join(pieces), dtype=np.uint8),
        f"{name}_lengths": np.array([len(piece) for piece in pieces]),
    }


def _pieces(joined: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    ends = np.cumsum(lengths, dtype=np.int64)
    if int(ends[-1]) != joined.size:
        raise ValueError("lengths that do not sum to what there is")
    data, starts = joined.tobytes(), [0, *ends.tolist()]
    return [data[start:end] for start, end in itertools.pairwise(starts)]


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the SHA-256 of names, shapes and contents."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.digest()
