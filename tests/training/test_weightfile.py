"""Checks the weight file: what goes in comes out, a slow decoder of the document agrees, and no damage gets through."""

from __future__ import annotations

import json
import math
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ModelUnsupportedError
from llmzip.models.weightfile import pack, unpack

Arrays = dict[str, np.ndarray]
CONFIG = {"layers": 2, "theta": 10000.5}
WIDTHS = {"int8": 1, "float32": 4}

# -- the document, word for word and slowly ----------------------------------------------------------------------------


def slow_unpack(data: bytes) -> tuple[dict[str, Any], int, dict[str, tuple[str, list[int], bytes]]]:
    """Config, numerics version and name -> (kind, shape, little-endian values), by docs/weights.md alone."""
    assert data[:4] == b"\xf7LW\x01" and int.from_bytes(data[-4:], "little") == zlib.crc32(data[:-4])
    feed = iter(data[4:-4])

    def number(size: int) -> int:
        return sum(next(feed) << 8 * n for n in range(size))

    def varint() -> int:
        groups = [next(feed)]
        while groups[-1] & 128:
            groups.append(next(feed))
        return sum((group & 127) << 7 * n for n, group in enumerate(groups))

    header = json.loads(bytes(next(feed) for _ in range(number(4))))
    lanes = number(2)
    planes: list[tuple[bytearray, list[int] | None]] = []
    for _, kind, shape in header["tensors"]:
        for _ in range(WIDTHS[kind]):
            size = math.prod(shape)
            if number(1) == 0:
                planes.append((bytearray(next(feed) for _ in range(size)), None))
                continue
            table: list[int] = []
            while len(table) < 256:
                table.append(varint())
                if table[-1] == 0:
                    table += [0] * varint()
            assert len(table) == 256 and sum(table) == 1 << 14
            planes.append((bytearray(size), table))
    states = [number(4) for _ in range(lanes)]
    words = iter([number(2) for _ in range(number(4))])
    assert next(feed, None) is None
    for plane, coded in planes:
        if coded is None:
            continue
        symbols = [symbol for symbol in range(256) for _ in range(coded[symbol])]
        starts = [sum(coded[:symbol]) for symbol in range(256)]
        for i in range(len(plane)):
            x = states[i % lanes]
            slot = x % (1 << 14)
            s = symbols[slot]
            x = coded[s] * (x >> 14) + slot - starts[s]
            states[i % lanes] = x if x >= 1 << 16 else x * (1 << 16) + next(words)
            plane[i] = s
    assert next(words, None) is None and set(states) == {1 << 16}
    tensors, left = {}, [bytes(plane) for plane, _ in planes]
    for name, kind, shape in header["tensors"]:
        parts, left = left[: WIDTHS[kind]], left[WIDTHS[kind] :]
        tensors[name] = (kind, shape, b"".join(bytes(value) for value in zip(*parts, strict=True)))
    return header["config"], header["numerics"], tensors


