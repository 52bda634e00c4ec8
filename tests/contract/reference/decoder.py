"""A second implementation of the decoder, from docs/format.md and docs/numerics.md alone, slow on purpose.

It shares no code with the package; the mixer is in mixer.py, weight files in weights.py,
recovery data in recovery.py. In comments, F n is section
n of format.md and N n one of numerics.md. Products of integers are made in a float type that holds every sum exactly
(N 1, R1); every other float operation is a numpy float32 operation, which rounds once (R2).
"""

import hashlib
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import isqrt, ldexp
from pathlib import Path

import numpy as np
import recovery
import tokenizers
import zstandard
from mixer import Mixer
from weights import read_version_1, read_weights, stated_digest

F32 = np.float32
ONE = F32(1)
TINY = F32(2.0**-40)
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
MAGIC, INDEX_MAGIC = b"\xf7LZ", b"ZL\xf7\n"
STORED, LM, LZMA, ZSTD, MIXED, WINDOWS, SKIP, INDEX = range(8)
TOKENIZER = "97a02c27acb2e28f2f3bff91342ee0d9ea1becb19665b99ec30e31408255893a"
EMBEDDED = {
    2: ("a43346b5b1e89f9beb10e2173d0294e79b8c9940941ea3bb4f71213aab0563ba", TOKENIZER),
    3: ("c61e71043f35f7c7de17a197f37b829ab182a3d07ace738a1409fed4626e2fc4", TOKENIZER),
    4: (
        "0f5b9a53406b12e18152976ab63d05fc09687921b6a64409d62d8bd3366e762d",
        "14a3b6cedc03521143b1f721526ff8fdb5a2704fa26281a261761867544ce574",
    ),
}
EXP_SHA256 = "ad0ebcf5140b101a31b8032ab6b9b98b9fe6c082189b064e3c09da3f2c3b2530"
NORMAL_SHA256 = "b840df797bb9186dfb885c556949e205e809b7f2302943633e59cab6e0c6e8d2"
EXACT_ENGINE, FLOAT_ENGINE, HAS_PROMPT = 1, 2, 0x80
MOST_PROMPT_TOKENS = 2**16

# N 7: the configuration; the keys of OPTIONAL are left out where they have the value given here.
REQUIRED = {
    "context", "head_dim", "hidden_size", "mlp_size", "norm_eps", "num_heads", "num_kv_heads", "num_layers", "planes",
    "rope_theta", "start_token", "vocab_size", "windows",
}  # fmt: skip
OPTIONAL = {
    "activation": "silu", "attention_cap": 0.0, "attention_scale": 0.0, "embedding_gain": 1.0, "floor_bits": 0,
    "gated": True, "learned_positions": False, "local_rope_steps": [], "logit_cap": 0.0, "norm": "rms",
    "parallel": False, "rope_steps": [], "unrotated": [],
}  # fmt: skip
FLOATS = {"norm_eps", "rope_theta", "attention_cap", "attention_scale", "embedding_gain", "logit_cap"}


class ArchiveError(ValueError):
    """The archive or the model is not what the documents require (F 8)."""


def need(condition: bool, message: str) -> None:
    if not condition:
        raise ArchiveError(message)


# ---- Constants and tables (N 2, N 3, N 4) ----


def precise(function):
    """Runs a function with 90 decimal digits."""

    def inner(*args):
        with localcontext() as context:
            context.prec = 90
            return function(*args)

    return inner


def once(value: Decimal | Fraction) -> F32:
    """N 2: a constant above 0, rounded to binary32 once."""
    exact = Fraction(value)
    shift = 24 + exact.denominator.bit_length() - exact.numerator.bit_length()
    if exact * Fraction(2) ** shift >= 2**24:
        shift -= 1
    return F32(ldexp(round(exact * Fraction(2) ** shift), -shift))


@precise
def log2e_1024(factor: Decimal | float) -> F32:
    """N 3: 1024 log2(e) times a factor, rounded once to binary32."""
    return once(1024 / Decimal(2).ln() * Decimal(factor))


@precise
def attention_gain(head_dim: int, scale: float) -> F32:
    """N 3: A_D."""
    return log2e_1024(scale or 1 / Decimal(head_dim).sqrt())


@cache
@precise
def octave() -> list[int]:
    """N 3: B[f]."""
    return [int(2**30 * Decimal(2) ** (Decimal(-f) / 1024) + Decimal("0.5")) for f in range(1024)]


