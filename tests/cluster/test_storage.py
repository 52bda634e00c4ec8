"""Stores: objects appear whole or not at all, errors have one line, and all kinds of stores answer alike."""

from __future__ import annotations

import errno
import io
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmzip.cluster import faults, localstore, remotestore, sinks
from llmzip.cluster.storage import Entry, Store, is_temporary, is_transient, open_store, with_retries, without_password
from llmzip.errors import LLMZipError
from llmzip.system.fileops import new_file

MIB = 1 << 20
PART_BYTES = 5 * MIB  # the smallest that S3 takes


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PART_BYTES", PART_BYTES)


def content_of(store: Store, name: str) -> bytes:
    with store.open(name) as file:
        return file.read()


def all_names(store: Store, folder: str = "") -> list[str]:
    found: list[str] = []
    try:
        entries = list(store.entries(folder))
    except FileNotFoundError:
        return []
    for entry in entries:
        found += all_names(store, entry.name) if entry.is_folder else [entry.name]
    return found


# -- all kinds of stores ---------------------------------------------------------------------------------------------


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b/c.txt", b"hello world")
    assert store.exists("a/b/c.txt")
    assert content_of(store, "a/b/c.txt") == b"hello world"
    assert store.read("a/b/c.txt", 6, 11) == b"world"
    assert store.read("a/b/c.txt", 6, 1000) == b"world"
    assert store.read("a/b/c.txt", 11, 20) == b""
    assert store.read("a/b/c.txt", 500, 600) == b""
    assert store.read("a/b/c.txt", 3, 3) == b""


def test_empty_objects(store: Store) -> None:
    with store.create("empty"):
        pass
    known = store.stat("empty")
    assert known is not None
    assert known.size_bytes == 0
    assert content_of(store, "empty") == b""
    assert store.read("empty", 0, 10) == b""


