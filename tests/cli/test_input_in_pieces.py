"""Every command that reads the standard input, with a pipe that does not block and whose text comes in pieces."""

from __future__ import annotations

import array
import fcntl
import json
import os
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llmzip

from .conftest import COMMAND, Run, environment

TEXT = b"The ferry was late again, and the wind came over the harbour wall. " * 3
MODEL = ("-m", "small")


def in_pieces(folder: Path, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs llmzip on a non-blocking pipe; each piece comes after the program has found the pipe empty."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    size = -(-len(data) // 3)
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment(), stdin=reading, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(reading)
        for begin in range(0, len(data), size):
            os.write(writing, data[begin : begin + size])
            unread = array.array("i", [1])
            while unread[0] and process.poll() is None:
                time.sleep(0.01)
                fcntl.ioctl(writing, termios.FIONREAD, unread)
            time.sleep(0.1)
        os.close(writing)
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the commands read: a text, archives, packets, an array of tokens."""
    from llmzip.cli.main import main

    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text").write_bytes(TEXT)
    archive = llmzip.compress(TEXT, model="small")
    made = {"text": TEXT, "archive": archive}
    for name, arguments in (
        ("windows", ["--window-bits", "64", "-m", "small", "-o", str(folder / "windows")]),
        ("packets", ["packets", "-m", "small", "-o", str(folder / "packets")]),
    ):
        assert main([*arguments, str(folder / "text")]) == 0
        path = folder / name
        if path.is_dir():
            parts = [part.read_bytes() for part in sorted(path.iterdir())]
            made[name] = b"\xf7LP\x01" + b"".join(len(part).to_bytes(2, "little") + part for part in parts)
        else:
            made[name] = path.read_bytes()
    return made


def same(found: bytes, expected: bytes) -> bool:
    return found == expected


def same_sizes(found: bytes, expected: bytes) -> bool:
    """For what tells times as well."""

    def sizes(out: bytes) -> list[object]:
        return [(row.get("original_bytes"), row.get("compressed_bytes")) for row in map(json.loads, out.splitlines())]

    return sizes(found) == sizes(expected) and b'"original_bytes"' in found


COMMANDS: list[tuple[str, tuple[str, ...], Callable[[bytes, bytes], bool]]] = [
    ("text", ("-m", "small"), same),
    ("text", ("compress", "-1", "-m", "small"), same),
    ("text", ("--window-bits", "64", "-m", "small"), same),
    ("archive", ("-d",), same),
    ("archive", ("decompress", "-c", "-"), same),
    ("text", ("-dcf",), same),
    ("archive", ("-t", "--json", "-"), same_sizes),
    ("archive", ("-l",), same),
    ("archive", ("info", "--json", "-"), same),
    ("archive", ("cat", "-"), same),
    ("archive", ("cat", "--range", "5:50", "/dev/stdin"), same),
    ("windows", ("cat", "--window", "1:3", "-"), same),
    ("windows", ("cat", "--salvage", "-"), same),
    ("windows", ("windows", "-"), same),
    ("text", ("windows", "--json", "-m", "small", "-"), same),
    ("text", ("packets", "-m", "small", "-"), same),
    ("packets", ("packets", "-d", "-"), same),
    ("text", ("entropy", "-m", "small", "-"), same),
    ("text", ("distance", "-m", "small", "-", "other"), same),
    ("text", ("bench", "--json", "--no-llmzip", "--peers", "gzip,xz", "-"), same_sizes),
    ("text", ("estimate", "--json", "-m", "small", "-"), same_sizes),
]


@pytest.mark.parametrize(
    ("name", "arguments", "agree"), COMMANDS, ids=lambda value: " ".join(value) if type(value) is tuple else ""
)
def test_a_pause_is_not_the_end(
    tmp_path: Path,
    inputs: dict[str, bytes],
    run: Run,
    name: str,
    arguments: tuple[str, ...],
    agree: Callable[[bytes, bytes], bool],
) -> None:
    (tmp_path / "other").write_bytes(TEXT[::-1])
    found = in_pieces(tmp_path, inputs[name], *arguments)
    expected = run(*arguments, input=inputs[name])
    assert (expected.returncode, found.returncode, found.stderr) == (0, 0, expected.stderr)
    assert agree(found.stdout, expected.stdout)
