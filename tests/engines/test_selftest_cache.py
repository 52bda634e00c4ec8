"""Checks that a passed self-test is kept for just this software on this processor, and that a failed one never is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmzip.engines import selftest, selftest_cache
from llmzip.engines.cpu import kernels
from llmzip.system import cache as kept

CPU = "cpu"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of passed tests, and a process that has tested nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    selftest_cache.check.cache_clear()
    yield tmp_path / "cache" / "llmzip" / "selftest"
    selftest_cache.check.cache_clear()


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The results that the self-test gives next; each run takes one."""
    results: list[bool] = []
    monkeypatch.setattr(selftest, "check", lambda device, by_torch: results.pop(0))
    return results


def check(by_torch: bool = True) -> None:
    """What a new process does."""
    selftest_cache.check.cache_clear()
    selftest_cache.check(CPU, by_torch=by_torch)


def test_a_passed_test_is_not_repeated(cache: Path, tests: list[bool]) -> None:
    tests.append(True)
    check()
    check()
    assert not tests and len(list(cache.iterdir())) == 1


def test_a_test_that_turned_the_kernels_off_is_repeated(cache: Path, tests: list[bool]) -> None:
    tests += [False, False]
    check()
    check()
    assert not tests and not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"0" * 64, selftest.TRANSCRIPT.encode() + b"\n"])
def test_a_damaged_file_is_not_believed(damage: bytes, cache: Path, tests: list[bool]) -> None:
    tests += [True, True]
    check()
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    check()
    assert not tests and file.read_bytes() == selftest.TRANSCRIPT.encode()


@pytest.mark.parametrize(
    "name", ["LLMZIP_KERNELS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "LD_PRELOAD"]
)
def test_settings_of_the_environment_are_tested_apart(
    name: str, cache: Path, tests: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    tests += [True, True]
    check()
    monkeypatch.setenv(name, "x")
    check()
    assert not tests and len(list(cache.iterdir())) == 2


def test_other_sources_processors_and_versions_are_tested_apart(
    cache: Path, tests: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    tests += [True] * 4
    check()
    monkeypatch.setattr(torch, "__version__", "0.0")
    check()
    monkeypatch.setattr(selftest_cache, "_processor", lambda: ["another"])
    check()
    monkeypatch.setattr(selftest, "TRANSCRIPT", "0" * 64)
    check()
    assert not tests and len(list(cache.iterdir())) == 4


def test_the_kernels_are_tested_apart_from_torch(cache: Path, tests: list[bool]) -> None:
    tests += [True, True]
    check(by_torch=False)
    check(by_torch=True)
    check(by_torch=False)
    assert (not tests) == (kernels.chosen()[0] is not None)


def test_without_a_place_the_test_is_run(tmp_path: Path, tests: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    tests += [True, True, True]
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check()
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    check()
    monkeypatch.setattr(kept, "folder", lambda name: None)
    check()
    assert not tests


def test_the_processor_is_told_by_what_stays_the_same() -> None:
    found = selftest_cache._processor()
    assert found == selftest_cache._processor() and any(found)
    assert not [line for line in found if "MHz" in line or "bogomips" in line.lower()]