def test_readers_seek(store: Store) -> None:
    data = os.urandom(3 * MIB)
    store.write("data", data)
    with store.open("data") as file:
        assert file.seekable()
        assert file.seek(-10, os.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        file.seek(MIB - 3)
        assert file.read(MIB) == data[MIB - 3 : 2 * MIB - 3]
        assert file.tell() == 2 * MIB - 3
        file.seek(0)
        assert file.read() == data


def test_two_readers_have_their_own_positions(store: Store) -> None:
    store.write("data", b"0123456789")
    with store.open("data") as one, store.open("data") as other:
        assert one.read(5) == b"01234"
        assert other.read(5) == b"01234"


def test_an_etag_follows_the_content(store: Store) -> None:
    store.write("x", b"first")
    first = store.stat("x")
    assert first is not None
    assert first.etag
    assert store.stat("x") == first
    time.sleep(0.02)  # clocks of file systems are coarse
    store.write("x", b"other")
    second = store.stat("x")
    assert second is not None
    assert second.etag != first.etag
    assert second.size_bytes == 5


def test_missing_objects_and_folders_are_not_objects(store: Store) -> None:
    store.write("folder/x", b"1")
    assert store.stat("folder") is None
    assert store.stat("nothing") is None
    assert store.stat("folder/x/below") is None
    assert not store.exists("folder")
    assert store.is_folder("folder")
    assert store.is_folder("")
    assert not store.is_folder("folder/x")
    assert not store.is_folder("nothing")
    with pytest.raises(FileNotFoundError) as caught:
        store.open("nothing")
    assert caught.value.strerror
    assert caught.value.filename == store.uri_of("nothing")
    with pytest.raises(FileNotFoundError):
        store.read("nothing", 0, 10)


def test_names_are_one_level(store: Store) -> None:
    for name in ("b", "a", "folder/c", "folder/deeper/d"):
        store.write(name, b"1")
    assert list(store.names("")) == ["a", "b"]
    assert list(store.names("folder")) == ["folder/c"]
    assert list(store.names("nothing")) == []
    assert [(entry.name, entry.is_folder) for entry in store.entries("folder")] == [
        ("folder/c", False),
        ("folder/deeper", True),
    ]
    with pytest.raises(FileNotFoundError):
        list(store.entries("nothing"))


def test_what_is_listed_has_the_same_stat(store: Store) -> None:
    store.write("folder/x", b"12345")
    (entry,) = store.entries("folder")
    assert entry.stat == store.stat("folder/x")


@pytest.mark.parametrize(
    "name", ["with space", "star*", "q?", "[a]", "ünïcødé", "a+b%20c", "#x", "~", "a::b", "new\nline"]
)
def test_odd_names(store: Store, name: str) -> None:
    if "\n" in name and store.uri.startswith("s3://"):
        pytest.skip("moto's server does not route names with line ends")
    store.write(f"d/{name}", b"odd")
    store.write("d/other", b"other")
    assert content_of(store, f"d/{name}") == b"odd"
    assert sorted(store.names("d")) == sorted([f"d/{name}", "d/other"])
    store.remove(f"d/{name}")
    assert list(store.names("d")) == ["d/other"]
    store.write(f"tree/{name}/{name}", b"odd")
    store.remove_tree("tree")
    assert all_names(store) == ["d/other"]


@pytest.mark.parametrize("name", ["", "/x", "../x", "a/../../x", "a//b", ".", "a/", "nul\0"])
def test_names_stay_below_the_root(store: Store, name: str) -> None:
    for work in (
        lambda: store.stat(name),
        lambda: store.open(name),
        lambda: store.write(name, b""),
        lambda: store.remove(name),
        lambda: store.remove_tree(name),
    ):
        with pytest.raises(OSError, match="not a name of an object") as caught:
            work()
        assert caught.value.errno == errno.EINVAL


def test_removing(store: Store) -> None:
    for name in ("keep", "tree/a", "tree/b/c", "trees/x"):
        store.write(name, b"1")
    store.remove("nothing")
    store.remove("tree/a")
    assert all_names(store) == ["keep", "tree/b/c", "trees/x"]
    store.remove_tree("tree")
    store.remove_tree("tree")
    store.remove_tree("nothing")
    assert all_names(store) == ["keep", "trees/x"]
    assert not store.is_folder("tree")


def test_stores_are_pickled(store: Store) -> None:
    store.write("x", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert content_of(copy, "x") == b"1"
    assert copy.is_shared == store.is_shared


def test_only_memory_is_not_shared(store: Store) -> None:
    assert store.is_shared == (not store.uri.startswith("memory://"))


# -- whole or not at all ---------------------------------------------------------------------------------------------

SIZES = [0, 10, PART_BYTES, 2 * PART_BYTES, 2 * PART_BYTES + 5]


@pytest.mark.parametrize("size", SIZES)
def test_all_sizes_arrive(store: Store, size: int) -> None:
    data = (b"0123456789abcde" * (size // 15 + 1))[:size]
    with store.create("x") as sink:
        for begin in range(0, size, 3_000_001):
            assert sink.write(data[begin : begin + 3_000_001]) == min(3_000_001, size - begin)
        assert sink.tell() == size
        assert not store.exists("x"), "visible before it is complete"
    assert content_of(store, "x") == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("older", [None, b"older"])
def test_an_exception_leaves_no_object(store: Store, size: int, older: bytes | None) -> None:
    if older is not None:
        store.write("d/x", older)
    with pytest.raises(RuntimeError), store.create("d/x") as sink:
        sink.write(b"x" * size)
        raise RuntimeError("stop")
    _assert_untouched(store, older)


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, SystemExit])
def test_every_kind_of_exception_leaves_no_object(store: Store, kind: type[BaseException]) -> None:
    with pytest.raises(kind), store.create("d/x") as sink:
        sink.write(b"x" * (PART_BYTES + 1))
        raise kind("stop")
    _assert_untouched(store, None)


def _assert_untouched(store: Store, older: bytes | None) -> None:
    import gc

    gc.collect()  # files of fsspec upload when they are collected
    if older is None:
        assert not store.exists("d/x")
        assert all_names(store) == []
    else:
        assert content_of(store, "d/x") == older
        assert all_names(store) == ["d/x"]
    if store.uri.startswith("s3://"):
        assert _open_uploads(store) == []
    if store.is_local:
        assert [path.name for path in Path(store.uri).rglob("*.tmp")] == []


def watch_requests(patch: pytest.MonkeyPatch, watch: Callable[[str], object]) -> None:
    """Calls `watch` with the name of each request to the bucket server, before it is sent; it may raise."""
    core = sys.modules["s3fs.core"]
    original = core._error_wrapper

    async def watched(func: Any, **kwargs: Any) -> Any:
        watch(func.__name__)
        return await original(func, **kwargs)

    patch.setattr(core, "_error_wrapper", watched)


def _open_uploads(store: Store) -> list[Any]:
    import s3fs

    bucket = store.uri.removeprefix("s3://").partition("/")[0]
    found: list[Any] = s3fs.S3FileSystem(use_listings_cache=False).list_multipart_uploads(bucket)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("older", [None, b"older"])
def test_a_failed_completion_leaves_no_object_in_a_bucket(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch, size: int, older: bytes | None
) -> None:
    if older is not None:
        s3_store.write("d/x", older)

    def failing(method: str) -> None:
        if method in ("put_object", "complete_multipart_upload"):
            raise OSError(errno.EIO, "We encountered an internal error")

    with monkeypatch.context() as patch:
        watch_requests(patch, failing)
        with pytest.raises(OSError, match="internal error"), s3_store.create("d/x") as sink:
            sink.write(b"x" * size)
    _assert_untouched(s3_store, older)


def test_a_failed_part_leaves_no_object_in_a_bucket(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def failing(method: str) -> None:
        calls.append(method)
        if method == "upload_part" and calls.count(method) == 2:
            raise OSError(errno.EIO, "We encountered an internal error")

    with monkeypatch.context() as patch:
        watch_requests(patch, failing)
        with pytest.raises(OSError, match="internal error"), s3_store.create("d/x") as sink:
            for _ in range(3):
                sink.write(b"x" * PART_BYTES)
    assert "upload_part" in calls
    assert "complete_multipart_upload" not in calls
    _assert_untouched(s3_store, None)


def test_small_objects_take_one_request(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    watch_requests(monkeypatch, calls.append)
    s3_store.write("x", b"small")
    assert calls == ["put_object"]


def test_a_failed_rename_leaves_no_file(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file_store.write("d/x", b"older")

    def failing(*names: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="No space"):
            file_store.write("d/x", b"newer")
    _assert_untouched(file_store, b"older")


def test_a_full_disk_leaves_no_file(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"), file_store.create("d/x") as sink:
            sink.write(b"x" * 10)
    _assert_untouched(file_store, None)


def test_a_killed_writer_leaves_only_what_is_cleaned_up(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom llmzip.cluster.storage import open_store\n"
        "with open_store(sys.argv[1]).create('d/x') as sink:\n"
        "    sink.write(b'x' * 5_000_000)\n    os._exit(9)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False).returncode == 9
    (left,) = (tmp_path / "d").iterdir()
    store = open_store(str(tmp_path))
    assert is_temporary(left.name)
    assert all_names(store) == []
    assert store.remove_leftovers("", min_age_s=3600) == 0
    assert left.exists()
    os.utime(left, (0, 0))
    assert store.remove_leftovers("", min_age_s=3600) == 1
    assert list((tmp_path / "d").iterdir()) == []


def test_a_killed_writer_leaves_no_object_in_a_bucket(s3_store: Store) -> None:
    s3_store.write("d/x", b"older")
    code = (
        "import os, sys\nfrom llmzip.cluster.storage import open_store\n"
        "with open_store(sys.argv[1]).create('d/x') as sink:\n"
        "    sink.write(b'x' * 40_000_000)\n    os._exit(9)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    assert subprocess.run([sys.executable, "-c", code, s3_store.uri], env=environment, check=False).returncode == 9
    assert content_of(s3_store, "d/x") == b"older"
    assert len(_open_uploads(s3_store)) == 1
    assert s3_store.remove_leftovers("", min_age_s=0) == 1
    _assert_untouched(s3_store, b"older")


def test_temporary_names_are_those_of_new_files(tmp_path: Path) -> None:
    with new_file(str(tmp_path / "x"), force=True):
        (name,) = os.listdir(tmp_path)
        assert is_temporary(name)
        assert is_temporary(f"a/{name}")
    assert not is_temporary("x")
    assert not is_temporary(".llmzip-notes.tmp")


def test_a_writer_that_has_ended_takes_no_more(store: Store) -> None:
    with store.create("x") as sink:
        sink.write(b"1")
    with pytest.raises(ValueError, match="closed"):
        sink.write(b"2")
    assert content_of(store, "x") == b"1"


def test_concurrent_writers_leave_one_whole_object(store: Store) -> None:
    contents = [bytes([letter]) * 300_000 for letter in b"abcd"]
    errors: list[BaseException] = []

    def work(content: bytes) -> None:
        try:
            for _ in range(3):
                store.write("x", content)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert content_of(store, "x") in contents
    assert all_names(store) == ["x"]


def test_libraries_can_write_into_a_new_object(store: Store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = sys.modules["pyarrow"].table({"name": ["a", "b"], "bits": [1, 2]})
    with store.create("rows/x.parquet") as sink:
        parquet.write_table(table, sink)
    with store.open("rows/x.parquet") as file:
        assert parquet.read_table(file).equals(table)


def test_unfinished_uploads_are_cleaned_up(s3_store: Store) -> None:
    import s3fs

    bucket, _, prefix = s3_store.uri.removeprefix("s3://").partition("/")
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    for key in (f"{prefix}/d/x", f"{prefix}er/y"):
        fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    assert len(_open_uploads(s3_store)) == 2
    began = min(upload["Initiated"].timestamp() for upload in _open_uploads(s3_store))
    assert s3_store.remove_leftovers("", min_age_s=time.time() - began + 3600) == 0
    assert s3_store.remove_leftovers("", min_age_s=0) == 1
    assert [upload["Key"] for upload in _open_uploads(s3_store)] == [f"{prefix}er/y"]


# -- file servers and other object stores ----------------------------------------------------------------------------


@pytest.fixture(params=["renames", "puts", "copies"])
def other_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store over fsspec's local files that behaves like a file server, or like an object store with `put_file`."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    local = fsspec.get_filesystem_class("file")
    protocol = f"test{request.param}"

    class Server(local):  # type: ignore[misc, valid-type]
        pass

    Server.protocol = (protocol,)
    if request.param != "renames":
        Server.mv = fsspec.AbstractFileSystem.mv
    if request.param == "copies":
        Server.put_file = fsspec.AbstractFileSystem.put_file
        Server.pipe_file = fsspec.AbstractFileSystem.pipe_file
    Server._strip_protocol = classmethod(lambda cls, path: str(path).removeprefix(f"{protocol}://"))
    fsspec.register_implementation(protocol, Server, clobber=True)
    (tmp_path / "d").mkdir()
    return open_store(f"{protocol}://{tmp_path}")


@pytest.mark.parametrize("size", SIZES)
def test_other_stores_write_whole_objects(other_store: Store, size: int) -> None:
    with other_store.create("d/x") as sink:
        sink.write(b"x" * size)
        assert not other_store.exists("d/x")
    assert content_of(other_store, "d/x") == b"x" * size
    assert os.listdir(other_store.uri.partition("://")[2] + "/d") == ["x"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("older", [None, b"older"])
def test_other_stores_keep_nothing_of_a_failure(other_store: Store, size: int, older: bytes | None) -> None:
    if older is not None:
        other_store.write("d/x", older)
    with pytest.raises(RuntimeError), other_store.create("d/x") as sink:
        sink.write(b"x" * size)
        raise RuntimeError("stop")
    _assert_untouched(other_store, older)
    assert os.listdir(other_store.uri.partition("://")[2] + "/d") == ([] if older is None else ["x"])


@pytest.mark.parametrize("other_store", ["puts"], indirect=True)
def test_a_full_temporary_folder_is_one_line(
    other_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    original = tempfile.NamedTemporaryFile

    def full(**options: Any) -> Any:
        file = original(**options)
        monkeypatch.setattr(file, "flush", failing)
        return file

    def failing() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    with pytest.raises(OSError, match=r"\(TMPDIR\): No space left") as caught, other_store.create("d/x") as sink:
        sink.write(b"x" * 3 * PART_BYTES)
    assert_one_line(caught.value, other_store.uri)
    assert not is_transient(caught.value)
    assert os.listdir(temporary) == []
    assert not other_store.exists("d/x")


def test_a_file_of_fsspec_that_is_abandoned_uploads_nothing() -> None:
    spec = pytest.importorskip("fsspec.spec", reason="fsspec is not installed")
    uploaded: list[bytes] = []

    class Uploads(spec.AbstractBufferedFile):  # type: ignore[misc, name-defined]
        def _upload_chunk(self, final: bool = False) -> bool:
            uploaded.append(self.buffer.getvalue())
            return True

    fs = pytest.importorskip("fsspec").filesystem("memory")
    for is_abandoned in (False, True):
        uploaded.clear()
        file = Uploads(fs, "x", "wb")
        file.write(b"half")
        if is_abandoned:
            sinks._abandon(file)
        del file
        assert uploaded == ([] if is_abandoned else [b"half"])


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_sparse_file_is_not_read_as_a_whole(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(8 << 30)
        file.seek(5 << 30)
        file.write(b"needle")
    store = open_store(str(tmp_path))
    known = store.stat("large")
    assert known is not None
    assert known.size_bytes == 8 << 30
    tracemalloc.start()
    try:
        with store.open("large") as opened:
            opened.seek(5 << 30)
            assert opened.read(6) == b"needle"
        assert store.read("large", 5 << 30, (5 << 30) + 6) == b"needle"
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_a_remote_reader_reads_little(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    data = os.urandom(20 * MIB)
    s3_store.write("large", data)
    original = s3fs.S3FileSystem._call_s3
    ranges: list[str] = []

    async def counting(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "get_object":
            ranges.append(kwargs["Range"])
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counting)
    with s3_store.open("large") as file:
        file.seek(10 * MIB)
        assert file.read(100) == data[10 * MIB : 10 * MIB + 100]
    sizes = [int(end) - int(begin) + 1 for begin, end in (text[6:].split("-") for text in ranges)]
    assert sum(sizes) < 2 * MIB


def test_a_bucket_is_listed_page_by_page(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    expected = sorted([f"d/{number:03}" for number in range(25)] + ["d/0+", "d/ü"])
    for name in expected:
        s3_store.write(name, b"1")
    s3_store.write("d/folder/x", b"1")
    calls: list[str] = []
    watch_requests(monkeypatch, calls.append)
    original = s3fs.S3FileSystem.call_s3
    monkeypatch.setattr(
        s3fs.S3FileSystem, "call_s3", lambda self, *args, **kwargs: original(self, *args, **kwargs | {"MaxKeys": 4})
    )
    assert list(s3_store.names("d")) == expected
    assert calls == ["list_objects_v2"] * 7
    calls.clear()
    first = next(s3_store.entries("d"))
    assert first.name == "d/0+"
    assert len(calls) == 1
    assert s3_store.is_folder("d")
    assert len(calls) == 2


def test_listing_a_large_folder_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localstore, "RUN_NAMES", 500)
    for number in range(5_000):
        (tmp_path / f"{number:05}.txt").touch()
    store = open_store(str(tmp_path))
    tracemalloc.start()
    try:
        count = sum(1 for _ in store.entries(""))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5_000
    assert peak < 300_000


# -- local files -----------------------------------------------------------------------------------------------------


def test_local_folders_by_all_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (str(tmp_path), f"file://{tmp_path}", f"local://{tmp_path}", f"FILE://{tmp_path}", ".", ""):
        store = open_store(uri)
        assert store.uri == str(tmp_path)
        assert store.is_local
    assert open_store("x/y").uri == str(tmp_path / "x" / "y")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).write_bytes(b"latin")
    store = open_store(str(tmp_path))
    assert list(store.names("")) == [name]
    assert content_of(store, name) == b"latin"
    store.write(f"out/{name}", b"2")
    assert (tmp_path / "out" / name).read_bytes() == b"2"


def test_a_bucket_refuses_names_that_are_not_utf8(s3_store: Store) -> None:
    with pytest.raises(OSError, match="not valid UTF-8") as caught:
        s3_store.write(os.fsdecode(b"caf\xe9"), b"1")
    assert str(caught.value.filename).endswith("caf\\xe9")


def test_local_entries_leave_out_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "broken").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / ".llmzip-0123456789abcdef.tmp").touch()
    entries = list(open_store(str(tmp_path)).entries(""))
    assert [entry.name for entry in entries] == ["broken", "file", "folder", "to-file"]
    broken = entries[0]
    assert isinstance(broken.error, FileNotFoundError)
    assert broken.stat is None
    assert entries[2] == Entry("folder", is_folder=True)


def test_an_etag_has_nothing_of_this_node(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    for name in ("one", "two"):
        os.utime(tmp_path / name, ns=(5, 1_700_000_000_123_456_789))
    store = open_store(str(tmp_path))
    assert store.stat("one") == store.stat("two")  # other inodes and times of change, same size and mtime


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    store = open_store(str(tmp_path))
    with pytest.raises(IsADirectoryError):
        store.write("folder", b"1")
    with pytest.raises(FileExistsError):
        store.write("fifo", b"1")
    assert store.stat("fifo") is None
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder"]


def test_folders_are_made_again_if_somebody_removes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.makedirs
    store = open_store(str(tmp_path))
    removals = [3]

    def makedirs(path: str, exist_ok: bool = False) -> None:
        original(path, exist_ok=exist_ok)
        if removals[0]:
            removals[0] -= 1
            os.rmdir(path)

    monkeypatch.setattr(os, "makedirs", makedirs)
    store.write("work/x", b"1")
    assert content_of(store, "work/x") == b"1"


def test_a_tree_is_removed_while_others_write_into_it(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    is_over = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            try:
                store.write(f"work/{number % 5}/x", b"1")
            except FileNotFoundError:
                pass
            except BaseException as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(50):
        store.remove_tree("work")
    is_over.set()
    thread.join()
    store.remove_tree("work")
    assert errors == []
    assert os.listdir(tmp_path) == []


# -- errors ----------------------------------------------------------------------------------------------------------


def assert_one_line(error: OSError, uri: str) -> str:
    assert error.errno is not None
    assert error.strerror
    assert "\n" not in str(error)
    assert len(error.strerror) < 260
    assert error.filename is not None
    assert str(error.filename).startswith(uri)
    return error.strerror


def test_a_missing_bucket_is_one_line(s3_server: str) -> None:
    store = open_store("s3://no-such-bucket-here/x")
    assert store.stat("a") is None
    for work in (lambda: store.open("a"), lambda: store.write("a", b"1"), lambda: list(store.entries(""))):
        with pytest.raises(FileNotFoundError) as caught:
            work()
        assert_one_line(caught.value, store.uri)


def test_an_unreachable_server_is_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    store = open_store("s3://bucket-elsewhere/x")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError) as caught:
        store.stat("a")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "cannot reach the server" in assert_one_line(caught.value, store.uri)
    assert is_transient(caught.value)


def test_missing_credentials_are_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store = open_store("s3://bucket-elsewhere/x")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PermissionError) as caught:
        store.write("a", b"1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "no valid credentials" in assert_one_line(caught.value, store.uri)


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(LLMZipError, match=r"^nonsense:// is not a protocol that fsspec knows$"):
        open_store("nonsense://x/y")


@pytest.mark.parametrize("protocol, package", [("gs", "gcsfs"), ("abfs", "adlfs"), ("sftp", "paramiko")])
def test_a_missing_package_is_named(protocol: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    for name in ("gcsfs", "adlfs", "fsspec.implementations.sftp"):
        monkeypatch.setitem(sys.modules, name, None)
    registry = sys.modules["fsspec.registry"]
    monkeypatch.delitem(registry._registry, protocol, raising=False)
    with pytest.raises(LLMZipError, match=f"^{protocol}:// needs another package: pip install {package}$"):
        open_store(f"{protocol}://x/y")


def test_a_missing_fsspec_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(LLMZipError, match=r'^many machines need Ray: pip install "llmzip\[ray\]"$'):
        open_store("s3://x/y")
    open_store(str(tmp_path)).write("x", b"1")  # local folders need no fsspec


def test_a_read_only_store_is_one_line() -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    store = open_store("https://localhost/x")
    with pytest.raises(OSError) as caught:
        store.write("a", b"1")
    assert_one_line(caught.value, store.uri)
    assert not is_transient(caught.value)


def test_passwords_are_not_shown() -> None:
    assert without_password("ftp://me:se@cr:et@host/x@y:z@") == "ftp://me:***@host/x@y:z@"
    store = open_store("memory://me:secret@host/x")
    assert store.uri_of("a") == "memory://me:***@host/x/a"
    assert "secret" not in repr(store)
    with pytest.raises(OSError) as caught:
        store.open("a")
    assert "secret" not in str(caught.value)
    assert pickle.loads(pickle.dumps(store)).uri == "memory://me:secret@host/x"


class _Foreign(Exception):
    code: int | None = None


class ConnectionClosedError(Exception):
    """The name of an error of botocore."""


class ReadTimeoutError(Exception):
    """The name of an error of botocore."""


def _with_code(code: int) -> Exception:
    error = _Foreign(f"server says\n\n  {code}.")
    error.code = code
    return error


@pytest.mark.parametrize(
    "error, number, transient",
    [
        (_with_code(503), errno.EIO, True),
        (_with_code(500), errno.EIO, True),
        (_with_code(429), errno.EIO, True),
        (_with_code(403), errno.EACCES, False),
        (_with_code(401), errno.EACCES, False),
        (_with_code(404), errno.ENOENT, False),
        (ConnectionClosedError("x"), errno.ECONNRESET, True),
        (ReadTimeoutError("x"), errno.ETIMEDOUT, True),
        (TimeoutError(), errno.ETIMEDOUT, True),
        (ConnectionResetError("x"), errno.ECONNRESET, True),
        (FileNotFoundError("s3://b/x"), errno.ENOENT, False),
        (PermissionError("Access Denied"), errno.EACCES, False),
        (OSError("odd"), errno.EIO, True),
        (OSError(errno.EBUSY, "Please reduce your request rate."), errno.EBUSY, True),
        (OSError(errno.ENOSPC, "x"), errno.ENOSPC, False),
        (OSError(errno.EDQUOT, "x"), errno.EDQUOT, False),
        (OSError(errno.EROFS, "x"), errno.EROFS, False),
        (ValueError("Bad Request:\nwhat"), errno.EINVAL, False),
        (NotImplementedError(), errno.ENOTSUP, False),
        (RuntimeError("odd"), errno.EIO, True),
    ],
)
def test_errors_are_translated(error: Exception, number: int, transient: bool) -> None:
    with pytest.raises(OSError) as caught, faults.translated("s3://b/x"):
        raise error
    assert caught.value.errno == number
    assert_one_line(caught.value, "s3://b/x")
    assert is_transient(caught.value) == transient
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [TypeError("x"), MemoryError(), KeyboardInterrupt(), LLMZipError("x")])
def test_bugs_and_stops_are_not_translated(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, faults.translated("s3://b/x"):
        raise error
    assert caught.value is error


def test_real_errors_of_the_libraries_are_transient() -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    aiohttp = pytest.importorskip("aiohttp")
    fsspec_exceptions = pytest.importorskip("fsspec.exceptions")
    for error in (
        exceptions.EndpointConnectionError(endpoint_url="http://x"),
        exceptions.ConnectTimeoutError(endpoint_url="http://x"),
        exceptions.ReadTimeoutError(endpoint_url="http://x"),
        exceptions.ConnectionClosedError(endpoint_url="http://x"),
        exceptions.HTTPClientError(error=OSError("x")),
        exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        exceptions.ResponseStreamingError(error="x"),
        aiohttp.ClientPayloadError("x"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(errno.ECONNRESET, "x"),
        fsspec_exceptions.FSTimeoutError(),
    ):
        with pytest.raises(OSError) as caught, faults.translated("s3://b/x"):
            raise error
        assert is_transient(caught.value), error
        assert_one_line(caught.value, "s3://b/x")


@pytest.mark.parametrize(
    "code, transient",
    [
        ("SlowDown", True),
        ("InternalError", True),
        ("ServiceUnavailable", True),
        ("RequestTimeout", True),
        ("OperationAborted", True),
        ("500", True),
        ("503", True),
        ("BadDigest", True),
        ("IncompleteBody", True),
        ("TooManyRequestsOrSomethingNew", True),
        ("AccessDenied", False),
        ("403", False),
        ("InvalidAccessKeyId", False),
        ("ExpiredToken", False),
        ("NoSuchKey", False),
        ("NoSuchBucket", False),
        ("404", False),
        ("InvalidBucketName", False),
        ("KeyTooLongError", False),
    ],
)
def test_codes_of_s3_are_transient_or_not(code: str, transient: bool) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    s3fs_errors = pytest.importorskip("s3fs.errors")
    answer = {"Error": {"Code": code, "Message": "What the server says.\nAnd more."}}
    error = s3fs_errors.translate_boto_error(exceptions.ClientError(answer, "PutObject"))
    with pytest.raises(OSError) as caught, faults.translated("s3://b/x"):
        raise error
    assert is_transient(caught.value) == transient
    assert "What the server says. And more" in assert_one_line(caught.value, "s3://b/x")


# -- retries ---------------------------------------------------------------------------------------------------------


def failing_times(count: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= count:
            raise error
        return "done"

    return work, calls


def test_transient_errors_are_repeated_with_growing_waits() -> None:
    waits: list[float] = []
    work, calls = failing_times(4, TimeoutError("x"))
    assert with_retries(work, sleep=waits.append) == "done"
    assert len(calls) == 5
    assert [low / 2 <= wait <= low for wait, low in zip(waits, (0.5, 1, 2, 4), strict=True)] == [True] * 4


def test_the_last_error_is_raised() -> None:
    work, calls = failing_times(9, ConnectionResetError(errno.ECONNRESET, "x"))
    with pytest.raises(ConnectionResetError):
        with_retries(work, attempts=3, sleep=lambda _: None)
    assert len(calls) == 3


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        PermissionError("x"),
        IsADirectoryError("x"),
        NotADirectoryError("x"),
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EROFS, "x"),
        OSError(errno.EDQUOT, "x"),
        ValueError("x"),
        LLMZipError("x"),
    ],
)
def test_lasting_errors_are_not_repeated(error: Exception) -> None:
    work, calls = failing_times(9, error)
    with pytest.raises(type(error)):
        with_retries(work, sleep=lambda _: None)
    assert len(calls) == 1


def test_a_write_is_repeated_until_the_bucket_answers(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [2]

    def flaky(method: str) -> None:
        if method == "put_object" and failures[0]:
            failures[0] -= 1
            raise OSError(errno.EBUSY, "Please reduce your request rate.")

    watch_requests(monkeypatch, flaky)
    with_retries(lambda: s3_store.write("x", b"1"), sleep=lambda _: None)
    assert content_of(s3_store, "x") == b"1"


# -- small parts -----------------------------------------------------------------------------------------------------


def test_parts_have_one_size() -> None:
    sent: list[bytes] = []
    with sinks.PartSink(lambda part: sent.append(bytes(part)), 10) as sink:
        for piece in (b"abc", b"defghijklmn", b"", b"0" * 35, memoryview(b"xy")):
            sink.write(piece)
        assert sink.tell() == 51
        sink.finish()
    assert [len(part) for part in sent] == [10, 10, 10, 10, 10, 1]
    assert b"".join(sent) == b"abcdefghijklmn" + b"0" * 35 + b"xy"


def test_large_objects_have_at_most_ten_thousand_parts() -> None:
    assert sinks.part_bytes(0) == PART_BYTES
    for size in (10**11, 10**12, 5 * 10**12):
        assert size / sinks.part_bytes(size) < 10_000


def test_a_reader_notices_an_early_end() -> None:
    class Short(io.BytesIO):
        size = 10

    reader = io.BufferedReader(remotestore._Reader(Short(b"12345"), "s3://b/x"))
    with pytest.raises(OSError, match="ends after 5 of 10 bytes"):
        reader.read()
