"""Packets by an embedded model: any bytes come back, in any order; a packet that is lost costs only its own text."""

from __future__ import annotations

import dataclasses
import random
from functools import cache

import pytest

from llmzip.errors import CorruptError, SettingsError
from llmzip.format.packets import Packet, check16, pack, parse
from llmzip.inference.load import LoadedModel, load
from llmzip.models.choice import choose_model
from llmzip.settings import EngineSettings
from llmzip.windows import packets as window_packets
from llmzip.windows.packets import Part

NOISE = random.Random(3).randbytes(900)
ENGLISH = b"The tide comes in, and the tide goes out, and the harbour master writes it down. " * 9
TEXTS = {
    "English": ENGLISH,
    "noise": NOISE,
    "both": ENGLISH + NOISE + ENGLISH,
    "one byte": b"a",
    "empty": b"",
    "no UTF-8": bytes(range(256)) + b"\xed\xa0\x80\xff<|endoftext|>\r\n\0" + "Größe, 世界".encode(),
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load(choose_model("small"), EngineSettings())


@cache
def packets_of(name: str, packet_bytes: int) -> tuple[bytes, ...]:
    return tuple(window_packets.encode(load(choose_model("small"), EngineSettings()), TEXTS[name], packet_bytes))


def read(model: LoadedModel, packets: list[bytes]) -> tuple[list[Part], list[str]]:
    texts, problems = window_packets.gather((str(number), packet) for number, packet in enumerate(packets))
    assert not problems and len(texts) == 1
    return window_packets.decode(model, next(iter(texts.values())))


@pytest.mark.parametrize("packet_bytes", [32, 140, 8192])
@pytest.mark.parametrize("name", TEXTS)
def test_any_bytes_come_back_in_any_order(model: LoadedModel, name: str, packet_bytes: int) -> None:
    text, packets = TEXTS[name], list(packets_of(name, packet_bytes))
    assert max(map(len, packets)) <= packet_bytes
    random.Random(5).shuffle(packets)
    parts, wrong = read(model, packets + packets[:2])  # some twice
    assert not wrong and all(part.text is not None for part in parts)
    assert b"".join(part.text or b"" for part in parts) == text


def test_packets_do_not_grow_and_the_last_one_is_short(model: LoadedModel) -> None:
    capacity = 140 - 17
    assert len(packets_of("noise", 140)) == -(-len(NOISE) // capacity)
    english = packets_of("English", 140)
    assert all(len(packet) == 140 for packet in english[:-1]) and len(english[-1]) < 140
    assert sum(map(len, english)) < len(ENGLISH) // 2
    assert len(packets_of("one byte", 8192)[0]) == 15 + 1
    assert len(packets_of("empty", 8192)[0]) == 15


def test_each_packet_decodes_alone(model: LoadedModel) -> None:
    for name in ("English", "both"):
        for packet in packets_of(name, 64):
            parts, wrong = read(model, [packet])
            (part,) = [part for part in parts if part.text is not None]
            assert not wrong and part.text == TEXTS[name][part.begin : part.end]


def test_what_is_lost_costs_its_own_text(model: LoadedModel) -> None:
    text, packets = TEXTS["both"], list(packets_of("both", 64))
    lost = {0, 3, 4, len(packets) - 1}
    parts, wrong = read(model, [packet for number, packet in enumerate(packets) if number not in lost])
    begins = [parse(packet).begin for packet in packets]
    gaps = [part for part in parts if part.text is None]
    assert not wrong
    assert [(gap.begin, gap.end, gap.packets) for gap in gaps] == [
        (0, begins[1], (0, 1)),
        (begins[3], begins[5], (3, 5)),
        (begins[-1], None, (len(packets) - 1, None)),
    ]
    assert all(part.text == text[part.begin : part.end] for part in parts if part.text is not None)
    assert sum(len(part.text or b"") for part in parts) == begins[-1] - begins[1] - (begins[5] - begins[3])


def test_a_long_text_has_parts(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_packets, "_PART_TOKENS", 100)
    packets = window_packets.encode(model, ENGLISH, 140)
    assert sum(len(packet) < 140 for packet in packets) == -(-len(model.tokenizer.encode(ENGLISH)) // 100)
    assert b"".join(part.text or b"" for part in read(model, packets)[0]) == ENGLISH


def changed(packet: bytes, **fields: object) -> bytes:
    return pack(dataclasses.replace(parse(packet), **fields))


def test_damage_with_a_right_check_counts_as_lost(model: LoadedModel) -> None:
    packets = list(packets_of("English", 32))
    first, second = parse(packets[0]), parse(packets[1])
    for hostile, reason in (
        (changed(packets[1], data=bytes(len(second.data))), "its text does not fit"),
        (changed(packets[1], tokens=65535), "its text does not fit"),
        (changed(packets[1], tokens=second.tokens + 1), "its text does not fit"),
        (changed(packets[1], begin=second.begin + 1), "does not fit the packets before it"),
        (changed(packets[1], begin=second.begin - 1), "does not fit the packets before it"),
        (changed(packets[1], tokens=first.tokens, data=first.data, text_check=first.text_check), None),
    ):
        try:
            parts, wrong = read(model, [packets[0], hostile, *packets[2:]])
        except CorruptError as error:
            assert "the text's check" in str(error)
            continue
        assert reason is None or reason in wrong[0]
        assert any(part.text is None for part in parts)
        for part in parts:
            assert part.text is None or reason is None or ENGLISH[part.begin : part.end] == part.text


def test_one_hostile_packet_does_not_take_others_with_it(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet may claim more text than fits into the memory; the others that are decoded with it are unharmed."""
    monkeypatch.setattr(window_packets, "MAX_TEXT_BYTES", 600)
    packets = list(packets_of("English", 32))
    zeros = bytes(len(parse(packets[1]).data))
    blanks = 65535  # of the first token again and again: far more than 600 bytes
    parts, wrong = read(model, [packets[0], changed(packets[1], tokens=blanks, data=zeros), packets[2]])
    assert len(wrong) == 1 and wrong[0].startswith("packet 1: damaged")
    assert [part.text is None for part in parts] == [False, True, False, True]


def test_a_text_that_is_whole_but_another_is_refused(model: LoadedModel) -> None:
    packets = [changed(packet, text=7) for packet in packets_of("English", 140)]
    with pytest.raises(CorruptError, match="the text's check is 0007"):
        read(model, packets)


def test_texts_are_told_apart() -> None:
    texts, problems = window_packets.gather(
        [("a", packets_of("English", 140)[0]), ("b", packets_of("noise", 140)[0]), ("c", b"nothing")]
    )
    assert len(texts) == 2 and [problem.name for problem in problems] == ["c"]


def test_sizes_that_do_not_go(model: LoadedModel) -> None:
    for packet_bytes in (31, 8193, -1):
        with pytest.raises(SettingsError, match="packets have 32 to 8,192 bytes"):
            window_packets.encode(model, b"text", packet_bytes)


def test_the_check_of_a_text_is_half_a_crc32() -> None:
    assert check16(b"123456789") == 0xCBF43926 & 0xFFFF


def test_the_empty_packet() -> None:
    assert parse(packets_of("empty", 32)[0]) == Packet(
        parse(packets_of("English", 64)[0]).model, 0, 0, 0, 0, 0, b"", True, 1
    )