def slow_encode(planes: Sequence[tuple[bytes, Sequence[int]]], lanes: int) -> tuple[list[int], list[int]]:
    """States and words from which planes decode with their tables."""
    states, words = [1 << 16] * lanes, []
    for plane, table in reversed(planes):
        for i in reversed(range(len(plane))):
            x, frequency, start = states[i % lanes], table[plane[i]], sum(table[: plane[i]])
            if x >= frequency << 18:
                words.append(x & 0xFFFF)
                x >>= 16
            states[i % lanes] = (x // frequency << 14) + x % frequency + start
    return states, words[::-1]


def varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


def table_of(frequencies: dict[int, int], longest_run: int = 256) -> bytes:
    """The record of a coded plane; runs of zeros may be shorter than they could be."""
    out, symbol = b"\1", 0
    while symbol < 256:
        out += varint(frequencies.get(symbol, 0))
        if symbol not in frequencies:
            run = 1
            while run < longest_run and symbol + run < 256 and symbol + run not in frequencies:
                run += 1
            out += varint(run - 1)
            symbol += run - 1
        symbol += 1
    return out


def listed(frequencies: dict[int, int]) -> list[int]:
    """All 256 frequencies."""
    return [frequencies.get(symbol, 0) for symbol in range(256)]


def file_of(
    tensors: Any = (("a", "int8", (3,)),),
    records: bytes = b"\0abc",
    lanes: int = 1,
    states: Sequence[int] | None = None,
    words: Sequence[int] = (),
    header: bytes | None = None,
    version: int = 1,
    **fields: Any,
) -> bytes:
    """A file with a right crc32 and otherwise whatever is asked for."""
    described = {"config": {}, "numerics": 1, "tensors": tensors} | fields
    text = json.dumps(described).encode() if header is None else header
    out = b"\xf7LW" + bytes([version]) + len(text).to_bytes(4, "little") + text + lanes.to_bytes(2, "little") + records
    out += b"".join(state.to_bytes(4, "little") for state in ([1 << 16] * lanes if states is None else states))
    out += len(words).to_bytes(4, "little") + b"".join(word.to_bytes(2, "little") for word in words)
    return checked(out)


def checked(data: bytes) -> bytes:
    """The bytes with their crc32."""
    return data + zlib.crc32(data).to_bytes(4, "little")


def same(found: Arrays, expected: Arrays) -> bool:
    """Whether all names, shapes, types and bits agree; NaNs are compared by their bits."""
    return found.keys() == expected.keys() and all(
        (array.dtype, array.shape, array.tobytes())
        == (expected[name].dtype, expected[name].shape, expected[name].tobytes())
        for name, array in found.items()
    )


def slowly(data: bytes) -> tuple[dict[str, Any], int, Arrays]:
    """slow_unpack as arrays."""
    config, numerics, tensors = slow_unpack(data)
    return config, numerics, {n: np.frombuffer(raw, kind).reshape(shape) for n, (kind, shape, raw) in tensors.items()}


# -- round trips -------------------------------------------------------------------------------------------------------

FLOATS = np.array(
    [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF],
    dtype="<u4",
).view("<f4")
"""Zeros, infinities, quiet and signalling NaNs, subnormal, smallest and largest values."""


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """int8 or float32, of any shape: random bytes, few values, one value, extreme floats, or many near zero."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    kind, how = draw(st.sampled_from(["int8", "float32"])), draw(st.sampled_from("rfoxm"))
    size = math.prod(shape)
    seed = draw(st.integers(0, 1 << 32))
    random = np.random.default_rng(seed)
    if how == "m":
        shape = (draw(st.integers(1, 40)), draw(st.integers(1, 130)))
        return (random.standard_normal(shape) * draw(st.sampled_from([0.3, 9.0]))).astype(kind)
    if how == "x" and kind == "float32":
        return random.choice(FLOATS, size).reshape(shape)
    values = {"r": size, "f": 3, "o": 1, "x": 2}[how]
    pool = np.frombuffer(random.bytes(max(1, values) * WIDTHS[kind]), f"<{'i1' if kind == 'int8' else 'f4'}")
    return np.ascontiguousarray(pool[random.integers(len(pool), size=size)]).reshape(shape)


@given(tensors=st.dictionaries(st.text(max_size=6), arrays(), max_size=4), numerics=st.integers(0, 9))
def test_what_goes_in_comes_out_and_the_slow_decoder_agrees(tensors: Arrays, numerics: int) -> None:
    data = pack(CONFIG, numerics, tensors)
    for config, version, found in (unpack(data), slowly(data)):
        assert (config, version) == (CONFIG, numerics)
        assert same(found, tensors)
    assert list(unpack(data)[2]) == sorted(tensors)


def test_many_lanes_come_back(rng: np.random.Generator) -> None:
    tensors = {
        "matrix": np.clip(np.rint(rng.standard_normal((211, 97)) * 11), -127, 127).astype(np.int8),
        "scale": (1 + 0.1 * rng.standard_normal(1501)).astype(np.float32),
        "zeros": np.zeros((40, 300), dtype=np.int8),
    }
    data = pack(CONFIG, 1, tensors)
    assert same(unpack(data)[2], tensors) and same(slowly(data)[2], tensors)
    lanes = int.from_bytes(data[8 + int.from_bytes(data[4:8], "little") :][:2], "little")
    assert lanes == (211 * 97 + 4 * 1501 + 40 * 300) // 2048  # more than one, and not a divisor of the planes


def test_arrays_of_other_layouts_come_back(rng: np.random.Generator) -> None:
    matrix = rng.integers(-127, 128, (30, 50)).astype(np.int8)
    floats = rng.standard_normal((6, 4)).astype(np.float32)
    data = pack({}, 1, {"turned": matrix.T, "thinned": matrix[::3, ::-2], "swapped": floats.astype(">f4")})
    expected = {"turned": matrix.T.copy(), "thinned": matrix[::3, ::-2].copy(), "swapped": floats}
    assert same(unpack(data)[2], expected) and same(slowly(data)[2], expected)


def test_tensors_that_come_back_can_be_written_to() -> None:
    _, _, found = unpack(pack({}, 1, {"coded": np.zeros(900, np.int8), "stored": np.arange(3, dtype=np.float32)}))
    for array in found.values():
        array[0] = 5
        assert array[0] == 5


def test_packing_depends_on_the_content_only(rng: np.random.Generator) -> None:
    tensors = {name: rng.integers(-3, 4, 700).astype(np.int8) for name in "bca"}
    assert pack({"b": 1, "a": 2}, 1, tensors) == pack({"a": 2, "b": 1}, 1, dict(sorted(tensors.items())))


@pytest.mark.parametrize("sigma", [0.4, 6.0, 14.0, 40.0])
def test_size_is_near_the_entropy(sigma: float, rng: np.random.Generator) -> None:
    matrix = np.clip(np.rint(rng.standard_normal((512, 500)) * sigma), -127, 127).astype(np.int8)
    counts = np.unique(matrix, return_counts=True)[1]
    entropy = float((counts * np.log2(matrix.size / counts)).sum()) / 8
    size = len(pack(CONFIG, 1, {"matrix": matrix}))
    assert entropy < size < 1.005 * entropy + 4 * (matrix.size / 2048) + 700  # lanes; table and header


def test_what_cannot_be_compressed_is_stored(rng: np.random.Generator) -> None:
    noise = {"noise": rng.integers(-128, 128, 5000).astype(np.int8)}
    assert len(pack({}, 1, noise)) < 5000 + 120
    constant = {"constant": np.full(5000, 1.5, dtype=np.float32)}
    assert len(pack({}, 1, constant)) < 200


def test_frequencies_hold_for_one_rare_value_and_for_all(rng: np.random.Generator) -> None:
    rare = np.zeros(100_000, dtype=np.int8)
    rare[77_777] = -128
    skewed = np.concatenate([np.arange(-128, 128), np.full(90_000, 3)]).astype(np.int8)
    tensors = {"rare": rare, "skewed": rng.permutation(skewed)}
    data = pack({}, 1, tensors)
    assert same(unpack(data)[2], tensors) and same(slowly(data)[2], tensors)
    assert len(data) < 3500


# -- files of other writers --------------------------------------------------------------------------------------------

GOLDEN = bytes.fromhex(
    "f74c5701520000007b22636f6e666967223a7b226e223a317d2c226e756d6572696373223a312c2274656e736f7273223a5b5b2261222c22"
    "666c6f61743332222c5b335d5d2c5b2262222c22696e7438222c5b382c395d5d5d7d0100000000000000000000800080003f807f01d64aab"
    "15d50a007cd50a007dd50abe2e010008000000b9fad35a75392995703e369199b7fedec38f9b8e"
)
"""What `pack` wrote when the format was settled. If this ever fails, the format needs a new version."""


def test_golden_file() -> None:
    tensors = {
        "b": np.array([1, -1, 0, 0, 0, 0, 2, -128, 0, 0, 0, 1] * 6, dtype=np.int8).reshape(8, 9),
        "a": np.array([1.0, -0.0, np.inf], dtype=np.float32),
    }
    for config, numerics, found in (unpack(GOLDEN), slowly(GOLDEN)):
        assert (config, numerics) == ({"n": 1}, 1)
        assert same(found, tensors)


@given(
    plane=st.lists(st.sampled_from([0, 1, 7, 255]), max_size=60).map(bytes),
    other=st.lists(st.sampled_from([0, 7]), max_size=20).map(bytes),
    lanes=st.integers(1, 24),
    run=st.integers(1, 9),
)
def test_files_of_the_slow_encoder_decode(plane: bytes, other: bytes, lanes: int, run: int) -> None:
    table = {0: 16000, 1: 1, 7: 283, 255: 100}
    states, words = slow_encode([(plane, listed(table)), (other, listed(table))], lanes)
    tensors = [("b", "int8", (len(plane),)), ("between", "int8", (2,)), ("a", "int8", (1, len(other)))]
    data = file_of(tensors, table_of(table) + b"\0xy" + table_of(table, run), lanes, states, words)
    found = unpack(data)[2]
    assert list(found) == ["b", "between", "a"]
    assert (found["b"].tobytes(), found["between"].tobytes(), found["a"].tobytes()) == (plane, b"xy", other)


def test_the_most_lanes_are_read() -> None:
    table = {5: 1 << 13, 250: 1 << 13}
    plane = bytes([5, 250, 250, 5]) * 20
    states, words = slow_encode([(plane, listed(table))], 1 << 14)
    data = file_of([("a", "int8", (80,))], table_of(table), 1 << 14, states, words)
    assert unpack(data)[2]["a"].tobytes() == plane


# -- damage ------------------------------------------------------------------------------------------------------------


def refused(data: bytes) -> str:
    """What the error says; any other exception is a failure."""
    with pytest.raises(ModelUnsupportedError) as caught:
        unpack(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def small() -> bytes:
    """A file of some 250 bytes with stored and coded planes, one of them constant, and words."""
    plane = np.random.default_rng(6).choice(np.array([0, 1, 254], np.uint8), 120, p=[0.6, 0.1, 0.3]).tobytes()
    few, one = {0: 9000, 1: 2384, 254: 5000}, {63: 1 << 14}
    states, words = slow_encode([(plane, listed(few)), (bytes([63]) * 7, listed(one))], 8)
    assert len(words) > 5
    floats = b"\0abcdefg" + b"\0hijklmn" + b"\0" + bytes(range(7)) + table_of(one)
    tensors = [("matrix", "int8", (8, 15)), ("norm", "float32", (7,)), ("odd", "int8", (3,))]
    return file_of(tensors, table_of(few) + floats + b"\0xyz", 8, states, words, config={"size": 12})


@pytest.fixture
def traced() -> Iterator[None]:
    """Makes tracemalloc count what a test allocates."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_every_changed_byte_is_refused(small: bytes) -> None:
    for place in range(len(small)):
        for flip in (1, 16, 128, 255):
            refused(small[:place] + bytes([small[place] ^ flip]) + small[place + 1 :])


def test_every_truncation_is_refused(small: bytes) -> None:
    for length in range(len(small)):
        refused(small[:length])
    for length in range(len(small) - 4):
        refused(checked(small[:length]))


@pytest.mark.usefixtures("traced")
def test_damage_behind_a_right_crc32_is_refused_or_other_content(small: bytes) -> None:
    right = unpack(small)
    tracemalloc.reset_peak()
    outcomes = []
    for place in range(len(small) - 4):
        for flip in (1, 2, 8, 64, 255):
            data = checked(small[:place] + bytes([small[place] ^ flip]) + small[place + 1 : -4])
            try:
                config, numerics, found = unpack(data)
            except ModelUnsupportedError:
                outcomes.append("refused")
            else:
                assert (config, numerics) != right[:2] or not same(found, right[2])
                outcomes.append("other")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    # Nothing but the header's names and values, stored bytes and words that still end right can become other content.
    assert 0 < outcomes.count("other") < len(outcomes) / 4


def test_random_ends_are_refused(small: bytes, rng: np.random.Generator, effort: int) -> None:
    for _ in range(100 * effort):
        cut = int(rng.integers(8, len(small)))
        refused(checked(small[:cut] + rng.bytes(int(rng.integers(0, 300)))))


@pytest.mark.parametrize("data", [b"", b"\xf7", b"PK\x03\x04" * 9, b"LW\x01" * 9, b"\xf7Lw\x01" * 9])
def test_other_files_are_told_apart(data: bytes) -> None:
    assert "not one of llmzip" in refused(data)


@pytest.mark.parametrize("version", [0, 3, 255])
def test_other_versions_are_named(version: int) -> None:
    assert f"version {version}, this llmzip reads versions 1 and 2" in refused(file_of(version=version))
    assert f"version {version}, this llmzip reads versions 1 and 2" in refused(b"\xf7LW" + bytes([version]))


GOOD_TABLE = {0: 16000, 97: 384}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "no lanes": (file_of(lanes=0), "0 lanes"),
    "a lane too many": (file_of(lanes=16385), "16385 lanes"),
    "all lanes": (file_of(lanes=65535), "65535 lanes"),
    "a plane of kind 2": (file_of(records=b"\2abc"), "plane of kind 2"),
    "a table of less": (file_of(records=table_of({0: 16000, 97: 383})), "table of frequencies"),
    "a table of more": (file_of(records=table_of({0: 16000, 97: 385})), "table of frequencies"),
    "a table of one enormous value": (file_of(records=table_of({0: (1 << 35) - 1})), "table of frequencies"),
    "a table of nothing": (file_of(records=b"\1" + b"\0" + varint(255)), "table of frequencies"),
    "a table that is too long": (
        file_of(records=b"\1" + varint(1 << 14) + b"\0" + varint(255)), "table of frequencies"
    ),
    "a table with an enormous run": (
        file_of(records=b"\1" + varint(1 << 14) + b"\0" + varint((1 << 35) - 1)), "table of frequencies"
    ),
    "a number of six bytes": (file_of(records=b"\1" + b"\x80" * 5 + b"\1"), "number is too long"),
    "a table that ends": (file_of(records=b"\1" + varint(1 << 14) + b"\0"), "truncated|table"),
    "a state that is too small": (file_of(states=[(1 << 16) - 1]), "state is too small"),
    "a state of zero": (file_of(lanes=2, states=[1 << 16, 0]), "state is too small"),
    "a state that is no beginning": (file_of(states=[(1 << 16) + 1]), "do not end as they began"),
    "words that nobody takes": (file_of(words=[0]), "do not end as they began"),
    "too few words": (file_of(records=table_of(GOOD_TABLE), states=[1 << 16 | 16001]), "end too early"),
    "bytes that are left over": (file_of(records=b"\0abc" + bytes(20)), "left over|too small"),
    "a byte behind the words": (checked(file_of()[:-4] + b"\0"), "left over"),
    "a stored plane that ends": (checked(file_of(records=b"\0a")[:-9]), "truncated"),
    "an enormous number of words": (checked(file_of()[:-8] + b"\xff" * 4), "truncated"),
    "a header that is too long": (checked(file_of()[:4] + b"\1\0\x10\0" + bytes(1 << 20)), "header is too long"),
    "a header of 4 GiB": (checked(file_of()[:4] + b"\xff" * 4 + bytes(64)), "header is too long"),
    "a header behind the end": (checked(file_of()[:4] + b"\xff\xff\0\0" + bytes(64)), "truncated"),
    "a header of nothing": (file_of(header=b""), "header is wrong"),
    "a header of lists": (file_of(header=b"[" * 100_000), "header is wrong"),
    "a header in Latin-1": (file_of(header=b'{"config":{"\xe9":1},"numerics":1,"tensors":[]}'), "header is wrong"),
    "a list for a header": (file_of(header=b"[]"), "header is wrong"),
    "no config": (file_of(header=b'{"numerics":1,"tensors":[]}'), "header is wrong"),
    "no numerics": (file_of(header=b'{"config":{},"tensors":[]}'), "header is wrong"),
    "numerics of words": (file_of(numerics="one"), "header is wrong"),
    "no tensors": (file_of(header=b'{"config":{},"numerics":1}'), "header is wrong"),
    "tensors of numbers": (file_of(tensors=[1, 2]), "header is wrong"),
    "a tensor without a shape": (file_of(tensors=[("a", "int8")]), "header is wrong"),
    "a tensor of int16": (file_of(tensors=[("a", "int16", [3])]), "header is wrong"),
    "a shape of words": (file_of(tensors=[("a", "int8", ["x"])]), "header is wrong"),
    "a shape of NaN": (file_of(tensors=[("a", "int8", [math.nan])]), "header is wrong"),
    "a shape of nothing": (file_of(tensors=[("a", "int8", None)]), "header is wrong"),
    "a negative size": (file_of(tensors=[("a", "int8", [-3])]), "-3 is not a size"),
    "two negative sizes": (file_of(tensors=[("a", "int8", [-1, -3])]), "-1 is not a size"),
    "a terabyte": (file_of(tensors=[("a", "int8", [1 << 40])], records=table_of({3: 1 << 14})), "is not a size"),
    "sizes that overflow": (file_of(tensors=[("a", "int8", [1 << 32, 1 << 32])]), "is not a size"),
    "a size of 100 digits": (file_of(tensors=[("a", "float32", [10**100])]), "is not a size"),
    "a few values too many": (file_of(tensors=[("a", "int8", [400_000])]), "more values"),
    "many tensors too many": (file_of(tensors=[(str(n), "int8", [50_000]) for n in range(90)]), "more values"),
}  # fmt: skip


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str) -> None:
    data, words = HOSTILE[name]
    tracemalloc.reset_peak()
    said = refused(data)
    assert any(part in said for part in words.split("|")), said
    assert tracemalloc.get_traced_memory()[1] < 4 << 20


