"""The numbers of the byte format (format section 1): varints, the width of fixed numbers, the checksum crc8."""

from __future__ import annotations

from ..errors import CorruptError

_CRC8_POLYNOMIAL = 0x11D


def pack_varint(value: int) -> bytes:
    """Packs a number in 7 bits a byte, the least significant first.

    >>> pack_varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack_varint(data: bytes, what: str = " header: a number of the model record") -> tuple[int, bytes]:
    """Takes a varint from the front of complete data.

    Args:
        data: at least the whole varint.
        what: what the number is, as the error message names it after "damaged".

    Returns:
        the number, below 2^35, and the data after it.

    Raises:
        CorruptError: the data ends within the number, or the number is longer than it needs to be.
    """
    try:
        value, place = varint_at(data, 0)
    except ValueError:
        raise CorruptError(f"damaged{what} is malformed") from None
    return value, data[place:]


def varint_at(data: bytes, place: int) -> tuple[int, int]:
    """Returns the varint at a place of data, and the place after it.

    Raises:
        ValueError: it is not whole, or longer than it needs to be.
    """
    value = 0
    for shift in range(0, 35, 7):
        if place == len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte and shift:
                break
            return value, place
    raise ValueError("malformed")


def bytes_needed(numbers: tuple[int, ...]) -> int:
    """Returns how many bytes hold the largest of the numbers, at least 1."""
    return max(1, (max(numbers).bit_length() + 7) // 8)


def _crc8_table() -> bytes:
    """Makes a translation table from each byte b to b * x^8, reduced by the polynomial."""
    table = bytearray(256)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value << 1 ^ (_CRC8_POLYNOMIAL if value & 0x80 else 0)
        table[byte] = value
    return bytes(table)


_CRC8 = _crc8_table()


def crc8(data: bytes) -> int:
    """Computes the CRC-8 with polynomial 0x1D and initial value 0 (format section 1).

    The polynomial is irreducible, so bytes are elements of GF(256) and the checksum is a polynomial in x^8: it can be
    folded in halves, multiplying the front half by a power of x^8, instead of byte by byte.
    """
    tables: list[bytes] = [_CRC8]  # tables[n] multiplies by x^(8 * 2^n)
    while len(data) > 64:
        level = (len(data) - 1).bit_length() - 1
        half = 1 << level
        while len(tables) <= level:
            tables.append(tables[-1].translate(tables[-1]))
        front = data[: len(data) - half].translate(tables[level])
        folded = int.from_bytes(front, "big") ^ int.from_bytes(data[len(data) - half :], "big")
        data = folded.to_bytes(half, "big")
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value
