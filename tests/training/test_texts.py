"""Checks what is read as text: which files, compressed or not, and how documents are cut into blocks."""

from __future__ import annotations

import functools
import gzip
import lzma
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmzip.errors import LLMZipError
from llmzip.training import texts
from llmzip.training.texts import Block, blocks, chunks, find

LINES = b"".join(b"line %d of a text that is plain\n" % n for n in range(40))
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": functools.partial(lzma.compress, preset=0),
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}

# -- which files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with text at several depths, and much that is none."""
    files = {
        "b.txt": LINES,
        "a/z.md": LINES,
        "a/c/deep.txt": LINES,
        "a/b.txt.xz": lzma.compress(LINES),
        "a/b.txt.zst": zstandard.compress(LINES),
        "B.txt.gz": gzip.compress(LINES),
        "latin.txt": "Größe über alles, çà et là, naïve".encode(),
        "documents.txt": (LINES + b"\0") * 3,
        "out/text.txt": LINES,
        ".hidden": LINES,
        ".git/config": LINES,
        "a/.cache/text.txt": LINES,
        "b.txt.llmz": LINES,
        "noise.bin": np.random.default_rng(0).bytes(5000),
        "noise.gz": gzip.compress(np.random.default_rng(1).bytes(5000)),
        "zeros": bytes(5000),
        "controls": bytes(range(1, 32)) * 50,
        "wide.txt": "wide characters".encode("utf-16"),
        "empty.txt": b"",
        "nothing.txt.xz": lzma.compress(b""),
    }
    for name, data in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "tree" / "dangling.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "tree" / "pipe.txt")
    return tmp_path / "tree"


def found(top: Path, *arguments: str, without: str | None = None) -> list[tuple[str, int]]:
    """Paths below `top` and their sources."""
    files = find([top / argument for argument in arguments], None if without is None else top / without)
    return [(file.path.relative_to(top).as_posix(), file.source) for file in files]


def test_a_directory_stands_for_its_texts_in_order(tree: Path) -> None:
    names = [name for name, source in found(tree, ".") if source == 0]
    assert names == [
        *("B.txt.gz", "b.txt", "documents.txt", "latin.txt"),
        *("a/b.txt.xz", "a/b.txt.zst", "a/z.md", "a/c/deep.txt", "out/text.txt"),
    ]


def test_the_directory_that_is_written_to_is_left_out(tree: Path) -> None:
    assert ("out/text.txt", 0) in found(tree, ".")
    for same in ("out", "a/../out", "link"):
        if same == "link":
            (tree / "link").symlink_to("out")
        assert ("out/text.txt", 0) not in found(tree, ".", without=same)
    assert found(tree, ".", without="not there yet") == found(tree, ".")


def test_files_that_are_named_are_taken_whatever_they_are(tree: Path) -> None:
    names = ["noise.bin", ".hidden", "b.txt.llmz", "empty.txt"]
    assert found(tree, *names) == [(name, source) for source, name in enumerate(names)]


def test_sources_are_numbered_by_argument(tree: Path) -> None:
    expected = [("b.txt", 0), ("a/c/deep.txt", 1), ("b.txt", 2), ("out/text.txt", 3)]
    assert found(tree, "b.txt", "a/c", "b.txt", "out") == expected
    assert find([]) == []


def test_missing_names_and_directories_without_text_are_named(tree: Path) -> None:
    with pytest.raises(LLMZipError, match=r"b\.text: no such file or directory"):
        found(tree, "b.txt", "b.text")
    (tree / "bare" / ".hidden").mkdir(parents=True)
    (tree / "bare" / "noise.bin").write_bytes(bytes(99))
    with pytest.raises(LLMZipError, match="bare: no text in this directory"):
        found(tree, "b.txt", "bare")


def test_a_name_that_no_file_can_have_is_missing() -> None:
    with pytest.raises(LLMZipError, match="no such file or directory"):
        find(["x" * 300])


