"""Reading archives: what was written comes back, and every violation of the byte format is refused in words."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pytest

from llmzip.errors import CorruptError, FormatError, LLMZipError, TruncatedError
from llmzip.format import reading
from llmzip.format.headers import (
    INDEX_MAGIC,
    LM,
    LZMA,
    MAGIC,
    SKIP,
    STORED,
    USER_MODEL,
    WINDOWS,
    ZSTD,
    Frame,
    FrameHeader,
    Header,
    ModelRecord,
    WindowsRecord,
)
from llmzip.format.numbers import crc8, pack_varint
from llmzip.format.reading import Position, read_archives
from llmzip.format.writing import frame_bytes, pack_frame, pack_header, pack_index

NO_MODEL_HEADER = MAGIC + b"\x02"
SEED_HEADER = MAGIC + b"\x12"
LAST = 0x08
RECORD = ModelRecord("my model", bytes(range(16)), bytes(range(100, 116)), planes=2, context=1024, start_token=7)


def raw_frame(
    tag: int,
    numbers: tuple[int, int, int],
    payload: bytes = b"",
    crc32: int = 0,
    prefix: bytes = NO_MODEL_HEADER,
    record: bytes = b"",
) -> bytes:
    """Makes a frame with any fields, valid or not, and a correct check; the width is the tag's."""
    width = (tag >> 4 & 3) + 1
    body = prefix + bytes([tag]) + b"".join(number.to_bytes(width, "little") for number in numbers) + record + payload
    return body + bytes([crc8(body)]) + crc32.to_bytes(4, "little")


def stored(data: bytes, last: bool, prefix: bytes = b"") -> bytes:
    return pack_frame(FrameHeader(STORED, len(data), len(data), last=last), data, zlib.crc32(data), prefix)


def two_frames(first: bytes = b"one", second: bytes = b"second") -> bytes:
    """Makes an archive of two stored frames with its index."""
    a, b = stored(first, False, NO_MODEL_HEADER), stored(second, True)
    return a + b + pack_index([(len(a) - len(NO_MODEL_HEADER), len(first), 0), (len(b), len(second), 0)])


