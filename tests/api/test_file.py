"""What file objects and incremental objects do when something goes wrong: each case was a fault once."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import shutil
import threading
import warnings
from functools import partial
from typing import Any

import pytest

import llmzip

FRAME = llmzip.Compressor.FLUSH_FRAME


def two_frames(first: bytes, second: bytes) -> bytes:
    compressor = llmzip.Compressor()
    return compressor.compress(first) + compressor.flush(FRAME) + compressor.compress(second) + compressor.flush()


def damaged(archive: bytes) -> bytes:
    return archive[:-1] + bytes([archive[-1] ^ 1])


def test_a_decompressor_never_looks_finished_after_an_error():
    decompressor = llmzip.Decompressor()
    with pytest.raises(llmzip.CorruptError):
        decompressor.decompress(damaged(llmzip.compress(b"hello")))
    assert not decompressor.eof
    with pytest.raises(llmzip.CorruptError):
        decompressor.decompress(b"1234")


def test_needs_input_is_false_while_a_whole_frame_waits():
    decompressor = llmzip.Decompressor()
    out = decompressor.decompress(two_frames(b"ab" * 50, b"cd" * 50), 10)
    while not decompressor.eof and not decompressor.needs_input:
        out += decompressor.decompress(b"", 30)
    assert decompressor.eof
    assert out == b"ab" * 50 + b"cd" * 50


def test_a_damaged_file_stays_damaged():
    file = llmzip.open(io.BytesIO(damaged(llmzip.compress(b"hello"))))
    for _ in range(2):
        with pytest.raises(llmzip.CorruptError):
            file.read()


def test_verified_text_before_the_damage_is_handed_out_to_who_reads_in_pieces():
    archive = two_frames(b"x" * 100, bytes(range(200)))[:-30]  # a second frame longer than what is cut off
    sink = io.BytesIO()
    with pytest.raises(llmzip.TruncatedError):
        shutil.copyfileobj(llmzip.open(io.BytesIO(archive)), sink, 64)
    assert sink.getvalue() == b"x" * 100


def test_who_asks_for_everything_gets_everything_or_an_error():
    with pytest.raises(llmzip.TruncatedError):
        llmzip.open(io.BytesIO(two_frames(b"x" * 100, bytes(range(200)))[:-30])).read()


class ShortWriter(io.BytesIO):
    """A raw file may take less than it is given."""

    def write(self, data: Any) -> int:
        return super().write(bytes(data)[:5])


def test_a_file_that_takes_little_at_a_time_gets_everything():
    sink = ShortWriter()
    with llmzip.open(sink, "wb") as file:
        file.write(b"some text, " * 20)
    assert llmzip.decompress(sink.getvalue()) == b"some text, " * 20


def test_two_threads_may_use_one_model():
    texts = [
        b"The ferry was late again, and nobody minded. " * 2,
        b"Nobody minded; the ferry was late again, they said.",
    ]
    expected = [llmzip.compress(text) for text in texts]
    found: dict[int, bytes] = {}

    def work(number: int) -> None:
        found[number] = llmzip.compress(texts[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[0], found[1]] == expected


# -- flush, text, what is dropped


def test_what_was_flushed_can_be_read_before_the_file_is_closed(tmp_path):
    path = tmp_path / "log.llmz"
    with llmzip.open(path, "wt", encoding="utf-8") as log:
        for line in ("first\n", "second\n"):
            log.write(line)
            log.flush()
            with llmzip.open(path, "rt", encoding="utf-8") as reader:
                assert reader.readline() == "first\n"
                assert line == "first\n" or reader.readline() == line
                with pytest.raises(llmzip.TruncatedError):
                    reader.readline()
    assert llmzip.decompress(path.read_bytes()) == b"first\nsecond\n"


def test_closing_a_text_file_ends_no_frame_of_its_own(tmp_path):
    with llmzip.open(tmp_path / "text", "wt", encoding="ascii") as file:
        file.write("some text")
    assert (tmp_path / "text").read_bytes() == llmzip.compress(b"some text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "utf-8-sig", "latin-1", "utf-16-be", "utf-7"])
@pytest.mark.parametrize("parts", [[], [""], ["", "grün\n", "é"], ["grün\r\né"]])
def test_text_files_are_those_of_io(tmp_path, encoding, parts):
    """Byte for byte what `open` writes, the byte order mark too, also when it is appended to."""
    for opened, mode in ((llmzip.open, "wt"), (llmzip.open, "at"), (open, "wt"), (open, "at")):
        name = "ours" if opened is llmzip.open else "theirs"
        with opened(tmp_path / name, mode, encoding=encoding, newline="") as file:
            for part in parts:
                file.write(part)
    theirs = (tmp_path / "theirs").read_bytes()
    with llmzip.open(tmp_path / "ours", "rb") as file:
        assert file.read() == theirs
    with llmzip.open(tmp_path / "ours", "rt", encoding=encoding, newline="") as file:
        assert file.read() == 2 * "".join(parts)


@pytest.mark.parametrize("mode", ["wb", "wt", "rb", "rt"])
def test_files_that_are_dropped_say_so(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(llmzip.compress(b"text"))
    with pytest.warns(ResourceWarning, match="unclosed file <llmzip"):
        file = llmzip.open(path, mode)
        if mode == "wb":
            file.write(b"text")
        elif mode == "wt":
            file.write("text")
        del file
        gc.collect()
    assert llmzip.decompress(path.read_bytes()) == b"text"  # nothing is lost all the same


def test_closed_files_and_files_of_others_say_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llmzip.open(tmp_path / "a", "wb").close()
        llmzip.open(tmp_path / "b", "wt").close()
        llmzip.open(io.BytesIO(llmzip.compress(b"text"))).read()
        gc.collect()


def test_closed_files_refuse_everything(tmp_path):
    for mode in ("wb", "rb"):
        file = llmzip.open(tmp_path / "file", mode)
        file.close()
        file.close()
        for call in (file.flush, file.read, file.readline, partial(file.write, b"x"), file.tell, file.readable):
            with pytest.raises(ValueError, match="closed"):
                call()
    with llmzip.open(io.BytesIO(), "wb") as file, pytest.raises(ValueError, match="FLUSH_FRAME"):
        file.flush(2)
    reader = llmzip.open(io.BytesIO(llmzip.compress(b"text")))
    reader.flush()  # of no use, and harmless, as with gzip


@pytest.mark.parametrize("copying", [copy.copy, copy.deepcopy, pickle.dumps])
def test_objects_with_an_archive_are_not_copied(copying):
    objects = [
        llmzip.Compressor(),
        llmzip.Decompressor(),
        llmzip.open(io.BytesIO(llmzip.compress(b"text"))),
        llmzip.open(io.BytesIO(llmzip.compress(b"text")), "rt"),
    ]
    for one in objects:
        with pytest.raises(TypeError, match="cannot"):
            copying(one)


# -- wrong arguments

WRONG = {
    "level": ["6", 6.0, True, None],
    "model": [0, b"base", ["base"]],
    "device": [0, None, b"cpu"],
    "prompt": ["text", 5, None],
    "arithmetic": [1, None],
    "max_output_size": ["5", 5.5],
    "max_length": ["5", None],
    "mode": [0, b"wb", None],
    "data": ["text", 5, None, [1, 2]],
    "source": [5, None, ["x"]],
}


def opened(mode="wb", **given):
    with llmzip.open(io.BytesIO(), mode, **given):
        pass


def written(data):
    with llmzip.open(io.BytesIO(), "wb") as file:
        file.write(data)


CALLS = {
    "compress": (llmzip.compress, {"data": b"text"}, ["data", "level", "model", "device", "prompt", "arithmetic"]),
    "decompress": (
        llmzip.decompress, {"data": llmzip.compress(b"text")},
        ["data", "model", "device", "prompt", "max_output_size"],
    ),
    "info": (llmzip.info, {"source": llmzip.compress(b"text")}, ["source"]),
    "Compressor": (llmzip.Compressor, {}, ["level", "model", "device", "prompt", "arithmetic"]),
    "Compressor.compress": (lambda data: llmzip.Compressor().compress(data), {"data": b"text"}, ["data"]),
    "Decompressor": (llmzip.Decompressor, {}, ["model", "device", "prompt"]),
    "Decompressor.decompress": (
        lambda **given: llmzip.Decompressor().decompress(**given), {"data": llmzip.compress(b"text")},
        ["data", "max_length"],
    ),
    "open": (
        opened, {},
        ["mode", "level", "model", "device", "prompt"],
    ),
    "write": (written, {"data": b"text"}, ["data"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_wrong_types_are_named(name):
    call, right, parameters = CALLS[name]
    call(**right)
    for parameter in parameters:
        for value in WRONG[parameter]:
            if value is None and (parameter, name) in {("level", "open")}:
                continue  # the default
            what = "bytes-like object" if parameter in ("data", "prompt") else parameter
            with pytest.raises((TypeError, ValueError), match=what) as raised:
                call(**{**right, parameter: value})
            assert not isinstance(raised.value, UnicodeError)


# -- reading up to damage

TEXT = bytes(range(11, 256)) * 40  # longer than a buffer, and b"\n" is not in it


def reads_by(how: str, file: Any, size: int) -> bytes:
    if how == "readinto":
        buffer = bytearray(size)
        return bytes(buffer[: file.readinto(buffer)])
    if how == "peek":
        return file.read(len(file.peek()[:size]))
    return getattr(file, how)(size)


@pytest.fixture(scope="module")
def cut_short() -> bytes:
    """An archive whose second frame ends too soon."""
    return two_frames(TEXT, b"y" * 100)[:-30]


@pytest.mark.parametrize("size", [1000, 8192, len(TEXT), len(TEXT) + 1])
@pytest.mark.parametrize("how", ["read", "read1", "readinto", "readline", "peek"])
def test_every_way_to_read_hands_out_the_text_before_the_damage(cut_short, how, size):
    file = llmzip.open(io.BytesIO(cut_short))
    parts = []
    for _ in range(len(TEXT) // min(size, 1000) + 2):
        try:
            parts.append(reads_by(how, file, size))
        except llmzip.TruncatedError:
            break
        assert parts[-1], "the damage looks like the end of the text"
    assert b"".join(parts) == TEXT
    for again in ("read", "read1", "readinto", "readline", "peek"):
        assert file.tell() == len(TEXT)
        with pytest.raises(llmzip.TruncatedError):
            reads_by(again, file, size)
    with pytest.raises(llmzip.TruncatedError):
        file.read()
    assert file.read(0) == file.readline(0) == b""
    assert file.readinto(bytearray()) == 0


def test_seeking_stops_at_the_damage_and_back_works(cut_short):
    file = llmzip.open(io.BytesIO(cut_short))
    for offset, whence in ((len(TEXT) + 1, io.SEEK_SET), (0, io.SEEK_END), (1, io.SEEK_CUR)):
        with pytest.raises(llmzip.TruncatedError):
            file.seek(offset, whence)
        assert file.tell() == len(TEXT)
    assert file.seek(0, io.SEEK_CUR) == len(TEXT)
    assert file.seek(-100, io.SEEK_CUR) == len(TEXT) - 100
    assert file.read(200) == TEXT[-100:]
    with pytest.raises(llmzip.TruncatedError):
        file.read(1)
    assert file.seek(5) == 5
    assert file.read(10) == TEXT[5:15]


class InterruptedOnce(io.BytesIO):
    """A file that is interrupted when it is read behind a place."""

    place: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self.place is not None and self.tell() >= self.place:
            self.place = None
            raise KeyboardInterrupt
        return super().read(size)


def test_an_interrupted_read_is_not_the_end_of_the_text():
    source = InterruptedOnce(two_frames(TEXT, b"y" * 100))
    source.place = 40
    file = llmzip.open(source)
    with pytest.raises(KeyboardInterrupt):
        file.read()
    for size in (1, -1):
        with pytest.raises(llmzip.LLMZipError, match="interrupted"):
            file.read(size)
