"""A pause is not the end, and a part is not the whole: every Python entry point over files that hesitate."""

from __future__ import annotations

import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import llmzip
from llmzip.codec.parts import PartReader
from llmzip.codec.reader import decompress_stream
from llmzip.codec.writer import compress_stream
from llmzip.format import packets, reading
from llmzip.measures import places
from llmzip.settings import CompressSettings, DecompressSettings
from llmzip.system.streams import DescriptorReader, read_some, read_upto, write_all

FRAME = llmzip.Compressor.FLUSH_FRAME
NOISE = random.Random(5).randbytes(300_000)  # needs no model


def archive_of(*texts: bytes) -> bytes:
    compressor = llmzip.Compressor()
    parts = [compressor.compress(text) + compressor.flush(FRAME) for text in texts]
    return b"".join(parts) + compressor.flush()


ARCHIVE = archive_of(NOISE[:1000], NOISE[1000:])


class Hesitant(io.RawIOBase):
    """A raw file that gives and takes little, and every other time nothing yet.

    Args:
        data: what can be read.
        descriptor: to wait for; None for a file that has none.
    """

    def __init__(self, data: bytes = b"", descriptor: int | None = None) -> None:
        self._data, self._at, self._calls, self._descriptor = bytearray(data), 0, 0, descriptor

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self._descriptor

    def _says_nothing(self) -> bool:
        self._calls += 1
        return bool(self._calls % 2)

    def readinto(self, buffer: Any) -> int | None:
        if self._says_nothing():
            return None
        part = self._data[self._at : self._at + min(len(buffer), 50_001)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def write(self, data: Any) -> int | None:
        if self._says_nothing():
            return None
        part = bytes(data[:50_001])
        self._data += part
        return len(part)

    def getvalue(self) -> bytes:
        return bytes(self._data)


@pytest.fixture
def ready() -> Iterator[int]:
    """A descriptor that can always be read and written."""
    descriptor = os.open("/dev/zero", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@contextmanager
def pieces(data: bytes, buffered: bool) -> Iterator[io.IOBase]:
    """The reading end of a pipe that does not block, while another thread writes into it with pauses."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    gone = threading.Event()

    def write() -> None:
        try:
            for begin in range(0, len(data), 60_000):
                gone.wait(0.02)
                rest = memoryview(data)[begin : begin + 60_000]
                while rest:
                    rest = rest[os.write(writing, rest) :]
        except BrokenPipeError:  # an error ended the test before the text did
            pass
        finally:
            os.close(writing)

    thread = threading.Thread(target=write)
    file = open(reading, "rb", buffering=-1 if buffered else 0)  # noqa: SIM115
    thread.start()
    try:
        yield file
    finally:
        gone.set()
        file.close()
        thread.join()


def part_reader(source: Any) -> bytes:
    return b"".join(PartReader(source, DecompressSettings()).text(0, len(NOISE)))


def decompressed(source: Any) -> bytes:
    sink = io.BytesIO()
    decompress_stream(source, sink, DecompressSettings())
    return sink.getvalue()


def in_lines(source: Any) -> bytes:
    return b"".join(llmzip.open(source))


def by_readinto(source: Any) -> bytes:
    file, buffer, parts = llmzip.open(source), bytearray(70_000), []
    while count := file.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


READERS: list[Callable[[Any], bytes]] = [
    lambda source: llmzip.open(source).read(),
    lambda source: llmzip.LLMZipFile(source).read(len(NOISE) + 1),
    in_lines,
    by_readinto,
    lambda source: llmzip.open(source, "rt", encoding="latin-1", newline="").read().encode("latin-1"),
    lambda source: bytes(llmzip.info(source).original_bytes),
    decompressed,
]


def is_right(found: bytes) -> bool:
    return found in (NOISE, bytes(len(NOISE)))


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("buffered", [False, True])
def test_archives_are_read_from_a_pipe_in_pieces(read: Callable[[Any], bytes], buffered: bool) -> None:
    with pieces(ARCHIVE, buffered) as source:
        assert is_right(read(source))


@pytest.mark.parametrize("read", [*READERS, part_reader])
def test_archives_are_read_from_a_raw_file(read: Callable[[Any], bytes], ready: int) -> None:
    assert is_right(read(Hesitant(ARCHIVE, ready)))
    with pytest.raises(BlockingIOError, match="no descriptor to wait for"):
        read(Hesitant(ARCHIVE))


@pytest.mark.parametrize("buffered", [False, True])
def test_texts_are_read_from_a_pipe_in_pieces(buffered: bool) -> None:
    sink = io.BytesIO()
    with pieces(NOISE, buffered) as source:
        compress_stream(source, sink, CompressSettings())  # type: ignore[arg-type]
    assert llmzip.decompress(sink.getvalue()) == NOISE


def test_texts_are_read_from_a_raw_file(ready: int) -> None:
    sink = io.BytesIO()
    compress_stream(Hesitant(NOISE, ready), sink, CompressSettings())  # type: ignore[arg-type]
    assert llmzip.decompress(sink.getvalue()) == NOISE
    with pytest.raises(BlockingIOError):
        compress_stream(Hesitant(NOISE), io.BytesIO(), CompressSettings())  # type: ignore[arg-type]


def test_packets_and_places_are_read_from_a_raw_file(ready: int) -> None:
    stream = packets.stream_header() + b"".join(packets.stream_entry(bytes([n]) * 40) for n in range(3))
    assert [packet[0] for packet in packets.read_stream(Hesitant(stream, ready))] == [0, 1, 2]
    found = places.Places(Hesitant(NOISE, ready))  # type: ignore[arg-type]
    assert found.read(1000, 200_000) == NOISE[1000:201_000]
    assert b"".join(frame.payload for frame in reading.read_archives(Hesitant(ARCHIVE, ready))) == NOISE  # type: ignore[arg-type]


# -- writing


def write_file(sink: Any, text: bool = False) -> None:
    if text:
        with llmzip.open(sink, "wt", encoding="latin-1", newline="") as file:
            file.write(NOISE.decode("latin-1"))
    else:
        with llmzip.open(sink, "wb") as file:
            file.write(NOISE[:1000])
            file.flush()
            file.write(NOISE[1000:])


WRITERS: list[tuple[Callable[[Any], object], bytes | None]] = [
    (write_file, None),
    (lambda sink: write_file(sink, text=True), None),
    (lambda sink: compress_stream(io.BytesIO(NOISE), sink, CompressSettings()), None),
    (lambda sink: decompress_stream(io.BytesIO(ARCHIVE), sink, DecompressSettings()), NOISE),
]


@pytest.mark.parametrize(("write", "expected"), WRITERS)
def test_everything_is_written_to_a_raw_file(
    write: Callable[[Any], object], expected: bytes | None, ready: int
) -> None:
    sink = Hesitant(descriptor=ready)
    write(sink)
    assert (sink.getvalue() if expected else llmzip.decompress(sink.getvalue())) == (expected or NOISE)
    with pytest.raises(BlockingIOError, match="no descriptor to wait for"):
        write(Hesitant())


@pytest.mark.parametrize(("write", "expected"), WRITERS)
@pytest.mark.parametrize("buffered", [False, True])
def test_everything_is_written_to_a_pipe_that_does_not_block(
    write: Callable[[Any], object], expected: bytes | None, buffered: bool
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    parts: list[bytes] = []

    def read() -> None:
        with open(reading, "rb", buffering=0) as source:
            while part := source.read(30_000):
                parts.append(part)

    thread = threading.Thread(target=read)
    with open(writing, "wb", buffering=-1 if buffered else 0) as sink:
        while not buffered:  # the pipe is full before the reader comes
            try:
                os.write(writing, b"full" * 1024)
            except BlockingIOError:
                break
        thread.start()
        write(sink)
        os.set_blocking(writing, True)  # what the caller's own buffer holds is the caller's to wait for
    thread.join()
    found = b"".join(parts)
    while found.startswith(b"full"):
        found = found.removeprefix(b"full" * 1024)
    assert (found if expected else llmzip.decompress(found)) == (expected or NOISE)


def test_a_sink_that_counts_nothing_has_taken_everything() -> None:
    class List:
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.parts.append(data)

    sink = List()
    with llmzip.open(sink, "wb") as file:
        file.write(NOISE)
    assert llmzip.decompress(b"".join(sink.parts)) == NOISE


# -- the functions that all of this goes through


@pytest.mark.parametrize("size", [0, 1, 50_000, 50_001, 299_999, 300_000, 300_001])
def test_read_upto(ready: int, size: int) -> None:
    assert read_upto(Hesitant(NOISE, ready), size) == NOISE[:size]


def test_text_files_are_refused() -> None:
    with pytest.raises(TypeError, match="binary mode"):
        read_some(io.StringIO("text"), 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="binary mode"):
        llmzip.open(io.StringIO("text")).read()  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 49_999, 50_001, 300_000])
def test_write_all(ready: int, size: int) -> None:
    sink = Hesitant(descriptor=ready)
    write_all(sink, NOISE[:size])
    assert sink.getvalue() == NOISE[:size]


@pytest.mark.parametrize(
    "read",
    [
        lambda raw: raw.readall(),
        lambda raw: raw.read(),
        lambda raw: b"".join(iter(lambda: raw.read(7_000), b"")),
        lambda raw: io.BufferedReader(raw).read(),
        lambda raw: io.BufferedReader(raw).read(len(NOISE)),
        lambda raw: b"".join(io.BufferedReader(raw)),
    ],
)
def test_descriptor_reader(read: Callable[[Any], bytes]) -> None:
    with pieces(NOISE, buffered=False) as source:
        assert read(DescriptorReader(source.fileno(), closefd=False)) == NOISE
