"""Archives of windows (F 4d) by the second decoder, and what their rule promises in plain integers."""

from __future__ import annotations

import random
import shutil
import zlib
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import decoder
import pytest
from test_reference import ENGLISH
from weights import read_weights

import llmzip
from llmzip.codec.writer import ArchiveWriter
from llmzip.models import weightfile
from llmzip.models.embedded import DEFAULT
from llmzip.settings import CompressSettings

SMALL = DEFAULT.folder.parent / "small"
NO_UTF8 = ENGLISH[:70] + b"\xff\xc3\x28\x80 Gr\xf6\xdfe " + "été 日本 ".encode() + ENGLISH[70:110]


def written(text: bytes, bits: int, reset: bool = True, model: str | Path = "small") -> bytes:
    settings = CompressSettings(model=str(model), window_bits=bits, model_reset=reset)
    writer = ArchiveWriter(settings)
    return writer.write(text) + writer.finish()


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


class Parts(NamedTuple):
    """An archive of one frame of windows, taken apart (F 2, F 3)."""

    header: bytes
    tag: int
    size: int
    count: int
    record: list[int]  # W, n, last, G
    payload: bytes
    crc32: bytes

    @property
    def windows(self) -> list[int]:
        return decoder.split_windows(self.payload, *self.record[:2])[0]

    @property
    def directory(self) -> bytes:
        return decoder.split_windows(self.payload, *self.record[:2])[1]

    def pack(self, **changes: object) -> bytes:
        """The archive again, with a crc8 that is right."""
        new = self._replace(**changes)
        sizes = (new.size, len(new.payload), new.count)
        width = max(1, (max(sizes).bit_length() + 7) // 8)
        frame = bytes([new.tag & 0xCF | width - 1 << 4]) + b"".join(size.to_bytes(width, "little") for size in sizes)
        start = new.header + frame + b"".join(map(varint, new.record)) + new.payload
        return start + bytes([decoder.crc8(start)]) + new.crc32


def take_apart(archive: bytes) -> Parts:
    reader = decoder.Reader(archive)
    reader.take(4)
    if archive[3] >> 4 == 15:
        reader.take(reader.varint())
    header, tag = archive[: reader.at], reader.uint(1)
    assert tag & 0xF == decoder.WINDOWS | 8, "not a single frame of windows"
    size, length, count = (reader.uint((tag >> 4 & 3) + 1) for _ in range(3))
    record = [reader.varint() for _ in range(4)]
    parts = Parts(header, tag, size, count, record, reader.take(length), archive[-4:])
    assert parts.pack() == archive
    return parts


@pytest.fixture(scope="module")
def second() -> decoder.Model:
    return decoder.Model(SMALL)


@pytest.fixture(scope="module")
def words() -> list[bytes]:
    return decoder.token_bytes(SMALL / "tokenizer.json")


def texts_of(parts: Parts, model: decoder.Model, words: list[bytes]) -> list[bytes]:
    return decoder.decode_windows(model, words, parts.payload, parts.count, parts.tag >> 6, parts.record)


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bits", "reset"),
    [
        (ENGLISH[:150], 16, True),
        (ENGLISH[60:210], 24, True),
        (ENGLISH[20:170], 25, True),
        (ENGLISH[100:250], 40, True),
        (ENGLISH[:200], 300, True),
        (ENGLISH[:150], 16, False),
        (ENGLISH[:190], 40, False),
        (NO_UTF8, 40, True),
        (NO_UTF8, 16, False),
    ],
    ids=["16", "24", "25", "40", "300", "16 kept", "40 kept", "40 no UTF-8", "16 kept no UTF-8"],
)
def test_archives_of_windows(text: bytes, bits: int, reset: bool) -> None:
    archive = written(text, bits, reset)
    parts = take_apart(archive)
    assert parts.tag >> 6 == (0 if reset else 1) and parts.record[0] == bits and parts.record[1] > 1
    assert decoder.decode(archive, SMALL) == text


