"""What an installation asks for and what wheels hold: constriction where it has wheels, a C++ compiler, all data."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[2]
_PROJECT = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
_BUILT = {".py", ".pyc", ".pyo", ".so", ".pyd", ".dylib", ".dll"}
"""Suffixes of modules and of what is built from sources, which need no entry in package-data."""
_NO_COMPILER = dict.fromkeys(("CC", "CXX", "LDSHARED", "LDCXXSHARED"), "/nowhere/compiler")


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


# -- the C++ compiler --------------------------------------------------------------------------------------------------


def _backend(code: str, **environment: str) -> str:
    """Prints an expression of the build backend, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import build_backend as backend; print({code})"],
        cwd=_ROOT, env=os.environ | {"PYTHONPATH": "tools", "LLMZIP_PLATFORM": ""} | environment,
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout.strip()


_ASKED_FOR = (
    # Without setuptools' own answer, for which it would write into the project.
    "[setattr(backend.build_meta, 'get_requires_for_build_' + name, lambda _: ['other']) or "
    "getattr(backend, 'get_requires_for_build_' + name)() for name in ('wheel', 'editable')]"
)


def test_zig_is_asked_for_where_no_compiler_works() -> None:
    assert _backend(_ASKED_FOR, **_NO_COMPILER) == "[['other', 'ziglang'], ['other', 'ziglang']]"


@pytest.mark.skipif(_backend("backend.has_compiler()") != "True", reason="this machine has no C++ compiler")
def test_zig_is_not_asked_for_where_a_compiler_works_unless_for_another_platform() -> None:
    assert _backend(_ASKED_FOR) == "[['other'], ['other']]"
    assert _backend(_ASKED_FOR, LLMZIP_PLATFORM="macosx_11_0_arm64") == "[['other', 'ziglang'], ['other', 'ziglang']]"


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        ("linux-x86_64", "x86_64-linux-gnu.2.17"),
        ("linux-aarch64", "aarch64-linux-gnu.2.17"),
        ("linux-riscv64", "riscv64-linux-gnu"),
        ("linux-ppc64le", "powerpc64le-linux-gnu"),
        ("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28"),
        ("macosx-11.0-arm64", "aarch64-macos.11.0"),
        ("macosx_10_15_x86_64", "x86_64-macos.10.15"),
        ("macosx-10.13-arm64", "aarch64-macos.11.0"),  # no earlier one runs on that processor
        ("win-amd64", "x86_64-windows-gnu"),
    ],
)
def test_zig_knows_every_platform(platform: str, target: str) -> None:
    assert _backend(f"backend.zig_target({platform!r})") == target


@pytest.mark.parametrize(("machine", "target"), [("arm64", "aarch64-macos.11.0"), ("x86_64", "x86_64-macos.10.13")])
def test_zig_builds_for_one_machine_where_python_is_for_both_of_macos(machine: str, target: str) -> None:
    chosen = f"setattr(backend.machines, 'machine', lambda: {machine!r})"
    assert _backend(f"{chosen} or backend.zig_target('macosx-10.13-universal2')") == target
    assert _backend(f"{chosen} or backend.one_machine('macosx_10_13_universal2')") == f"macosx_10_13_{machine}"


def test_an_unknown_platform_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _backend("backend.zig_target('solaris')")
    assert "LLMZIP_PLATFORM: 'solaris' is no platform like manylinux_2_17_x86_64" in caught.value.stderr


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is not None, reason="Zig would compile")
def test_an_installation_without_any_compiler_ends_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path],
        cwd=_ROOT, env=os.environ | _NO_COMPILER, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "llmzip: there is no working C++ compiler: install g++, clang++ or the package ziglang"
    )


def test_a_build_writes_nothing_among_the_sources() -> None:
    """So that two may run at once, the sources may be read-only, and nothing stale gets into a wheel."""
    code = """
import sys
from setuptools import Distribution

def show(distribution):
    for name, option in [
        ("build", "build_lib"), ("build_ext", "build_temp"), ("bdist_wheel", "bdist_dir"), ("egg_info", "egg_base")
    ]:
        command = distribution.get_command_obj(name)
        command.ensure_finalized()
        print(getattr(command, option))

Distribution.run_commands = show
sys.argv = ["setup.py", "bdist_wheel"]
exec(open("setup.py").read(), {"__file__": "setup.py", "__name__": "__main__"})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    folders = [Path(line) for line in done.stdout.splitlines()]
    assert len(folders) == 4
    for folder in folders:
        assert folder.is_absolute() and not folder.is_relative_to(_ROOT) and not folder.exists()
