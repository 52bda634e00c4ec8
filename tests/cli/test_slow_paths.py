"""Checks what happens where the fast way is closed: no place for a cache, older processors, one core, little memory.

Always the same bits, more slowly, or one clear line; nothing is lost and nothing half done is left.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import Run

TEXT = b"The tide comes in at four, and the harbour master writes it down before the boats are out.\n" * 6
LEVEL = ("-1", "-m", "small")

_NO_FOLDER = "/proc/none"
CACHES = {
    "a folder that cannot be made": {"XDG_CACHE_HOME": _NO_FOLDER},
    "a file": {"XDG_CACHE_HOME": "FILE"},
    "no home that can be written": {"XDG_CACHE_HOME": "", "HOME": _NO_FOLDER},
    "a relative home": {"XDG_CACHE_HOME": "", "HOME": "here"},
}
SLOWER: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "no kernels": ({"LLMZIP_KERNELS": "none"}, (), "torch, without the compiled kernels (LLMZIP_KERNELS=none)"),
    "kernels for AVX2": ({"LLMZIP_KERNELS": "avx2"}, (), ""),
    "torch without AVX": ({"LLMZIP_KERNELS": "none", "ATEN_CPU_CAPABILITY": "default"}, (), "without"),
    "oneDNN for SSE4.1": ({"LLMZIP_KERNELS": "none", "ONEDNN_MAX_CPU_ISA": "SSE41"}, (), "without"),
    "one thread": ({}, ("--threads", "1"), ""),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What everybody must get."""
    import llmzip

    return llmzip.compress(TEXT, level=1, model="small")


@pytest.fixture
def round_trip(run: Run, tmp_path: Path, archive: bytes) -> Callable[..., str]:
    """Compresses and decompresses, compares both with what they must be, and returns all messages."""

    def both(env: dict[str, str], *options: str, **process: Any) -> str:
        (tmp_path / "t").write_bytes(TEXT)
        packed = run("-v", *LEVEL, *options, "t", env=env, **process)
        assert packed.returncode == 0, packed.stderr
        assert (tmp_path / "t.llmz").read_bytes() == archive
        back = run("-vdc", *options, "t.llmz", env=env, **process)
        assert back.returncode == 0 and back.stdout == TEXT, back.stderr
        told: str = (packed.stderr + back.stderr).decode()
        assert "Traceback" not in told and "Error" not in told
        return told

    return both


@pytest.mark.parametrize("name", CACHES)
def test_without_a_cache_folder_the_bits_are_the_same_and_the_reason_is_told(
    name: str, round_trip: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    env = {key: str(tmp_path / "file") if value == "FILE" else value for key, value in CACHES[name].items()}
    told = round_trip(env)
    assert len(re.findall("slower than it could be: .*without a writable cache folder", told)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"file", "t", "t.llmz"}


def test_without_a_home_the_system_is_asked_for_it(round_trip: Callable[..., str], tmp_path: Path) -> None:
    round_trip({"XDG_CACHE_HOME": "", "HOME": ""})
    assert {path.name for path in tmp_path.iterdir()} == {"t", "t.llmz"}


@pytest.mark.parametrize("name", SLOWER)
def test_slower_ways_give_the_same_bits_and_their_reason(name: str, round_trip: Callable[..., str]) -> None:
    env, options, reason = SLOWER[name]
    told = round_trip(env, *options)
    assert told.count(reason) == 2 if reason else True
    assert ("slower than it could be" in told) >= bool(reason)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to choose a core here")
def test_one_core_is_enough(round_trip: Callable[..., str]) -> None:
    core = min(os.sched_getaffinity(0))
    round_trip({}, preexec_fn=lambda: os.sched_setaffinity(0, {core}))


# -- little memory ---------------------------------------------------------------------------------------------------


def limited(megabytes: int) -> Callable[[], None]:
    """For a new process: so many addresses and no more."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


@pytest.mark.parametrize("megabytes", [60, 100, 140, 180, 220, 300, 1500])
@pytest.mark.parametrize("decoding", [False, True])
def test_with_little_memory_it_is_the_same_or_refused_in_one_line(
    decoding: bool, megabytes: int, run: Run, tmp_path: Path, archive: bytes
) -> None:
    name, source, result = ("t.llmz", archive, TEXT) if decoding else ("t", TEXT, archive)
    (tmp_path / name).write_bytes(source)
    done = run(*(("-d",) if decoding else LEVEL), name, preexec_fn=limited(megabytes))
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made.pop(name) == source
    if done.returncode == 0:
        assert made == {"t" if decoding else "t.llmz": result} and done.stderr == b""
    else:
        assert (done.returncode, made) == (1, {})
        assert re.fullmatch(rb"llmzip: [^\n]*not enough memory[^\n]*\n", done.stderr), done.stderr
    assert done.returncode == (1 if megabytes < 100 else 0) or 100 <= megabytes < 300


def test_the_reason_for_one_thread_is_told(run: Run, tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "t").write_bytes(TEXT)
    done = run("-cv", *LEVEL, "t", preexec_fn=limited(1500))
    assert (
        done.stdout == archive
        and b"slower than it could be: one thread, because the address space is limited to 1500 MiB" in done.stderr
    )


def test_what_needs_no_model_needs_little_memory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(os.urandom(2000))
    assert run("t", preexec_fn=limited(300)).returncode == 0
    assert run("-l", "t.llmz", preexec_fn=limited(100)).returncode == 0
