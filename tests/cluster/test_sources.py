"""Inputs: what arguments, patterns and lists stand for, in one stream of files with names of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from llmzip.cluster import sources as sources_module
from llmzip.cluster.filelists import FileList
from llmzip.cluster.localstore import RUN_NAMES
from llmzip.cluster.patterns import Pattern
from llmzip.cluster.places import parse_place
from llmzip.cluster.sources import SourceFile, SourceProblem, Sources
from llmzip.cluster.storage import Store
from llmzip.errors import LLMZipError
from llmzip.system.filenames import FileProblem

MIB = 1 << 20


def names(sources: Iterable[SourceFile | SourceProblem]) -> list[str]:
    """The names of all files; no input has a problem."""
    found = list(sources)
    assert [item for item in found if isinstance(item, SourceProblem)] == []
    return [item.name for item in found if isinstance(item, SourceFile)]


def problems(sources: Iterable[SourceFile | SourceProblem]) -> dict[str, str]:
    """The reasons for all problems."""
    return {
        item.path: str(item.error.strerror if isinstance(item.error, OSError) else item.error)
        for item in sources
        if isinstance(item, SourceProblem)
    }


def is_text(name: str) -> bool:
    return not name.endswith(".llmz")


@pytest.fixture
def tree(store: Store) -> Store:
    """A tree in each kind of store."""
    for name in ("a.txt", "b.llmz", "sub/c.txt", "sub/deep/d.txt", "sub/.hidden", "other/e.md", "_llmzip/run.json"):
        store.write(name, name.encode())
    return store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make(folder: Path, *files: str) -> None:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


# -- all kinds of stores ---------------------------------------------------------------------------------------------


def test_a_folder(tree: Store) -> None:
    sources = Sources([tree.uri])
    assert sources.store == tree
    assert names(sources) == ["a.txt", "b.llmz", "other/e.md", "sub/.hidden", "sub/c.txt", "sub/deep/d.txt"]
    assert names(sources) == names(sources)


def test_a_file_that_is_found_can_be_opened(tree: Store) -> None:
    sources = Sources([tree.uri_of("sub")])
    assert sources.store.uri == tree.uri_of("sub")
    for item in sources:
        assert isinstance(item, SourceFile)
        with sources.store.open(item.name) as file:
            content = file.read()
        assert content == f"sub/{item.name}".encode()
        assert item.size_bytes == len(content)
        assert item.path == tree.uri_of(f"sub/{item.name}")
        known = tree.stat(f"sub/{item.name}")
        assert known is not None
        assert item.etag == known.etag != ""


def test_a_file(tree: Store) -> None:
    sources = Sources([tree.uri_of("sub/c.txt")])
    assert sources.store.uri == tree.uri_of("sub")
    assert names(sources) == ["c.txt"]


def test_several_inputs_have_names_below_their_common_folder(tree: Store) -> None:
    sources = Sources([tree.uri_of("sub/deep"), tree.uri_of("other/e.md")])
    assert sources.store == tree
    assert names(sources) == ["sub/deep/d.txt", "other/e.md"]
    assert names(Sources([tree.uri_of("sub/deep"), tree.uri_of("sub/c.txt")])) == ["deep/d.txt", "c.txt"]
    assert names(Sources([tree.uri_of("sub/deep"), tree.uri_of("sub")])) == [
        "deep/d.txt",
        ".hidden",
        "c.txt",
        "deep/d.txt",
    ]


def test_a_command_chooses_inside_folders_only(tree: Store) -> None:
    assert "b.llmz" not in names(Sources([tree.uri], wanted=is_text))
    assert names(Sources([tree.uri_of("b.llmz")], wanted=is_text)) == ["b.llmz"]
    assert names(Sources([tree.uri], wanted=lambda name: not is_text(name))) == ["b.llmz"]
    found = names(Sources([tree.uri_of("*")], wanted=is_text))
    assert found == ["a.txt", "other/e.md", "sub/.hidden", "sub/c.txt", "sub/deep/d.txt"]
    assert names(Sources([tree.uri_of("*.llmz")], wanted=is_text)) == ["b.llmz"]


def test_patterns(tree: Store) -> None:
    assert names(Sources([tree.uri_of("*.txt")])) == ["a.txt"]
    assert names(Sources([tree.uri_of("*/*.txt")])) == ["sub/c.txt"]
    assert names(Sources([tree.uri_of("**/*.txt")])) == ["a.txt", "sub/c.txt", "sub/deep/d.txt"]
    assert names(Sources([tree.uri_of("**")])) == ["a.txt", "b.llmz", "other/e.md", "sub/c.txt", "sub/deep/d.txt"]
    assert names(Sources([tree.uri_of("s?b/[a-d].txt")])) == ["sub/c.txt"]
    sources = Sources([tree.uri_of("sub/de*")])
    assert sources.store.uri == tree.uri_of("sub")
    assert names(sources) == ["deep/d.txt"]


def test_what_is_missing_is_a_problem_and_the_rest_goes_on(tree: Store) -> None:
    sources = Sources([tree.uri_of("nothing"), tree.uri_of("a.txt"), tree.uri_of("*.none"), tree.uri_of("sub/none/x")])
    found = list(sources)
    assert [item.name for item in found if isinstance(item, SourceFile)] == ["a.txt"]
    assert problems(found) == {
        tree.uri_of("nothing"): "No such file or directory",
        tree.uri_of("*.none"): "no file matches",
        tree.uri_of("sub/none/x"): "No such file or directory",
    }


def test_a_folder_without_a_wanted_file_is_a_problem(tree: Store) -> None:
    uri = tree.uri_of("other")
    assert problems(Sources([uri], wanted=lambda name: False)) == {uri: "has no files that this command takes"}


def test_a_list_of_files(tree: Store, tmp_path: Path) -> None:
    listed = [tree.uri_of(name) for name in ("sub/c.txt", "none", "sub/deep", "sub/c.txt", "a.txt")]
    (tmp_path / "list").write_text("\n".join(listed))
    with Sources([], filelist=str(tmp_path / "list")) as sources:
        found = list(sources)
    assert [item.name for item in found if isinstance(item, SourceFile)] == [
        "sub/c.txt",
        "sub/deep/d.txt",
        "sub/c.txt",
        "a.txt",
    ]
    assert problems(found) == {tree.uri_of("none"): "No such file or directory"}


def test_the_run_folder_and_temporary_files_are_left_out(tree: Store) -> None:
    tree.write("sub/_llmzip/rows/x", b"1")
    tree.write("sub/.llmzip-0123456789abcdef.tmp", b"1")
    for argument in ("", "*", "**", "**/*"):
        found = [item.name for item in Sources([tree.uri_of(argument)]) if isinstance(item, SourceFile)]
        assert "sub/c.txt" in found
        assert not [name for name in found if "llmzip" in name]


# -- buckets ---------------------------------------------------------------------------------------------------------


def test_two_buckets(s3_store: Store, s3_server: str) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False)
    bucket = s3_store.uri.removeprefix("s3://").partition("/")[0]
    fs.mkdir(f"{bucket}-2")
    for path in (f"{bucket}/x/1.txt", f"{bucket}-2/x/2.txt"):
        fs.pipe_file(path, b"12345")
    sources = Sources([f"s3://{bucket}", f"s3a://{bucket}-2/x"])
    assert names(sources) == [f"{bucket}/x/1.txt", f"{bucket}-2/x/2.txt"]
    for item in sources:
        assert isinstance(item, SourceFile)
        assert sources.store.read(item.name, 0, 5) == b"12345"


def test_names_that_no_file_can_have_are_problems(s3_store: Store) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False)
    root = s3_store.uri.removeprefix("s3://")
    for name in ("fine", "d/../up", "d//twice", "d/./x", "marker/"):
        fs.call_s3("put_object", Bucket=root.partition("/")[0], Key=f"{root.partition('/')[2]}/{name}", Body=b"1")
    found = list(Sources([s3_store.uri]))
    assert [item.name for item in found if isinstance(item, SourceFile)] == ["fine"]
    assert problems(found) == {
        s3_store.uri_of(name): "has names with empty parts, . or .., which are not supported"
        for name in ("d", "marker")
    }
    assert len(found) == 5
    assert problems(Sources([f"{s3_store.uri}/d/../up", f"{s3_store.uri}/fine"])) == {
        f"{s3_store.uri}/d/../up": "has . or .. in its path, which is not supported in URIs"
    }


def test_a_missing_bucket_is_a_problem(s3_server: str) -> None:
    assert problems(Sources(["s3://no-such-bucket/x", "s3://no-such-bucket"])) == {
        "s3://no-such-bucket/x": "No such file or directory",
        "s3://no-such-bucket": "No such file or directory",
    }


def test_a_long_list_in_a_bucket_keeps_its_order(
    s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "_NUM_LOOKUPS", 4)
    for number in range(40):
        s3_store.write(f"{number:02}", b"1")
    order = [f"{number * 7 % 41 - 1:02}" for number in range(1, 41)] * 2
    (tmp_path / "list").write_text("\n".join(s3_store.uri_of(name) for name in order))
    with Sources([], filelist=str(tmp_path / "list")) as sources:
        assert names(sources) == order


# -- local files -----------------------------------------------------------------------------------------------------

ODD = [
    "new\nline",
    os.fsdecode(b"caf\xe9"),
    "with space",
    "star*",
    "[a]",
    "a[!b]?",
    "ünïcødé",
    "~",
    "-",
    "a::b",
    "tab\t",
]


def test_odd_names(here: Path) -> None:
    make(here, *(f"d/{name}" for name in ODD))
    found = names(Sources(["d"]))
    assert sorted(found) == sorted(ODD)
    assert found == sorted(ODD, key=os.fsencode)
    assert names(Sources([f"d/{name}" for name in ODD])) == ODD
    for name in ODD:
        assert names(Sources([f"d/{name}"])) == [name]
        assert names(Sources([str(here / "d" / name)])) == [name]


def test_a_literal_name_goes_before_a_pattern(here: Path) -> None:
    make(here, "x*", "xy", "[d]/in", "d/other")
    assert names(Sources(["x*"])) == ["x*"]
    assert names(Sources(["[d]"])) == ["in"]
    os.unlink("x*")
    assert names(Sources(["x*"])) == ["xy"]


def test_relative_names_never_have_dots(here: Path) -> None:
    make(here, "x/a", "y/b", "c")
    os.chdir("x")
    assert names(Sources(["../y/b", "a"])) == ["y/b", "x/a"]
    assert names(Sources(["..", "a"])) == ["c", "x/a", "y/b", "x/a"]
    assert names(Sources(["../y/../c"])) == ["c"]
    assert names(Sources(["."])) == names(Sources([""])) == names(Sources(["./a"])) == ["a"]
    assert names(Sources(["../*/b"])) == ["y/b"]
    assert problems(Sources(["*/../c", "a"])) == {"*/../c": "has .. after a wildcard"}


def test_dots_go_through_links_as_the_system_does(here: Path) -> None:
    make(here, "real/deep/a", "real/b", "b")
    os.symlink("real/deep", "link")
    sources = Sources(["link/../b"])
    assert names(sources) == ["b"]
    assert sources.store.uri == str(here / "real")


def test_links(here: Path) -> None:
    make(here, "real/a", "d/b")
    os.symlink("../real/a", "d/to-file")
    os.symlink("../real", "d/to-folder")
    os.symlink(".", "d/loop")
    os.symlink("nothing", "d/broken")
    os.symlink("d", "named")
    os.symlink("itself", "d/itself")
    found = list(Sources(["d"]))
    assert [item.name for item in found if isinstance(item, SourceFile)] == ["b", "to-file"]
    reasons = problems(found)
    assert reasons[str(here / "d/broken")] == "No such file or directory"
    assert "symbolic links" in reasons[str(here / "d/itself")]
    assert len(reasons) == 2
    assert [item.name for item in Sources(["named"]) if isinstance(item, SourceFile)] == ["b", "to-file"]
    assert names(Sources(["d/to-folder"])) == ["a"]


def test_what_is_no_regular_file(here: Path) -> None:
    make(here, "d/a")
    os.mkfifo("d/fifo")
    assert names(Sources(["d"])) == ["a"]
    assert problems(Sources(["d/fifo", "d/a"])) == {"d/fifo": "is not a regular file"}
    assert problems(Sources([os.devnull])) == {os.devnull: "is not a regular file"}


def test_empty_and_nested_folders(here: Path) -> None:
    (here / "d/empty/emptier").mkdir(parents=True)
    deep = "/".join("d" for _ in range(200))
    make(here, f"{deep}/x")
    assert names(Sources(["d"])) == [f"{deep}/x"[2:]]
    assert problems(Sources(["d/empty", f"{deep}/x"])) == {"d/empty": "has no files that this command takes"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights_is_a_problem(here: Path) -> None:
    make(here, "d/a", "d/locked/b", "d/z")
    os.chmod("d/locked", 0)
    try:
        found = list(Sources(["d"]))
        assert [item.name for item in found if isinstance(item, SourceFile)] == ["a", "z"]
        assert problems(found) == {str(here / "d/locked"): "Permission denied"}
        assert problems(Sources(["d/locked/b", "d/a"])) == {"d/locked/b": "Permission denied"}
    finally:
        os.chmod("d/locked", 0o700)


def test_a_folder_that_cannot_be_listed_is_a_problem(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(here, "d/a", "d/locked/b", "d/z")
    original = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, os.strerror(13), path)
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(Sources(["d"]))
    assert [item.name for item in found if isinstance(item, SourceFile)] == ["a", "z"]
    assert problems(found) == {str(here / "d/locked"): "Permission denied"}


def test_the_same_file_twice_in_a_row_comes_once(here: Path) -> None:
    make(here, "d/a", "d/b")
    assert names(Sources(["d/a", "./d/a", "d/b", "d/a"])) == ["a", "b", "a"]


def test_different_file_systems_are_refused_in_one_line(here: Path) -> None:
    pytest.importorskip("fsspec")
    make(here, "a")
    for arguments in (["a", "memory://x"], ["memory://x", f"file://{here}/a"], ["memory://x", "s3://b/x"]):
        with pytest.raises(LLMZipError, match=r"^[^\n]* are in different file systems; use one run for each$"):
            Sources(arguments)


def test_no_inputs_are_refused(here: Path) -> None:
    make(here, "list")
    (here / "list").write_bytes(b"\n\r\n")
    for filelist in (None, "list"):
        with pytest.raises(LLMZipError, match=r"^no input files are named$"):
            Sources([], filelist=filelist)


def test_inputs_that_can_never_be_used_are_refused_in_one_line(here: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(LLMZipError, match=r"^memory://a/\.\./b: has \. or \.\. in its path[^\n]*$"):
        Sources(["memory://a/../b"])
    with pytest.raises(LLMZipError, match=r"^nonsense:// is not a protocol that fsspec knows$"):
        Sources(["nonsense://x"])


# -- many names ------------------------------------------------------------------------------------------------------


STATUS = os.stat(__file__)


class _Name:
    """An entry of a folder, as `os.scandir` gives it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return False

    def stat(self) -> os.stat_result:
        return STATUS