def test_pipes_that_are_named_are_refused(tree: Path) -> None:
    with pytest.raises(LLMZipError, match=r"pipe\.txt: not a regular file; texts are read more than once"):
        found(tree, "b.txt", "pipe.txt")
    with pytest.raises(LLMZipError, match="write the standard input to a file first"):
        find(["-"])


def test_files_that_are_no_text_are_told(tree: Path) -> None:
    passed_over: list[Path] = []
    find([tree, tree / "noise.bin"], tree / "out", passed_over)
    assert [path.name for path in passed_over] == [
        *("controls", "empty.txt", "noise.bin", "noise.gz", "nothing.txt.xz", "wide.txt", "zeros"),
    ]


def test_few_odd_bytes_are_still_text(tmp_path: Path) -> None:
    some, many = LINES + b"\x01\xff" * 5, LINES + b"\xff" * 200
    (tmp_path / "some.txt").write_bytes(some)
    (tmp_path / "many.txt").write_bytes(many)
    (tmp_path / "escape.txt").write_bytes(b"\x1b[1mbold\x1b[0m and tabs\tand form feeds\f\r\n" * 20)
    assert [name for name, _ in found(tmp_path, ".")] == ["escape.txt", "some.txt"]


def test_the_probe_may_end_inside_a_character(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes("é".encode()[:1])
    for shift in range(4):
        (tmp_path / f"{shift}.txt").write_bytes(b"x" * shift + "€".encode() * 40_000)
    assert {name for name, _ in found(tmp_path, ".")} >= {"0.txt", "1.txt", "2.txt", "3.txt"}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_damaged_files_in_a_directory_are_no_text(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(LINES)
    for kind, data in damaged(suffix).items():
        (tmp_path / f"{kind}{suffix}").write_bytes(data)
    names = {name for name, _ in found(tmp_path, ".")}
    assert "text.txt" in names and not names & {f"text{suffix}", f"overwritten{suffix}"}


# -- compressed files --------------------------------------------------------------------------------------------------


def read(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return b"".join(chunks(path))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_read_to_their_end(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Also those of several members or frames, of which some are empty, and larger than one reading."""
    compress = COMPRESS[suffix]
    text = rng.integers(97, 123, 1_500_000).astype(np.uint8).tobytes()
    assert read(tmp_path / f"one{suffix}", compress(text)) == text
    parts = [text[:1], b"", text[1:100_000], text[100_000:1_400_000], text[1_400_000:], b""]
    assert read(tmp_path / f"many{suffix}", b"".join(map(compress, parts))) == text
    assert read(tmp_path / f"nothing{suffix}", compress(b"")) == b""
    assert read(tmp_path / "plain.txt", text) == text
    assert read(tmp_path / f"plain{suffix}.txt", compress(b"as it is")) == compress(b"as it is")


def test_frames_of_zstd_of_every_kind_are_read(tmp_path: Path) -> None:
    """Of unknown size, with a checksum, skippable, and with a window that the library refuses unless it is asked."""
    streamed = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frames = [
        streamed.compress(LINES) + streamed.flush(),
        zstandard.ZstdCompressor(write_checksum=True).compress(LINES),
        b"\x50\x2a\x4d\x18\4\0\0\0skip",
        wide_window(LINES),
    ]
    assert read(tmp_path / "a.zst", b"".join(frames)) == 3 * LINES


def wide_window(data: bytes) -> bytes:
    """A frame that says it needs 256 MiB."""
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28, write_content_size=False)
    ).compressobj()
    return compressor.compress(data) + compressor.flush()


def damaged(suffix: str) -> dict[str, bytes]:
    """What a compressed file may become."""
    text = np.random.default_rng(3).integers(97, 123, 9000).astype(np.uint8).tobytes()
    right = COMPRESS[suffix](text)
    if suffix == ".zst":
        right = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    middle = len(right) // 2
    return {
        "text": b"not compressed at all, only named so\n" * 9,
        "cut": right[:middle],
        "cut at the end": right[:-2],
        "changed": right[:middle] + bytes([right[middle] ^ 1]) + right[middle + 1 :],
        "overwritten": right[:12] + b"\xff" * 28 + right[40:],
        "second one cut": right + right[:-2],
    }


CASES = [(suffix, kind) for suffix in COMPRESS for kind in damaged(suffix)]


@pytest.mark.parametrize(("suffix", "kind"), CASES)
def test_damaged_files_are_named(suffix: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(damaged(suffix)[kind])
    with pytest.raises(LLMZipError) as caught:
        list(blocks(path, 100))
    assert str(caught.value).startswith(f"{path}: cannot be read: ") and "\n" not in str(caught.value)


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    for name, reason in (("gone.txt", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(LLMZipError, match=f"cannot be read: {reason}"):
            list(blocks(tmp_path / name, 100))


# -- documents and blocks ----------------------------------------------------------------------------------------------


def documents(found: list[Block]) -> list[bytes]:
    """Blocks put together again."""
    joined: list[bytes] = []
    for block in found:
        if block.begins:
            joined.append(b"")
        joined[-1] += block.data
    return joined


def check(found: list[Block], data: bytes, size: int) -> None:
    """That blocks are those of `data`, and cut where they may be."""
    assert documents(found) == [part for part in data.split(b"\0") if part]
    assert all(1 <= len(block.data) < 2 * size for block in found)
    for block, following in pairwise(found):
        length = len(block.data)
        if following.begins:
            continue
        assert length >= size
        ahead = block.data + following.data
        newline = ahead.find(b"\n", size - 1, min(2 * size, len(ahead)))
        if block.data.endswith(b"\n") or 0 <= newline < 2 * size - 1:
            assert newline == length - 1  # the first line that ends late enough
        elif valid(data):
            assert following.data[0] & 0xC0 != 0x80 and length <= size + 3


def valid(data: bytes) -> bool:
    return data.decode("utf-8", "ignore").encode() == data


PIECES = st.lists(
    st.sampled_from([b"\0", b"\0\0", b"\n", b"\n\n", b"word", b" ", "é".encode(), "€".encode(), "😀".encode()])
    | st.binary(max_size=3)
    | st.text("a€😀", min_size=20, max_size=60).map(str.encode),
    max_size=60,
).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=PIECES, size=st.integers(4, 24), at_once=st.integers(1, 90))
@example(data="😀".encode() * 9, size=4, at_once=7)
@example(data=b"\0\0a\0\0\0b\0", size=4, at_once=1)
def test_blocks_are_the_documents(data: bytes, size: int, at_once: int, tmp_path: Path) -> None:
    """Whatever is read at once."""
    path = tmp_path / "text"
    path.write_bytes(data)
    whole = list(blocks(path, size))
    check(whole, data, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texts, "_READ_BYTES", at_once)
        assert list(blocks(path, size)) == whole


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst"])
def test_blocks_of_a_file_of_several_readings(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Documents end before, at and behind the MiB that is read at once; one is longer than that."""
    mib = 1 << 20
    text = rng.choice(np.frombuffer("aé \n".encode(), dtype=np.uint8), 3 * mib + 5)
    text[[100, mib - 1, mib, 2 * mib + 1, 2 * mib + 77]] = 0
    data = text.tobytes()
    path = tmp_path / f"text{suffix}"
    path.write_bytes(COMPRESS[suffix](data) if suffix else data)
    for size in (9000, 1 << 16):
        check(list(blocks(path, size)), data, size)


@pytest.mark.parametrize("data", [b"", b"\0", bytes(1000)])
def test_empty_documents_vanish(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(data)
    assert list(blocks(tmp_path / "text", 8)) == []
    (tmp_path / "text").write_bytes(data + b"one" + data + b"\0two" + data)
    assert list(blocks(tmp_path / "text", 8)) == [Block(b"one", True), Block(b"two", True)]


def test_blocks_end_where_lines_do(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(LINES * 50)
    found = list(blocks(tmp_path / "text", 500))
    assert len(found) > 100 and all(block.data.endswith(b"\n") for block in found)
    assert max(len(block.data) for block in found[:-1]) < 500 + 40
