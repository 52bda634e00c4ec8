"""From the metadata of a GGUF file to the description that its tokenizer.json would hold; must not encode texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import ModelError, ModelNotFoundError, TokenizerError
from . import pretokenizers
from .reader import Array, GgufFile, open_gguf

_MAX_TOKENS = 1 << 20
_MAX_SPLIT_CHARACTERS = 256
"""Longest token whose merges are derived: longer ones are what SentencePiece never makes."""
_BLANK = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""Values of tokenizer.ggml.token_type."""
_KINDS = ("gpt2", "llama")


def description(path: Path) -> dict[str, Any]:
    """Returns what tokenizer.json would hold.

    Raises:
        ModelNotFoundError: a part of the file is missing.
        TokenizerError: the file or its tokenizer cannot be read, or is of a kind that is not supported.
    """
    try:
        file = open_gguf(path)
    except ModelNotFoundError:
        raise
    except ModelError as error:
        raise TokenizerError(f"model {path}: {error}") from None
    try:
        return _byte_level(file) if _kind(file) == "gpt2" else _sentencepiece(file)
    except _Misstated as error:
        raise TokenizerError(f"model {path}: {error}") from None


def remark(path: Path) -> str:
    """Returns what a user should know about the tokenizer of a file; "" for nothing.

    Raises:
        ModelError: the file cannot be read.
    """
    file = open_gguf(path)
    name = file.metadata.get("tokenizer.ggml.pre", "default")
    if file.metadata.get("tokenizer.ggml.model") != "gpt2" or pretokenizers.is_known(str(name)):
        return ""
    return f"splits texts as GPT-2 does, because its own way, {name!r:.50}, is not known"


class _Misstated(ValueError):
    """Something that the metadata lack or misstate; the text says what."""


def _kind(file: GgufFile) -> str:
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind is None:
        raise _Misstated("its metadata hold no tokenizer (tokenizer.ggml.model)")
    if kind not in _KINDS:
        raise _Misstated(
            f"its tokenizer is of kind {kind!r:.50}; supported are gpt2 (byte-level BPE) and llama (SentencePiece BPE)"
        )
    return str(kind)


def _listed(file: GgufFile, name: str, kinds: type | tuple[type, ...], count: int | None = None) -> list[Any]:
    """Returns an array of the metadata.

    Args:
        file: with the metadata.
        name: of the field, after "tokenizer.ggml.".
        kinds: types that its values may have.
        count: number that it must have; None for any.
    """
    array = file.metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(array, Array):
        raise _Misstated(f"its metadata lack tokenizer.ggml.{name}")
    if count is not None and array.count != count:
        raise _Misstated(f"its metadata have {array.count:,} tokenizer.ggml.{name} for {count:,} tokens")
    values = array.values() if name == "merges" or array.count <= _MAX_TOKENS else [None]
    if not all(isinstance(value, kinds) for value in values[:1]):  # of one type all of them
        raise _Misstated(f"its metadata misstate tokenizer.ggml.{name}")
    return values


def _tokens(file: GgufFile) -> tuple[list[str], list[int]]:
    """Returns texts and types of the tokens."""
    texts = _listed(file, "tokens", str)
    if "tokenizer.ggml.token_type" not in file.metadata:
        return texts, [_NORMAL] * len(texts)
    return texts, _listed(file, "token_type", int, len(texts))


def _added(texts: list[str], types: list[int]) -> list[dict[str, Any]]:
    """Returns the tokens that are searched for first, and those that never stand for text."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": i, "content": text, **plain, "special": kind != _USER_DEFINED}
        for i, (text, kind) in enumerate(zip(texts, types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and text
    ]


def _vocabulary(texts: list[str], types: list[int]) -> dict[str, int]:
    """Returns text -> id of all tokens that the checkpoint's tokenizer would have: rows without a token are marked."""
    return {text: i for i, (text, kind) in enumerate(zip(texts, types, strict=True)) if kind != _UNUSED and text}


def _described(added: list[dict[str, Any]], pre_tokenizer: Any, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            **model,
        },
    }


def _byte_level(file: GgufFile) -> dict[str, Any]:
    """Describes a byte-level BPE, whose merges the metadata list."""
    texts, types = _tokens(file)
    vocabulary, name = _vocabulary(texts, types), str(file.metadata.get("tokenizer.ggml.pre", "default"))
    merges = []
    for merge in _listed(file, "merges", str):
        left, _, right = merge.partition(" ")
        if left in vocabulary and right in vocabulary and left + right in vocabulary:  # the library insists
            merges.append([left, right])
    model = {
        "unk_token": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": pretokenizers.ignores_merges(name),
        "vocab": vocabulary,
        "merges": merges,
    }
    described = _described(_added(texts, types), pretokenizers.pre_tokenizer(name), model)
    return described | {"decoder": pretokenizers.byte_level()}


def _sentencepiece(file: GgufFile) -> dict[str, Any]:
    """Describes a BPE of SentencePiece, whose merges follow from the scores of its tokens."""
    texts, types = _tokens(file)
    scores = _listed(file, "scores", (int, float), len(texts))
    vocabulary, added = _vocabulary(texts, types), _added(texts, types)
    unknown = next((text for text, kind in zip(texts, types, strict=True) if kind == _UNKNOWN), None)
    if unknown is None:
        i = file.metadata.get("tokenizer.ggml.unknown_token_id")
        unknown = texts[i] if type(i) is int and 0 <= i < len(texts) and texts[i] in vocabulary else None
    model = {
        "unk_token": unknown,
        "fuse_unk": True,
        "byte_fallback": _BYTE in types,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": _merges(texts, types, scores),
    }
    blank = {"String": _BLANK}
    return _described(added, None, model) | {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _BLANK},
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": blank, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            ],
        },
    }  # fmt: skip


def _merges(texts: list[str], types: list[int], scores: list[float]) -> list[list[str]]:
    """Returns the pairs that make each token, the token with the highest score first.

    SentencePiece merges whatever neighbours make the token with the highest score (Kudo and Richardson 2018,
    arXiv:1808.06226); of equal scores, which some converters write, the token that comes first in the vocabulary has
    been made first.
    """
    ids = {text: i for i, (text, kind) in enumerate(zip(texts, types, strict=True)) if kind == _NORMAL}
    ranked = sorted(ids.items(), key=lambda item: (-scores[item[1]], item[1]))
    merges: list[list[str]] = []
    for text, _ in ranked:
        if len(text) > _MAX_SPLIT_CHARACTERS:
            continue
        pairs = [[left, right] for n in range(1, len(text)) if (left := text[:n]) in ids and (right := text[n:]) in ids]
        if len(pairs) > 1:
            pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        merges += pairs
    return merges
