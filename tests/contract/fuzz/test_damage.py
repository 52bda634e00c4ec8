"""Checks that no damage to an archive goes unnoticed: each truncation, each changed byte, and random damage."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import llmzip
from llmzip import LLMZipError
from llmzip.format.headers import MAGIC
from llmzip.format.numbers import crc8

KINDS = [
    "lm", "lm in rows", "mixed", "adaptive", "stored", "lzma", "zstd", "empty", "several frames", "skip frame",
    "concatenated", "model record",
]  # fmt: skip
FLIPS = [1, 2, 4, 8, 16, 32, 64, 128, 255, 0x5A]


def read_file(data: bytes) -> bytes:
    with llmzip.open(io.BytesIO(data)) as file:
        return file.read()


def refused(data: bytes, read: Callable[[bytes], bytes] = llmzip.decompress) -> LLMZipError:
    """The error with which damaged data is refused; any other exception, or any output, is a failure."""
    with pytest.raises(LLMZipError) as caught:
        read(data)
    assert str(caught.value) and "\n" not in str(caught.value)
    return caught.value


def refused_or_right(data: bytes, text: bytes) -> None:
    """Some fields do not matter to some frames, and some bits of a payload neither; the text must be right then."""
    with contextlib.suppress(LLMZipError):
        assert llmzip.decompress(data) == text


def harmless_info(data: bytes) -> None:
    """Reading only the headers may succeed, or refuse, and nothing else."""
    with contextlib.suppress(LLMZipError):
        llmzip.info(data)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_archives_decode(kind: str, samples: dict[str, Any]) -> None:
    sample = samples[kind]
    assert llmzip.decompress(sample.archive) == sample.text
    assert read_file(sample.archive) == sample.text
    assert llmzip.info(sample.archive).original_bytes == len(sample.text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_noticed(kind: str, samples: dict[str, Any]) -> None:
    sample = samples[kind]
    for length in range(len(sample.archive)):
        if length in sample.boundaries:
            continue
        part = sample.archive[:length]
        assert isinstance(refused(part), llmzip.TruncatedError)
        assert isinstance(refused(part, read_file), EOFError)
        with pytest.raises(llmzip.TruncatedError):
            llmzip.info(part)
        if not sample.boundaries:
            decompressor = llmzip.Decompressor()
            assert sample.text.startswith(decompressor.decompress(part))
            assert decompressor.needs_input and not decompressor.eof


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_byte_is_noticed(kind: str, samples: dict[str, Any]) -> None:
    archive = samples[kind].archive
    for place in range(len(archive)):
        for flip in FLIPS:
            changed = archive[:place] + bytes([archive[place] ^ flip]) + archive[place + 1 :]
            refused(changed)
            harmless_info(changed)


@pytest.mark.parametrize("kind", ["stored", "zstd", "several frames", "concatenated"])
def test_damage_is_reported_again_and_again(kind: str, samples: dict[str, Any]) -> None:
    """A caller who goes on after an error must never see what looks like a good end."""
    sample = samples[kind]
    for place in range(len(sample.archive) - 1):
        changed = sample.archive[:place] + bytes([sample.archive[place] ^ 4]) + sample.archive[place + 1 :]
        decompressor = llmzip.Decompressor()
        first_archive = sample.boundaries[0] if sample.boundaries else len(changed)
        if place < first_archive:
            errors = 0
            for data in (changed, b"", b"", bytes(1 << 10)):
                try:
                    assert sample.text.startswith(decompressor.decompress(data))
                except LLMZipError:
                    errors += 1
                assert not decompressor.eof
            assert errors >= 1 or decompressor.needs_input
        file = llmzip.open(io.BytesIO(changed))
        for _ in range(3):
            with pytest.raises(LLMZipError):
                while file.read(5):
                    pass


@pytest.mark.parametrize("kind", KINDS)
def test_every_missing_and_every_doubled_byte_is_noticed(kind: str, samples: dict[str, Any]) -> None:
    archive = samples[kind].archive
    for place in range(len(archive)):
        for changed in (
            archive[:place] + archive[place + 1 :],
            archive[:place] + archive[place : place + 1] + archive[place:],
        ):
            if changed != archive:
                refused(changed)
                harmless_info(changed)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "concatenated"])
def test_random_damage_gives_no_wrong_text(
    kind: str, samples: dict[str, Any], rng: np.random.Generator, effort: int
) -> None:
    archive = samples[kind].archive
    for _ in range(300 * effort):
        changed = bytearray(archive)
        begin, end = sorted(rng.integers(0, len(archive) + 1, 2).tolist())
        damage = int(rng.integers(4))
        if damage == 0:
            changed[begin:end] = rng.bytes(end - begin)
        elif damage == 1:
            changed[begin:end] = bytes(end - begin)
        elif damage == 2:
            changed[begin:begin] = archive[begin:end]
        else:
            changed[begin:end] = b""
        if bytes(changed) not in (archive, 2 * archive):  # an archive may follow another
            # One in 256 passes the check; if it only hit what is no text, the text is right.
            refused_or_right(bytes(changed), samples[kind].text)
            harmless_info(bytes(changed))


# -- damage that whoever made it hid from the check --------------------------------------------------------------------


def with_right_check(frame: bytes) -> bytes:
    """A file of one frame with its crc8 made right again."""
    return frame[:-5] + bytes([crc8(frame[:-5])]) + frame[-4:]


@pytest.mark.parametrize("kind", ["lm", "lm in rows", "mixed", "adaptive", "stored", "lzma", "zstd", "model record"])
def test_damage_behind_a_right_check_gives_no_wrong_text(
    kind: str, samples: dict[str, Any], rng: np.random.Generator
) -> None:
    archive = samples[kind].archive
    for place in range(4, len(archive) - 5):
        for flip in (1, 0x80, int(rng.integers(1, 256))):
            changed = with_right_check(archive[:place] + bytes([archive[place] ^ flip]) + archive[place + 1 :])
            refused_or_right(changed, samples[kind].text)
            harmless_info(changed)


@pytest.mark.parametrize("kind", ["lzma", "zstd"])
def test_random_payloads_behind_a_right_check_give_no_wrong_text(
    kind: str, samples: dict[str, Any], rng: np.random.Generator, effort: int
) -> None:
    archive = samples[kind].archive
    for _ in range(1000 * effort):
        begin, end = sorted(rng.integers(8, len(archive) - 5, 2).tolist())
        changed = bytearray(archive)
        changed[begin : end + 1] = rng.bytes(end + 1 - begin)
        refused_or_right(with_right_check(bytes(changed)), samples[kind].text)


@pytest.mark.parametrize("kind", [b"", b"\x01", b"\x02", b"\x12", b"\xf2", b"\xf2\x28\x01\x01\x02"])
def test_garbage_behind_the_magic_is_refused(kind: bytes, rng: np.random.Generator, effort: int) -> None:
    for _ in range(400 * effort):
        data = MAGIC + kind + rng.bytes(int(rng.integers(0, 200)))
        refused(data)
        harmless_info(data)


def test_frames_of_random_fields_are_refused(rng: np.random.Generator, effort: int) -> None:
    """Right checks around fields that are likely or unlikely, so that every later check is reached."""
    for _ in range(3000 * effort):
        payload = rng.bytes(int(rng.integers(0, 12)))
        tag = int(rng.integers(256)) & ~0x30
        method = tag & 7
        if method == 1:
            tag = tag & 0x3F | 0xC0  # rows record: few rows
        numbers = [int(rng.integers(1, 24)), len(payload), int(rng.integers(1, 24)) if method == 1 else 0]
        if rng.random() < 0.2:
            numbers[int(rng.integers(3))] = int(rng.integers(256))
        record = bytes(rng.integers(0, 20, 2).tolist()) if tag >> 6 == 3 else b""
        body = MAGIC + bytes([0x12, tag, *numbers]) + record + payload
        data = body + bytes([crc8(body)]) + rng.bytes(4) + rng.bytes(int(rng.integers(0, 30)))
        refused(data)
        harmless_info(data)
