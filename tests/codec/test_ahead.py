"""Tokens decoded ahead: what is looked at, what is left to its turn, and that a turn gives what it gives alone."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from damage import damages
from hypothesis import strategies as st

import llmzip
from llmzip.codec import ahead as ahead_module
from llmzip.codec.ahead import MAX_ARCHIVE_BYTES, DecodedAhead
from llmzip.codec.reader import decompress_stream
from llmzip.codec.rows import FrameCoder
from llmzip.codec.writer import ArchiveWriter
from llmzip.errors import LLMZipError
from llmzip.format import writing
from llmzip.format.headers import LM, MIXED, USER_MODEL, Frame, FrameHeader, Header, ModelRecord, with_last
from llmzip.format.plan import RowPlan
from llmzip.format.reading import read_archives
from llmzip.inference import capacity
from llmzip.inference.on_demand import ModelOnDemand
from llmzip.settings import CompressSettings, DecompressSettings

ROOT = Path(llmzip.__file__).resolve().parents[1]
PROSE = (ROOT / "corpora" / "prose-en.txt").read_bytes()
SETTINGS = DecompressSettings()


def piece(number: int, num_bytes: int = 300) -> bytes:
    begin = 500 * number % (len(PROSE) - num_bytes)
    return PROSE[begin : begin + num_bytes]


def packed(text: bytes, level: int = 1, model: str = "small", **more: Any) -> bytes:
    writer = ArchiveWriter(CompressSettings(level=level, model=model, **more))
    return writer.write(text) + writer.finish()


def frames_of(archive: bytes) -> list[Frame]:
    return list(read_archives(io.BytesIO(archive)))


def repacked(archive: bytes, payload: bytes | None = None, header: Header | None = None, **fields: Any) -> bytes:
    """An archive of one frame with other fields, whose own checksums are right."""
    (frame,) = frames_of(archive)
    payload = frame.payload if payload is None else payload
    kept = {"num_tokens": frame.header.num_tokens, "profile": frame.header.profile, "last": True, **fields}
    original_bytes = kept.pop("original_bytes", frame.header.original_bytes)
    method = kept.pop("method", frame.header.method)
    head = FrameHeader(method, original_bytes, len(payload), **kept)
    return writing.pack_frame(head, payload, frame.crc32, writing.pack_header(header or frame.archive))


def outcome(archive: bytes, ahead: DecodedAhead | None = None) -> tuple[Any, ...]:
    """The text, or what is reported instead, and how many bytes came before it."""
    text = io.BytesIO()
    try:
        report = decompress_stream(io.BytesIO(archive), text, SETTINGS, ahead=ahead)
    except LLMZipError as error:
        return type(error), str(error), text.getvalue()
    return text.getvalue(), report.original_bytes, report.compressed_bytes, report.characters, report.model


def outcomes(archives: Sequence[bytes], ahead: DecodedAhead) -> list[tuple[Any, ...]]:
    return [outcome(archive, ahead) for archive in ahead.upcoming(archives, lambda archive: archive)]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[bytes, RowPlan]]]:
    """Collects the frames of each call of `decode_together`."""
    calls: list[list[tuple[bytes, RowPlan]]] = []
    original = FrameCoder.decode_together

    def watched(coder: FrameCoder, frames: Sequence[tuple[bytes, RowPlan]]) -> list[np.ndarray | None]:
        calls.append(list(frames))
        return original(coder, frames)

    monkeypatch.setattr(FrameCoder, "decode_together", watched)
    return calls


def payloads(calls: list[list[tuple[bytes, RowPlan]]]) -> list[bytes]:
    return sorted(payload for call in calls for payload, _ in call)


# -- a turn gives what it gives alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 6, 9])
def test_texts_are_the_same_and_decoded_once(
    level: int, together: list[list[tuple[bytes, RowPlan]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [packed(piece(number, 200 + 50 * number), level) for number in range(6)]
    expected = [outcome(archive) for archive in archives]
    ahead = DecodedAhead(SETTINGS)
    found = []
    for archive in ahead.upcoming(archives, lambda archive: archive):
        with monkeypatch.context() as patch:
            patch.setattr(FrameCoder, "decode", None)  # the tokens are there already
            found.append(outcome(archive, ahead))
    assert found == expected
    assert len(together) == 1
    assert payloads(together) == sorted(frame.payload for archive in archives for frame in frames_of(archive))


def test_methods_models_and_everything_else_side_by_side(together: list[list[tuple[bytes, RowPlan]]]) -> None:
    noise = random.Random(3).randbytes(500)
    some = [packed(piece(0)), packed(piece(1), 6), packed(piece(2), model="base"), packed(piece(3), 6, model="base")]
    more = [packed(piece(4)), packed(piece(5), 6), packed(piece(6), model="base"), packed(piece(7), 6, model="base")]
    odd = [b"", b"a letter", packed(noise), packed(b""), packed(piece(8), window_bits=512), packed(piece(9), 9)[:-1]]
    archives = [part for pair in zip(some, more, strict=True) for part in pair] + odd
    archives += [some[0] + more[0], some[1] + b"trailing", some[0] + noise]
    random.Random(1).shuffle(archives)
    expected = [outcome(archive) for archive in archives]
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected
    groups = [{plan.overlap for _, plan in call} for call in together]
    assert len(groups) == 4  # two models, two methods


def test_damaged_archives_say_what_they_say_alone(rng: np.random.Generator) -> None:
    archives = []
    for level in (1, 6):
        good = packed(piece(level), level)
        payload = frames_of(good)[0].payload
        some = list(damages(payload, rng))[:: max(1, len(payload) // 6)]
        archives += [good] + [repacked(good, form) for form in some]
    assert outcomes(archives, DecodedAhead(SETTINGS)) == [outcome(archive) for archive in archives]


@pytest.mark.parametrize("level", [1, 6])
def test_limits_of_the_text_hold(level: int) -> None:
    good = packed(piece(1), level)
    tokens = frames_of(good)[0].header.num_tokens
    archives = [
        good,
        packed(piece(2), level),
        repacked(good, original_bytes=tokens),  # the tokens stand for more
        repacked(good, original_bytes=4000),
        repacked(good, num_tokens=tokens - 1),
        repacked(good, num_tokens=290),
        repacked(good, method=MIXED if level == 1 else LM),
        repacked(good, profile=3, rows=4, overlap=5),
        repacked(good, profile=3, rows=4, overlap=(1 << 17) - 1),
    ]
    expected = [outcome(archive) for archive in archives]
    assert sum(isinstance(first[0], bytes) for first in expected) == 2
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected


@hypothesis.given(
    texts=st.lists(
        st.binary(max_size=40)
        | st.text(max_size=80).map(str.encode)
        | st.integers(0, 40).map(lambda n: piece(n, 20 + 5 * n)),
        min_size=2,
        max_size=8,
    ),
    level=st.sampled_from([1, 6]),
)
@hypothesis.settings(max_examples=15)
def test_any_texts(texts: list[bytes], level: int) -> None:
    archives = [packed(text, level) for text in texts]
    assert outcomes(archives, DecodedAhead(SETTINGS)) == [outcome(archive) for archive in archives]


# -- what is looked at -------------------------------------------------------------------------------------------------


def test_equal_frames_are_decoded_once_and_used_as_often_as_they_come(
    together: list[list[tuple[bytes, RowPlan]]],
) -> None:
    one, other = packed(piece(1)), packed(piece(2))
    ahead = DecodedAhead(SETTINGS)
    assert outcomes([one, other, one, one], ahead) == [outcome(archive) for archive in (one, other, one, one)]
    assert len(payloads(together)) == 2
    assert not ahead._entries
    assert outcomes([one, one], ahead) == [outcome(one)] * 2
    assert len(payloads(together)) == 3


def test_a_text_that_changes_is_decoded_from_what_it_is_then() -> None:
    old, new = [packed(piece(number)) for number in range(3)], packed(piece(7))
    now = dict(enumerate(old))
    ahead = DecodedAhead(SETTINGS)
    found = []
    for number in ahead.upcoming(list(now), now.__getitem__):
        found.append(outcome(now[number], ahead))
        now[number + 1] = new
    assert found == [outcome(archive) for archive in (old[0], new, new)]


def test_one_input_or_one_frame_is_left_to_its_turn(together: list[list[tuple[bytes, RowPlan]]]) -> None:
    archive = packed(piece(1))
    assert outcomes([archive], DecodedAhead(SETTINGS)) == [outcome(archive)]
    outcomes([archive, packed(piece(2), 6)], DecodedAhead(SETTINGS))
    outcomes([archive, b"", packed(b"")], DecodedAhead(SETTINGS))
    assert together == []


def test_large_inputs_are_left_to_their_turn(together: list[list[tuple[bytes, RowPlan]]]) -> None:
    small, other = packed(piece(1)), packed(piece(2))
    large = packed(random.Random(1).randbytes(MAX_ARCHIVE_BYTES + 1))
    many = b"".join(packed(piece(number)) for number in range(4))
    long = repacked(small, original_bytes=1 << 15, num_tokens=(1 << 14) + 1)
    ahead = DecodedAhead(SETTINGS)
    read: list[bytes] = []

    def noted(archive: bytes) -> bytes | None:
        read.append(archive)
        return archive

    assert list(ahead.upcoming([large, many, long, small, other], noted)) == [large, many, long, small, other]
    assert read == [large, many, long, small, other]
    assert payloads(together) == sorted(frames_of(archive)[0].payload for archive in (small, other))


@pytest.mark.parametrize(
    ("bound", "value", "expected"),
    [
        ("_MAX_ITEMS", 3, [3, 3, 2]),
        ("_MAX_ROWS", 2, [2, 2, 2, 2]),
        ("_MAX_TOKENS", 1, [1] * 8),
        ("_MAX_BYTES", 1, [1] * 8),
    ],
)
def test_inputs_are_looked_at_a_few_at_a_time(
    bound: str, value: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [packed(piece(number)) for number in range(8)]
    monkeypatch.setattr(ahead_module, bound, value)
    ahead = DecodedAhead(SETTINGS)
    read: list[bytes] = []

    def noted(archive: bytes) -> bytes:
        read.append(archive)
        return archive

    seen = []
    for archive in ahead.upcoming(archives, noted):
        if read:
            seen.append(len(read))
            read.clear()
        assert outcome(archive, ahead) == outcome(archive)
    assert seen == expected


def test_batches_have_as_many_rows_as_they_may(
    together: list[list[tuple[bytes, RowPlan]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "_MAX_ROWS", 8)
    archives = [packed(piece(number), rows=rows) for number, rows in enumerate((3, 2, 7))]
    assert outcomes(archives, DecodedAhead(SETTINGS)) == [outcome(archive) for archive in archives]
    assert [sorted(plan.num_rows for _, plan in call) for call in together] == [[2, 3]]


def test_what_does_not_fit_into_the_memory_together_goes_in_parts_or_in_turn(
    together: list[list[tuple[bytes, RowPlan]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [packed(piece(number), 6) for number in range(4)]
    expected = [outcome(archive) for archive in archives]
    monkeypatch.setattr(capacity, "fit_together", lambda engine, plans, mixed: len(plans) <= 2)
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected
    assert [len(call) for call in together] == [2, 2]
    together.clear()
    for most in (1, 0):
        monkeypatch.setattr(capacity, "fit_together", lambda engine, plans, mixed, most=most: len(plans) <= most)
        assert outcomes([*archives[:2], *archives[1:]], DecodedAhead(SETTINGS)) == [*expected[:2], *expected[1:]]
        assert payloads(together) == [frames_of(archives[1])[0].payload] * most
        together.clear()


def test_what_fails_ahead_is_left_to_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(coder: FrameCoder, frames: object) -> None:
        raise MemoryError

    archives = [packed(piece(number)) for number in range(3)]
    expected = [outcome(archive) for archive in archives]
    monkeypatch.setattr(FrameCoder, "decode_together", fail)
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected


@pytest.mark.parametrize("method", [LM, MIXED])
def test_rows_that_begin_again_are_left_to_their_turn(
    method: int,
    together: list[list[tuple[bytes, RowPlan]]],
    random_checkpoint: Any,
    write_checkpoint: Any,
    make_tokenizer: Any,
    tmp_path: Path,
) -> None:
    folder = make_tokenizer(write_checkpoint(tmp_path / "near", *random_checkpoint(vocab_size=320)), vocab_size=320)
    model = ModelOnDemand.of(CompressSettings(model=folder, context=32)).load()
    coder = FrameCoder(model.engine, model.vocabulary if method == MIXED else None)
    texts = [piece(number, size) for number, size in enumerate((100, 20, 110, 30))]
    archives = []
    for text in texts:
        tokens = model.tokenizer.encode(text)
        payload = coder.encode(tokens, RowPlan(len(tokens), 1, 9)).payload
        header = FrameHeader(
            method, len(text), len(payload), num_tokens=len(tokens), profile=3, rows=1, overlap=9, last=True
        )
        prefix = writing.pack_header(model.header(b""))
        archives.append(writing.pack_frame(header, payload, zlib.crc32(text), prefix))
        assert (len(tokens) > model.engine.context) == (len(text) >= 100)
    settings = DecompressSettings(model=folder)
    ahead = DecodedAhead(settings)
    for text, archive in zip(texts, ahead.upcoming(archives, lambda archive: archive), strict=True):
        sink = io.BytesIO()
        decompress_stream(io.BytesIO(archive), sink, settings, ahead=ahead)
        assert sink.getvalue() == text
    assert payloads(together) == sorted(frames_of(archive)[0].payload for archive in archives[1::2])


def test_texts_beyond_a_limit_are_not_decoded_ahead(together: list[list[tuple[bytes, RowPlan]]]) -> None:
    archives = [packed(piece(number, size)) for number, size in enumerate((100, 101, 200, 300))]
    outcomes(archives, DecodedAhead(SETTINGS, max_bytes=200))
    assert payloads(together) == sorted(frames_of(archive)[0].payload for archive in archives[:3])


def test_prompts_and_models_that_are_missing_are_left_to_their_turn(
    together: list[list[tuple[bytes, RowPlan]]],
) -> None:
    record = ModelRecord("nobody's", bytes(16), bytes(16), planes=1, context=512, start_token=0)
    prompted = [packed(piece(number), prompt=b"The ferry was late") for number in range(2)]
    missing = [repacked(packed(piece(number)), header=Header(USER_MODEL, record)) for number in range(2)]
    unknown = [repacked(packed(piece(number)), header=Header(9)) for number in range(2)]
    archives = [*prompted, *missing, *unknown]
    expected = [outcome(archive) for archive in archives]
    assert all(issubclass(first[0], LLMZipError) for first in expected)
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected
    assert together == []


def test_the_time_ahead_counts_as_time_of_the_archives() -> None:
    archives = [packed(piece(number)) for number in range(4)]
    ahead = DecodedAhead(SETTINGS)
    key_seconds = []
    for archive in ahead.upcoming(archives, lambda archive: archive):
        if not key_seconds:
            key_seconds = [entry.seconds for entry in ahead._entries.values()]
        report = decompress_stream(io.BytesIO(archive), None, SETTINGS, ahead=ahead)
        assert report.elapsed_seconds >= min(key_seconds)
    assert len(key_seconds) == 4
    assert min(key_seconds) > 0


def test_frames_of_an_archive_and_archives_of_a_file() -> None:
    first, second = (frames_of(packed(piece(number)))[0] for number in range(2))
    entries, parts = [], []
    for frame, last in ((first, False), (second, True)):
        prefix = b"" if parts else writing.pack_header(first.archive)
        parts.append(writing.pack_frame(with_last(frame.header, last), frame.payload, frame.crc32, prefix))
        line_feeds = piece(len(entries)).count(b"\n")
        entries.append((len(parts[-1]) - len(prefix), frame.header.original_bytes, line_feeds))
    archive = b"".join(parts) + writing.pack_index(entries)
    archives = [archive, packed(piece(3)) + packed(piece(4)), archive[:-1], packed(piece(5)) + archive]
    expected = [outcome(each) for each in archives]
    assert expected[0][0] == piece(0) + piece(1)
    assert zlib.crc32(expected[1][0]) == zlib.crc32(piece(3) + piece(4))
    assert outcomes(archives, DecodedAhead(SETTINGS)) == expected
