"""A prompt: a text that both sides know beforehand, as tokens; must not know files, engines or frames."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..mixing.mixer import MixEncoder

MAX_TOKENS = 1 << 16
"""Tokens at the end of the text that are used: 65,536."""


@dataclass
class Prompt:
    """What a model has read before a row begins (format section 4).

    Attributes:
        tokens: (n,) int64, which the mixer learns from.
        context: (p,) int64, the last of them: every row's first context begins with them, after the start token.
        reader: the mixer with the model's predictions of the tokens, once a frame has needed it.
    """

    tokens: np.ndarray
    context: np.ndarray
    reader: MixEncoder | None = None


def make(text: bytes, tokenizer: Tokenizer, context: int) -> Prompt:
    """Returns the prompt for a model that sees `context` positions, of which it takes at most half."""
    tokens = tokenizer.encode(text)[-MAX_TOKENS:]
    return Prompt(tokens, tokens[-max(1, context // 2) :] if len(tokens) else tokens)


def digest(text: bytes) -> bytes:
    """Returns the SHA-256 of the whole text."""
    return hashlib.sha256(b"llmzip prompt\n" + text).digest()
