"""Recovery data (F 5b) a second time, from docs/format.md alone: solves the sums that define the code."""

import hashlib
import zlib
from collections.abc import Sequence

MAGIC = b"\xf7LR\x01"
HEAD_BYTES = 48


def times(a: int, b: int) -> int:
    """A product in GF(2^16)."""
    out = 0
    while b:
        if b & 1:
            out ^= a
        a <<= 1
        if a >> 16:
            a ^= 0x1100B
        b >>= 1
    return out


def power(a: int, n: int) -> int:
    out = 1
    for bit in bin(n)[2:]:
        out = times(out, out)
        if bit == "1":
            out = times(out, a)
    return out


def solve(rows: list[list[int]]) -> list[int]:
    """Solves n equations of n unknowns, whose last number is the right side, by Gauss."""
    size = len(rows)
    for place in range(size):
        chosen = next(n for n in range(place, size) if rows[n][place])
        rows[place], rows[chosen] = rows[chosen], rows[place]
        scale = power(rows[place][place], 2**16 - 2)
        rows[place] = [times(value, scale) for value in rows[place]]
        for n in range(size):
            if n != place and rows[n][place]:
                factor = rows[n][place]
                rows[n] = [a ^ times(factor, b) for a, b in zip(rows[n], rows[place], strict=True)]
    return [row[-1] for row in rows]


def points(num_parity: int) -> int:
    """m."""
    size = 1
    while size < num_parity:
        size *= 2
    return size


def complete(known: dict[int, bytes], unknown: Sequence[int], m: int) -> dict[int, bytes]:
    """The blocks at the unknown points, from those at all other points: exactly m unknown ones."""
    assert len(unknown) == m
    size = len(next(iter(known.values())))
    found = {point: bytearray() for point in unknown}
    for place in range(0, size, 2):
        words = {point: int.from_bytes(block[place : place + 2], "little") for point, block in known.items()}
        rows = []
        for t in range(m):
            right = 0
            for point, word in words.items():
                right ^= times(word, power(point, t))
            rows.append([power(point, t) for point in unknown] + [right])
        for point, word in zip(unknown, solve(rows), strict=True):
            found[point] += word.to_bytes(2, "little")
    return {point: bytes(block) for point, block in found.items()}


def parity(blocks: Sequence[bytes], num_parity: int) -> list[bytes]:
    m = points(num_parity)
    found = complete({m + number: block for number, block in enumerate(blocks)}, range(m), m)
    return [found[point] for point in range(num_parity)]


def restore(blocks: dict[int, bytes], num_blocks: int, kept: dict[int, bytes], num_parity: int) -> list[bytes]:
    """All blocks, from those that are there and the parity blocks that are there."""
    m = points(num_parity)
    known = {m + number: block for number, block in blocks.items()} | kept
    unknown = [point for point in range(m + num_blocks) if point not in known]
    # Those that are there beyond what is needed are taken as unknown, too.
    for point in list(known):
        if len(unknown) < m:
            unknown.append(point)
            del known[point]
    found = complete(known, unknown, m)
    return [(known | found)[m + number] for number in range(num_blocks)]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size].ljust(size, b"\0") for begin in range(0, len(data), size)]


def packets(protected: bytes, block_bytes: int, num_parity: int) -> list[bytes]:
    blocks = cut(protected, block_bytes)
    table = cut(b"".join(zlib.crc32(block).to_bytes(4, "little") for block in blocks), block_bytes)
    table += parity(table, 4 * len(table))
    rest = parity(blocks, num_parity)
    u, p = len(table), len(table) + num_parity
    digest = hashlib.sha256(protected).digest()[:16]
    out = []
    for j in range(p):
        n = j * u // p
        data = table[n] if (j + 1) * u // p > n else rest[j - n]
        head = MAGIC + j.to_bytes(4, "little") + len(protected).to_bytes(8, "little")
        head += block_bytes.to_bytes(4, "little") + num_parity.to_bytes(4, "little") + digest
        head += zlib.crc32(data).to_bytes(4, "little")
        out.append(head + zlib.crc32(head).to_bytes(4, "little") + data)
    return out


def payloads(all_packets: list[bytes]) -> list[bytes]:
    """What the frames hold."""
    p, size = len(all_packets), len(all_packets[0])
    most = 2**26 // size
    frames = max(2, -(-p // most))
    counts = [p // frames + (number < p % frames) for number in range(frames)]
    return [b"".join(all_packets[sum(counts[:n]) : sum(counts[: n + 1])]) for n in range(frames)]


def is_whole(payload: bytes) -> bool:
    """Whether the packets of a skip frame pass their checks and belong together; true for other uses of the frame."""
    if not payload.startswith(MAGIC):
        return True
    size = HEAD_BYTES + int.from_bytes(payload[16:20], "little")
    if len(payload) % size:
        return False
    number = int.from_bytes(payload[4:8], "little")
    for begin in range(0, len(payload), size):
        head, data = payload[begin : begin + HEAD_BYTES], payload[begin + HEAD_BYTES : begin + size]
        same = head[:4] + head[8:40] == MAGIC + payload[8:40] and int.from_bytes(head[4:8], "little") == number
        checks = (zlib.crc32(data), zlib.crc32(head[:44]))
        if not same or checks != (int.from_bytes(head[40:44], "little"), int.from_bytes(head[44:], "little")):
            return False
        number += 1
    return True
