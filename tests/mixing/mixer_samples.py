"""Texts and tokens of every kind for the mixer, the same in every run."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from llmzip.mixing.mixer import MixDecoder, MixEncoder
from llmzip.mixing.vocabulary import Vocabulary

MAX_MASS = 1 << 20
_TEXT = (
    "the harbour wall was built of stone and wind came over it in long even gusts while boats waited for water that "
    "rose twice a day as tables said it would"
)
_WORDS = _TEXT.split()

# -- bytes -------------------------------------------------------------------------------------------------------------


def text(num_bytes: int, seed: int = 1) -> bytes:
    """Sentences of common words, with capitals and full stops."""
    chooser, out = random.Random(seed), ""
    while len(out) < num_bytes:
        words = [chooser.choice(_WORDS) for _ in range(chooser.randint(3, 12))]
        out += " ".join(words).capitalize() + chooser.choice([". ", ".\n", "? ", ", so: "])
    return out.encode()[:num_bytes]


def csv(num_bytes: int) -> bytes:
    """A table in which lines and columns are alike; every seventh line is short."""
    chooser, out, number = random.Random(2), "number,name,value;note\n", 0
    while len(out) < num_bytes:
        number += chooser.randint(1, 3)
        row = f'{number},"{chooser.choice(_WORDS)}",{chooser.random():.3f};{"-" if number % 3 else "x|y"}\n'
        out += row[:5] + "\n" if number % 7 == 0 else row
    return out.encode()[:num_bytes]


def settings(num_bytes: int) -> bytes:
    """Indented lines of keys and values, with every sign that the mixer distinguishes, and rules of equal signs."""
    chooser, out = random.Random(7), ""
    while len(out) < num_bytes:
        key, indent = "-".join(chooser.sample(_WORDS, 2)), chooser.choice(["", "  ", "\t"])
        value = chooser.choice([f"[{key}, {len(key)}]", f"/usr/{key}_1.0", f"<{key}>{key.upper()}</{key}>", f'"{key}"'])
        out += f"{indent}{key}{chooser.choice([' = ', ': ', '|', '='])}{value}{chooser.choice(['', ';', ' # {!}'])}\n"
        out += "=" * 12 + "\n\n" if chooser.random() < 0.1 else ""
    return out.encode()[:num_bytes]


def nested(num_bytes: int) -> bytes:
    """Brackets deeper than the mixer's stack, closed too often, lines longer than its ring, and fields beyond count."""
    chooser = random.Random(3)
    out = b"([{<" * 40 + b")]}>" * 60 + b"\n" + b"a,b;" * 100 + b"\n" + b"a,c;" * 100 + b"\n"
    while len(out) < num_bytes:
        line = b"".join(
            chooser.choice([b"(", b"[", b"x", b"1", b"]", b"=", b"\t", b"\xc3\xa9", b"Ab"]) for _ in range(99)
        )
        out += line * (90 if len(out) < 20_000 else 1) + b"\n" + line[:50] + b"\n"
    return out[:num_bytes]


def noise(num_bytes: int, seed: int = 4) -> bytes:
    """Random bytes."""
    return random.Random(seed).randbytes(num_bytes)


def lines(num_bytes: int) -> bytes:
    """Two lines of this length with their ends; the mixer looks up about 8,192 bytes, over one line or two."""
    line = noise(num_bytes - 1, seed=num_bytes).replace(b"\n", b",") + b"\n"
    return line + line[:-3] + b"ab\n"


def short_bytes() -> dict[str, bytes]:
    """A few hundred bytes of each kind."""
    return {
        "one byte": b"\xff",
        "zeros": bytes(60),
        "alternating": b"\0\xff" * 30,
        "random": noise(120),
        "csv": csv(300),
        "text": text(300),
        "settings": settings(300),
        "nested": nested(1000)[700:],
        "control bytes": bytes(range(20)) + bytes(range(240, 256)),
    }


def long_bytes() -> dict[str, bytes]:
    """Enough of each kind that every table of the mixer is used, counters end and old text is forgotten."""
    return {
        "text": text(40_000),
        "csv": csv(40_000),
        "settings": settings(40_000),
        "nested": nested(60_000),
        "random": noise(20_000),
        "noise twice": noise(15_000) * 2,
        "long lines": b"".join(lines(length) * 2 for length in (8183, 8184, 8185, 4091, 4092, 4093)),
        "zeros": bytes(50_000),
        "all": csv(9000)
        + text(9000)
        + noise(300)
        + csv(20_000)[9000:]
        + b"\xe6\x97\xa5" * 200
        + nested(9000)
        + text(9000),
    }


