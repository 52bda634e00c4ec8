"""Signals and kill: no half-written file, the exit status of the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import COMMAND, Run, environment, leftovers


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Waits for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def writing(tmp_path: Path, archive: Path) -> subprocess.Popen[bytes]:
    """A process in the middle of decompressing a stream into the file `out`."""
    process = subprocess.Popen(
        [*COMMAND, "-d", "-o", "out"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Under nohup the signal is ignored, and would stay so.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdin is not None
    process.stdin.write(archive.read_bytes())
    process.stdin.flush()
    # The first archive's text is written, the stream goes on: the file is half there.
    wait_until(lambda: any((tmp_path / name).stat().st_size for name in leftovers(tmp_path)))
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_removes_what_is_unfinished(tmp_path: Path, writing: subprocess.Popen[bytes], name: str) -> None:
    writing.send_signal(getattr(signal, name))
    _, err = writing.communicate(timeout=30)
    assert writing.returncode == -getattr(signal, name)
    assert f"stopped by {name}" in err.decode()
    assert b"Traceback" not in err
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "out").exists()


def test_kill_leaves_no_file_of_the_final_name(tmp_path: Path, writing: subprocess.Popen[bytes]) -> None:
    writing.kill()
    writing.communicate(timeout=30)
    assert not (tmp_path / "out").exists()
    [name] = leftovers(tmp_path)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_ignored_signals_stay_ignored(tmp_path: Path, archive: Path, noise: bytes) -> None:
    with subprocess.Popen(
        [*COMMAND, "-d", "-o", "out"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
    ) as process:
        assert process.stdin is not None
        process.stdin.write(archive.read_bytes())
        process.stdin.flush()
        wait_until(lambda: leftovers(tmp_path))
        process.send_signal(signal.SIGHUP)
        process.stdin.close()
        assert process.wait(30) == 0
    assert (tmp_path / "out").read_bytes() == noise


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path, writing: subprocess.Popen[bytes]) -> None:
    (tmp_path / "out").write_text("precious")
    _, err = writing.communicate(timeout=30)
    assert writing.returncode == 1
    assert b"llmzip: out: exists; use -f" in err
    assert (tmp_path / "out").read_text() == "precious"
    assert leftovers(tmp_path) == []


def test_shell_sees_130(tmp_path: Path) -> None:
    shell = (
        f"{' '.join(COMMAND)} -o out < pipe & pid=$!; exec 3> pipe; "
        "while ! ls .llmzip-* >/dev/null 2>&1; do sleep 0.02; done; kill -TERM $pid; wait $pid"
    )
    os.mkfifo(tmp_path / "pipe")
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 143
    assert leftovers(tmp_path) == []


def test_interrupt_while_the_model_works(run: Run, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_bytes(b"The snow fell for three days on the hills behind the town. " * 4000)
    with subprocess.Popen(
        [*COMMAND, "-9", "long.txt"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: leftovers(tmp_path))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in err
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "long.txt.llmz").exists()