@cache
def mass_table(c: int) -> np.ndarray:
    """N 6.7: F[i] = 2^(20 + c) * 2^(-i/1024), rounded by integers; with c = 0 it is E of N 3."""
    places = [(octave()[i % 1024], i // 1024 - c) for i in range(1024 * (22 + c))]
    return np.array([(base + 2 ** (9 + n)) // 2 ** (10 + n) for base, n in places], "<i4")


def make_exp_table() -> np.ndarray:
    """N 3: E[k] = 2^20 * 2^(-k/1024)."""
    table = mass_table(0)
    need(hashlib.sha256(table.tobytes()).hexdigest() == EXP_SHA256, "the exponential table has another digest")
    return table


@cache
def normal_table() -> np.ndarray:
    """N 3: N[k] = 2^24 Phi(-k/4096), by Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...) in units of 2^-96."""
    with localcontext() as context:
        context.prec = 60
        density = [int(2**96 * (-Decimal(k * k) / 2**25).exp() / (2 * PI).sqrt()) for k in range(24576)]
    table = []
    for k, phi in enumerate(density):
        term = total = phi * k >> 12
        n = 3
        while term:
            term = (term * k * k >> 24) // n
            total, n = total + term, n + 2
        table.append(((1 << 95) - total + (1 << 71)) >> 72)
    found = np.array([*table, 0], "<i4")
    need(hashlib.sha256(found[:-1].tobytes()).hexdigest() == NORMAL_SHA256, "the normal table has another digest")
    return found


@precise
def turn_rates(theta: float, head_dim: int) -> list[int]:
    """N 4: turn per position of each pair, in units of 2^-64 turn."""
    turns = [2**64 * Decimal(theta) ** (Decimal(-2 * i) / head_dim) / (2 * PI) for i in range(head_dim // 2)]
    return [int(turn.to_integral_value(ROUND_HALF_EVEN)) for turn in turns]


def cos_sin(phase: int) -> tuple[int, int]:
    """N 4: cosine and sine of a phase of 64 bits, in units of 2^-14."""
    y = (phase >> 30 & 0xFFFFFFFF) * 1686629713 >> 32
    y2 = y * y >> 30
    c = s = 1 << 30
    for n in range(16, 0, -2):
        c = (1 << 30) - (y2 * c >> 30) // (n * (n - 1))
        s = (1 << 30) - (y2 * s >> 30) // (n * (n + 1))
    s = y * s >> 30
    c, s = (c + 2**15) >> 16, (s + 2**15) >> 16
    return ((c, s), (-s, c), (-c, -s), (s, -c))[phase >> 62]


EXP = make_exp_table()
L = log2e_1024(1)
with localcontext() as digits:
    digits.prec = 90
    TANH = 2 * (2 / PI).sqrt()  # N 6.5: G is 1024 log2(e) times this
    G1, G3 = log2e_1024(TANH), log2e_1024(TANH * Decimal("0.044715"))


def exp_of(t: np.ndarray) -> np.ndarray:
    """N 3: E[ExpIndex(t)]."""
    return EXP[np.minimum(t, F32(22527)).astype(np.int64)]


# ---- The forward pass (N 6) ----


def quantise(x: np.ndarray, q: int) -> tuple[np.ndarray, np.ndarray]:
    """N 2: the integers of each row, as binary64, and its scale."""
    a = np.maximum(np.abs(x).max(-1, keepdims=True), TINY)
    return np.rint(x * (F32(q) / a)).astype(np.float64), a * (ONE / F32(q))


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: F32) -> np.ndarray:
    """N 6.2."""
    n, s = quantise(x, 2047)
    t = (n * n).sum(-1, keepdims=True).astype(F32)
    m = (t * (ONE / F32(x.shape[-1]))) * (s * s)
    r = np.sqrt((m + eps).astype(np.float64)).astype(F32)
    return (x * (ONE / r)) * weight


def centred(x: np.ndarray) -> np.ndarray:
    """N 6.2: what norm "layer" does first."""
    n, s = quantise(x, 2047)
    t = n.sum(-1, keepdims=True).astype(F32)
    return x - (t * (ONE / F32(x.shape[-1]))) * s


def cap(z: np.ndarray, c: float) -> np.ndarray:
    """N 6.4: Cap(z)."""
    e = exp_of(np.abs(z) * once(2 / Fraction(c)) + F32(0.5)).astype(F32) * F32(2.0**-20)
    return np.copysign(((ONE - e) / (ONE + e)) * log2e_1024(c), z)


def sigmoid(g: np.ndarray, t: np.ndarray) -> np.ndarray:
    """N 6.5: Sigmoid(g, t)."""
    e = exp_of(t + F32(0.5)).astype(F32) * F32(2.0**-20)
    return np.where(g >= 0, g, g * e) / (ONE + e)


def silu(g: np.ndarray) -> np.ndarray:
    return sigmoid(g, np.abs(g) * L)


def gelu_tanh(g: np.ndarray) -> np.ndarray:
    a = np.minimum(np.abs(g), F32(4096))
    return sigmoid(g, ((a * a) * G3 + G1) * a)


def gelu(g: np.ndarray) -> np.ndarray:
    place = np.minimum(np.abs(g) * F32(4096) + F32(0.5), F32(24576)).astype(np.int64)
    p = (normal_table()[place].astype(F32) * F32(2.0**-24)) * g
    return np.where(g >= 0, g - p, p)


ACTIVATIONS = {"silu": silu, "gelu_tanh": gelu_tanh, "gelu": gelu}


def exact(matrix: np.ndarray) -> np.ndarray:
    """N 5: a transposed matrix, in binary32 where that holds every sum of its products exactly, else in binary64."""
    return matrix.T.astype(F32 if 128 * 127 * matrix.shape[1] < 2**24 else np.float64)


class Model:
    """The model of a folder, its digest (N 7), and one context of several rows in lockstep."""

    def __init__(self, folder: Path, byte_tokens: int = 0, carried: tuple[dict, dict] | None = None) -> None:
        config, self.weights = carried or read_weights(folder / "model.llmzw")
        need(config.keys() >= REQUIRED and config.keys() <= REQUIRED | OPTIONAL.keys(), "unknown configuration")
        self.digest = self.make_digest(config)
        need(bool(carried) or stated_digest(folder / "model.llmzw") in (None, self.digest.hex()), "damaged weights")
        config = OPTIONAL | config
        self.context, self.start_token, self.planes = config["context"], config["start_token"], config["planes"]
        self.heads, self.kv_heads, self.dim = config["num_heads"], config["num_kv_heads"], config["head_dim"]
        self.windows, self.own_tokens, self.eps = config["windows"], config["vocab_size"], F32(config["norm_eps"])
        self.vocab_size = self.own_tokens + byte_tokens  # F 6: V everywhere but in the model itself
        self.gated, self.parallel, self.positions = config["gated"], config["parallel"], config["learned_positions"]
        self.attention_cap, self.logit_cap = config["attention_cap"], config["logit_cap"]
        self.embedding_gain, self.floor_bits = F32(config["embedding_gain"]), config["floor_bits"]
        need(config["norm"] in ("rms", "layer"), f"unknown norm {config['norm']}")
        need(config["activation"] in ACTIVATIONS, f"unknown activation {config['activation']}")
        self.layer_norm, self.activation = config["norm"] == "layer", ACTIVATIONS[config["activation"]]
        self.rates = self.make_rates(config)
        self.a_d = attention_gain(self.dim, config["attention_scale"])
        self.q_d = 2 ** (((2**24 - 1) // (127 * self.dim)).bit_length() - 1) - 1  # N 5, row "scores"
        self.matrices = {name: exact(w) for name, w in self.weights.items() if w.dtype == np.int8}
        self.reset()

    def make_digest(self, config: dict) -> bytes:
        """N 7."""
        kept = {key: value for key, value in config.items() if key in REQUIRED or value != OPTIONAL[key]}
        parts = {key: float(value).hex() if key in FLOATS else value for key, value in kept.items()}
        digest = hashlib.sha256(b"llmzip exact model, numerics 1\n")
        digest.update(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for name, tensor in sorted(self.weights.items()):
            digest.update(f"{name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}\n".encode())
            digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        return digest.digest()

    def make_rates(self, config: dict) -> list[tuple[int, ...]]:
        """N 4: for each layer the turn per position of each of its pairs."""
        everywhere = tuple(config["rope_steps"]) or tuple(turn_rates(config["rope_theta"], self.dim))
        local = tuple(config["local_rope_steps"]) or everywhere
        turns = [local if window else everywhere for window in self.windows]
        return [() if layer in config["unrotated"] else rates for layer, rates in enumerate(turns)]

    def reset(self) -> None:
        """N 6.6: the context begins anew."""
        self.position, self.cache = 0, [None] * len(self.windows)

    def linear(self, x: np.ndarray, name: str, gain: F32 = ONE) -> np.ndarray:
        """N 6.1."""
        w = self.matrices[f"{name}_q"]
        if self.planes == 1:
            n, s = quantise(x, 127)
            a = (n.astype(w.dtype) @ w).astype(F32)
        else:
            n, s = quantise(x, 32512)
            high = np.floor((n + 128) / 256)
            low = n - 256 * high
            a = (high.astype(w.dtype) @ w).astype(F32) * F32(256) + (low.astype(w.dtype) @ w).astype(F32)
        y = (a * (s * gain)) * self.weights[f"{name}_scale"]
        bias = self.weights.get(f"{name}_bias")
        return y if bias is None else y + bias

    def norm(self, x: np.ndarray, name: str, biased: bool = True) -> np.ndarray:
        """N 6.2: the norm of the configuration; behind a branch it has no bias (N 6.3)."""
        y = rms_norm(centred(x) if self.layer_norm else x, self.weights[name], self.eps)
        return y + self.weights[f"{name}_bias"] if self.layer_norm and biased else y

    def row_of(self, name: str, place: int | list[int]) -> np.ndarray:
        """N 6.3: rows of a matrix, fl(W * r)."""
        return self.weights[f"{name}_q"][place].astype(F32) * self.weights[f"{name}_scale"][place, None]

    def turn(self, x: np.ndarray, layer: int) -> np.ndarray:
        """N 6.3: rotates the pairs (i, i + P) of each head by the angle of the position; the rest stays."""
        c, s = self.angles[self.rates[layer]]
        a, b, rest = np.split(x, [len(c), 2 * len(c)], -1)
        return np.concatenate([a * c - b * s, b * c + a * s, rest], -1)

    def attention(self, x: np.ndarray, layer: int) -> np.ndarray:
        """N 6.3, 6.4: x is the normalised row; returns the heads' outputs, one after the other."""
        rows, prefix = len(x), f"layers.{layer}."
        qkv = self.linear(x, prefix + "qkv").reshape(rows, -1, self.dim)
        q, k, v = np.split(qkv, [self.heads, self.heads + self.kv_heads], 1)
        if prefix + "q_norm" in self.weights:
            q = rms_norm(q, self.weights[prefix + "q_norm"], self.eps)
            k = rms_norm(k, self.weights[prefix + "k_norm"], self.eps)
        q, sq = quantise(self.turn(q, layer), self.q_d)
        pairs = (*quantise(self.turn(k, layer), 127), *quantise(v, 127))
        new = [part[:, :, None] for part in pairs]  # rows, heads, 1, ...
        old = self.cache[layer]
        if old is not None:
            new = [np.concatenate([a[:rows], b], 2) for a, b in zip(old, new, strict=True)]
        self.cache[layer] = new
        first = max(0, self.position + 1 - self.windows[layer]) if self.windows[layer] else 0
        output = []
        for head in range(self.heads):
            k, sk, v, sv = (part[:, head * self.kv_heads // self.heads] for part in new)  # rows, positions, ...
            p_max = sv.max(1)  # of the whole context, the window notwithstanding
            k, sk, v, sv = k[:, first:], sk[:, first:, 0], v[:, first:], sv[:, first:, 0]
            products = np.matmul(k, q[:, head, :, None])[..., 0].astype(F32)
            z = (products * (sq[:, head] * self.a_d)) * sk
            if self.attention_cap:
                z = cap(z, self.attention_cap)
            e = exp_of((z.max(1, keepdims=True) + F32(0.5)) - z)
            u = F32(2**17) / (e.sum(1, keepdims=True, dtype=np.int64).astype(F32) * p_max)
            p = np.rint((e.astype(F32) * sv) * u).astype(np.float64)
            output.append(np.matmul(p[:, None], v)[:, 0].astype(F32) * (p_max * F32(2.0**-17)))
        return np.concatenate(output, -1)

    def gate(self, x: np.ndarray, layer: int) -> np.ndarray:
        """N 6.5."""
        up = self.linear(x, f"layers.{layer}.gate_up")
        if not self.gated:
            return self.activation(up)
        g, up = np.split(up, 2, -1)
        return self.activation(g) * up

    def branch(self, x: np.ndarray, layer: int, name: str) -> np.ndarray:
        """N 6.3: what the attention or the MLP of a layer adds to the row."""
        prefix = f"layers.{layer}."
        if name == "attention":
            y = self.linear(self.attention(self.norm(x, prefix + "input_norm"), layer), prefix + "out")
        else:
            y = self.linear(self.gate(self.norm(x, prefix + "post_norm"), layer), prefix + "down")
        behind = f"{prefix}{name}_post_norm"
        return self.norm(y, behind, biased=False) if behind in self.weights else y

    def step(self, tokens: list[int]) -> np.ndarray:
        """N 6.3, 6.7: feeds one token to each of the first rows; returns the masses of the next, (rows, V)."""
        self.angles = {}
        for rates in set(self.rates):
            turned = [cos_sin(self.position * rate % 2**64) for rate in rates]
            self.angles[rates] = np.array(turned, F32).reshape(-1, 2).T / F32(2**14)
        x = self.row_of(
            "embedding", [token if token < self.own_tokens else self.start_token for token in tokens]
        )  # F 4
        if self.embedding_gain != 1:
            x = x * self.embedding_gain
        if self.positions:
            x = x + self.row_of("positions", [self.position])
        for n in range(len(self.windows)):
            before = x
            x = x + self.branch(x, n, "attention")
            x = x + self.branch(before if self.parallel else x, n, "mlp")
        self.position += 1
        z = self.linear(self.norm(x, "final_norm"), "head" if "head_q" in self.weights else "embedding", L)
        if self.logit_cap:
            z = cap(z, self.logit_cap)
        table, t = mass_table(self.floor_bits), (z.max(1, keepdims=True) + F32(0.5)) - z
        masses = table[np.minimum(t, F32(len(table) - 1)).astype(np.int64)].astype(np.int64)
        return np.pad(masses, ((0, 0), (0, self.vocab_size - self.own_tokens)))  # F 4: byte tokens have the mass 0


# ---- Frequencies and the range coder (N 8, N 9) ----


def cumulative(masses: np.ndarray, total: int = 2**24) -> np.ndarray:
    """N 8: C_0 .. C_V of each row, C_V = `total`."""
    size = masses.shape[1]
    sums = np.concatenate([np.zeros((len(masses), 1), np.int64), masses.cumsum(1)], 1)
    shifts = np.array([[max(0, int(row[-1]).bit_length() - 39)] for row in sums])
    return (sums >> shifts) * (total - size) // (sums[:, -1:] >> shifts) + np.arange(size + 1)


def weighted_table(weights: np.ndarray) -> np.ndarray:
    """N 8.2: T_0 .. T_n of n places with these weights."""
    sums = [0, *map(int, weights.cumsum())]
    n, s = len(weights), max(0, sums[-1].bit_length() - 39)
    return np.array([(w >> s) * (2**24 - n) // (sums[-1] >> s) + j for j, w in enumerate(sums)])


class RangeDecoder:
    """N 9."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.at = payload, 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.word() << 32 | self.word()

    def word(self) -> int:
        self.at += 4
        return int.from_bytes(self.payload[self.at - 4 : self.at].ljust(4, b"\0"), "big")

    def decode(self, table: np.ndarray) -> int:
        """Place of the next interval in a table of cumulative frequencies from 0 to 2^24."""
        scale = self.range >> 24
        q = (self.point - self.lower) % 2**64 // scale
        need(q < 2**24, "damaged: the compressed data leads outside of the table")
        place = int(np.searchsorted(table, q, side="right")) - 1
        low, high = int(table[place]), int(table[place + 1])
        self.lower = (self.lower + scale * low) % 2**64
        self.range = scale * (high - low)
        if self.range < 2**32:
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            self.point = (self.point << 32) % 2**64 | self.word()
        return place

    def bit(self, k: int) -> int:
        """N 9, binary decisions: a one has the probability k / 2^16."""
        q = 2**16 - k
        return self.decode([0, 2**8 * q - (q > 2**15), 2**24])


def decode_weighted(masses: np.ndarray, coder: RangeDecoder) -> list[int]:
    """N 8.2: the next tokens of rows with these masses."""
    size = 1 << isqrt(masses.shape[1] - 1).bit_length()
    places = np.pad(masses, ((0, 0), (0, -masses.shape[1] % size))).reshape(len(masses), -1, size) + 1
    groups = [coder.decode(weighted_table(row.sum(1))) for row in places]
    return [size * g + coder.decode(weighted_table(row[g])) for row, g in zip(places, groups, strict=True)]


def predictions(model: Model, count: int, inputs: list[list[int]], overlap: int) -> Iterator[np.ndarray]:
    """F 4: for each step the masses of the rows that take part; the caller appends their tokens to the inputs.

    What the inputs hold already, the start token and tokens of a prompt, is fed before the first step.
    """
    rows, before = len(inputs), len(inputs[0]) - 1
    model.reset()
    for place in range(before + -(-count // rows)):
        active = min(rows, count - max(place - before, 0) * rows)
        if model.position == model.context:  # N 6.6
            model.reset()
            for back in range(overlap, 0, -1):
                model.step([row[place - back] for row in inputs[:active]])
        masses = model.step([row[place] for row in inputs[:active]])
        if place >= before:
            yield masses


def begin_rows(model: Model, rows: int, prompt: list[int]) -> list[list[int]]:
    """F 4: the inputs of each row before its tokens."""
    most = max(1, model.context // 2)
    return [[model.start_token, *prompt[-most:]] for _ in range(rows)]


def decode_tokens(
    model: Model, payload: bytes, count: int, rows: int, overlap: int, prompt: list[int]
) -> list[list[int]]:
    """F 4 and N 8: the tokens of each row."""
    size = model.vocab_size
    group_size = 1 << isqrt(size - 1).bit_length()  # least power of two S with S^2 >= V
    starts = [*range(0, size, group_size), size]
    coder = RangeDecoder(payload)
    inputs = begin_rows(model, rows, prompt)
    before = len(inputs[0])
    for masses in predictions(model, count, inputs, overlap):
        if model.floor_bits:
            for row, token in zip(inputs, decode_weighted(masses, coder), strict=False):
                need(token < size, "damaged: a token outside of the vocabulary")
                row.append(token)
            continue
        tables = cumulative(masses)
        groups = [coder.decode(table[starts]) for table in tables]
        for row, (table, group) in enumerate(zip(tables, groups, strict=True)):
            part = table[starts[group] : starts[group + 1] + 1]
            part = np.concatenate([part, part[-1] + np.arange(1, group_size + 2 - len(part))]) - part[0]
            token = starts[group] + coder.decode(part * 2**24 // part[-1])
            need(token < size, "damaged: a token outside of the vocabulary")
            inputs[row].append(token)
    return [row[before:] for row in inputs]


def decode_mixed(
    model: Model, words: list[bytes], payload: bytes, count: int, rows: int, overlap: int, prompt: list[int]
) -> list[list[int]]:
    """F 4a and N 10: the tokens of each row."""
    mixer = Mixer(words, len(prompt) + count, with_model=True)
    if prompt:  # N 10.9
        mixer.begin_prompt(prompt)
        inputs = [[model.start_token]]
        walk = predictions(model, len(prompt), inputs, max(1, model.context // 2))
        for masses, token in zip(walk, prompt, strict=True):
            need(mixer.step(masses.tolist(), 1) == [token], "the mixer did not follow the prompt")
            inputs[0].append(token)
    mixer.begin(rows, -(-count // rows), RangeDecoder(payload).bit)
    inputs = begin_rows(model, rows, prompt)
    before = len(inputs[0])
    for masses in predictions(model, count, inputs, overlap):
        for row, token in zip(inputs, mixer.step(masses.tolist(), len(masses)), strict=False):
            row.append(token)
    return [row[before:] for row in inputs]


def decode_adaptive(payload: bytes, size: int) -> bytes:
    """F 4b: one row, whose tokens are bytes."""
    mixer = Mixer([bytes([value]) for value in range(256)], size, with_model=False)
    mixer.begin(1, size, RangeDecoder(payload).bit)
    return bytes(mixer.step(None, 1)[0] for _ in range(size))


# ---- Windows (F 4d) ----


class Window:
    """F 4d: a number of W bits, and the range of numbers [low, low + m 2^k) that its tokens so far have left."""

    def __init__(self, number: int, bits: int) -> None:
        self.number, self.b = number, min(24, bits)
        self.low, self.k = 0, max(0, bits - 38)
        self.m = 2 ** (bits - self.k)

    def next(self, table: list[int] | np.ndarray) -> int | None:
        """The next token by a table of cumulative frequencies from 0 to 2^b, or None if the window is over."""
        u = self.m - (self.m < 2**self.b)
        v = (self.number - self.low) >> self.k
        if v >= u:
            return None
        token = int(np.searchsorted(table, ((v + 1) * 2**self.b - 1) // u, side="right")) - 1
        first, end = (u * int(table[place]) >> self.b for place in (token, token + 1))
        self.low += first << self.k
        self.m = end - first
        while self.k > 0 and self.m < 2**38:
            self.m, self.k = 2 * self.m, self.k - 1
        return token


class Row:
    """F 4: the inputs of one row, and the table for its next token, which is made when it is asked for."""

    def __init__(self, model: Model, count: int, overlap: int, total: int) -> None:
        self.inputs, self.total = [model.start_token], total
        self.walk = predictions(model, count, [self.inputs], overlap)
        self.known: np.ndarray | None = None

    def table(self) -> np.ndarray:
        if self.known is None:
            self.known = cumulative(next(self.walk), self.total)[0]
        return self.known

    def read(self, window: Window, most: int) -> list[int]:
        """The tokens of a window that holds so many at most. A table that shows it to be over stays for the next."""
        before = len(self.inputs)
        while len(self.inputs) < before + most:
            token = window.next(self.table())
            if token is None:
                break
            self.inputs.append(token)
            self.known = None
        return self.inputs[before:]


def decode_window(model: Model, number: int, bits: int, most: int) -> list[int]:
    """F 4d: the tokens of one window of profile 0, which needs nothing else; `most` for a frame's last one."""
    most = min(most, model.context)
    return Row(model, most, 1, 2 ** min(24, bits)).read(Window(number, bits), most)


def split_windows(payload: bytes, bits: int, number: int) -> tuple[list[int], bytes]:
    """F 4d: windows and directory."""
    size = -(-number * bits // 8)
    need(size <= len(payload), "damaged: the payload is shorter than its windows")
    value, spare = int.from_bytes(payload[:size], "big"), 8 * size - number * bits
    need(value % 2**spare == 0, "damaged: bits behind the last window")
    value >>= spare
    return [value >> bits * (number - 1 - place) & (2**bits - 1) for place in range(number)], payload[size:]


def check_directory(directory: bytes, texts: list[bytes], group: int) -> None:
    """F 4d: bytes and half a crc32 of each group's text, from the texts of the windows."""
    reader = Reader(directory, "damaged: the directory ends too early")
    for start in range(0, len(texts), group):
        text = b"".join(texts[start : start + group])
        need(reader.varint() == len(text), f"damaged: bytes of the windows from {start} on")
        need(reader.uint(2) == zlib.crc32(text) % 2**16, f"damaged: checksum of the windows from {start} on")
    need(reader.at == len(directory), "damaged: the payload does not end with its directory")


def decode_windows(
    model: Model, words: list[bytes], payload: bytes, count: int, profile: int, record: list[int]
) -> list[bytes]:
    """F 4d: the text of each window of a frame."""
    bits, number, last, group = record
    need(16 <= bits <= 2**16, "damaged: bits of a window")
    need(1 <= number <= count and 1 <= last <= count and 1 <= group <= number, "damaged: windows record")
    need(model.vocab_size <= 2 ** (min(24, bits) - 1), "the vocabulary is too large for such windows")
    need(profile == 0 or count <= 2**16, "damaged: a row is over the limit")
    windows, directory = split_windows(payload, bits, number)
    row = Row(model, count, max(1, model.context // 2), 2 ** min(24, bits))
    texts, left, tokens = [], count, []
    for window in windows:
        need(left > 0, "damaged: fewer tokens than windows")
        tokens = row.read(Window(window, bits), left) if profile else decode_window(model, window, bits, left)
        left -= len(tokens)
        texts.append(b"".join(words[token] for token in tokens))
    need(left == 0 and len(tokens) == last, "damaged: number of tokens")
    check_directory(directory, texts, group)
    return texts


# ---- Tokenizer (F 6) ----


def stand_ins() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [value for value in range(256) if value not in plain]
    return {chr(value): value for value in plain} | {chr(256 + n): value for n, value in enumerate(other)}


def parts_of(part: object) -> Iterator[dict]:
    """All objects within a part of a tokenizer's description."""
    if isinstance(part, dict):
        yield part
    for value in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from parts_of(value)


def with_type(described: dict) -> dict:
    """F 6: a model without a type."""
    model = described["model"]
    if "type" not in model:
        model["type"] = "Unigram" if isinstance(model["vocab"], list) else "BPE"
    return described


def is_byte_level(described: dict) -> bool:
    parts = parts_of([described.get("pre_tokenizer"), described.get("decoder")])
    return described["model"]["type"] == "BPE" and any(part.get("type") == "ByteLevel" for part in parts)


def token_bytes(path: Path, size: int | None = None) -> list[bytes]:
    """The bytes of each of `size` tokens, nothing where it stands for nothing; without `size`, of those there are."""
    described = with_type(json.loads(path.read_text("utf-8")))
    model, byte_level, alphabet = described["model"], is_byte_level(described), stand_ins()
    need(model["type"] in ("BPE", "Unigram"), f"unknown kind of tokenizer: {model['type']}")
    vocab = list(
        model["vocab"].items() if model["type"] == "BPE" else ((w, n) for n, (w, _) in enumerate(model["vocab"]))
    )
    added = {entry["content"]: entry for entry in described.get("added_tokens") or ()}
    size = max(number for _, number in vocab) + 1 if size is None else size
    words = [b""] * size
    for word, number in vocab:
        need(number < size, "the tokenizer has more tokens than the model")
        if word in added or (model["type"] == "Unigram" and number == model.get("unk_id")):
            continue
        if not byte_level:
            single = re.fullmatch("<0x([0-9A-F]{2})>", word)
            words[number] = bytes.fromhex(single[1]) if single else word.replace("\u2581", " ").encode()
        elif all(char in alphabet for char in word):
            words[number] = bytes(alphabet[char] for char in word)
    for content, entry in added.items():
        if not entry.get("special") and entry["id"] < size:
            words[entry["id"]] = content.encode()
    return words


def with_byte_tokens(words: list[bytes]) -> list[bytes]:
    """F 6: the table with a token for each byte that is none by itself."""
    need(any(words), "no token of the tokenizer stands for anything")
    single = set(words)
    extended = words + [bytes([byte]) for byte in range(256) if bytes([byte]) not in single]
    need(len(extended) <= 300_000 or len(extended) == len(words), "too many tokens with the byte tokens")
    return extended


def tokenizer_digest(words: list[bytes]) -> bytes:
    """F 6."""
    body = b"".join(len(word).to_bytes(4, "little") + word for word in words)
    return hashlib.sha256(b"llmzip tokens %d\n" % len(words) + body).digest()


# ---- Prompts (F 6a) ----

BLANK_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def changeless(described: dict, size: int) -> dict:
    """F 6a: a tokenizer's description, made to change no text."""
    described = json.loads(json.dumps(described))
    described |= {"post_processor": None, "truncation": None, "padding": None}
    described["model"]["dropout"] = None
    with_type(described)
    added = {entry["content"]: entry for entry in described.get("added_tokens") or ()}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    kept = [entry | flags for entry in added.values() if not entry.get("special") and entry["id"] < size]
    described["added_tokens"] = kept
    metaspace = False
    for part in parts_of(described.get("pre_tokenizer")):
        if part.get("type") == "Metaspace":
            metaspace = True
            part.pop("add_prefix_space", None)
            part["prepend_scheme"] = "never"
        elif "add_prefix_space" in part:
            part["add_prefix_space"] = False
    marks = [part for part in parts_of(described.get("normalizer")) if part == BLANK_MARK]
    if not marks and not metaspace:
        marks = [BLANK_MARK]
    described["normalizer"] = marks[0] if marks and not is_byte_level(described) else None
    return described


def first_break(text: str, start: int, end: int) -> int:
    """F 6a: the first break from a place on, in the part of a text that ends at another; or `start`."""
    for at in range(start, min(end, len(text))):
        if text[at] == "\n" and at + 1 < min(end, len(text)) and not text[at + 1].isspace():
            return at + 1
        around = text[at - 1 : at] + text[at + 1 : min(end, len(text))][:1] if at else ""
        if text[at] == " " and len(around) == 2 and not any(map(str.isspace, around)):
            return at
    return start


class PromptCutter:
    """F 6a: bytes to ids as the writer cut them."""

    def __init__(self, path: Path, words: list[bytes], own_tokens: int) -> None:
        described = changeless(json.loads(path.read_text("utf-8")), own_tokens)
        self.tokenizer, self.words = tokenizers.Tokenizer.from_str(json.dumps(described)), words
        self.own_tokens = own_tokens
        vocab = described["model"]["vocab"]
        known = set(vocab.values() if isinstance(vocab, dict) else range(len(vocab)))
        found = {self.tokenizer.token_to_id(entry["content"]): entry["id"] for entry in described["added_tokens"]}
        self.listed = {ours: listed for ours, listed in found.items() if ours not in known}

    def cut(self, prompt: bytes) -> list[int]:
        text, parts, start = prompt.decode("utf-8", "surrogateescape"), [], 0
        odd = {word.decode() for word in self.words[self.own_tokens :] if word < b"\x80"}
        bad = [at for at, char in enumerate(text) if 0xDC80 <= ord(char) <= 0xDCFF or char in odd]
        for number, at in enumerate(bad):
            if at < start:
                continue  # within a part that is spelled already
            parts += self.pieces(text[start:at])
            end = at + 1
            for other in bad[number + 1 :]:
                if other > end + 3:
                    break
                end = other + 1
            parts += self.spell(text[at:end].encode("utf-8", "surrogateescape"))
            start = end
        return parts + self.pieces(text[start:])

    def spell(self, data: bytes) -> list[int]:
        return [self.words.index(bytes([byte])) for byte in data]

    def pieces(self, text: str) -> list[int]:
        ids = []
        while len(text) > 49152:
            end = first_break(text, 32768, 49152)
            ids += self.piece(text[:end])
            text = text[end:]
        return ids + self.piece(text)

    def piece(self, text: str) -> list[int]:
        data = text.encode()
        ids = [self.listed.get(token, token) for token in self.tokenizer.encode(text, add_special_tokens=False).ids]
        found = b"".join(self.words[token] for token in ids)
        if len(ids) <= len(data) and found == data:
            return ids
        if len(text) <= 8:
            return self.spell(data)
        end = first_break(text, len(text) // 2, len(text) // 2 + len(text) // 4)
        return self.piece(text[:end]) + self.piece(text[end:])


def cut_prompt(prompt: bytes, path: Path, words: list[bytes], own_tokens: int | None = None) -> list[int]:
    """F 4, F 6a: the last tokens of a prompt; `own_tokens` of a table that has byte tokens."""
    tokens = PromptCutter(path, words, len(words) if own_tokens is None else own_tokens).cut(prompt)
    need(b"".join(words[token] for token in tokens) == prompt, "the tokens of the prompt are not its bytes")
    return tokens[-MOST_PROMPT_TOKENS:]


# ---- The container (F 1 to F 5) ----


def crc8(data: bytes) -> int:
    """F 1."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1) ^ (0x11D if value & 0x80 else 0)
    return value


class Reader:
    """A place in the file."""

    def __init__(self, data: bytes, too_short: str = "truncated") -> None:
        self.data, self.at, self.too_short = data, 0, too_short

    def take(self, size: int) -> bytes:
        need(self.at + size <= len(self.data), self.too_short)
        self.at += size
        return self.data[self.at - size : self.at]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """F 1."""
        value = 0
        for place in range(5):
            byte = self.uint(1)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                need(byte > 0 or place == 0, "damaged: a varint is longer than needed")
                return value
        raise ArchiveError("damaged: a varint has more than 5 bytes")


class Here:
    """The model that is here, and the prompt that the user gives."""

    def __init__(self, folder: Path, prompt: bytes | None) -> None:
        config, _ = read_weights(folder / "model.llmzw")
        words = token_bytes(folder / "tokenizer.json", config["vocab_size"])
        self.words = with_byte_tokens(words)
        self.folder, self.model, self.prompt = folder, Model(folder, len(self.words) - len(words)), prompt

    def check(self, reader: Reader, code: int) -> list[int]:
        """F 2, F 7: the model record or the fixed digests against what is here. Returns the prompt's tokens."""
        need(code in (*EMBEDDED, 15), f"unknown model code {code}")
        model, tokens = self.model, []
        if code != 15:
            digests, settings = EMBEDDED[code], (1, 16384, 188)
        else:
            length = reader.varint()
            need(length <= 512, "damaged: length of the model record")
            record = Reader(reader.take(length), "damaged: length of the model record")
            engine, numerics = record.uint(1), record.uint(1)
            need(engine & 127 != FLOAT_ENGINE, "archives of the float engine are not read here")
            need(engine & 127 == EXACT_ENGINE, f"unknown engine {engine & 127}")
            need(numerics == 1, f"unknown numerics {numerics}")
            settings = (record.uint(1), record.varint(), record.varint())
            need(settings[0] in (1, 2) and 2 <= settings[1] <= 2**17, "damaged: planes or context")
            digests = (record.take(16).hex(), record.take(16).hex())
            if engine & HAS_PROMPT:
                tokens = self.prompt_tokens(record.take(16))
            need(length - record.at <= 255, "damaged: length of the model's name")
            record.take(length - record.at).decode("utf-8")
        found = (model.digest.hex(), tokenizer_digest(self.words).hex())
        for what, wanted, here in zip(("model", "tokenizer"), digests, found, strict=True):
            need(here.startswith(wanted), f"another {what}: the archive names {wanted}, here is {here}")
        need(settings == (model.planes, model.context, model.start_token), "the settings are not the model's")
        return tokens

    def prompt_tokens(self, digest: bytes) -> list[int]:
        """F 2, F 4: the tokens of the prompt, if it is the archive's."""
        need(self.prompt is not None, f"the archive needs a prompt of digest {digest.hex()}")
        found = hashlib.sha256(b"llmzip prompt\n" + self.prompt).digest()[:16]
        need(found == digest, f"another prompt: the archive names {digest.hex()}, here is {found.hex()}")
        return cut_prompt(self.prompt, self.folder / "tokenizer.json", self.words, self.model.own_tokens)


class Carried(Here):
    """F 5a: a model that the file carries."""

    def __init__(self, reader: Reader) -> None:
        start = reader.at - 4
        self.digests = (reader.take(16), reader.take(16))
        sizes = [reader.uint(4) for _ in range(3)]
        head = reader.data[start : reader.at]
        need(reader.uint(4) == zlib.crc32(head), "damaged: the fields of a carried model")
        need(sizes[0] <= 2**31 and max(sizes[1:]) <= 2**26 and sizes[2] > 0, "damaged: a size of a carried model")
        weights, table = reader.take(sizes[0]), reader.take(sizes[1])
        need(reader.uint(4) == zlib.crc32(weights + table), "damaged: a carried model")
        need(reader.at < len(reader.data), "truncated: a carried model at the end of the file")
        self.folder, self.prompt = Path("/nowhere"), None
        self.stored, self.size = (weights, table), sizes[2]

    def names(self, reader: Reader) -> bool:
        """Whether the archive whose model record is next in the file is served by this model."""
        ahead = Reader(reader.data)
        ahead.at = reader.at
        ahead.varint()
        engine = ahead.take(3)[0]
        ahead.varint(), ahead.varint()
        return engine == EXACT_ENGINE and (ahead.take(16), ahead.take(16)) == self.digests

    def open(self) -> "Carried":
        """Decodes it, once."""
        weights, table = self.stored
        if weights:
            length = int.from_bytes(weights[4:8], "little")
            shapes = [shape for _, _, shape in json.loads(weights[8 : 8 + length])["tensors"]]
            values = sum(int(np.prod([max(1, size) for size in shape])) for shape in shapes)
            need(values <= 16 * len(weights), "damaged: more values than a carried model may have")
            config, tensors = read_version_1(weights)
            text = Reader(decode_payload(LZMA, table, self.size), "damaged: the table of tokens is too short")
            need(len(text.data) == self.size, "damaged: the size of the table of tokens")
            lengths = [text.varint() for _ in range(config["vocab_size"])]
            words = [text.take(length) for length in lengths]
            need(text.at == self.size, "damaged: the table of tokens is too long")
            self.words = with_byte_tokens(words)
            self.model = Model(self.folder, len(self.words) - len(words), (config, tensors))
            found = (self.model.digest[:16], tokenizer_digest(self.words)[:16])
            need(found == self.digests, "damaged: the carried model is another one")
            self.stored = (b"", b"")
        return self


def read_packet(model: Model, words: list[bytes], data: bytes) -> tuple[int, bytes, bool, int]:
    """F 11: where a packet's text begins, the text, whether it is the last, and the check of the whole text."""
    need(bool(data), "damaged: an empty packet")
    width = (data[0] >> 5 & 3) + 1
    reader = Reader(data, "damaged: the packet is too short")
    kind, named, whole = reader.uint(1), reader.take(4), reader.uint(2)
    number, begin, count = reader.uint(width), reader.uint(width), reader.uint(2)
    text_check = reader.uint(2)
    others, check = data[: reader.at], reader.uint(2)
    window = reader.take(len(data) - reader.at)
    need(check == zlib.crc32(others + window) % 2**16, "damaged: the packet's check")
    need(kind & 15 == 1 and not kind & 128, f"packet of kind {kind}")
    halves = model.digest[:16] + tokenizer_digest(words)[:16]
    need(named == hashlib.sha256(b"llmzip packets\n" + halves).digest()[:4], "a packet of another model")
    need(len(window) <= 8192 and number <= begin, "damaged: a limit of packets")
    text = window
    if count:
        need(len(window) >= 3, "damaged: no window")
        tokens = decode_window(model, int.from_bytes(window, "big"), 8 * len(window), count)
        need(len(tokens) == count, "damaged: the window is over too early")
        text = b"".join(words[token] for token in tokens)
    else:
        need(bool(window) or (kind & 16 and not begin), "damaged: a packet without text")
    need(text_check == zlib.crc32(text) % 2**16 and begin + len(text) <= 2**26, "damaged: the text of the packet")
    return begin, text, bool(kind & 16), whole


def decode_packets(packets: list[bytes], folder: Path) -> bytes:
    """F 11: the text of all its packets, in any order."""
    here = Here(folder, None)
    parts = sorted(read_packet(here.model, here.words, packet) for packet in packets)
    end = 0
    for begin, text, _, _ in parts:
        need(begin == end, f"the text from {end} to {begin} is missing")
        end += len(text)
    whole = b"".join(text for _, text, _, _ in parts)
    need(parts[-1][2] and parts[0][3] == zlib.crc32(whole) % 2**16, "damaged: another text, or not all of it")
    return whole


def decode_payload(method: int, payload: bytes, size: int) -> bytes:
    """F 3: the methods without a model."""
    try:
        if method == LZMA:
            filters = [{"id": lzma.FILTER_LZMA2, "dict_size": max(2**12, 1 << (size - 1).bit_length())}]
            stream = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
            original = stream.decompress(payload, size + 1)
            need(stream.eof and not stream.unused_data, "damaged: the LZMA2 stream does not end with the payload")
            return original
        if method == ZSTD:
            frame = b"\x28\xb5\x2f\xfd" + payload
            return zstandard.ZstdDecompressor().decompress(frame, size, allow_extra_data=False)
    except (lzma.LZMAError, zstandard.ZstdError) as error:
        raise ArchiveError(f"damaged: {error}") from error
    return payload if method == STORED else b""


def decode_frame(reader: Reader, start: int, here: Here | None, prompt: list[int]) -> tuple[int, bytes]:
    """F 3, F 4: one frame; `start` is where its crc8 begins. Returns its tag and its original bytes."""
    alone = start < reader.at  # the first frame's crc8 begins with the header
    tag = reader.uint(1)
    method, width, profile = tag & 7, (tag >> 4 & 3) + 1, tag >> 6
    size, payload_size, count = (reader.uint(width) for _ in range(3))
    need(size <= 2**26 and payload_size <= 2**26, "damaged: a size is over the limit")
    rows = overlap = 0
    if profile == 3:
        rows, overlap = reader.varint(), reader.varint()
    windows = [reader.varint() for _ in range(4)] if method == WINDOWS else []
    payload = reader.take(payload_size)
    need(crc8(reader.data[start : reader.at]) == reader.uint(1), "damaged: crc8")
    crc32 = reader.uint(4)
    need(method != INDEX, "damaged: an index where a frame must be")
    need(count > 0 if method in (LM, WINDOWS) else count == 0 or method == MIXED, "damaged: number of tokens")
    need(count > 0 or profile == 0, "damaged: a profile without tokens")
    need(method != WINDOWS or profile < 2, "damaged: profile of a frame of windows")
    widest = max(size, payload_size, count)
    need(width == max(1, (widest.bit_length() + 7) // 8), "damaged: the sizes are wider than needed")
    need(method == SKIP or size > 0 or (method == STORED and alone and tag & 8 > 0), "damaged: an empty frame")
    need(method != SKIP or (size == 0 and crc32 == 0), "damaged: a skip frame is not empty")
    need(method != SKIP or recovery.is_whole(payload), "damaged recovery data")  # F 5b
    need(method not in (LM, MIXED, WINDOWS) or size <= 2**21, "damaged: original size is over the limit")
    need(count <= size, "damaged: more tokens than bytes")
    if count:
        need(here is not None, "damaged: a frame needs a model, the header names none")
        model, words = here.model, here.words
    if method == WINDOWS:
        need(not prompt, "windows have no prompt")
        original = b"".join(decode_windows(model, words, payload, count, profile, windows))
    elif count:
        if profile < 3:
            part, most = ((128, 256), (512, 128), (4096, 64))[profile]
            rows = min(max(count // part, 1), most)
            overlap = max(1, (model.context // 8, model.context // 2, 3 * model.context // 4)[profile])
        need(1 <= rows <= min(count, 4096) and 1 <= overlap < model.context, "damaged: rows record")
        need(-(-count // rows) <= 2**16, "damaged: a row is over the limit")
        if method == LM:
            tokens = decode_tokens(model, payload, count, rows, overlap, prompt)
        else:
            tokens = decode_mixed(model, words, payload, count, rows, overlap, prompt)
        original = b"".join(words[token] for row in tokens for token in row)
    elif method == MIXED:
        original = decode_adaptive(payload, size)
    else:
        original = decode_payload(method, payload, size)
    need(len(original) == size, "damaged: another original size")
    need(zlib.crc32(original) == crc32, "damaged: crc32")
    return tag, original


def check_index(reader: Reader, frames: list[tuple[int, int, int]]) -> None:
    """F 5."""
    start = reader.at
    need(reader.uint(1) == INDEX, "damaged: the index is missing")
    length = reader.varint()
    entries = Reader(reader.take(length), "damaged: length of the index")
    need(reader.uint(4) == zlib.crc32(entries.data), "damaged: crc32 of the index")
    need(reader.uint(4) == reader.at - start + 4, "damaged: length of the index")
    need(reader.take(4) == INDEX_MAGIC, "damaged: magic of the index")
    found = [(entries.varint(), entries.varint(), entries.varint()) for _ in frames]
    need(found == frames, "damaged: the index and the frames differ")
    need(entries.at == length, "damaged: the index has more entries than there are frames")


def decode(data: bytes, model_folder: Path, prompt: bytes | None = None) -> bytes:
    """F 1, F 2: the original bytes of a file of one archive or several."""
    reader, here, carried, output = Reader(data), None, None, []
    while reader.at < len(data) or not output:  # an archive has at least one frame, a file one archive
        start = reader.at
        need(MAGIC.startswith(data[start : start + 3]), "not an llmzip archive")
        reader.take(3)
        kind = reader.uint(1)
        need(kind & 15 == 2, f"unknown format version {kind & 15}")
        if kind >> 4 == 14:
            carried = Carried(reader)
            continue
        tokens: list[int] = []
        using = None
        if kind >> 4 == 15 and carried is not None and carried.names(reader):
            using = carried.open()
        elif kind >> 4:
            using = here = here or Here(Path(model_folder), prompt)
        if using is not None:
            tokens = using.check(reader, kind >> 4)
        frames, tag = [], 0
        while not tag & 8:
            place = reader.at
            tag, original = decode_frame(reader, place if frames else start, using, tokens)
            frames.append((reader.at - place, len(original), original.count(b"\n")))
            output.append(original)
        if len(frames) > 1:
            check_index(reader, frames)
    return b"".join(output)
