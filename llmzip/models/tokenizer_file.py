"""The files of a Hugging Face tokenizer: what each token stands for, and a description without all that loses bytes.

Must not know how texts are encoded, or models. Three kinds: byte-level BPE (GPT-2, Llama 3, Qwen), BPE and Unigram as
SentencePiece writes them (Llama 2, Mistral, Gemma; T5), where a blank is U+2581 and single bytes are `<0x0A>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelNotFoundError, TokenizerError
from .layout import is_gguf
from .mishaps import mishap, reason

BLANK = "\u2581"
"""What SentencePiece writes for a blank."""
_BYTE_LEVEL = "ByteLevel"
_BYTE = re.compile("<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class TokenizerFile:
    """The description of a tokenizer.

    Attributes:
        folder: where it is, for messages.
        description: contents of tokenizer.json, or the equivalent of vocab.json and merges.txt or of a GGUF file; all
            that is checked is that it holds a model.
    """

    folder: Path
    description: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> TokenizerFile:
        """Reads a folder's tokenizer.json, or vocab.json and merges.txt as GPT-2 has them, or a GGUF file's metadata.

        Raises:
            ModelNotFoundError: neither is there.
            TokenizerError: it cannot be read.
        """
        if is_gguf(folder):
            from .gguf.tokenizer import description  # here, so that --help is quick

            return cls(folder, description(folder))
        return cls(folder, _read_description(folder))

    @property
    def kind(self) -> str | None:
        """What the tokens are: "byte-level", "sentencepiece" or "unigram"; None for a tokenizer of another sort."""
        model = self.description["model"]
        if model.get("type") == "Unigram":
            return "unigram"
        if model.get("type") != "BPE":
            return None
        parts = ("normalizer", "pre_tokenizer", "decoder")
        if _BYTE_LEVEL in json.dumps([self.description.get(key) for key in parts]):
            return "byte-level"
        steps = [self.description.get(key) for key in ("normalizer", "pre_tokenizer")]
        marks_blanks = BLANK in json.dumps(steps, ensure_ascii=False)
        return "sentencepiece" if marks_blanks or model.get("byte_fallback") else None

    def byte_table(self, vocab_size: int) -> list[bytes]:
        """Returns the bytes of each id; ids that are special, unknown or without a token stand for nothing, b"".

        Args:
            vocab_size: V of the model.

        Raises:
            TokenizerError: a kind of tokenizer that is not supported, or one that does not fit the model.
        """
        model, kind = self.description["model"], self.kind
        if kind is None:
            raise TokenizerError(
                f"model {self.folder}: its tokenizer is of kind {model.get('type')}; supported are byte-level BPE, and "
                "BPE and Unigram in SentencePiece's form"
            )
        # The library ends the program where such a prefix does not fit the merges; neither mark is part of a text.
        for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(mark):
                raise TokenizerError(f"model {self.folder}: a BPE with {mark} is not supported")
        try:
            added = self._added_tokens()
            if kind == "unigram":
                id_of = {str(text): i for i, (text, _) in enumerate(model["vocab"])}
            else:
                id_of = dict(model["vocab"])
        except (TypeError, KeyError, ValueError):
            raise TokenizerError(f"model {self.folder}: tokenizer.json lists tokens in an unknown form") from None
        alphabet = byte_alphabet()
        table = [b""] * vocab_size
        for text, i in id_of.items():
            if added.get(text, {}).get("special") and type(i) is int and i >= vocab_size:
                continue  # for padding, say: rows that the model lacks, and no text has them
            if type(i) is not int or not 0 <= i < vocab_size:
                raise TokenizerError(
                    f"model {self.folder}: token {i} is outside the model's vocabulary of {vocab_size}"
                )
            if text in added:
                continue  # its text is written in no alphabet
            if kind == "byte-level":
                table[i] = _written_in(alphabet, text)
            elif byte := _BYTE.fullmatch(text):
                table[i] = bytes.fromhex(byte.group(1))
            elif i != model.get("unk_id"):
                table[i] = text.replace(BLANK, " ").encode("utf-8", "surrogatepass")
        for entry in self._text_tokens(vocab_size):
            table[entry["id"]] = str(entry["content"]).encode("utf-8", "surrogatepass")
        return table

    def exact_description(self, vocab_size: int) -> dict[str, Any]:
        """Returns the description of the same tokenizer without what changes a text.

        Normalisers change it, special tokens swallow `<|endoftext|>` and the blanks next to it, post-processors add
        tokens: none of them may see the input. A prefix space would be one more byte. Only the mark for blanks stays,
        and added tokens that are text, such as runs of line ends.
        """
        description = self.description
        changed = {**description, **dict.fromkeys(("post_processor", "truncation", "padding"))}
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        changed["added_tokens"] = [entry | plain for entry in self._text_tokens(vocab_size)]
        changed["model"] = self._exact_model(vocab_size)
        changed["pre_tokenizer"] = _without_prefix(description.get("pre_tokenizer"))
        marks = _replacements(description.get("normalizer"))
        if self.kind == "byte-level":
            in_normalizer = _BYTE_LEVEL not in json.dumps(changed["pre_tokenizer"])
            marks = [{"type": _BYTE_LEVEL}] if in_normalizer else []
        elif not marks and "Metaspace" not in json.dumps(changed["pre_tokenizer"]):
            marks = [{"type": "Replace", "pattern": {"String": " "}, "content": BLANK}]
        changed["normalizer"] = marks[0] if marks else None
        return changed

    def _exact_model(self, vocab_size: int) -> dict[str, Any]:
        """Returns the model without chance, and without the tokens that the vocabulary does not hold."""
        model: dict[str, Any] = self.description["model"] | {"dropout": None}  # dropout would make archives random
        vocab = model["vocab"]
        if isinstance(vocab, dict) and max(vocab.values(), default=0) >= vocab_size:
            model["vocab"] = {text: i for text, i in vocab.items() if i < vocab_size}
        return model

    def _added_tokens(self) -> dict[str, dict[str, Any]]:
        """Returns text -> entry of the tokens that are searched for first; special ones never stand for text."""
        return {str(entry["content"]): entry for entry in self.description.get("added_tokens") or ()}

    def _text_tokens(self, vocab_size: int) -> list[dict[str, Any]]:
        """Returns the entries of the added tokens that stand for text.

        SentencePiece writes blanks in them as everywhere: Gemma's runs of blanks are tokens of this kind.
        """
        blank = BLANK if self.kind == "byte-level" else " "
        return [
            entry | {"content": str(entry["content"]).replace(BLANK, blank)}
            for entry in self._added_tokens().values()
            if not entry.get("special") and type(entry.get("id")) is int and 0 <= entry["id"] < vocab_size
        ]


# -- reading ---------------------------------------------------------------------------------------------------------


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
            return _from_merges(folder)
        others = [
            n for n in ("tokenizer.model", "spiece.model", "tiktoken.model", "tekken.json") if (folder / n).exists()
        ]
        hint = ""
        if others:
            hint = (
                f"; it has {others[0]}: transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) makes one"
            )
        raise ModelNotFoundError(f"model {folder}: no tokenizer.json in this folder{hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(
            f"model {folder}: tokenizer.json cannot be read: {reason(folder / 'tokenizer.json', error)}"
        ) from None
    if not isinstance(description, dict) or not isinstance(description.get("model"), dict):
        raise TokenizerError(f"model {folder}: tokenizer.json describes no tokenizer")
    model = description["model"]
    if "type" not in model:  # files of the first versions, GPT-2's among them, leave it to be guessed
        guess = "Unigram" if isinstance(model.get("vocab"), list) else "BPE" if "merges" in model else None
        description["model"] = model | ({} if guess is None else {"type": guess})
    return description


def _from_merges(folder: Path) -> dict[str, Any]:
    """Reads vocab.json and merges.txt as the description that tokenizer.json would hold."""
    try:
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        if mishap(folder / "merges.txt"):  # any text would pass for merges
            raise ValueError
    except (OSError, ValueError, RecursionError) as error:
        name = "vocab.json" if mishap(folder / "vocab.json") else "merges.txt"
        if why := mishap(folder / name):
            raise TokenizerError(f"model {folder}: {name} cannot be read: {why}") from None
        raise TokenizerError(f"model {folder}: vocab.json or merges.txt cannot be read: {error}") from None
    merges = [line for line in lines if line and not line.startswith("#version")]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [text for text in ("<|endoftext|>",) if isinstance(vocab, dict) and text in vocab]
    return {
        "version": "1.0",
        "added_tokens": [{"content": text, "id": vocab[text], "special": True} for text in special],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


# -- parts of a description ------------------------------------------------------------------------------------------


def byte_alphabet() -> dict[str, int]:
    """Returns character -> byte of byte-level BPE: printable bytes are Latin-1, the others begin at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _written_in(alphabet: Mapping[str, int], text: str) -> bytes:
    """Returns the bytes that a token's characters stand for; b"" if one of them stands for none."""
    try:
        return bytes(map(alphabet.__getitem__, text))
    except KeyError:
        return b""


def _replacements(normalizer: Any) -> list[dict[str, Any]]:
    """Returns the normalisers that only write the mark for a blank."""
    if not isinstance(normalizer, dict):
        return []
    if normalizer.get("type") == "Sequence":
        return [mark for part in normalizer.get("normalizers") or () for mark in _replacements(part)]
    blank = normalizer.get("type") == "Replace" and normalizer.get("pattern") == {"String": " "}
    return [normalizer] if blank and normalizer.get("content") == BLANK else []


def _without_prefix(part: Any) -> Any:
    """Returns a pre-tokenizer that puts no blank before the text, however it is nested."""
    if isinstance(part, list):
        return [_without_prefix(value) for value in part]
    if not isinstance(part, dict):
        return part
    changed = {name: _without_prefix(value) for name, value in part.items()}
    if "add_prefix_space" in changed:
        changed["add_prefix_space"] = False
    if changed.get("type") == "Metaspace":
        changed["prepend_scheme"] = "never"
        changed.pop("add_prefix_space", None)
    return changed