class Pipe(io.RawIOBase):
    """A source that cannot seek and gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int = 3) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")

    def seek(self, offset: int, whence: int = 0) -> int:
        raise io.UnsupportedOperation("seek")

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._step) if size >= 0 else size)


def frames(data: bytes, **options: bool) -> list[Frame]:
    return list(read_archives(io.BytesIO(data), **options))


def refusal(data: bytes, error: type[LLMZipError], **options: bool) -> str:
    """Returns the message with which data is refused."""
    with pytest.raises(error) as caught:
        frames(data, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- header ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"\x1f\x8b\x08", b"hello world", b"\xf7L", b"x", b"\xf7LY\x01", bytes(100)])
def test_foreign_data_is_no_archive(data: bytes) -> None:
    expected = TruncatedError if MAGIC.startswith(data) else FormatError
    message = refusal(data, expected)
    assert "truncated" in message if MAGIC.startswith(data) else message == "not an llmzip archive"


def test_an_empty_file_is_truncated() -> None:
    assert "the file is empty" in refusal(b"", TruncatedError)


def of_version(version: int) -> bytes:
    """An archive that is sound, but for its version."""
    return stored(b"abc", True, MAGIC + bytes([version]))


@pytest.mark.parametrize("version", [0, 1, *range(3, 16)])
@pytest.mark.parametrize("skip_payloads", [False, True])
def test_other_format_versions_are_refused_by_number(version: int, skip_payloads: bool) -> None:
    reader = "llmzip 0.1 reads it" if version == 1 else "made by another version of llmzip, or damaged"
    expected = f"format version {version} is not supported, only version 2: {reader}"
    assert refusal(of_version(version), FormatError, skip_payloads=skip_payloads) == expected
    # Nothing behind the version counts: it may have another meaning there.
    assert refusal(MAGIC + bytes([version | 0xF0]), FormatError, skip_payloads=skip_payloads) == expected


@pytest.mark.parametrize("skip_payloads", [False, True])
def test_an_archive_of_another_version_among_others_is_named_with_its_place(skip_payloads: bool) -> None:
    before, after = two_frames(), stored(b"third", True, NO_MODEL_HEADER)
    found: list[int] = []
    with pytest.raises(FormatError) as caught:
        for frame in read_archives(io.BytesIO(before + of_version(1) + after), skip_payloads=skip_payloads):
            found.append(frame.header.original_bytes)
    assert found == [3, 6]
    reason = "format version 1 is not supported, only version 2: llmzip 0.1 reads it"
    assert str(caught.value) == f"archive from byte {len(before)} on: {reason}"


def test_model_codes_come_through() -> None:
    for code in range(14):
        prefix = pack_header(Header(code))
        assert prefix == MAGIC + bytes([0x02 | code << 4])
        assert frames(stored(b"abc", True, prefix))[0].archive == Header(code)


@pytest.mark.parametrize("name", ["my model", "", "ünïcödé 模型", "x" * 255, "é" * 200])
def test_model_records_come_through(name: str) -> None:
    record = ModelRecord(name, bytes(16), b"\xff" * 16, planes=1, context=131072, start_token=262143)
    prefix = pack_header(Header(USER_MODEL, record))
    found = frames(stored(b"abc", True, prefix))[0].archive
    cut = name.encode()[:255].decode("utf-8", "ignore")
    assert found == Header(
        USER_MODEL, ModelRecord(cut, bytes(16), b"\xff" * 16, planes=1, context=131072, start_token=262143)
    )


def test_records_of_the_float_engine_and_of_prompts_come_through() -> None:
    plain = ModelRecord(
        "m",
        bytes(16),
        b"\xff" * 16,
        context=512,
        start_token=7,
        dtype="float16",
        numerics=1,
        environment="device=cpu threads=2",
    )
    prompted = dataclasses.replace(RECORD, prompt_digest=bytes(range(16)))
    for record in (plain, prompted, dataclasses.replace(plain, prompt_digest=b"p" * 16, environment="", name="")):
        header = Header(USER_MODEL, record)
        assert frames(stored(b"abc", True, pack_header(header)))[0].archive == header
    assert pack_header(Header(USER_MODEL, prompted))[5:6] == b"\x81"


def test_model_record_bytes() -> None:
    head = MAGIC + b"\xf2" + bytes([3 + 2 + 1 + 32 + 8]) + b"\x01\x01\x02" + b"\x80\x08" + b"\x07"
    assert pack_header(Header(USER_MODEL, RECORD)) == head + RECORD.model_digest + RECORD.tokenizer_digest + b"my model"


def record_archive(record: bytes, length: bytes | None = None) -> bytes:
    prefix = MAGIC + b"\xf2" + (pack_varint(len(record)) if length is None else length) + record
    return stored(b"abc", True, prefix)


def record_bytes(
    engine: int = 1,
    numerics: int = 1,
    planes: int = 2,
    context: bytes = b"\x40",
    start: bytes = b"\x07",
    rest: bytes = bytes(33),
) -> bytes:
    return bytes([engine, numerics, planes]) + context + start + rest


FLOAT: dict[str, Any] = {"engine": 2, "planes": 1, "rest": bytes(32)}


@pytest.mark.parametrize(
    "record",
    [
        record_bytes(engine=0x81, rest=bytes(47)),
        record_bytes(**FLOAT),
        record_bytes(**FLOAT | {"planes": 4, "rest": bytes(33)}),
        record_bytes(**FLOAT | {"planes": 0, "rest": bytes(33)}),
        record_bytes(**FLOAT | {"rest": bytes(32) + b"\x05abcd"}),
        record_bytes(**FLOAT | {"rest": bytes(32) + b"\x02\xc3\xa4"}),
        record_bytes(**FLOAT | {"rest": bytes(32) + b"\xc9\x01" + b"x" * 201}),
    ],
)
def test_damaged_records_of_the_float_engine_and_of_prompts_are_refused(record: bytes) -> None:
    assert "model record" in refusal(record_archive(record), CorruptError)


def test_the_record_of_these_tests_is_valid() -> None:
    assert frames(record_archive(record_bytes()))[0].archive.model_code == USER_MODEL


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (record_bytes(engine=3), "engine 3 with numerics version 1"),
        (record_bytes(engine=0x83), "engine 3 with numerics version 1"),
        (record_bytes(engine=0), "engine 0"),
        (record_bytes(engine=2, numerics=2), "engine 2 with numerics version 2"),
        (record_bytes(numerics=9), "numerics version 9"),
    ],
)
def test_unknown_engines_and_numerics_are_refused_by_number(record: bytes, words: str) -> None:
    assert words in refusal(record_archive(record), FormatError)


@pytest.mark.parametrize(
    "record",
    [
        record_bytes(planes=0),
        record_bytes(planes=3),
        record_bytes(context=b"\x01"),
        record_bytes(context=pack_varint(131073)),
        record_bytes(context=b"\xc0\x00"),
        record_bytes(context=b"\xff\xff\xff\xff\xff\x01"),
        record_bytes(start=pack_varint(300_000)),
        record_bytes(start=b"\x87\x80\x00"),
        record_bytes(rest=bytes(31)),
        record_bytes(rest=bytes(32) + b"\xff\xfe"),
        record_bytes(rest=bytes(32) + b"x" * 256),
        record_bytes()[:5],
        record_bytes(rest=b"\x80" * 40, context=b"\x80", start=b"\x80"),
        b"\x01" * 36,
        b"",
    ],
    ids=lambda record: record[:8].hex(),
)
def test_records_out_of_range_are_damaged(record: bytes) -> None:
    assert refusal(record_archive(record), CorruptError).startswith("damaged header")


@pytest.mark.parametrize("length", [513, 1 << 20, (1 << 35) - 1])
def test_a_records_length_is_limited(length: int) -> None:
    message = refusal(record_archive(bytes(40), pack_varint(length)), CorruptError)
    assert message == f"damaged header: model record of {length} bytes"


@pytest.mark.parametrize("length", [b"\xa8\x00", b"\xff\xff\xff\xff\xff\x01"])
def test_a_records_length_has_one_form(length: bytes) -> None:
    assert "number" in refusal(record_archive(bytes(40), length), CorruptError)


# -- frames ------------------------------------------------------------------------------------------------------------


def test_the_empty_archive() -> None:
    data = pack_frame(FrameHeader(STORED, 0, 0, last=True), b"", 0, pack_header(Header()))
    assert data.hex(" ") == "f7 4c 5a 02 08 00 00 00 3b 00 00 00 00"
    (frame,) = frames(data)
    assert (frame.offset_bytes, frame.size_bytes, frame.payload, frame.header.last) == (4, 9, b"", True)


@pytest.mark.parametrize("size", [1, 255, 256, 65535, 65536, (1 << 24) - 1, 1 << 24])
def test_sizes_take_the_smallest_width(size: int) -> None:
    width = max(1, -(-size.bit_length() // 8))
    payload = b"p" * 10
    header = FrameHeader(LZMA, size, len(payload), last=True)
    data = pack_frame(header, payload, 0x01020304, NO_MODEL_HEADER)
    assert len(data) == 4 + 1 + 3 * width + 10 + 5
    assert data == raw_frame(LZMA | LAST | (width - 1) << 4, (size, 10, 0), payload, 0x01020304)
    (frame,) = frames(data)
    assert frame.header == header and frame.crc32 == 0x01020304 and frame.payload == payload


@pytest.mark.parametrize(("profile", "rows", "overlap"), [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 1, 1), (3, 300, 131071)])
def test_language_model_frames_come_through(profile: int, rows: int, overlap: int) -> None:
    header = FrameHeader(LM, 5000, 3, num_tokens=400, profile=profile, rows=rows, overlap=overlap, last=True)
    data = pack_frame(header, b"abc", 7, SEED_HEADER)
    record = pack_varint(rows) + pack_varint(overlap) if profile == 3 else b""
    assert data == raw_frame(LM | LAST | 0x10 | profile << 6, (5000, 3, 400), b"abc", 7, SEED_HEADER, record)
    assert frames(data)[0].header == header


def test_check_covers_the_header_of_the_archive() -> None:
    data = bytearray(stored(b"abc", True, SEED_HEADER))
    data[3] = 0x22  # another model
    assert refusal(bytes(data), CorruptError).startswith("frame 0: damaged: checksum stored ")


def test_a_wrong_check_names_both_values() -> None:
    data = bytearray(stored(b"abc", True, NO_MODEL_HEADER))
    right = data[-5]
    data[-5] ^= 0x55
    message = refusal(bytes(data), CorruptError)
    assert message == f"frame 0: damaged: checksum stored {right ^ 0x55:02x}, computed {right:02x}"


def windows_frame(profile: int = 0, tokens: int = 300, size: int = 900, payload: int = 100, **record: int) -> bytes:
    fields = {"window_bits": 32, "count": 20, "last_tokens": 1, "group": 10} | record
    header = FrameHeader(
        WINDOWS, size, payload, num_tokens=tokens, profile=profile, last=True, windows=WindowsRecord(**fields)
    )
    return pack_frame(header, bytes(payload), 0, pack_header(Header(2)))


@pytest.mark.parametrize("profile", [0, 1])
def test_windows_records_come_back(profile: int) -> None:
    data = windows_frame(profile)
    (frame,) = read_archives(io.BytesIO(data))
    assert frame.header.windows == WindowsRecord(32, 20, 1, 10) and frame.header.profile == profile
    assert frame.header.windows.data_bytes == 80 and frame.size_bytes == frame_bytes(frame.header) == len(data) - 4


@pytest.mark.parametrize(
    "fields",
    [
        {"window_bits": 15}, {"window_bits": 65537}, {"count": 0}, {"count": 301}, {"last_tokens": 0},
        {"last_tokens": 282}, {"group": 0}, {"group": 21}, {"payload": 85}, {"tokens": 0}, {"size": 299},
        {"size": (1 << 21) + 1}, {"profile": 2},
    ],
    ids=str,
)  # fmt: skip
def test_windows_records_out_of_range_are_damaged(fields: dict[str, int]) -> None:
    assert refusal(windows_frame(**fields), CorruptError) == "frame 0: damaged: a field of its header is out of range"


def test_windows_at_their_limits_are_read() -> None:
    for fields in ({"window_bits": 16}, {"count": 1, "group": 1}, {"last_tokens": 281}, {"group": 20}, {"payload": 86}):
        assert len(list(read_archives(io.BytesIO(windows_frame(**fields))))) == 1


def test_an_index_where_a_frame_must_be_is_damaged() -> None:
    assert "frame 0: damaged" in refusal(raw_frame(7 | LAST, (3, 3, 0), b"abc"), CorruptError)


LIMIT = 1 << 26


@pytest.mark.parametrize(
    ("tag", "numbers", "record"),
    [
        (STORED | LAST, (4, 3, 0), b""),  # stored, but of another size
        (STORED | LAST, (2, 3, 0), b""),
        (STORED | LAST, (3, 3, 1), b""),  # tokens without a model
        (ZSTD | LAST, (9, 3, 9), b""),
        (STORED | LAST | 0x40, (3, 3, 0), b""),  # a profile without a model
        (LZMA | LAST | 0xC0, (9, 3, 0), b"\x01\x01"),
        (LZMA | LAST, (0, 3, 0), b""),  # compressed nothing
        (ZSTD | LAST, (0, 3, 0), b""),
        (LM | LAST, (0, 3, 0), b""),
        (LM | LAST, (9, 3, 0), b""),
        (LM | LAST, (9, 3, 10), b""),  # more tokens than bytes
        (LM | LAST | 0x20, ((1 << 21) + 1, 3, 9), b""),  # more than a frame of method lm may hold
        (LM | LAST | 0xC0, (9, 3, 9), b"\x00\x01"),  # no rows
        (LM | LAST | 0xC0, (9, 3, 9), b"\x0a\x01"),  # more rows than tokens
        (LM | LAST | 0xC0, (9, 3, 9), b"\x01\x00"),  # no overlap
        (LM | LAST | 0xC0, (9, 3, 9), b"\x01" + pack_varint(1 << 17)),
        (LM | LAST | 0xE0, (1 << 20, 3, 1 << 20), pack_varint(4097) + b"\x01"),  # too many rows
        (LM | LAST | 0xE0, (1 << 20, 3, (15 << 16) + 1), b"\x0f\x01"),  # rows that are too long
        (STORED | LAST | 0x10, (3, 3, 0), b""),  # a width too large
        (LZMA | LAST | 0x20, (256, 3, 0), b""),
        (LZMA | LAST | 0x30, (65536, 3, 0), b""),
        (SKIP | LAST, (1, 3, 0), b""),
    ],
)  # fmt: skip
def test_fields_out_of_range_are_damaged(tag: int, numbers: tuple[int, int, int], record: bytes) -> None:
    data = raw_frame(tag, numbers, b"abc", record=record)
    assert refusal(data, CorruptError) == "frame 0: damaged: a field of its header is out of range"


def test_the_largest_sizes_are_allowed() -> None:
    data = raw_frame(LZMA | LAST | 0x30, (LIMIT, 3, 0), b"abc")
    assert frames(data)[0].header.original_bytes == LIMIT
    data = raw_frame(LM | LAST | 0x20, (1 << 21, 3, 1 << 21), b"abc")
    assert frames(data)[0].header.num_tokens == 1 << 21
    for rows in (32, 4096):
        data = raw_frame(
            LM | LAST | 0xE0, (1 << 21, 3, 1 << 21), b"abc", record=pack_varint(rows) + pack_varint(131071)
        )
        assert (frames(data)[0].header.rows, frames(data)[0].header.overlap) == (rows, 131071)


@pytest.mark.parametrize("numbers", [(LIMIT + 1, 3, 0), (9, LIMIT + 1, 0), (9, 3, LIMIT + 1), (0xFFFFFFFF,) * 3])
def test_sizes_above_the_limit_are_refused_before_anything_is_read(numbers: tuple[int, int, int]) -> None:
    source = io.BytesIO(raw_frame(LZMA | LAST | 0x30, numbers, bytes(1000)))
    with pytest.raises(CorruptError, match="above the limit of 67108864 bytes"):
        next(read_archives(source))
    assert source.tell() == 4 + 1 + 12


@pytest.mark.parametrize("record", [b"\x81\x00\x01", b"\x01\x81\x00", b"\x80\x80\x80\x80\x80\x01\x01"])
def test_numbers_of_the_rows_record_have_one_form(record: bytes) -> None:
    assert "a number" in refusal(raw_frame(LM | LAST | 0xC0, (9, 3, 9), b"abc", record=record), CorruptError)


def test_only_the_single_frame_of_an_empty_file_may_be_empty() -> None:
    empty_first = raw_frame(STORED, (0, 0, 0))
    assert "out of range" in refusal(empty_first + stored(b"abc", True), CorruptError)
    empty_second = stored(b"abc", False, NO_MODEL_HEADER) + stored(b"", True)
    assert refusal(empty_second, CorruptError) == "frame 1: damaged: a field of its header is out of range"


def test_skip_frames_hold_anything_but_text() -> None:
    skip = pack_frame(FrameHeader(SKIP, 0, 5), b"extra", 0, NO_MODEL_HEADER)
    text = stored(b"text", True)
    data = skip + text + pack_index([(len(skip) - 4, 0, 0), (len(text), 4, 0)])
    first, second = frames(data)
    assert (first.header.method, first.payload, second.payload) == (SKIP, b"extra", b"text")
    wrong = raw_frame(SKIP, (0, 5, 0), b"extra", crc32=1)
    assert "frame 0: damaged" in refusal(wrong + text, CorruptError)


# -- index -------------------------------------------------------------------------------------------------------------


def test_index_bytes() -> None:
    packed = pack_index([(300, 1, 0), (9, 70000, 300)])
    entries = b"\xac\x02\x01\x00" + b"\x09\xf0\xa2\x04\xac\x02"
    assert packed == b"\x07\x0a" + entries + zlib.crc32(entries).to_bytes(4, "little") + b"\x18\0\0\0" + INDEX_MAGIC
    assert len(packed) == 0x18


def test_two_frames_have_an_index() -> None:
    data = two_frames()
    assert [frame.payload for frame in frames(data)] == [b"one", b"second"]
    assert [frame.offset_bytes for frame in frames(data)] == [4, 4 + 12]
    assert "truncated" in refusal(data[: data.index(b"second") + 11], TruncatedError)


def test_one_frame_has_none() -> None:
    one = stored(b"one", True, NO_MODEL_HEADER)
    assert "trailing data" in refusal(one + pack_index([(len(one) - 4, 3, 0)]), FormatError)


@pytest.mark.parametrize(
    "index",
    [
        pack_index([(12, 3, 0), (15, 7, 0)]),
        pack_index([(12, 3, 0), (16, 6, 0)]),
        pack_index([(12, 3, 0)]),
        pack_index([(12, 3, 0), (15, 6, 0), (1, 1, 0)]),
        pack_index([(12, 3, 4), (15, 6, 0)]),
        pack_index([(12, 3, 0), (15, 6, 1 << 34)]),
        b"\x06" + pack_index([(12, 3, 0), (15, 6, 0)])[1:],
        b"\x0f" + pack_index([(12, 3, 0), (15, 6, 0)])[1:],
        b"\x07\x86\x00" + pack_index([(12, 3, 0), (15, 6, 0)])[2:],
        b"\x07\xff\xff\xff\xff\x0f" + bytes(100),
    ],
)
def test_an_index_that_does_not_fit_is_damaged(index: bytes) -> None:
    data = stored(b"one", False, NO_MODEL_HEADER) + stored(b"second", True)
    assert frames(data + pack_index([(12, 3, 0), (15, 6, 0)]))
    assert refusal(data + index, CorruptError).startswith("damaged: ")


def test_line_feeds_are_known_once_the_index_was_read() -> None:
    """Whether they are those of the texts is for whoever decodes them to say."""
    data = stored(b"one", False, NO_MODEL_HEADER) + stored(b"second", True)
    seen = []
    for frame in read_archives(io.BytesIO(data + pack_index([(12, 3, 3), (15, 6, 0)]))):
        assert frame.line_feeds is None
        seen.append(frame)
    assert [frame.line_feeds for frame in seen] == [3, 0]
    (alone,) = frames(stored(b"one\n", True, NO_MODEL_HEADER))
    assert alone.line_feeds is None


@pytest.mark.parametrize("place", range(1, 13))
def test_every_byte_of_the_indexs_end_is_checked(place: int) -> None:
    data = bytearray(two_frames())
    data[-place] ^= 0x10
    assert "checksum, length or magic of the archive's index is wrong" in refusal(bytes(data), CorruptError)


def test_the_number_of_frames_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_INDEX_ENTRIES", 3)
    many = stored(b"x", False, NO_MODEL_HEADER) + stored(b"x", False) * 3
    assert refusal(many, CorruptError) == "damaged: more than 3 frames in one archive"


# -- files -------------------------------------------------------------------------------------------------------------


def test_archives_follow_each_other() -> None:
    single = stored(b"first", True, NO_MODEL_HEADER)
    data = single + two_frames() + single
    position = Position()
    frames_read = list(read_archives(io.BytesIO(data), position=position))
    assert [frame.payload for frame in frames_read] == [b"first", b"one", b"second", b"first"]
    assert [frame.number for frame in frames_read] == [0, 0, 1, 0]
    assert position.offset_bytes == len(data)
    for frame in frames_read:
        part = data[frame.offset_bytes : frame.offset_bytes + frame.size_bytes]
        assert part[-4:] == zlib.crc32(frame.payload).to_bytes(4, "little")


@pytest.mark.parametrize("trailing", [b"\0", b"\n", b"garbage", b"\xf7LX\x01", bytes(1000)])
def test_trailing_data_is_an_error_after_the_archives_before_it(trailing: bytes) -> None:
    data = stored(b"first", True, NO_MODEL_HEADER)
    reader: Iterator[Frame] = read_archives(io.BytesIO(data + trailing))
    assert next(reader).payload == b"first"
    with pytest.raises(FormatError, match="trailing data"):
        next(reader)


@pytest.mark.parametrize("begun", [MAGIC[:1], MAGIC[:2], MAGIC, NO_MODEL_HEADER])
def test_a_begun_archive_at_the_end_is_truncated(begun: bytes) -> None:
    data = stored(b"first", True, NO_MODEL_HEADER) + begun
    assert refusal(data, TruncatedError) == f"truncated: the file ends at byte {len(data)}, inside an archive"


def opened(data: bytes, kind: str) -> BinaryIO:
    return io.BytesIO(data) if kind == "file" else Pipe(data)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("skip_payloads", [False, True])
def test_headers_are_the_same_however_they_are_read(kind: str, skip_payloads: bool) -> None:
    lm = pack_frame(
        FrameHeader(LM, 50, 4, num_tokens=40, profile=3, rows=5, overlap=6, last=True),
        b"lmlm",
        9,
        pack_header(Header(USER_MODEL, RECORD)),
    )
    data = two_frames() + lm
    frames_read = list(read_archives(opened(data, kind), skip_payloads=skip_payloads))
    for frame, whole in zip(frames_read, frames(data), strict=True):
        assert frame.payload == (b"" if skip_payloads else whole.payload)
        fields: Callable[[Frame], tuple[object, ...]] = lambda f: (  # noqa: E731
            f.number, f.offset_bytes, f.size_bytes, f.header, f.crc32, f.archive
        )  # fmt: skip
        assert fields(frame) == fields(whole)


@pytest.mark.parametrize("kind", ["file", "pipe"])
@pytest.mark.parametrize("skip_payloads", [False, True])
def test_every_truncation_is_reported_with_its_place(kind: str, skip_payloads: bool) -> None:
    data = two_frames() + stored(b"third", True, SEED_HEADER)
    boundary = len(two_frames())
    for length in range(1, len(data)):
        if length == boundary:
            continue
        with pytest.raises(TruncatedError, match=f"^truncated: the file ends at byte {length}, inside an archive$"):
            list(read_archives(opened(data[:length], kind), skip_payloads=skip_payloads))


def test_the_longest_record_is_readable() -> None:
    record = ModelRecord(
        "n" * 400,
        b"m" * 16,
        b"t" * 16,
        context=1 << 17,
        start_token=299_999,
        dtype="bfloat16",
        numerics=1,
        environment="e" * 200,
        prompt_digest=b"p" * 16,
    )
    header = FrameHeader(LM, 50, 4, num_tokens=40, last=True)
    (frame,) = read_archives(io.BytesIO(pack_frame(header, b"lmlm", 9, pack_header(Header(USER_MODEL, record)))))
    assert frame.archive.model is not None and 250 < len(frame.archive.model.name) < 256
    assert frame.archive.model.environment == "e" * 200
