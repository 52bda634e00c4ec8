"""The lock and the bounds of pyproject.toml: every dependency has both, and they agree."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PROJECT = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
_LOCK = (_ROOT / "constraints.txt").read_text(encoding="utf-8")
_MAKEFILE = (_ROOT / "Makefile").read_text(encoding="utf-8")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements() -> dict[str, tuple[str, str]]:
    """Relation and version that pyproject.toml asks for, of every package, in all extras."""
    wanted = {}
    lists = _PROJECT.partition("\ndependencies = [")[2].partition("[project.scripts]")[0]
    for line in re.findall(r'"([^"]+)"', re.sub(r"(?m)^ *#.*$", "", lists)):
        name, relation, version = re.fullmatch(
            r"([\w.-]+)(?:\[[a-z,]+\])?\s*([=><]*)([\d.]*)[^;]*(?:;.*)?", line
        ).groups()
        wanted[_plain(name)] = relation, version
    assert {"torch", "pytest", "brotli"} <= set(wanted)
    return wanted


def _locked() -> dict[str, list[str]]:
    """Versions of every package that the lock names: one, or one for each Python."""
    found: dict[str, list[str]] = {}
    for line in _LOCK.splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; .*)?", line).groups()
            found.setdefault(_plain(name), []).append(version)
    return found


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    return numbers + [0] * (5 - len(numbers))


def test_everything_that_is_asked_for_is_locked_within_its_bounds() -> None:
    locked = _locked()
    for name, (relation, version) in _requirements().items():
        for pinned in locked[name]:
            if relation == "==":
                assert _numbers(pinned) == _numbers(version), name
            elif relation:
                assert relation == ">=" and _numbers(pinned) >= _numbers(version), name
    for name in ("pip", "setuptools", "wheel", "ziglang", "ruff", "mypy"):
        assert len(locked[name]) == 1, name
    assert len(locked["torch"]) == 1  # the Makefile reads it


def test_the_lock_names_no_place() -> None:
    """Neither a host nor a folder: pip finds the packages where it is told to."""
    assert not re.search(r"://|@|--|file:|/(home|root|tmp|opt)", _LOCK)


def test_what_a_locked_package_needs_is_locked_too() -> None:
    """Of those that are installed here, under their own conditions."""
    requirements = pytest.importorskip("packaging.requirements")
    locked = _locked()
    for name in locked:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another Python or another system
        for line in needed:
            requirement = requirements.Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert _plain(requirement.name) in locked, (name, line)


def test_every_lower_bound_is_tested() -> None:
    """`make test-oldest` binds all packages that have one; the others are pinned, or Triton, which follows torch."""
    done = subprocess.run(
        [sys.executable, _ROOT / "tools" / "bounds.py"], check=True, capture_output=True, text=True, encoding="utf-8"
    )
    bound = dict(line.split("==") for line in done.stdout.splitlines())
    for name, (relation, version) in _requirements().items():
        assert (relation == "==" or name == "triton") if name not in bound else bound[name] == version, name
    assert "setuptools" in bound
    done = subprocess.run(
        [sys.executable, _ROOT / "tools" / "bounds.py", "--without", "torch"],
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert "torch==" not in done.stdout and "numpy==" in done.stdout


def test_what_make_installs_is_locked() -> None:
    """All but the targets that are there for other versions."""
    for rule in re.split(r"\n(?=\S)", _MAKEFILE):
        target = rule.partition(":")[0]
        if target in ("test-newest", "test-oldest", "lock"):
            continue
        for line in re.findall(r"^\t.*(?:pip install|\$\(PIP\)).*$", rule, re.MULTILINE):
            assert "-c $(LOCK)" in line, line
    assert re.search(r"^\$\(BIN\)/torch\.stamp: .*\$\(LOCK\)", _MAKEFILE, re.MULTILINE)
    assert re.search(r"^LOCKED = .*-c \$\(LOCK\) --build-constraint \$\(LOCK\)", _MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("variable", ["FOREIGN", "FOREIGN_FLOAT"])
def test_the_tests_of_both_ends_exist(variable: str) -> None:
    value = re.search(rf"^{variable} := ((?:.*\\\n)*.*)$", _MAKEFILE, re.MULTILINE).group(1).replace("\\\n", " ")
    value = re.sub(
        r"\$\(addprefix (\S+),([^)]*)\)", lambda m: " ".join(m.group(1) + name for name in m.group(2).split()), value
    )
    paths = value.split()
    assert paths
    for path in paths:
        assert (_ROOT / path).exists(), path
