"""Checks that compiled code and plain Python code the same bits, and where the compiled code is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mixer_samples as samples
import numba
import pytest

import llmzip
from llmzip import mixing
from llmzip.mixing import compiled

PACKAGE = Path(llmzip.__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}


def run(code: list[str], folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder; what lies there comes before everything else."""
    return subprocess.run(
        [sys.executable, *code],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_plain_python_codes_the_same_and_nothing_overflows() -> None:
    """Without the compiler numpy sees every overflow and every place out of bounds; both are errors there."""
    done = run(["-W", "error", samples.__file__], NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == samples.short_payloads()


# -- where machine code is kept ----------------------------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Path | None]]:
    """cache_folder() without its memory, and a home that is empty."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    compiled.cache_folder.cache_clear()
    yield compiled.cache_folder.__wrapped__
    compiled.cache_folder.cache_clear()


def test_folder_is_in_the_home(fresh: Callable[[], Path | None], tmp_path: Path) -> None:
    folder = fresh()
    assert folder is not None and folder.is_dir()
    assert folder.parent == tmp_path / "home" / ".cache" / "llmzip" and folder.name.startswith("mixer-")


def test_folder_is_where_the_environment_says(
    fresh: Callable[[], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = fresh()
    assert default is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fresh() == tmp_path / "xdg" / "llmzip" / default.name
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert fresh() == tmp_path / "numba" / "llmzip" / default.name
    assert (tmp_path / "numba" / "llmzip" / default.name).is_dir()


def test_every_version_of_the_source_has_its_folder(tmp_path: Path) -> None:
    copy = tmp_path / "llmzip"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    code = "from llmzip.mixing.compiled import cache_folder; print(cache_folder().name)"
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""}

    def name() -> str:
        done = run(["-c", code], tmp_path, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    first = name()
    assert first == name()
    with (copy / "mixing" / "contexts.py").open("a") as file:
        file.write("# another comment\n")
    second = name()
    with (copy / "mixing" / "new.py").open("w") as file:
        file.write("# another module\n")
    assert len({first, second, name()}) == 3


def unwritable(tmp_path: Path) -> str:
    """A path that no folder can be made under, not even by root."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    return str(file / "below")


def test_without_a_folder_functions_work_uncached(
    fresh: Callable[[], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", unwritable(tmp_path))
    assert fresh() is None

    def doubled(x: int) -> int:
        return x + x

    assert compiled._compile(doubled)(21) == 42
    assert compiled.cache_folder() is None


def test_without_a_home_there_is_no_folder(fresh: Callable[[], Path | None], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert fresh() is None


def test_numbas_own_setting_stays_what_it_was(
    fresh: Callable[[], Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh() is not None
    for setting in ("", "/some/where"):
        monkeypatch.setattr(numba.config, "CACHE_DIR", setting)
        with compiled._own_cache() as cache:
            assert cache and str(fresh()) == numba.config.CACHE_DIR
        assert setting == numba.config.CACHE_DIR
        with pytest.raises(ZeroDivisionError), compiled._own_cache():
            raise ZeroDivisionError
        assert setting == numba.config.CACHE_DIR


def test_compiled_functions_are_kept_in_the_folder(fresh: Callable[[], Path | None], tmp_path: Path) -> None:
    module = tmp_path / "tiny_module.py"
    module.write_text(
        "from llmzip.mixing.compiled import compiled\n\n\n@compiled\ndef tripled(x):\n    return 3 * x\n\n\n"
        "print(tripled(14))\n"
    )
    done = run([str(module)], XDG_CACHE_HOME=str(tmp_path / "cache"), NUMBA_CACHE_DIR="")
    assert done.stdout == "42\n", done.stderr
    assert any((tmp_path / "cache" / "llmzip").rglob("tiny_module.tripled-*.nbc"))


# -- telling that it is made -------------------------------------------------------------------------------------------


@pytest.fixture
def told(fresh: Callable[[], Path | None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each call of on_compiling."""
    calls: list[str] = []
    monkeypatch.setattr(mixing, "on_compiling", lambda: calls.append("told"))
    return calls


def test_compiling_is_announced_once_where_there_is_no_machine_code(told: list[str]) -> None:
    compiled.announce_compiling()
    compiled.announce_compiling()
    assert told == ["told"]


def test_compiling_is_announced_where_nothing_can_be_kept(
    told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", unwritable(tmp_path))
    compiled.announce_compiling()
    assert told == ["told"]


def test_nothing_is_announced_where_there_is_machine_code(told: list[str], fresh: Callable[[], Path | None]) -> None:
    folder = fresh()
    assert folder is not None
    (folder / "mixing_0").mkdir()
    (folder / "mixing_0" / "walk.walk-252.py311.1.nbc").write_bytes(b"")
    compiled.announce_compiling()
    assert told == []
    assert mixing.on_compiling is None  # nobody looks into the folder again


def test_nothing_is_announced_without_the_compiler(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    compiled.announce_compiling()
    assert told == []


def test_nothing_is_announced_to_nobody(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "on_compiling", None)
    compiled.announce_compiling()
    assert told == []


def test_the_machine_code_in_use_is_found(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the file that is looked for is the one that numba gives it."""
    monkeypatch.undo()  # the real home again
    monkeypatch.setenv("LLMZIP_KERNELS", "none")  # where the library was built, numba would compile nothing
    compiled.cache_folder.cache_clear()
    samples.encode_bytes(b"compiled by now")
    calls: list[str] = []
    monkeypatch.setattr(mixing, "on_compiling", lambda: calls.append("told"))
    compiled.announce_compiling()
    assert calls == ([] if compiled.cache_folder() is not None else ["told"])
