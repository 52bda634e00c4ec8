"""Pipes, terminals and other programs: the data stream holds the data and nothing else."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import llmzip
from llmzip.models import choice

from .conftest import COMMAND, Run, environment


@pytest.mark.parametrize("arguments", [[], ["-"], ["compress"], ["-c", "-"], ["-o", "-"], ["-o", "/dev/stdout"]])
def test_stdin_to_stdout(run: Run, noise: bytes, arguments: list[str]) -> None:
    made = run(*arguments, input=noise)
    assert (made.returncode, made.stderr) == (0, b"")
    assert len(made.stdout) == len(noise) + 16
    back = run("-d", input=made.stdout)
    assert (back.returncode, back.stdout, back.stderr) == (0, noise, b"")


def test_several_inputs_are_concatenated(run: Run, tmp_path: Path, noise_file: Path, noise: bytes) -> None:
    (tmp_path / "b").write_bytes(noise[:1000])
    made = run("-c", "noise.bin", "-", "b", input=noise[:2000])
    assert made.returncode == 0
    (tmp_path / "all.llmz").write_bytes(made.stdout)
    assert run("-dc", "all.llmz", "all.llmz").stdout == 2 * (noise + noise[:2000] + noise[:1000])
    assert not (tmp_path / "noise.bin.llmz").exists()


def test_pass_through_needs_stdout_and_force(run: Run, archive: Path, noise: bytes) -> None:
    archive.with_name("text").write_bytes(b"plain text")
    archive.with_name("tiny").write_bytes(b"\xf7")
    archive.with_name("empty").write_bytes(b"")
    mixed = run("-dcf", "text", "noise.bin.llmz", "tiny", "empty", "-", input=b"more")
    assert (mixed.returncode, mixed.stderr) == (0, b"")
    assert mixed.stdout == b"plain text" + noise + b"\xf7" + b"more"
    assert run("-dcf", input=archive.read_bytes()).stdout == noise
    refused = run("-dc", "text")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert run("-df", "-o", "out", "text").returncode == 1
    assert not archive.with_name("out").exists()


def test_stray_prints_do_not_reach_the_data() -> None:
    program = (
        "import os; from llmzip.system import process\n"
        "with process.standard_output() as data:\n"
        "    print('stray'); os.write(1, b'stray too\\n'); data.write(b'data')\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment(), check=True)
    assert done.stdout == b"dataafter\n"
    assert sorted(done.stderr.splitlines()) == [b"stray", b"stray too"]


def test_closed_pipe_is_sigpipe(run: Run, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(random.Random(2).randbytes(400_000))
    assert run("big").returncode == 0
    for arguments in (["-dc", "big.llmz"], ["-c", "big"]):
        with subprocess.Popen(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.wait(60) == -13  # a shell shows 141
            assert process.stderr is not None
            assert process.stderr.read() == b""
    shell = f"set -o pipefail; {sys.executable} -m llmzip -dc big.llmz | head -c1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert done.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments",
    [
        ["-dc", "noise.bin.llmz"],
        ["-l", "noise.bin.llmz"],
        ["-t", "--json", "noise.bin.llmz"],
        ["cat", "noise.bin.llmz"],
        ["cat", "--salvage", "noise.bin.llmz"],
        ["packets", "-m", "small", "noise.bin.llmz"],
        ["windows", "-m", "small", "words"],
        ["estimate", "-m", "small", "words"],
        ["entropy", "-m", "small", "words"],
        ["models", "list"],
    ],
)
def test_full_disk_behind_stdout(run: Run, archive: Path, arguments: list[str]) -> None:
    archive.with_name("words").write_bytes(b"The ferry was late again, and nobody minded. " * 9)
    with open("/dev/full", "wb") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"llmzip: (stdout): No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments", [["--progress", "noise.bin"], ["-v", "--progress", "noise.bin"], ["-vv", "--report", "-", "noise.bin"]]
)
def test_full_disk_behind_stderr_stops_nothing(
    tmp_path: Path, noise_file: Path, noise: bytes, arguments: list[str]
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment(), stderr=full, stdin=subprocess.DEVNULL, check=False
        )
    assert done.returncode == 0
    assert llmzip.decompress(noise_file.with_name("noise.bin.llmz").read_bytes()) == noise


def test_progress_on_a_terminal_that_is_gone(tmp_path: Path, noise_file: Path, noise: bytes) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--progress", "noise.bin"], cwd=tmp_path, env=environment(), stderr=slave, stdin=subprocess.DEVNULL
    )
    os.close(slave)
    os.close(master)  # whatever is written now fails with EIO
    assert process.wait(60) == 0
    assert llmzip.decompress(noise_file.with_name("noise.bin.llmz").read_bytes()) == noise


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("argument", ["--help", "-V"])
def test_full_disk_behind_help(run: Run, argument: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run(argument, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"llmzip: (stdout): No space left on device\n"


def test_closed_standard_streams(run: Run, archive: Path, noise: bytes) -> None:
    done = run("-dc", "noise.bin.llmz", preexec_fn=lambda: os.close(1))
    assert done.returncode == 1
    assert b"(stdout): Bad file descriptor" in done.stderr
    done = run(preexec_fn=lambda: os.close(0))
    assert done.returncode == 1
    done = run("-d", "noise.bin.llmz", "missing", preexec_fn=lambda: (os.close(0), os.close(1), os.close(2)))
    assert done.returncode == 1
    assert archive.with_name("noise.bin").read_bytes() == noise


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
def test_tar(tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(200_000)  # so much of it that the zeros of tar need no model
    (tmp_path / "noise.bin").write_bytes(noise)
    program = tmp_path / "bin" / "llmzip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmzip "$@"\n')
    program.chmod(0o755)
    env = environment(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for option in ("llmzip", f"llmzip -m {choice.EMBEDDED[-1].name} -T1"):
        subprocess.run(["tar", "-I", option, "-cf", "a.tar.llmz", "noise.bin"], cwd=tmp_path, env=env, check=True)
        (tmp_path / "out").mkdir()
        extract = ["tar", "-I", option, "-xf", "a.tar.llmz", "-C", "out"]
        subprocess.run(extract, cwd=tmp_path, env=env, check=True)
        assert (tmp_path / "out" / "noise.bin").read_bytes() == noise
        shutil.rmtree(tmp_path / "out")


# -- terminals


class Terminal:
    """A process with a terminal on some of its streams."""

    def __init__(self, folder: Path, *arguments: str, streams: str, env: dict[str, str] | None = None) -> None:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        on_terminal = {name: slave if name in streams.split() else None for name in ("stdin", "stdout", "stderr")}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment(**{"TERM": "xterm", **(env or {})}),
            stdin=on_terminal["stdin"] if on_terminal["stdin"] is not None else subprocess.DEVNULL,
            stdout=on_terminal["stdout"] if on_terminal["stdout"] is not None else subprocess.PIPE,
            stderr=on_terminal["stderr"] if on_terminal["stderr"] is not None else subprocess.PIPE,
        )
        os.close(slave)
        self._master = master

    def finish(self) -> tuple[int, str]:
        """The exit code and what the terminal showed."""
        shown = b""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if not select.select([self._master], [], [], 0.1)[0]:
                if self.process.poll() is not None:
                    break
                continue
            try:
                part = os.read(self._master, 65536)
            except OSError:  # how Linux reports that the other side is closed
                break
            if not part:
                break
            shown += part
        os.close(self._master)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.read()
                stream.close()
        return self.process.wait(60), shown.decode(errors="replace")


@pytest.mark.parametrize("arguments", [[], ["-c", "noise.bin"], ["noise.bin", "-o", "-"]])
def test_no_archive_to_a_terminal(tmp_path: Path, noise_file: Path, arguments: list[str]) -> None:
    code, shown = Terminal(tmp_path, *arguments, streams="stdout stderr").finish()
    assert code == 1
    assert "terminal" in shown
    assert "use -o FILE or -f" in shown


def test_archive_to_a_terminal_with_force(tmp_path: Path, noise_file: Path) -> None:
    code, shown = Terminal(tmp_path, "-cf", "noise.bin", streams="stdout").finish()
    assert code == 0
    assert len(shown) > 1000


def test_decoded_data_may_go_to_a_terminal(tmp_path: Path, archive: Path) -> None:
    code, shown = Terminal(tmp_path, "-dc", "noise.bin.llmz", streams="stdout").finish()
    assert code == 0
    assert len(shown) > 1000


@pytest.mark.parametrize("argument", ["-d", "-t", "-l"])
def test_no_archive_from_a_terminal(tmp_path: Path, argument: str) -> None:
    code, shown = Terminal(tmp_path, argument, streams="stdin stderr").finish()
    assert code == 1
    assert "not read from a terminal" in shown


def test_summary_and_progress_on_a_terminal(tmp_path: Path, noise_file: Path) -> None:
    code, shown = Terminal(tmp_path, "noise.bin", streams="stderr").finish()
    assert code == 0
    assert "/4.00k [" in shown  # the bar, in units of 1024 bytes
    assert shown.rstrip().rpartition("\r")[2].startswith("noise.bin: 4,096 -> 4,112 bytes")
    code, shown = Terminal(tmp_path, "-f", "--no-progress", "noise.bin", streams="stderr").finish()
    assert shown.startswith("noise.bin: 4,096 -> 4,112 bytes")
    code, shown = Terminal(tmp_path, "-fq", "noise.bin", streams="stderr").finish()
    assert (code, shown) == (0, "")
    code, shown = Terminal(tmp_path, "-t", "noise.bin.llmz", streams="stderr").finish()
    assert code == 0
    assert "/4.00k [" in shown  # known from the headers
    assert "OK" not in shown
    code, shown = Terminal(tmp_path, "-f", "noise.bin", streams="stderr", env={"TERM": "dumb"}).finish()
    assert "4.00k" not in shown


def test_no_progress_without_a_terminal(run: Run, noise_file: Path) -> None:
    assert run("noise.bin").stderr == b""
    assert b"/4.00k [" in run("-f", "--progress", "noise.bin").stderr
