"""Tests of what pyproject.toml promises: constriction is required only where it has wheels, and all data is packed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[2]
_PROJECT = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
_BUILT = {".py", ".pyc", ".pyo", ".so", ".pyd", ".dylib", ".dll"}
"""Suffixes of modules and of what is built from sources, which need no entry in package-data."""


def _wanted(system: str, machine: str, python: str = "3.12", implementation: str = "CPython") -> bool:
    (line,) = re.findall(r'^  "(constriction.*)",$', _PROJECT, re.MULTILINE)
    requirement = Requirement(line)
    assert str(requirement.specifier) == "==0.5.0" and requirement.marker is not None
    return requirement.marker.evaluate(
        {
            "sys_platform": system,
            "platform_machine": machine,
            "python_version": python,
            "python_full_version": f"{python}.1",
            "platform_python_implementation": implementation,
        }
    )


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(
    ("system", "machine"), [("linux", "x86_64"), ("darwin", "x86_64"), ("darwin", "arm64"), ("win32", "AMD64")]
)
def test_constriction_is_asked_for_where_it_has_wheels(system: str, machine: str, python: str) -> None:
    assert _wanted(system, machine, python)


@pytest.mark.parametrize(
    ("system", "machine"),
    [
        *[("linux", machine) for machine in ("aarch64", "armv7l", "riscv64", "ppc64le", "s390x", "i686")],
        *[("win32", "ARM64"), ("win32", "x86"), ("freebsd14", "amd64")],
    ],
)
def test_constriction_is_not_asked_for_elsewhere(system: str, machine: str) -> None:
    assert not _wanted(system, machine)


def test_constriction_is_not_asked_for_where_its_wheels_do_not_fit() -> None:
    assert not _wanted("linux", "x86_64", python="3.15")
    assert not _wanted("linux", "x86_64", implementation="PyPy")


def _data_globs() -> list[str]:
    (line,) = re.findall(r"^\[tool\.setuptools\.package-data\]\nllmzip = \[(.*)\]$", _PROJECT, re.MULTILINE)
    return re.findall(r'"([^"]+)"', line)


@pytest.mark.parametrize("pattern", _data_globs())
def test_each_glob_of_package_data_finds_files(pattern: str) -> None:
    assert any(path.is_file() for path in (_ROOT / "llmzip").glob(pattern))


def test_wheels_have_every_data_file() -> None:
    package = _ROOT / "llmzip"
    covered = {path for pattern in _data_globs() for path in package.glob(pattern)}
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in _BUILT}
    assert {package / "measures" / "page.css", package / "measures" / "page.js"} <= data
    assert data <= covered