def test_a_window_alone(second: decoder.Model, words: list[bytes]) -> None:
    """The bits of a window, its W and the model are enough; of the last one also how many tokens it holds."""
    text = ENGLISH[:150]
    bits, number, last, _ = take_apart(written(text, 25)).record
    payload = take_apart(written(text, 25)).payload
    texts = []
    for place in range(number):
        first, end = place * bits, (place + 1) * bits
        part = int.from_bytes(payload[first // 8 : -(-end // 8)], "big")
        window = part >> -end % 8 & (1 << bits) - 1
        most = last if place == number - 1 else second.context
        tokens = decoder.decode_window(second, window, bits, most)
        texts.append(b"".join(words[token] for token in tokens))
    assert b"".join(texts) == text and all(texts)


def test_groups_of_windows(second: decoder.Model, words: list[bytes]) -> None:
    """A directory of groups smaller than those llmzip writes for a short text; both readers take it."""
    parts = take_apart(written(ENGLISH[:120], 40))
    texts = texts_of(parts, second, words)
    lead = parts.payload[: len(parts.payload) - len(parts.directory)]
    for size in (1, 3):
        groups = [b"".join(texts[at : at + size]) for at in range(0, len(texts), size)]
        entries = [varint(len(text)) + (zlib.crc32(text) % 2**16).to_bytes(2, "little") for text in groups]
        changed = parts.pack(payload=lead + b"".join(entries), record=[*parts.record[:3], size])
        assert texts_of(take_apart(changed), second, words) == texts
        assert llmzip.decompress(changed) == ENGLISH[:120]


def short_model(folder: Path, context: int) -> Path:
    """The embedded weights with a short context."""
    shutil.copytree(SMALL, folder)
    config, tensors = read_weights(folder / "model.llmzw")
    config |= {"context": context, "windows": [min(5, context)] * config["num_layers"]}
    (folder / "model.llmzw").write_bytes(weightfile.pack(config, 1, tensors))
    return folder


@pytest.mark.parametrize(("context", "bits", "reset"), [(2, 24, True), (2, 24, False), (8, 40, False)])
def test_short_contexts(context: int, bits: int, reset: bool, tmp_path: Path) -> None:
    """Windows that end because they hold C tokens or not; kept contexts begin anew within windows and between them."""
    folder, text = short_model(tmp_path / "model", context), ENGLISH[:75]
    archive = written(text, bits, reset, folder)
    assert archive[3] >> 4 == 15 and take_apart(archive).count > 2 * context
    assert decoder.decode(archive, folder) == text


def test_windows_that_hold_as_many_tokens_as_the_context(tmp_path: Path) -> None:
    """All of them; and any number of what is left of the range stands for the same tokens."""
    folder, text, bits = short_model(tmp_path / "model", 8), ENGLISH[:100], 120
    archive = written(text, bits, True, folder)
    parts = take_apart(archive)
    assert parts.record[1:3] == [-(-parts.count // 8), (parts.count - 1) % 8 + 1]
    assert decoder.decode(archive, folder) == text
    model = decoder.Model(folder)
    row, window = decoder.Row(model, 8, 1, 2**24), decoder.Window(parts.windows[0], bits)
    tokens = row.read(window, 8)
    assert len(tokens) == 8 and window.low == parts.windows[0], "llmzip takes low"
    end = window.low + (window.m << window.k)
    assert end - window.low > 2
    for number in (window.low - 1, end):
        assert decoder.decode_window(model, number, bits, 8) != tokens
    for number in (window.low + 1, end - 1):
        assert decoder.decode_window(model, number, bits, 8) == tokens
    spare = 8 * len(parts.payload) - bits
    payload = int.from_bytes(parts.payload, "big") % 2**spare | end - 1 << spare
    changed = parts.pack(payload=payload.to_bytes(len(parts.payload), "big"))
    assert decoder.decode(changed, folder) == llmzip.decompress(changed, model=str(folder)) == text


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [True, False])
def test_flipped_bits_are_found(reset: bool, second: decoder.Model, words: list[bytes]) -> None:
    """By the crc8 of the frame; and where that is right, by the windows and their checksums."""
    parts = take_apart(written(ENGLISH[:45], 24, reset))
    archive = bytearray(parts.pack())
    archive[len(archive) - 5 - len(parts.payload) + 4] ^= 16
    with pytest.raises(decoder.ArchiveError):
        decoder.decode(bytes(archive), SMALL)
    assert b"".join(texts_of(parts, second, words)) == ENGLISH[:45]
    for place in (0, 4 * len(parts.payload), 8 * len(parts.payload) - 1):
        payload = int.from_bytes(parts.payload, "big") ^ 1 << 8 * len(parts.payload) - 1 - place
        changed = parts.pack(payload=payload.to_bytes(len(parts.payload), "big"))
        with pytest.raises(decoder.ArchiveError, match="damaged"):
            texts_of(take_apart(changed), second, words)
        with pytest.raises(llmzip.LLMZipError):
            llmzip.decompress(changed)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 15), (0, 2**16 + 1), (0, 24), (1, 0), (1, 99), (2, 0), (2, 2), (2, 99), (3, 0), (3, 99)],
)
def test_records_that_break_a_rule(place: int, value: int, second: decoder.Model, words: list[bytes]) -> None:
    parts = take_apart(written(ENGLISH[:34], 25))
    assert 1 < parts.record[1] < 99 and parts.record[2] != 2
    parts.record[place] = value
    with pytest.raises(decoder.ArchiveError, match="damaged"):
        texts_of(take_apart(parts.pack()), second, words)


