"""Many files by folder (-r) and by list (--filelist), and outputs in a folder (--output-dir)."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmzip.cli.inputs import Selection, _files_below
from llmzip.cli.main import main

from .conftest import Run

NOISE = random.Random(5)
FILES = {name: NOISE.randbytes(40) for name in ("t/b", "t/a.txt", "t/.hidden", "t/sub/deep/c.txt", "t/sub/d.log")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder t with files, an empty folder, links and an archive's name."""
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t/empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x").write_bytes(b"x")
    (tmp_path / "t/link").symlink_to("../elsewhere")
    (tmp_path / "t/file-link").symlink_to("b")
    return tmp_path


def files_below(folder: Path) -> dict[str, bytes]:
    """Returns the content of the regular files below a folder, by their paths."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.is_relative_to(folder / "elsewhere")
    }


def test_a_folder_is_compressed_and_decompressed_in_place(tree: Path, run: Run) -> None:
    done = run("-r", "--rm", "t")
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(files_below(tree)) == {f"{name}.llmz" for name in FILES}
    assert os.listdir(tree / "elsewhere") == ["x"]
    again = run("-r", "t")
    assert again.returncode == 0
    assert again.stderr.splitlines()[0] == b"llmzip: t/.hidden.llmz: is already an archive, skipped"
    assert len(again.stderr.splitlines()) == len(FILES)
    assert run("-tr", "t").returncode == 0
    listed = run("-lr", "--json", "t")
    assert [json.loads(line)["file"] for line in listed.stdout.splitlines()] == [
        f"t/{name}.llmz" for name in (".hidden", "a.txt", "b", "sub/d.log", "sub/deep/c.txt")
    ]
    (tree / "t/other").write_bytes(b"not an archive, left alone")
    assert run("-dr", "--rm", "t").returncode == 0
    assert files_below(tree) == {**FILES, "t/other": b"not an archive, left alone"}


def test_outputs_in_a_folder_are_laid_out_as_with_cp(tree: Path, run: Run) -> None:
    (tree / "single").write_bytes(b"1")
    assert run("-r", "--output-dir", "new/out", "t/", "./single").returncode == 0
    assert set(files_below(tree / "new/out")) == {*(f"{name}.llmz" for name in FILES), "single.llmz"}
    assert set(files_below(tree / "t")) == {name[2:] for name in FILES}
    assert run("-dr", "--output-dir", "back", "new/out/.").returncode == 0
    assert files_below(tree / "back/out") == {**FILES, "single": b"1"}


def test_outputs_of_one_name_are_refused(tree: Path, run: Run) -> None:
    (tree / "b").write_bytes(b"another")
    for force in ((), ("-f",)):
        done = run(*force, "--output-dir", "out", "t/b", "b")
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1 and b"out/b.llmz: " in done.stderr
        assert run("-dc", "out/b.llmz").stdout == FILES["t/b"]


def test_an_output_folder_that_cannot_be_made_is_one_line_for_each_file(tree: Path, run: Run) -> None:
    (tree / "out").write_bytes(b"a file")
    done = run("--rm", "--output-dir", "out", "t/b", "t/a.txt")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"llmzip: out/{name}.llmz: File exists; no output was written, the source is kept" for name in ("b", "a.txt")
    ]
    assert (tree / "t/b").exists()


def test_globs_choose_files_and_folders_by_base_name(tree: Path, run: Run) -> None:
    assert run("-r", "--include", "*.txt", "--include", "*.log", "--exclude", "deep", "t").returncode == 0
    assert {name for name in files_below(tree) if name.endswith(".llmz")} == {"t/a.txt.llmz", "t/sub/d.log.llmz"}


def test_names_come_from_lists(tree: Path, run: Run) -> None:
    odd = os.fsencode(tree) + b"/line\nfeed\xff"
    with open(odd, "wb") as file:
        file.write(b"odd")
    (tree / "-").write_bytes(b"minus")
    (tree / "list").write_bytes(b"t/b\n\n-\nmissing\nt/a.txt")
    done = run("--filelist", "list")
    assert done.returncode == 1
    assert done.stderr == b"llmzip: missing: No such file or directory\n"
    assert all((tree / f"{name}.llmz").exists() for name in ("t/b", "t/a.txt", "-"))
    done = run("-0", "--filelist", "-", input=b"line\nfeed\xff\0t/sub/d.log\0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.path.exists(odd + b".llmz") and (tree / "t/sub/d.log.llmz").exists()


def test_an_empty_list_reads_nothing(run: Run) -> None:
    done = run("--filelist", "-", input=b"")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_list_of_folders_is_walked_with_r(tree: Path, run: Run) -> None:
    assert run("-r", "--filelist", "-", input=b"t/sub\n").returncode == 0
    assert (tree / "t/sub/deep/c.txt.llmz").exists() and not (tree / "t/b.llmz").exists()


def test_one_bad_file_stops_no_other(tree: Path, run: Run) -> None:
    os.mkfifo(tree / "t/fifo")
    (tree / "t/a.txt.llmz").write_bytes(b"in the way")
    done = run("-r", "--report", "t/report", "t", "nowhere")
    assert done.returncode == 1
    assert [line.split(b": ")[1] for line in done.stderr.splitlines()] == [
        b"t/a.txt.llmz", b"t/fifo", b"t/a.txt.llmz", b"nowhere",
    ]  # fmt: skip
    assert (tree / "t/sub/d.log.llmz").exists() and not (tree / "t/report.llmz").exists()
    records = [json.loads(line) for line in (tree / "t/report").read_text().splitlines()]
    assert [record["file"] for record in records if record["error"]] == ["t/fifo", "t/a.txt", "nowhere"]
    assert len(records) == len(FILES) + 2


def test_a_folder_without_files_is_said(tree: Path, run: Run) -> None:
    done = run("-r", "t/empty")
    assert (done.returncode, done.stderr) == (0, b"llmzip: t/empty: has no files to compress\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_one_line(tree: Path, run: Run) -> None:
    (tree / "t/sub").chmod(0)
    done = run("-r", "t")
    (tree / "t/sub").chmod(0o755)
    assert (done.returncode, done.stderr) == (1, b"llmzip: t/sub: Permission denied\n")
    assert (tree / "t/b.llmz").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-r",), ("-0", "t/b"), ("--include", "*", "t/b"), ("-ro", "x", "t"), ("-c", "--output-dir", "o", "t/b"),
        ("-t", "--output-dir", "o", "t/b"), ("--output-dir", "", "t/b"), ("--filelist", "-", "-"),
        ("--filelist", "t/nul"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_contradict_each_other_are_wrong_usage(tree: Path, run: Run, arguments: tuple[str, ...]) -> None:
    (tree / "t/nul").write_bytes(b"a\0b\0")
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert not list(tree.rglob("*.llmz"))


def test_what_an_interrupted_run_has_left_is_continued_and_not_compressed(tree: Path, run: Run) -> None:
    (tree / "t/b.llmz.partial").touch()
    (tree / "t/.llmzip-0123.tmp").write_bytes(b"unfinished")
    done = run("-r", "--resume", "t")
    assert (done.returncode, done.stderr) == (0, b"")
    assert not (tree / "t/b.llmz.partial").exists()
    assert {name for name in files_below(tree) if name.endswith(".llmz")} == {f"{name}.llmz" for name in FILES}


def test_a_folder_that_vanishes_is_a_problem_of_its_own(tree: Path) -> None:
    files = _files_below(os.fspath(tree / "t"), Selection(recursive=True))
    next(files)
    shutil.rmtree(tree / "t/sub")
    rest = list(files)
    assert [Path(name).name for name, problem in rest if problem is None] == ["a.txt", "b"]
    assert [(Path(name).name, type(problem)) for name, problem in rest if problem is not None] == [
        ("sub", FileNotFoundError)
    ]


names = st.text(st.sampled_from("ab.-* \n\udcff\u00e9"), min_size=1, max_size=6).filter(lambda name: name.strip("."))
trees = st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=30), max_size=8)


@settings(max_examples=25, deadline=None)
@given(trees)
def test_random_trees_come_back(tree: dict[tuple[str, ...], bytes]) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, there, back = (os.path.join(place, name) for name in ("source", "there", "back"))
        os.mkdir(source)
        expected = {}
        for parts, data in tree.items():
            path = os.path.join(source, *parts)
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "xb") as file:
                    file.write(data)
            except OSError:  # a part of the path is a file, or a folder has this name
                continue
            expected[os.path.relpath(path, source)] = data
        assert main(["-qr", "--output-dir", there, source]) == 0
        shutil.rmtree(source)
        if expected:
            assert main(["-dqr", "--output-dir", back, os.path.join(there, "source", "")]) == 0
            found = {}
            for folder, _, files in os.walk(os.path.join(back, "source")):
                for name in files:
                    path = os.path.join(folder, name)
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, os.path.join(back, "source"))] = file.read()
            assert found == expected