@pytest.mark.parametrize("pattern, count", [("", 100_000), ("*.txt", 20_000)])
def test_a_hundred_thousand_names_take_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, count: int
) -> None:
    @contextlib.contextmanager
    def scandir(path: str) -> Iterator[Iterator[_Name]]:
        assert path == str(tmp_path)
        yield (_Name(f"a name of some length {number * 7919 % count:05}.txt") for number in range(count))

    monkeypatch.setattr(os, "scandir", scandir)
    seen = 0
    previous = ""
    tracemalloc.start()
    try:
        for item in Sources([os.path.join(tmp_path, pattern)]):
            assert isinstance(item, SourceFile)
            assert seen % RUN_NAMES == 0 or item.name > previous, "not in order"
            previous = item.name
            seen += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < 4 * MIB


def test_a_long_list_takes_little_memory(here: Path) -> None:
    make(here, "a", "b")
    (here / "list").write_bytes(b"./a\n./b\n" * 10_000)
    with Sources([], filelist="list") as sources:
        tracemalloc.start()
        try:
            assert sum(1 for _ in sources) == 20_000
            assert tracemalloc.get_traced_memory()[1] < 2 * MIB
        finally:
            tracemalloc.stop()


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n\r\n\n  c \r\n", ["a", "b", "  c "]),
        (b"a\0b\nc\0", ["a", "b\nc"]),
        (b"a\r\0\0b", ["a\r", "b"]),
        (b"caf\xe9\n", [os.fsdecode(b"caf\xe9")]),
        (b"\xef\xbb\xbfa\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa", ["a"]),
        (b"\n\n", []),
        (b"#x\n-\n*", ["#x", "-", "*"]),
        (b"n" * 64_000 + b"\n" + b"m" * 65_536, ["n" * 64_000, "m" * 65_536]),
    ],
)
def test_lists(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "list").write_bytes(content)
    listed = FileList(str(tmp_path / "list"))
    assert list(listed) == expected
    assert list(listed) == expected
    listed.close()