def test_frames_that_break_a_rule() -> None:
    parts = take_apart(written(ENGLISH[:34], 25))
    assert parts.record[0] * parts.record[1] % 8, "no bits are left of the last byte of the windows"
    at = parts.record[0] * parts.record[1] // 8
    spare = parts.payload[:at] + bytes([parts.payload[at] | 1]) + parts.payload[at + 1 :]
    changes: list[dict[str, object]] = [
        {"tag": parts.tag | 2 << 6},
        {"payload": parts.payload + b"\0"},
        {"payload": parts.payload[:-1]},
        {"payload": spare},
        {"count": parts.count + 1},
        {"count": 0},
        {"size": parts.size + 1},
        {"header": b"\xf7LZ\x02"},
    ]
    for change in changes:
        with pytest.raises(decoder.ArchiveError, match="damaged"):
            decoder.decode(parts.pack(**change), SMALL)


# -- the rule ----------------------------------------------------------------------------------------------------------


def made_up_table(tokens: tuple[int, ...], size: int, b: int) -> list[int]:
    """Cumulative frequencies that every token before changes, many of them as small as can be."""
    pick = random.Random(repr((tokens, size)))
    masses = [pick.choice([0, 0, 0, 1, 30, 1000, 2**20]) for _ in range(size)]
    masses[pick.randrange(size)] = 2**20
    sums = [sum(masses[:place]) for place in range(size + 1)]
    return [value * (2**b - size) // sums[-1] + place for place, value in enumerate(sums)]


def read(number: int, bits: int, size: int, most: int) -> tuple[tuple[int, ...], decoder.Window]:
    window, tokens = decoder.Window(number, bits), ()
    while len(tokens) < most:
        token = window.next(made_up_table(tokens, size, window.b))
        if token is None:
            break
        tokens += (token,)
    return tokens, window


def write(tokens: tuple[int, ...], bits: int, size: int, most: int) -> range:
    """The numbers that stand for tokens, by the document's rule for writing in nothing but integers."""
    b, low, k = min(24, bits), 0, max(0, bits - 38)
    m = 2 ** (bits - k)
    for place, token in enumerate(tokens):
        table = made_up_table(tokens[:place], size, b)
        u = m - 1 if m < 2**b else m
        first, end = u * table[token] // 2**b, u * table[token + 1] // 2**b
        assert first < end, "the token belongs into the next window"
        low, m = low + first * 2**k, end - first
        while k > 0 and m < 2**38:
            m, k = 2 * m, k - 1
    if len(tokens) == most:
        return range(low, low + m * 2**k)
    assert k == 0 and m < 2**b, "the window is not over"
    return range(low + m - 1, low + m)


@pytest.mark.parametrize("bits", [16, 17, 23, 24, 25, 37, 38, 39, 40, 300])
@pytest.mark.parametrize("most", [3, 1000])
def test_every_number_stands_for_some_tokens(bits: int, most: int) -> None:
    """What is read from any number is what is written with that number, and with no other unless C tokens are full."""
    pick = random.Random(bits)
    near = [0, 1, 2**bits - 2, 2**bits - 1, 2 ** (bits - 1) - 1, 2 ** (bits - 1)]
    for number in near + [pick.randrange(2**bits) for _ in range(20)]:
        size = pick.choice([16, 17, 40])
        tokens, window = read(number, bits, size, most)
        assert tokens and number in write(tokens, bits, size, most)
        assert window.low <= number < window.low + (window.m << window.k)


@pytest.mark.parametrize(("size", "most"), [(16, 1000), (50, 2)])
def test_numbers_of_sixteen_bits_have_no_gap(size: int, most: int) -> None:
    """Each range is the ranges of its tokens, side by side, and the number that says that the window is over."""
    waiting: list[tuple[tuple[int, ...] | None, int, int]] = [((), 0, 2**16)]
    at = 0
    while waiting:  # in the order of the numbers
        tokens, low, m = waiting.pop()
        assert low == at
        if tokens is None or len(tokens) == most:  # a number that says so, or any of a full window
            at += m
            continue
        table, u = made_up_table(tokens, size, 16), m - (m < 2**16)
        edges = [u * value // 2**16 for value in table]
        assert edges[0] == 0 and edges[-1] == u
        parts = [(t, first, end) for t, (first, end) in enumerate(pairwise(edges)) if first < end]
        if m > u:
            waiting.append((None, low + u, 1))
        waiting += [((*tokens, t), low + first, end - first) for t, first, end in reversed(parts)]
    assert at == 2**16


def test_bisection_is_the_rule_for_reading() -> None:
    """C_t <= floor(((v + 1) 2^b - 1) / u) < C_(t+1) is the token whose numbers hold v."""
    pick = random.Random(1)
    for _ in range(300):
        b, size = pick.randrange(5, 25), 16
        table = made_up_table((b,), size, b)
        u = pick.randrange(1, 2 ** pick.randrange(1, 40))
        v = pick.randrange(u)
        token = bisect_right(table, ((v + 1) * 2**b - 1) // u) - 1
        assert u * table[token] // 2**b <= v < u * table[token + 1] // 2**b