@pytest.mark.usefixtures("traced")
def test_a_file_with_as_many_values_as_it_may_have_is_read() -> None:
    """The bound is where the document says, and nothing much larger is allocated."""
    record = table_of({7: 1 << 14})
    size = 1024 * len(file_of([("a", "int8", [100_000])], record))
    tracemalloc.reset_peak()
    assert (unpack(file_of([("a", "int8", [size])], record))[2]["a"] == np.full(size, 7)).all()
    assert tracemalloc.get_traced_memory()[1] < 16 * size
    assert "more values" in refused(file_of([("a", "int8", [size + 1])], record))


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": [("a", "int8", [math.inf])]},
        {"numerics": -math.inf},
        {"tensors": [("a", "int8", [1 << 40, 1 << 40, 0])], "records": b"\0"},
        {"tensors": [("a", "int8", [10**30, 0])], "records": b"\0"},
        {"tensors": [("a", "int8", [1] * 65)], "records": b"\0a"},
    ],
    ids=["infinite size", "infinite numerics", "overflow beside a zero", "long size beside a zero", "65 dimensions"],
)
def test_sizes_that_no_array_can_have_are_refused(change: dict[str, Any]) -> None:
    refused(file_of(**change))


def test_many_sizes_beside_a_zero_are_refused() -> None:
    refused(file_of([("a", "int8", [1 << 30, 1 << 30, 1 << 30, 0])], b"\0"))
