"""Numbers of the byte format: varints and the checksum crc8, against their definitions."""

from __future__ import annotations

import zlib

import pytest

from llmzip.errors import CorruptError
from llmzip.format.numbers import bytes_needed, crc8, pack_varint, unpack_varint


def crc8_bitwise(data: bytes) -> int:
    """Computes the checksum by its definition, long division by x^8 + x^4 + x^3 + x^2 + 1."""
    remainder = 0
    for byte in data:
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder << 1) ^ 0x11D if remainder & 0x80 else remainder << 1
    return remainder


def test_crc8_check_value() -> None:
    assert crc8(b"123456789") == 0x37
    assert crc8(b"") == 0


def test_crc8_is_long_division_for_every_length() -> None:
    data = bytes(n * n * 7 + n * 13 + 5 & 0xFF for n in range(1 << 12))
    for length in [*range(300), 511, 512, 513, 1000, 2047, 2048, 2049, 4095, 4096]:
        assert crc8(data[:length]) == crc8_bitwise(data[:length])
        assert crc8(data[-length:]) == crc8_bitwise(data[-length:])


def test_crc8_of_long_data() -> None:
    data = zlib.compress(bytes(range(256)) * 900, 0)
    assert crc8(data) == crc8_bitwise(data)


def test_crc8_sees_every_change_of_one_byte() -> None:
    for length in (1, 64, 65, 130):
        data = bytearray(n * 37 & 0xFF for n in range(length))
        right = crc8(bytes(data))
        for place in range(length):
            for flip in range(1, 256):
                data[place] ^= flip
                assert crc8(bytes(data)) != right
                data[place] ^= flip


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32, "8080808010"),
    ],
)
def test_varints(value: int, packed: str) -> None:
    assert pack_varint(value).hex() == packed
    assert unpack_varint(bytes.fromhex(packed) + b"rest")[1] == b"rest"


@pytest.mark.parametrize("value", [0, 127, 128, 16384, (1 << 35) - 1])
def test_varints_come_back(value: int) -> None:
    assert unpack_varint(pack_varint(value)) == (value, b"")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\xff\x01"])
def test_varints_that_end_early_or_are_too_long_are_damaged(data: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^damaged: a number of the directory is malformed$"):
        unpack_varint(data, ": a number of the directory")


@pytest.mark.parametrize(("numbers", "size"), [((0,), 1), ((255, 3), 1), ((1, 256), 2), ((0xFFFFFF,), 3)])
def test_the_width_of_numbers_is_the_smallest(numbers: tuple[int, ...], size: int) -> None:
    assert bytes_needed(numbers) == size
