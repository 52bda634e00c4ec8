"""A second implementation of the decoder, from docs/format.md and docs/numerics.md alone, slow on purpose.

It shares no code with the package; the mixer is in mixer.py, weight files in weights.py. In comments, F n is section
n of format.md and N n one of numerics.md. Products of integers are made in a float type that holds every sum exactly
(N 1, R1); every other float operation is a numpy float32 operation, which rounds once (R2).
"""

import hashlib
import json
import lzma
import zlib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from math import isqrt
from pathlib import Path

import numpy as np
import zstandard
from mixer import Mixer
from weights import read_weights

F32 = np.float32
ONE = F32(1)
TINY = F32(2.0**-40)
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
MAGIC, INDEX_MAGIC = b"\xf7LZ", b"ZL\xf7\n"
STORED, LM, LZMA, ZSTD, MIXED, SKIP, INDEX = 0, 1, 2, 3, 4, 6, 7
SEED_MODEL = "72eb9fde5cfaf68903cbedb79005a1b376862bfd594569cbd830432176e72bbe"
SEED_TOKENIZER = "c58f4de16fb3e92bc7ae7e0e0d79563243b28e9aeb1bc7647e51b473c2674060"
EXP_SHA256 = "ad0ebcf5140b101a31b8032ab6b9b98b9fe6c082189b064e3c09da3f2c3b2530"


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


@precise
def log2e_1024(divisor_squared: int) -> F32:
    """N 3: 1024 log2(e) / sqrt(divisor_squared), rounded once to binary32."""
    exact = 1024 / Decimal(2).ln() / Decimal(divisor_squared).sqrt()
    return F32(int(exact * 2**200) / 2**200)  # Python rounds to binary64; no midpoint of binary32 is that near