# -- tokens ------------------------------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    """Tokens of a vocabulary with masses of a model.

    Attributes:
        tokens: (N,) int64.
        rows: R.
        masses: from places, (n,) int64, to (n, V) int32; None if there is no model.
        table: bytes of each token.
    """

    tokens: np.ndarray
    rows: int
    masses: Callable[[np.ndarray], np.ndarray] | None
    table: tuple[bytes, ...]


def word_table(size: int) -> tuple[bytes, ...]:
    """Bytes, words, twins, and tokens that stand for nothing; no order by frequency."""
    words = [b"", b"", b"\n", b",", b"(", b")", *[word.encode() for word in _WORDS]]
    chooser = random.Random(5)
    while len(words) < size:
        words.append(chooser.choice([chooser.randbytes(1), b" " + chooser.choice(words), chooser.choice(words)[:2]]))
    return tuple(words[:size])


def hidden_tail_table() -> tuple[bytes, ...]:
    """A vocabulary whose last leaf lies beside an inner node, so that one path ends where paths of others go on."""
    table = [b"a%04d" % i for i in range(1002)]
    table[0], table[1000], table[1001] = b"zz", b"zx", b"zy"
    return tuple(table)


@functools.cache
def vocabulary(table: tuple[bytes, ...]) -> Vocabulary:
    """The tree of a vocabulary, built once."""
    return Vocabulary(table)


def drawn_tokens(num_tokens: int, size: int, seed: int = 6) -> np.ndarray:
    """Tokens of which pieces come again."""
    chooser, out = random.Random(seed), []
    while len(out) < num_tokens:
        if len(out) > 20 and chooser.random() < 0.3:
            begin = chooser.randrange(len(out) - 15)
            out += out[begin : begin + chooser.randint(3, 15)]
        else:
            out.append(int(size * chooser.random() ** 3))
    return np.array(out[:num_tokens], dtype=np.int64)


def hashed_masses(tokens: np.ndarray, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Masses that seem random; one in two is 0, and the token itself is often, but not always, likely."""

    def masses(places: np.ndarray) -> np.ndarray:
        value = (places[:, None] + 1) * 2_654_435_761 + np.arange(1, size + 1) * 40_503
        value ^= value >> 13
        out = np.maximum(value % (1 << 15) - (1 << 14), 0).astype(np.int32)
        out[np.arange(len(places)), np.where(places % 4, tokens[places], places % size)] = MAX_MASS
        return out

    return masses


def one_mass(chosen: np.ndarray, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """All of the mass on one token at each place."""

    def masses(places: np.ndarray) -> np.ndarray:
        out = np.zeros((len(places), size), dtype=np.int32)
        out[np.arange(len(places)), chosen[places]] = MAX_MASS
        return out

    return masses


def equal_masses(size: int, mass: int = MAX_MASS) -> Callable[[np.ndarray], np.ndarray]:
    """The same mass for every token."""
    return lambda places: np.full((len(places), size), mass, dtype=np.int32)


def never_mass(tokens: np.ndarray, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Everything is as likely as can be, only the token that comes has no mass."""

    def masses(places: np.ndarray) -> np.ndarray:
        out = np.full((len(places), size), MAX_MASS, dtype=np.int32)
        out[np.arange(len(places)), tokens[places]] = 0
        return out

    return masses


def token_sample(kind: str, num_tokens: int, rows: int, table: tuple[bytes, ...]) -> Tokens:
    """Tokens with a kind of masses: hashed, right, wrong, equal, never, or none."""
    size = len(table)
    tokens = drawn_tokens(num_tokens, size)
    masses = {
        "hashed": hashed_masses(tokens, size),
        "right": one_mass(tokens, size),
        "wrong": one_mass((tokens + 1) % size, size),
        "equal": equal_masses(size),
        "never": never_mass(tokens, size),
        "none": None,
    }[kind]
    return Tokens(tokens, rows, masses, table)


def short_tokens() -> dict[str, Tokens]:
    """A few hundred tokens in all, with and without masses, in one row and in more than a group of rows."""
    table = word_table(70)
    return {
        "hashed, one row": token_sample("hashed", 40, 1, table),
        "hashed, 35 rows": token_sample("hashed", 80, 35, table),
        "right": token_sample("right", 30, 3, table),
        "wrong": token_sample("wrong", 30, 3, table),
        "never": token_sample("never", 30, 1, table),
        "no masses": token_sample("none", 40, 3, table),
        "two tokens": token_sample("hashed", 60, 2, (b"\n", b"")),
        "hidden tail": Tokens(np.array([0] * 9 + [1000] + [0] * 9 + [1001]), 1, None, hidden_tail_table()),
    }


def long_tokens() -> dict[str, Tokens]:
    """Thousands of tokens."""
    table = word_table(300)
    return {
        "hashed, one row": token_sample("hashed", 3000, 1, table),
        "hashed, 70 rows": token_sample("hashed", 9999, 70, table),
        "right, 33 rows": token_sample("right", 3000, 33, table),
        "wrong, 7 rows": token_sample("wrong", 3000, 7, table),
        "equal": token_sample("equal", 2000, 32, table),
        "never": token_sample("never", 3000, 5, table),
        "no masses": token_sample("none", 20_000, 20, table),
        "two tokens": token_sample("hashed", 9000, 3, (b"\n", b"")),
    }


# -- coding ------------------------------------------------------------------------------------------------------------


def encode_tokens(sample: Tokens, batch: int = 512) -> tuple[bytes, float]:
    """Payload and ideal bits."""
    encoder = MixEncoder(vocabulary(sample.table), sample.tokens, sample.rows, sample.masses is not None)
    if sample.masses is not None:
        for begin in range(0, len(sample.tokens), batch):
            places = np.arange(begin, min(begin + batch, len(sample.tokens)), dtype=np.int64)
            encoder.add(places, sample.masses(places))
    return encoder.finish()


def decode_tokens(sample: Tokens, payload: bytes) -> np.ndarray:
    """(N,) int64, in the order of the text; the sample's own tokens serve for its masses only."""
    with_model = sample.masses is not None
    return decoded(MixDecoder(vocabulary(sample.table), payload, len(sample.tokens), sample.rows, with_model), sample)


def decoded(decoder: MixDecoder, sample: Tokens) -> np.ndarray:
    """What a decoder gives, with the masses of a sample: (N,) int64, in the order of the text."""
    num_tokens, rows = len(sample.tokens), sample.rows
    full, long = divmod(num_tokens, rows)
    starts = np.array([row * full + min(row, long) for row in range(rows)], dtype=np.int64)
    out = np.full(num_tokens, -1, dtype=np.int64)
    for step in range(full + (long > 0)):
        places = starts[: rows if step < full else long] + step
        out[places] = decoder.step(None if sample.masses is None else sample.masses(places))
    return out
