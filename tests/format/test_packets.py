"""Packets have the bytes that the document gives them; nothing else is accepted, and no damage goes unnoticed."""

from __future__ import annotations

import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import CorruptError, FormatError, LLMZipError, SettingsError, TruncatedError
from llmzip.format.packets import (
    MAX_TEXT_BYTES,
    Packet,
    check16,
    data_bytes,
    model_id,
    pack,
    parse,
    read_stream,
    stream_entry,
    stream_header,
    width,
)

SAMPLE = Packet(b"mode", 0x1234, 2, 300, 5, 0xABCD, b"\x01\x02\x03", True, 2)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    octets = draw(st.integers(1, 4))
    begin = draw(st.integers(0, min(256**octets - 1, MAX_TEXT_BYTES - 8192)))
    number = draw(st.integers(0, begin))
    tokens = draw(st.sampled_from([0, 1, 65535]))
    data = draw(st.binary(min_size=3 if tokens else 1, max_size=40))
    model, text, check = draw(st.binary(min_size=4, max_size=4)), draw(st.integers(0, 65535)), check16(data)
    return Packet(model, text, number, begin, tokens, check, data, draw(st.booleans()), octets)


def with_check(data: bytes, octets: int) -> bytes:
    """Returns a packet's bytes with their check corrected."""
    place = 11 + 2 * octets
    rest = data[:place] + data[place + 2 :]
    return data[:place] + (zlib.crc32(rest) % 65536).to_bytes(2, "little") + data[place + 2 :]


def test_layout() -> None:
    head = bytes.fromhex("31 6d6f6465 3412 0200 2c01 0500 cdab")
    assert pack(SAMPLE) == head + (zlib.crc32(head + b"\1\2\3") % 65536).to_bytes(2, "little") + b"\1\2\3"
    assert width(0) == width(255) == 1 and width(256) == 2 and width(65536) == 3 and width(MAX_TEXT_BYTES) == 4
    assert len(model_id(bytes(32), bytes(32))) == 4
    assert model_id(b"m" * 32, b"t" * 32) == model_id(b"m" * 16, b"t" * 16)  # halves, as archives have them
    assert model_id(b"m" * 32, b"t" * 32) != model_id(b"t" * 32, b"m" * 32)
    assert data_bytes(140, 65535) == 140 - 17 and data_bytes(140, 65536) == 140 - 19


@given(packet=packets())
def test_packets_come_back(packet: Packet) -> None:
    assert parse(pack(packet)) == packet
    assert len(pack(packet)) == 13 + 2 * packet.width + len(packet.data)


@given(packet=packets(), data=st.data())
def test_damage_is_seen(packet: Packet, data: st.DataObject) -> None:
    whole = bytearray(pack(packet))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptError, match="damaged"):
        parse(bytes(whole))


@given(data=st.binary(max_size=60), octets=st.integers(1, 4))
def test_any_bytes_with_a_right_check(data: bytes, octets: int) -> None:
    data = bytes([1 | octets - 1 << 5]) + data
    if len(data) >= 13 + 2 * octets:
        data = with_check(data, octets)
    try:
        packet = parse(data)
    except LLMZipError:
        return
    assert pack(packet) == data
    assert packet.begin + (0 if packet.tokens else len(packet.data)) <= MAX_TEXT_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        with_check(bytes.fromhex("b1 6d6f6465 3412 0200 2c01 0500 cdab 0000 010203"), 2),  # bit 7
        with_check(
            bytes.fromhex("31 6d6f6465 3412 0200 2c01 0500 cdab 0000 0102"), 2
        ),  # 16 bits are too few for a window
        with_check(bytes.fromhex("31 6d6f6465 3412 0200 2c01 0000 cdab 0000"), 2),  # no data, and not the only packet
        with_check(bytes.fromhex("01 6d6f6465 3412 00 00 0000 0000 0000"), 1),  # an empty text without an end
        with_check(bytes.fromhex("11 6d6f6465 3412 03 02 0100 cdab 0000 010203"), 1),  # each packet has some text
        with_check(bytes.fromhex("71 6d6f6465 3412 02000000 00000004 0000 cdab 0000 010203"), 4),  # beyond 2^26
        pack(SAMPLE) + bytes(8192),
    ],
)
def test_what_breaks_a_rule_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptError, match="damaged"):
        parse(data)


def test_other_versions_are_named() -> None:
    with pytest.raises(FormatError, match="packet version 2 is not supported, only version 1"):
        parse(with_check(b"\x32" + pack(SAMPLE)[1:], 2))
    with pytest.raises(FormatError, match="version 7 of streams of packets is not supported, only version 1"):
        list(read_stream(io.BytesIO(b"\xf7LP\x07")))
    with pytest.raises(FormatError, match="not a stream of packets"):
        list(read_stream(io.BytesIO(b"\xf7LZ\x01")))


def test_streams() -> None:
    packets = [pack(SAMPLE), b"", b"no packet"]
    stream = stream_header() + b"".join(map(stream_entry, packets))
    assert list(read_stream(io.BytesIO(stream))) == packets
    assert list(read_stream(io.BytesIO(stream_header()))) == []
    for cut in (1, 8, len(stream) - len(stream_header()) - 1):
        source, seen = read_stream(io.BytesIO(stream[:-cut])), []
        with pytest.raises(TruncatedError):
            seen.extend(source)
        assert seen == [] or packets[: len(seen)] == seen


@pytest.mark.parametrize(("packet_bytes", "text_bytes"), [(31, 0), (8193, 0), (140, MAX_TEXT_BYTES + 1)])
def test_lengths_out_of_range(packet_bytes: int, text_bytes: int) -> None:
    with pytest.raises(SettingsError):
        data_bytes(packet_bytes, text_bytes)