@precise
def make_exp_table() -> np.ndarray:
    """N 3: E[k] = 2^20 * 2^(-k/1024), rounded by integers."""
    base = [int(2**30 * Decimal(2) ** (Decimal(-f) / 1024) + Decimal("0.5")) for f in range(1024)]
    table = np.array([(base[k % 1024] + 2 ** (9 + k // 1024)) // 2 ** (10 + k // 1024) for k in range(22528)], "<i4")
    need(hashlib.sha256(table.tobytes()).hexdigest() == EXP_SHA256, "the exponential table has another digest")
    return table


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


def exact(matrix: np.ndarray) -> np.ndarray:
    """N 5: a transposed matrix, in binary32 where that holds every sum of its products exactly, else in binary64."""
    return matrix.T.astype(F32 if 128 * 127 * matrix.shape[1] < 2**24 else np.float64)


class Model:
    """The model of a folder, its digest (N 7), and one context of several rows in lockstep."""

    def __init__(self, folder: Path) -> None:
        config, self.weights = read_weights(folder / "model.llmzw")
        self.context, self.start_token, self.planes = config["context"], config["start_token"], config["planes"]
        self.heads, self.kv_heads, self.dim = config["num_heads"], config["num_kv_heads"], config["head_dim"]
        self.windows, self.vocab_size, self.eps = config["windows"], config["vocab_size"], F32(config["norm_eps"])
        self.digest = self.make_digest(config)
        self.rates = turn_rates(config["rope_theta"], self.dim)
        self.a_d = log2e_1024(self.dim)
        self.q_d = 2 ** (((2**24 - 1) // (127 * self.dim)).bit_length() - 1) - 1  # N 5, row "scores"
        self.matrices = {name: exact(w) for name, w in self.weights.items() if w.dtype == np.int8}
        self.reset()

    def make_digest(self, config: dict) -> bytes:
        """N 7."""
        parts = {key: value.hex() if isinstance(value, float) else value for key, value in config.items()}
        digest = hashlib.sha256(b"llmzip exact model, numerics 1\n")
        digest.update(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        for name, tensor in sorted(self.weights.items()):
            digest.update(f"{name} {tensor.dtype} {'x'.join(map(str, tensor.shape))}\n".encode())
            digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        return digest.digest()

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

    def turn(self, x: np.ndarray) -> np.ndarray:
        """N 6.3: rotates the pairs (i, i + D/2) of each head by the angle of the position."""
        c, s = self.angles
        a, b = np.split(x, 2, -1)
        return np.concatenate([a * c - b * s, b * c + a * s], -1)

    def attention(self, x: np.ndarray, layer: int) -> np.ndarray:
        """N 6.3, 6.4: x is the normalised row; returns the heads' outputs, one after the other."""
        rows, prefix = len(x), f"layers.{layer}."
        qkv = self.linear(x, prefix + "qkv").reshape(rows, -1, self.dim)
        q, k, v = np.split(qkv, [self.heads, self.heads + self.kv_heads], 1)
        if prefix + "q_norm" in self.weights:
            q = rms_norm(q, self.weights[prefix + "q_norm"], self.eps)
            k = rms_norm(k, self.weights[prefix + "k_norm"], self.eps)
        q, sq = quantise(self.turn(q), self.q_d)
        new = [part[:, :, None] for part in (*quantise(self.turn(k), 127), *quantise(v, 127))]  # rows, heads, 1, ...
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
            e = exp_of((z.max(1, keepdims=True) + F32(0.5)) - z)
            u = F32(2**17) / (e.sum(1, keepdims=True, dtype=np.int64).astype(F32) * p_max)
            p = np.rint((e.astype(F32) * sv) * u).astype(np.float64)
            output.append(np.matmul(p[:, None], v)[:, 0].astype(F32) * (p_max * F32(2.0**-17)))
        return np.concatenate(output, -1)

    def gate(self, x: np.ndarray, layer: int) -> np.ndarray:
        """N 6.5."""
        g, up = np.split(self.linear(x, f"layers.{layer}.gate_up"), 2, -1)
        e = exp_of((np.abs(g) * L) + F32(0.5)).astype(F32) * F32(2.0**-20)
        u = np.where(g >= 0, g, g * e)
        return (u / (ONE + e)) * up

    def step(self, tokens: list[int]) -> np.ndarray:
        """N 6.3, 6.7: feeds one token to each of the first rows; returns the masses of the next, (rows, V)."""
        phases = [self.position * rate % 2**64 for rate in self.rates]
        self.angles = np.array([cos_sin(phase) for phase in phases], F32).T / F32(2**14)
        w, eps = self.weights, self.eps
        x = w["embedding_q"][tokens].astype(F32) * w["embedding_scale"][tokens, None]
        for n in range(len(self.windows)):
            x = x + self.linear(self.attention(rms_norm(x, w[f"layers.{n}.input_norm"], eps), n), f"layers.{n}.out")
            x = x + self.linear(self.gate(rms_norm(x, w[f"layers.{n}.post_norm"], eps), n), f"layers.{n}.down")
        self.position += 1
        x = rms_norm(x, w["final_norm"], eps)
        z = self.linear(x, "head" if "head_q" in w else "embedding", L)
        return exp_of((z.max(1, keepdims=True) + F32(0.5)) - z).astype(np.int64)


# ---- Frequencies and the range coder (N 8, N 9) ----


def cumulative(masses: np.ndarray) -> np.ndarray:
    """N 8: C_0 .. C_V of each row."""
    size = masses.shape[1]
    sums = np.concatenate([np.zeros((len(masses), 1), np.int64), masses.cumsum(1)], 1)
    return sums * (2**24 - size) // sums[:, -1:] + np.arange(size + 1)


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


def predictions(model: Model, count: int, inputs: list[list[int]], overlap: int) -> Iterator[np.ndarray]:
    """F 4: for each step the masses of the rows that take part; the caller appends their tokens to the inputs."""
    rows = len(inputs)
    model.reset()
    for step in range(-(-count // rows)):
        active = min(rows, count - step * rows)
        if model.position == model.context:  # N 6.6
            model.reset()
            for back in range(overlap, 0, -1):
                model.step([row[step - back] for row in inputs[:active]])
        yield model.step([row[step] for row in inputs[:active]])


def decode_tokens(model: Model, payload: bytes, count: int, rows: int, overlap: int) -> list[list[int]]:
    """F 4 and N 8: the tokens of each row."""
    size = model.vocab_size
    group_size = 1 << isqrt(size - 1).bit_length()  # least power of two S with S^2 >= V
    starts = [*range(0, size, group_size), size]
    coder = RangeDecoder(payload)
    inputs = [[model.start_token] for _ in range(rows)]
    for masses in predictions(model, count, inputs, overlap):
        tables = cumulative(masses)
        groups = [coder.decode(table[starts]) for table in tables]
        for row, (table, group) in enumerate(zip(tables, groups, strict=True)):
            part = table[starts[group] : starts[group + 1] + 1]
            part = np.concatenate([part, part[-1] + np.arange(1, group_size + 2 - len(part))]) - part[0]
            token = starts[group] + coder.decode(part * 2**24 // part[-1])
            need(token < size, "damaged: a token outside of the vocabulary")
            inputs[row].append(token)
    return [row[1:] for row in inputs]


def decode_mixed(
    model: Model, words: list[bytes], payload: bytes, count: int, rows: int, overlap: int
) -> list[list[int]]:
    """F 4a and N 10: the tokens of each row."""
    inputs = [[model.start_token] for _ in range(rows)]
    mixer = Mixer(words, count, rows, RangeDecoder(payload).bit)
    for masses in predictions(model, count, inputs, overlap):
        for row, token in zip(inputs, mixer.step(masses.tolist(), len(masses)), strict=False):
            row.append(token)
    return [row[1:] for row in inputs]


def decode_adaptive(payload: bytes, size: int) -> bytes:
    """F 4b: one row, whose tokens are bytes."""
    mixer = Mixer([bytes([value]) for value in range(256)], size, 1, RangeDecoder(payload).bit)
    return bytes(mixer.step(None, 1)[0] for _ in range(size))


# ---- Tokenizer (F 6) ----


def token_bytes(path: Path) -> list[bytes]:
    """The bytes of each token of a byte-level BPE: its printable stand-ins become bytes again."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [value for value in range(256) if value not in plain]
    stand_ins = {chr(value): value for value in plain} | {chr(256 + n): value for n, value in enumerate(other)}
    vocab = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    words = {number: bytes(stand_ins[char] for char in word) for word, number in vocab.items()}
    return [words[number] for number in range(len(words))]


def tokenizer_digest(words: list[bytes]) -> bytes:
    """F 6."""
    body = b"".join(len(word).to_bytes(4, "little") + word for word in words)
    return hashlib.sha256(b"llmzip tokens %d\n" % len(words) + body).digest()


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

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        need(self.at + size <= len(self.data), "truncated")
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


def check_model(reader: Reader, code: int, model: Model, words: list[bytes]) -> None:
    """F 2, F 7: the model record or the fixed digests against the model that is here."""
    need(code in (1, 15), f"unknown model code {code}")
    if code == 1:
        digests, settings = (SEED_MODEL, SEED_TOKENIZER), (1, 16384, 188)
    else:
        length = reader.varint()
        need(length <= 512, "damaged: length of the model record")
        record = Reader(reader.take(length))
        engine, numerics = record.uint(1), record.uint(1)
        need(engine == 1 and numerics == 1, f"unknown engine {engine} or numerics {numerics}")
        settings = (record.uint(1), record.varint(), record.varint())
        digests = (record.take(16).hex(), record.take(16).hex())
        need(length - record.at <= 255, "damaged: length of the model's name")
        record.take(length - record.at).decode("utf-8")
    found = (model.digest.hex(), tokenizer_digest(words).hex())
    for what, wanted, here in zip(("model", "tokenizer"), digests, found, strict=True):
        need(here.startswith(wanted), f"another {what}: the archive names {wanted}, here is {here}")
    need(settings == (model.planes, model.context, model.start_token), "the settings are not the model's")


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


def decode_frame(reader: Reader, start: int, model: Model | None, words: list[bytes]) -> tuple[int, bytes]:
    """F 3, F 4: one frame; `start` is where its crc8 begins. Returns its tag and its original bytes."""
    alone = start < reader.at  # the first frame's crc8 begins with the header
    tag = reader.uint(1)
    method, width, profile = tag & 7, (tag >> 4 & 3) + 1, tag >> 6
    size, payload_size, count = (reader.uint(width) for _ in range(3))
    need(size <= 2**26 and payload_size <= 2**26, "damaged: a size is over the limit")
    rows = overlap = 0
    if profile == 3:
        rows, overlap = reader.varint(), reader.varint()
    payload = reader.take(payload_size)
    need(crc8(reader.data[start : reader.at]) == reader.uint(1), "damaged: crc8")
    crc32 = reader.uint(4)
    need(method != INDEX, "damaged: an index where a frame must be")
    need(method in (STORED, LM, LZMA, ZSTD, MIXED, SKIP), f"unknown method {method}")
    need(count > 0 if method == LM else count == 0 or method == MIXED, "damaged: number of tokens")
    need(count > 0 or profile == 0, "damaged: a profile without tokens")
    widest = max(size, payload_size, count)
    need(width == max(1, (widest.bit_length() + 7) // 8), "damaged: the sizes are wider than needed")
    need(method == SKIP or size > 0 or (method == STORED and alone and tag & 8 > 0), "damaged: an empty frame")
    need(method != SKIP or (size == 0 and crc32 == 0), "damaged: a skip frame is not empty")
    need(method not in (LM, MIXED) or size <= 2**21, "damaged: original size is over the limit")
    need(count <= size, "damaged: more tokens than bytes")
    if count:
        need(model is not None, "damaged: a frame needs a model, the header names none")
        if profile < 3:
            part, most = ((128, 256), (512, 128), (4096, 64))[profile]
            rows = min(max(count // part, 1), most)
            overlap = max(1, (model.context // 8, model.context // 2, 3 * model.context // 4)[profile])
        need(1 <= rows <= min(count, 4096) and 1 <= overlap < model.context, "damaged: rows record")
        need(-(-count // rows) <= 2**16, "damaged: a row is over the limit")
        if method == LM:
            tokens = decode_tokens(model, payload, count, rows, overlap)
        else:
            tokens = decode_mixed(model, words, payload, count, rows, overlap)
        original = b"".join(words[token] for row in tokens for token in row)
    elif method == MIXED:
        original = decode_adaptive(payload, size)
    else:
        original = decode_payload(method, payload, size)
    need(len(original) == size, "damaged: another original size")
    need(zlib.crc32(original) == crc32, "damaged: crc32")
    return tag, original


def check_index(reader: Reader, frames: list[tuple[int, int]]) -> None:
    """F 5."""
    start = reader.at
    need(reader.uint(1) == INDEX, "damaged: the index is missing")
    length = reader.varint()
    entries = Reader(reader.take(length))
    need(reader.uint(4) == zlib.crc32(entries.data), "damaged: crc32 of the index")
    need(reader.uint(4) == reader.at - start + 4, "damaged: length of the index")
    need(reader.take(4) == INDEX_MAGIC, "damaged: magic of the index")
    need([(entries.varint(), entries.varint()) for _ in frames] == frames, "damaged: the index and the frames differ")
    need(entries.at == length, "damaged: the index has more entries than there are frames")


def decode(data: bytes, model_folder: Path) -> bytes:
    """F 1, F 2: the original bytes of a file of one archive or several."""
    reader, model, words, output = Reader(data), None, [], []
    while reader.at < len(data) or not output:  # an archive has at least one frame, a file one archive
        start = reader.at
        need(MAGIC.startswith(data[start : start + 3]), "not an llmzip archive")
        reader.take(3)
        kind = reader.uint(1)
        need(kind & 15 == 1, f"unknown format version {kind & 15}")
        if kind >> 4:
            if model is None:
                model, words = Model(Path(model_folder)), token_bytes(Path(model_folder) / "tokenizer.json")
            check_model(reader, kind >> 4, model, words)
        frames, tag = [], 0
        while not tag & 8:
            place = reader.at
            tag, original = decode_frame(reader, place if frames else start, model if kind >> 4 else None, words)
            frames.append((reader.at - place, len(original)))
            output.append(original)
        if len(frames) > 1:
            check_index(reader, frames)
    return b"".join(output)
