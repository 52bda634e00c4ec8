"""Many small archives in one run: tokens come ahead, everything else is as in a run that looks at one file alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmzip
from llmzip.cli import small
from llmzip.cli.outcomes import overall_exit_status
from llmzip.cli.request import Arguments, Request
from llmzip.codec.ahead import MAX_ARCHIVE_BYTES, DecodedAhead
from llmzip.format import writing
from llmzip.format.headers import USER_MODEL, Header, ModelRecord
from llmzip.format.reading import read_archives
from llmzip.system import fileops

from .conftest import ROOT, Run, environment, leftovers

PROSE = (ROOT / "corpora" / "prose-en.txt").read_bytes()
TEXTS = [PROSE[500 * number : 500 * number + 200 + 30 * number] for number in range(12)]
SPEED = re.compile(r", [\d.]+ [KM]?B/s|, [\d.]+ s$|\d+ bytes/s", re.MULTILINE)

CallWith = Callable[..., Any]


def archives() -> dict[str, bytes]:
    """Good, damaged, truncated, empty, foreign, twice the same, of several methods, levels and models."""
    good = [
        llmzip.compress(text, level=(1, 1, 6, 9)[number % 4], model=("small", "base")[number % 3 == 2])
        for number, text in enumerate(TEXTS)
    ]
    (frame,) = read_archives(io.BytesIO(good[1]))
    record = ModelRecord("nobody's", bytes(16), bytes(16), planes=1, context=512, start_token=0)
    lost = writing.pack_frame(frame.header, frame.payload, frame.crc32, writing.pack_header(Header(USER_MODEL, record)))
    payload = bytes([frame.payload[0] ^ 64]) + frame.payload[1:]
    damaged = writing.pack_frame(frame.header, payload, frame.crc32, writing.pack_header(frame.archive))
    files = dict(enumerate(good))
    named = {f"good{number}.llmz": data for number, data in files.items()}
    return {
        **named,
        "again1.llmz": good[1],
        "flipped.llmz": good[2][:-9] + bytes([good[2][-9] ^ 1]) + good[2][-8:],
        "damaged.llmz": damaged,
        "cut.llmz": good[3][:-1],
        "empty.llmz": b"",
        "letter.llmz": b"a letter to a friend",
        "lost.llmz": lost,
        "two.llmz": good[4] + good[5],
        "tail.llmz": good[4] + b"tail",
        "stored.llmz": llmzip.compress(bytes(range(256)) * 2 + os.urandom(20)),
    }


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return archives()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects how many tokens were found each time that a frame asked for some that were decoded ahead."""
    found: list[int] = []
    original = DecodedAhead.take

    def watched(ahead: DecodedAhead, *arguments: Any) -> Any:
        taken = original(ahead, *arguments)
        found.append(0 if taken is None else len(taken[0]))
        return taken

    monkeypatch.setattr(DecodedAhead, "take", watched)
    return found


def without_speed(text: str) -> str:
    return SPEED.sub("", text)


