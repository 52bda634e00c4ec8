"""The build backend: setuptools' own, which asks for a C++ compiler from PyPI (ziglang) where this machine has none.

setup.py compiles with what this module finds. Set LLMZIP_PLATFORM to the platform tag of a wheel, such as
manylinux_2_17_aarch64 or macosx_11_0_arm64, to build for that platform with Zig, on any machine.
"""

from __future__ import annotations

import functools
import os
import platform as machines
import re
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks of PEP 517 and 660

PLATFORM = "LLMZIP_PLATFORM"
GLIBC = "2.17"
"""Oldest C library that a build for this machine must run with, as for manylinux2014."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "powerpc64le"}
"""Machine in a platform's name -> what Zig calls it, where that differs."""

_PROBE = '#include <cmath>\n#include <cstdint>\n#include <cstring>\nextern "C" int64_t probe() { return 1; }\n'


@functools.cache
def has_compiler() -> bool:
    """Compiles and links a few lines of C++ with what setuptools would use: $CXX, $CC or what Python was built with."""
    from setuptools._distutils.ccompiler import new_compiler
    from setuptools._distutils.errors import CCompilerError, DistutilsError
    from setuptools._distutils.sysconfig import customize_compiler

    if sys.platform == "win32":
        return False  # the sources are for GCC and Clang
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cpp"
        source.write_text(_PROBE)
        try:
            compiler = new_compiler()
            customize_compiler(compiler)
            objects = compiler.compile([str(source)], output_dir=folder, extra_postargs=["-std=c++17"])
            compiler.link_shared_object(objects, str(Path(folder) / "probe.so"), target_lang="c++")
        except (CCompilerError, DistutilsError, OSError):
            return False
    return True


def needs_zig() -> bool:
    """Whether Zig compiles: for another platform, or because there is no compiler."""
    return bool(os.environ.get(PLATFORM)) or not has_compiler()


def one_machine(platform: str) -> str:
    """Returns a platform with this machine's processor in place of both of macOS's, for which Zig cannot build."""
    return re.sub(r"universal2$", machines.machine(), platform)


def zig_target(platform: str = "") -> str:
    """Zig's name of a platform, such as manylinux_2_17_x86_64 or macosx-11.0-arm64; by default this machine's.

    Raises:
        ValueError: the platform is unknown.
    """
    platform = one_machine(platform or sysconfig.get_platform())
    match = re.fullmatch(r"(manylinux|linux|macosx|win)(?:[_-](\d+)[_.](\d+))?[_-](\w+)", platform)
    if match is None:
        raise ValueError(f"{PLATFORM}: {platform!r} is no platform like manylinux_2_17_x86_64 or macosx_11_0_arm64")
    system, major, minor, machine = match.groups()
    machine = _MACHINES.get(machine, machine)
    if system == "win":
        return f"{machine}-windows-gnu"
    if system == "macosx":
        if machine == "aarch64" and int(major) < 11:
            major, minor = "11", "0"  # the first for that processor
        return f"{machine}-macos.{major}.{minor}"
    version = f"{major}.{minor}" if major else GLIBC if machine in ("x86_64", "aarch64") else ""
    return f"{machine}-linux-gnu" + f".{version}" * bool(version)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Returns what setuptools asks for, and ziglang where it is needed."""
    return build_meta.get_requires_for_build_wheel(config_settings) + ["ziglang"] * needs_zig()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Returns what setuptools asks for, and ziglang where it is needed."""
    return build_meta.get_requires_for_build_editable(config_settings) + ["ziglang"] * needs_zig()
