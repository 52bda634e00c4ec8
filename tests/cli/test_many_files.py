"""Many small archives in one run: the tokens come ahead, everything else is as in a run for each file."""

from __future__ import annotations

import json
import os
import re
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

from .conftest import ROOT, Run, leftovers

PROSE = (ROOT / "corpora" / "prose-en.txt").read_bytes()
TEXTS = [PROSE[500 * number : 500 * number + 200 + 30 * number] for number in range(12)]
SPEED = re.compile(r", [\d.]+ [KM]?B/s|, [\d.]+ s$|\d+ bytes/s", re.MULTILINE)

CallWith = Callable[..., Any]


def archives() -> dict[str, bytes]:
    """Good, damaged, truncated, empty, foreign, twice the same, of several methods, levels and models."""
    import io

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
    return sorted(files, key=lambda name: (hash(len(name)), name[::-1]))


@pytest.mark.parametrize("options", [("-t",), ("-t", "-v"), ("-dc",), ("-dcf",), ("-t", "--debug", "-q")])
def test_a_run_is_as_runs_for_each_file(
    options: tuple[str, ...], call_with: CallWith, files: dict[str, bytes], prepared: list[int]
) -> None:
    run, names = call_with(files), [*names_of(files), "missing.llmz", "good1.llmz", "good0.llmz"]
    alone = [run(*options, name) for name in names]
    assert prepared == []
    code, out, err = run(*options, *names)
    assert code == overall_exit_status([status for status, _, _ in alone if status])
    assert out == b"".join(data for _, data, _ in alone)
    if "--debug" not in options:
        assert without_speed(err) == without_speed("".join(text for _, _, text in alone))
    assert sum(map(bool, prepared)) > len(TEXTS)


def test_json_is_as_of_runs_for_each_file(call_with: CallWith, files: dict[str, bytes]) -> None:
    def records(lines: bytes) -> Iterator[dict[str, Any]]:
        for line in lines.splitlines():
            record = json.loads(line)
            if record["error"] is None:
                assert record.pop("elapsed_seconds") > 0
            yield record

    run, names = call_with(files), names_of(files)
    alone = [record for name in names for record in records(run("-t", "--json", name)[1])]
    assert list(records(run("-t", "--json", *names)[1])) == alone


@pytest.mark.parametrize("options", [(), ("-f",), ("--rm",), ("-k", "--progress")])
def test_decompressed_files_are_those_of_runs_for_each_file(
    options: tuple[str, ...], call_with: CallWith, files: dict[str, bytes], tmp_path: Path, prepared: list[int]
) -> None:
    def folder() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    names = names_of(files)
    run = call_with({**files, "good2": b"in the way"})
    alone = [run("-d", "-q", *options, name) for name in names]
    expected = folder()
    for path in tmp_path.iterdir():
        path.unlink()
    run = call_with({**files, "good2": b"in the way"})
    prepared.clear()
    code, out, err = run("-d", "-q", *options, *names)
    assert code == overall_exit_status([status for status, _, _ in alone if status])
    assert (out, err) == (b"", "".join(text for _, _, text in alone))
    assert folder() == expected
    assert leftovers(tmp_path) == []
    assert (expected["good2"] == TEXTS[2]) == ("-f" in options)
    assert sum(map(bool, prepared)) >= len(TEXTS)


def test_processes_say_the_same(run: Run, files: dict[str, bytes], tmp_path: Path) -> None:
    names = names_of(files)[::2]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    alone = [run("-dc", name) for name in names]
    done = run("-dc", *names)
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


def test_an_interrupt_ahead_ends_the_run(
    call_with: CallWith, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from llmzip.codec.rows import FrameCoder

    def interrupted(coder: FrameCoder, frames: object) -> None:
        raise KeyboardInterrupt

    run = call_with(files)
    monkeypatch.setattr(FrameCoder, "decode_together", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("-d", "-q", "good0.llmz", "good1.llmz", "good4.llmz", "good5.llmz")
    assert not (tmp_path / "good0").exists()
    assert leftovers(tmp_path) == []


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