def test_lists_across_reads(tmp_path: Path) -> None:
    expected = [f"{number}/{'x' * (number % 97)}" for number in range(30_000)]
    for separator in ("\n", "\r\n", "\0"):
        (tmp_path / "list").write_bytes(separator.join(expected).encode())
        assert (tmp_path / "list").stat().st_size > MIB
        with contextlib.closing(FileList(str(tmp_path / "list"))) as listed:
            assert list(listed) == expected


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_what_is_no_list_is_refused(tmp_path: Path, separator: bytes) -> None:
    (tmp_path / "list").write_bytes(b"a" + separator + b"x" * 5 * MIB)
    with (
        contextlib.closing(FileList(str(tmp_path / "list"))) as listed,
        pytest.raises(FileProblem, match=r"^is not a list of names"),
    ):
        list(listed)


def test_a_missing_list_is_an_error(here: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Sources([], filelist="nothing")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_list_from_a_pipe(here: Path, name: str) -> None:
    make(here, "x/a", "x/b c", "y/z")
    code = (
        "import sys\nfrom llmzip.cluster.sources import Sources\n"
        "for _ in range(2):\n    sources = Sources([], filelist=sys.argv[1]) if not _ else sources\n"
        "    print([item.name for item in sources], sources.store.uri)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code, name],
        input=b"x/a\0x/b c\0y/z\0",
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    line = f"['x/a', 'x/b c', 'y/z'] {here}"
    assert result.stdout.decode().splitlines() == [line, line]


def test_a_list_has_no_patterns(here: Path) -> None:
    make(here, "xy", "a")
    (here / "list").write_text("x*\na\n")
    with Sources([], filelist="list") as sources:
        assert problems(sources) == {"x*": "No such file or directory"}


def test_a_list_that_changes_cannot_leave_the_folder(here: Path) -> None:
    make(here, "d/a", "d/b", "secret")
    (here / "list").write_text("d/a\n")
    with Sources([], filelist="list") as sources:
        (here / "list").write_text("secret\nd/b")
        assert [item.name for item in sources if isinstance(item, SourceFile)] == ["b"]
        assert "the list has changed" in problems(sources)["secret"]


# -- patterns and places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, matching, others",
    [
        ("*", ["a", "b.c"], [".a", "a/b"]),
        ("*.txt", ["a.txt"], [".a.txt", "a.txt.gz", "d/a.txt"]),
        (".*", [".a"], ["a"]),
        ("**", ["a", "a/b", "a/b/c"], [".a", "a/.b", ".a/b"]),
        ("**/c", ["c", "a/c", "a/b/c"], ["a/c/d", ".a/c", "ac"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c"], ["c", "b/a/c"]),
        ("a/**", ["a/c", "a/b/c"], ["a", "b/c"]),
        ("**/a/**/b", ["a/b", "x/a/b", "a/a/b/b", "a/x/b"], ["a", "b", "b/a"]),
        ("**/**/b", ["b", "a/b", "a/b/b"], ["a"]),
        ("[ab]?/c", ["ax/c", "bb/c"], ["a/c", "cx/c"]),
        ("[!a]", ["b"], ["a"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("[", ["["], ["a"]),
    ],
)
def test_patterns_match_as_in_shells(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = Pattern(pattern.split("/"))

    def matches(name: str) -> bool:
        *folders, last = name.split("/")
        states = compiled.start
        for folder in folders:
            match = compiled.match(states, folder, is_folder=True)
            states = match.states
        return compiled.match(states, last, is_folder=False).is_whole

    assert [name for name in matching + others if matches(name)] == matching


def test_a_hostile_pattern_is_quick() -> None:
    compiled = Pattern(["**", "*a"] * 20 + ["b"])
    states = compiled.start
    begin = time.process_time()
    for _ in range(200):
        states = compiled.match(states, "aaaa", is_folder=True).states
    assert time.process_time() - begin < 5
    assert len(states) <= 41


@pytest.mark.parametrize(
    "text, uri, folder",
    [
        ("/a/b", "/a/b", "/a"),
        ("file:///a/b/", "/a/b", "/a"),
        ("/", "/", "/"),
        ("s3://b/x/y", "s3://b/x/y", "s3://b/x"),
        ("s3://b//x/", "s3://b/x", "s3://b"),
        ("S3://b", "s3://b", "s3://b"),
        ("memory:///a/b", "memory://a/b", "memory://a"),
        ("hdfs:///a/b", "hdfs:///a/b", "hdfs:///a"),
        ("sftp://user@host:22/a", "sftp://user@host:22/a", "sftp://user@host:22"),
        ("abfs://c@account.dfs.core.windows.net/x", "abfs://c@account.dfs.core.windows.net/x", "abfs://c@account.dfs.core.windows.net"),
    ],
)  # fmt: skip
def test_places(text: str, uri: str, folder: str) -> None:
    place = parse_place(text)
    assert place.uri == uri
    assert place.folder.uri == folder