def names_of(files: dict[str, bytes]) -> list[str]:
    """The names, mixed."""
    return sorted(files, key=lambda name: (len(name), name[::-1]))


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes a context in which no file is looked at before its turn."""

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(DecodedAhead, "upcoming", lambda ahead, items, read: iter(items))
            yield

    return context


@pytest.mark.parametrize("options", [("-t",), ("-t", "-vv"), ("-dc",), ("-dcf",), ("-t", "-q"), ("-t", "--progress")])
def test_a_run_is_as_in_turn(
    options: tuple[str, ...],
    call_with: CallWith,
    files: dict[str, bytes],
    in_turn: Callable[[], Any],
    prepared: list[int],
) -> None:
    run, names = call_with(files), [*names_of(files), "missing.llmz", "good1.llmz", "good0.llmz"]
    with in_turn():
        expected = run(*options, *names)
    assert not any(prepared)
    code, out, err = run(*options, *names)
    assert (code, out) == expected[:2]
    assert code != 0
    if "--progress" not in options:  # bars show speeds, and come and go with them
        assert without_speed(err) == without_speed(expected[2])
    assert sum(map(bool, prepared)) > len(TEXTS)


def test_json_is_as_in_turn(call_with: CallWith, files: dict[str, bytes], in_turn: Callable[[], Any]) -> None:
    def records(lines: bytes) -> Iterator[dict[str, Any]]:
        for line in lines.splitlines():
            record = json.loads(line)
            if record["error"] is None:
                assert record.pop("elapsed_seconds") > 0
            yield record

    run, names = call_with(files), names_of(files)
    with in_turn():
        expected = list(records(run("-t", "--json", *names)[1]))
    assert list(records(run("-t", "--json", *names)[1])) == expected


@pytest.mark.parametrize("options", [(), ("-f",), ("--rm",), ("-k", "--progress")])
def test_decompressed_files_are_as_in_turn(
    options: tuple[str, ...],
    call_with: CallWith,
    files: dict[str, bytes],
    tmp_path: Path,
    in_turn: Callable[[], Any],
    prepared: list[int],
) -> None:
    def folder() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    names, before = names_of(files), {**files, "good2": b"in the way"}
    run = call_with(before)
    with in_turn():
        expected = run("-d", *options, *names)
    text = folder()
    for path in tmp_path.iterdir():
        path.unlink()
    run = call_with(before)
    code, out, err = run("-d", *options, *names)
    assert (code, out) == expected[:2]
    if "--progress" not in options:
        assert err == expected[2]
    assert folder() == text
    assert leftovers(tmp_path) == []
    assert (text["good2"] == TEXTS[2]) == ("-f" in options)
    assert sum(map(bool, prepared)) >= len(TEXTS)


def test_a_process_says_what_processes_for_each_file_say(run: Run, files: dict[str, bytes], tmp_path: Path) -> None:
    names = names_of(files)[::2]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    alone = [run("-t", name) for name in names]
    done = run("-t", *names)
    assert done.returncode == overall_exit_status([one.returncode for one in alone if one.returncode])
    assert done.stdout == b"".join(one.stdout for one in alone)
    assert done.stderr == b"".join(one.stderr for one in alone)


def test_files_may_change_before_their_turn(
    call_with: CallWith, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"good{number}.llmz" for number in range(6)]
    run = call_with({name: files[name] for name in names})
    original = fileops.open_source
    turns: list[str | None] = []

    def changing(name: str | None, **options: Any) -> fileops.Source:
        if "removing" in options:  # a file's turn
            turns.append(name)
            if len(turns) == 1:
                os.unlink("good1.llmz")
                (tmp_path / "good2.llmz").write_bytes(files["good7.llmz"])
                (tmp_path / "good3.llmz").write_bytes(files["damaged.llmz"])
        return original(name, **options)

    monkeypatch.setattr(fileops, "open_source", changing)
    code, out, err = run("-dc", *names)
    assert turns == names
    assert out == TEXTS[0] + TEXTS[7] + TEXTS[4] + TEXTS[5]
    assert code != 0
    assert [line.split(": ")[1] for line in err.splitlines()] == ["good1.llmz", "good3.llmz"]


def test_an_output_may_be_a_later_input(call_with: CallWith, files: dict[str, bytes], tmp_path: Path) -> None:
    twice = llmzip.compress(files["good0.llmz"])
    run = call_with({"good0.llmz.llmz": twice, **{f"good{n}.llmz": files[f"good{n}.llmz"] for n in (1, 2)}})
    code, _, err = run("-d", "-q", "good0.llmz.llmz", "good1.llmz", "good2.llmz")
    assert (code, err) == (0, "")
    assert (tmp_path / "good0.llmz").read_bytes() == files["good0.llmz"]


def test_an_interrupt_ahead_ends_the_run(files: dict[str, bytes], tmp_path: Path) -> None:
    names = ["good0.llmz", "good1.llmz", "good4.llmz", "good5.llmz"]
    for name in names:
        (tmp_path / name).write_bytes(files[name])
    code = (
        "import os, signal, sys, time\n"
        "from llmzip.cli.main import main\n"
        "from llmzip.codec.rows import FrameCoder\n"
        "FrameCoder.decode_together = lambda coder, frames: (os.kill(os.getpid(), signal.SIGINT), time.sleep(30))\n"
        "sys.exit(main(['-d', *sys.argv[1:]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGINT
    assert b"stopped by SIGINT" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_one_file_is_not_looked_at(call_with: CallWith, files: dict[str, bytes], prepared: list[int]) -> None:
    run = call_with(files)
    assert run("-dc", "good0.llmz")[:2] == (0, TEXTS[0])
    assert prepared == []


# -- what is small -----------------------------------------------------------------------------------------------------


def request(operation: str, **values: Any) -> Request:
    return Arguments(operation=operation, **values).request(2, model_from_environment=False)


def test_only_small_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.llmz").write_bytes(b"some bytes")
    (tmp_path / "empty.llmz").touch()
    (tmp_path / "limit.llmz").write_bytes(bytes(MAX_ARCHIVE_BYTES))
    (tmp_path / "large.llmz").write_bytes(bytes(MAX_ARCHIVE_BYTES + 1))
    (tmp_path / "folder.llmz").mkdir()
    (tmp_path / "link.llmz").symlink_to("a.llmz")
    (tmp_path / "dead.llmz").symlink_to("nothing")
    os.mkfifo(tmp_path / "fifo.llmz")

    def held(name: str | None) -> bytes | None:
        return small.small_input(name, request("test"), MAX_ARCHIVE_BYTES)

    assert held("a.llmz") == held("link.llmz") == b"some bytes"
    assert held("limit.llmz") == bytes(MAX_ARCHIVE_BYTES)
    for name in (None, "empty.llmz", "large.llmz", "folder.llmz", "dead.llmz", "fifo.llmz", "none", "/dev/null", "\0"):
        assert held(name) is None
    with open("a.llmz", "rb") as file:
        assert held(f"/dev/fd/{file.fileno()}") is None
        assert file.read() == b"some bytes"


def test_files_whose_output_is_there_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.llmz", "a", "b.llmz", "c.txt"):
        (tmp_path / name).write_bytes(b"some bytes")

    def held(name: str, **values: Any) -> bool:
        return small.small_input(name, request("decompress", **values), MAX_ARCHIVE_BYTES) is not None

    assert [held(name) for name in ("a.llmz", "b.llmz", "c.txt")] == [False, True, False]
    assert [held(name, force=True) for name in ("a.llmz", "b.llmz")] == [True, True]
    assert [held(name, to_stdout=True) for name in ("a.llmz", "b.llmz", "c.txt")] == [True, True, True]
