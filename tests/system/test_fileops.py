"""Names, inputs and outputs on disk, without a process around them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from llmzip.system import filenames, fileops
from llmzip.system.filenames import FileProblem
from llmzip.system.fileops import Output, open_source
from llmzip.system.streams import Comparison, DescriptorWriter, Prefixed


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    path.chmod(0o604)
    os.utime(path, ns=(1_400_000_000_000_000_001, 1_500_000_000_000_000_003))
    return path


def write(source: Path, target: Path, data: bytes = b"new", force: bool = False) -> None:
    """A whole output, as the command line makes it."""
    with open_source(str(source)) as opened, Output(str(target), opened, force=force) as output:
        output.sink.write(data)
        output.finish(opened)
        output.publish()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.txt", "plain name.txt"),
        ("a\nb\x1b[0m\x7f", "a?b?[0m?"),
        ("grün 文", "grün 文"),
        ("x\udcff\u202e", "x??"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert filenames.printable(text) == shown


def test_suffixes() -> None:
    assert filenames.add_suffix("a/b.txt", ".llmz") == "a/b.txt.llmz"
    assert filenames.strip_suffix("a/b.txt.llmz", (".llmz",)) == "a/b.txt"
    assert filenames.strip_suffix("b.x", (".llmz", ".x")) == "b"
    assert filenames.add_suffix("a/.llmz", ".llmz") == "a/.llmz.llmz"  # nothing but the suffix is a name like others
    with pytest.raises(FileProblem, match="already has"):
        filenames.add_suffix("b.llmz", ".llmz")
    for name in (".llmz", "a/.llmz", "b.LLMZ", "llmz", ""):
        with pytest.raises(FileProblem, match="-o FILE"):
            filenames.strip_suffix(name, (".llmz",))


# -- input


def test_source_knows_its_size(source_file: Path) -> None:
    with open_source(str(source_file)) as source:
        assert source.size_bytes == 10
        source.file.read(4)
        assert source.size_bytes == 6


def test_source_kinds(tmp_path: Path, source_file: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileProblem, match="directory"):
        open_source(str(tmp_path))
    with pytest.raises(FileProblem, match="-f"):
        open_source(str(tmp_path / "pipe"), special=False)  # and does not wait for a writer
    with pytest.raises(FileProblem, match="--rm removes only those"):
        open_source(str(tmp_path / "pipe"), force=True, removing=True)
    with pytest.raises(FileProblem, match="not a regular file"):
        open_source("/dev/null", special=False)
    open_source("/dev/null").file.close()
    source_file.chmod(0o4755)
    open_source(str(source_file)).file.close()
    with pytest.raises(FileProblem, match="setuid"):
        open_source(str(source_file), removing=True)


def test_removing_checks_that_nothing_changed(tmp_path: Path, source_file: Path) -> None:
    with open_source(str(source_file)) as source:
        source_file.write_bytes(b"longer than before")
        with pytest.raises(FileProblem, match="changed"):
            fileops.remove_source(source)
    with open_source(str(source_file)) as source:
        source_file.rename(tmp_path / "moved")
        source_file.write_bytes(b"longer than before")
        with pytest.raises(FileProblem, match="replaced"):
            fileops.remove_source(source)
    with open_source(str(source_file)) as source:
        fileops.remove_source(source)
    assert names(tmp_path) == ["moved"]


# -- output


def test_output_gets_attributes(tmp_path: Path, source_file: Path) -> None:
    write(source_file, tmp_path / "out")
    status = (tmp_path / "out").stat()
    assert stat.S_IMODE(status.st_mode) == 0o604
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_400_000_000_000_000_001, 1_500_000_000_000_000_003)
    assert status.st_nlink == 1
    assert (tmp_path / "out").read_bytes() == b"new"
    assert names(tmp_path) == ["out", "source"]


def test_output_is_private_until_it_is_published(tmp_path: Path, source_file: Path) -> None:
    with open_source(str(source_file)) as source, Output(str(tmp_path / "out"), source) as output:
        output.sink.write(b"secret")
        [temporary] = [name for name in names(tmp_path) if name != "source"]
        assert temporary.startswith(".llmzip-")
        assert stat.S_IMODE((tmp_path / temporary).stat().st_mode) == 0o600
        output.finish(source)
        with output.reopen() as again:
            assert again.read() == b"secret"
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["source"]  # never published, so it is gone


def test_output_is_removed_on_error(tmp_path: Path, source_file: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        open_source(str(source_file)) as source,
        Output(str(tmp_path / "out"), source) as output,
    ):
        output.sink.write(b"half")
        raise RuntimeError
    assert names(tmp_path) == ["source"]
    assert not fileops._unfinished


def test_remove_unfinished(tmp_path: Path, source_file: Path) -> None:
    with open_source(str(source_file)) as source, Output(str(tmp_path / "out"), source):
        assert len(names(tmp_path)) == 2
        fileops.remove_unfinished()
        assert names(tmp_path) == ["source"]


def test_existing_names(tmp_path: Path, source_file: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    with pytest.raises(FileProblem, match="exists; use -f"):
        write(source_file, target)
    assert target.read_text() == "old"
    write(source_file, target, force=True)
    assert target.read_text() == "new"
    with pytest.raises(FileProblem, match="same file"):
        write(source_file, source_file, force=True)
    with pytest.raises(FileProblem, match="directory"):
        write(source_file, tmp_path, force=True)


def test_force_replaces_a_link_and_not_what_it_points_to(tmp_path: Path, source_file: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "out").symlink_to("other")
    write(source_file, tmp_path / "out", force=True)
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("has_links", [True, False])
def test_name_that_appears_meanwhile(
    tmp_path: Path, source_file: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:

        def no_links(*arguments: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
    write(source_file, tmp_path / "first")
    assert (tmp_path / "first").read_bytes() == b"new"
    with open_source(str(source_file)) as source, Output(str(tmp_path / "out"), source) as output:
        output.sink.write(b"new")
        output.finish(source)
        (tmp_path / "out").write_text("theirs")
        with pytest.raises(FileProblem, match="exists"):
            output.publish()
    assert (tmp_path / "out").read_text() == "theirs"
    assert names(tmp_path) == ["first", "out", "source"]


def test_failed_rename_leaves_no_empty_file(tmp_path: Path, source_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="not permitted"):
        write(source_file, tmp_path / "out")
    assert names(tmp_path) == ["source"]


@pytest.mark.parametrize("call", ["fsync", "close"])
def test_error_after_the_last_write_is_an_error(
    tmp_path: Path, source_file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    with open_source(str(source_file)) as source, Output(str(tmp_path / "out"), source) as output:
        output.sink.write(b"new")

        def fail(descriptor: int) -> None:
            if descriptor != output.sink.fileno():
                real(descriptor)
                return
            if call == "close":
                real(descriptor)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            output.finish(source)
    monkeypatch.undo()
    assert names(tmp_path) == ["source"]


def test_group_that_cannot_be_set_narrows_the_mode(
    tmp_path: Path, source_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    source_file.chmod(0o664)
    monkeypatch.setattr(os, "fchown", fail)
    write(source_file, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o644


def test_mode_without_group_gives_nobody_more() -> None:
    for mode in range(0o1000):
        narrow = fileops.mode_without_group(mode)
        assert narrow & 0o700 == mode & 0o700
        assert narrow >> 3 & 7 & ~mode == 0  # the new group was among the others before
        assert narrow & 7 & ~(mode >> 3) & 7 == 0  # the old group is among the others now
        assert narrow & 7 & ~mode == 0
    assert fileops.mode_without_group(0o640) == 0o600


def test_special_output_is_written_directly(tmp_path: Path, source_file: Path) -> None:
    write(source_file, Path("/dev/null"))  # nothing can be lost there
    write(source_file, Path("/dev/null"), force=True)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(FileProblem, match="write into it"):
        write(source_file, Path("/dev/zero"))


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link", "link to link"])
def test_names_of_descriptors(tmp_path: Path, source_file: Path, name: str) -> None:
    """What is written to such a name goes to the descriptor, and the name stays what it is."""
    with (tmp_path / "out").open("w+b") as file:
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        (tmp_path / "link to link").symlink_to("link")
        path = tmp_path / name if name.startswith("link") else Path(name.format(file.fileno()))
        assert filenames.named_descriptor(str(path)) == file.fileno()
        write(source_file, path, b"through", force=True)
        file.seek(0)
        assert file.read() == b"through"
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "link to link", "out", "source"]


def test_names_that_are_no_descriptors(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "1").write_bytes(b"")
    for name in ("1", "", "/", "/dev/null", "/dev/fd", "/dev/fd/", "/dev/fd/x", str(tmp_path / "loop"), "/no/such"):
        assert filenames.named_descriptor(name) is None
    assert filenames.named_descriptor(str(tmp_path / "1")) is None
    assert [filenames.named_descriptor(f"/dev/std{name}") for name in ("in", "out", "err")] == [0, 1, 2]


def test_seekable_source_of_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"0123456789")
    os.close(writing)
    try:
        with fileops.seekable_source(f"/dev/fd/{reading}") as source:
            assert source.file.seekable()
            assert source.size_bytes == 10
            source.file.seek(5)
            assert source.file.read() == b"56789"
    finally:
        os.close(reading)


def test_same_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "hard")
    a = str(tmp_path / "a")
    for other in ("a", "link", "hard", "./a"):
        assert filenames.is_same_file(a, f"{tmp_path}/{other}")
    assert not filenames.is_same_file(a, str(tmp_path / "b"))
    assert filenames.is_same_file(f"{tmp_path}/b", f"{tmp_path}/../{tmp_path.name}/b")  # not there yet
    assert not filenames.is_same_file("/dev/null", "/dev/null")
    with (tmp_path / "a").open("rb") as file:
        assert filenames.is_same_file(a, file.fileno())


# -- streams


def test_writer_writes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    writer = DescriptorWriter(writing)
    assert writer.write(memoryview(b"0123456789")) == 10
    assert writer.num_bytes == 10
    assert os.read(reading, 100) == b"0123456789"
    monkeypatch.undo()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        writer.write(b"x")
    assert isinstance(writer.error, BrokenPipeError)
    os.close(writing)


def test_writer_waits_for_a_pipe_that_does_not_block() -> None:
    import threading

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = bytes(300_000)
    parts: list[bytes] = []

    def read() -> None:
        while part := os.read(reading, 10_000):
            parts.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    DescriptorWriter(writing).write(data)
    os.close(writing)
    thread.join()
    os.close(reading)
    assert b"".join(parts) == data


def test_comparison(source_file: Path) -> None:
    from llmzip.errors import LLMZipError

    with source_file.open("rb") as file:
        comparison = Comparison(file)
        comparison.write(b"01234")
        with pytest.raises(LLMZipError, match="does not decode"):
            comparison.finish()  # too few
    with source_file.open("rb") as file, pytest.raises(LLMZipError, match="does not decode"):
        Comparison(file).write(b"0123x")
    with source_file.open("rb") as file, pytest.raises(LLMZipError, match="does not decode"):
        Comparison(file).write(b"0123456789more")
    with source_file.open("rb") as file:
        comparison = Comparison(file)
        comparison.write(b"0123456789")
        comparison.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_prefixed(source_file: Path, size: int) -> None:
    with source_file.open("rb") as file:
        stream = Prefixed(b"abc", file)
        parts = []
        while part := stream.read(size):
            parts.append(part)
    assert b"".join(parts) == b"abc0123456789"
    assert all(len(part) <= size for part in parts)
