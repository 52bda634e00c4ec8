"""Builds the mixer's library and the exact engine's kernels; everything else is in pyproject.toml.

The mixer is required. The kernels are optional: without them llmzip computes the same bits with torch, several times
slower. Neither uses Python's C interface, so one wheel of a platform serves every version of Python.
"""

import atexit
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.egg_info import egg_info
from setuptools.errors import CompileError

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))

import build_backend  # noqa: E402

FLAGS = [
    # No contraction, no fast-math: each operation rounds once. The next two only free the compiler from exceptions of
    # the floating-point unit, which nobody looks at.
    "-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions", "-fno-rtti",
    "-Wno-psabi",
]  # fmt: skip


SCRATCH = tempfile.mkdtemp(prefix="llmzip-build-")
"""This build's own folder: builds that run at once do not meet, and nothing from an earlier one gets into a wheel."""

atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)


def library(name: str, folder: str, *, optional: bool = False) -> Extension:
    """One library of all sources in a folder, with their digest inside: llmzip/system/libraries.py compares it."""
    folders = [folder, "llmzip/system/native"]
    files = [
        path.relative_to(ROOT).as_posix()
        for part in folders
        for path in sorted((ROOT / part).iterdir())
        if path.suffix in (".cpp", ".h")
    ]
    digest = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:16]
    return Extension(
        name,
        [file for file in files if file.endswith(".cpp")],
        define_macros=[("LLMZIP_SOURCES", f'"{digest}"')],
        depends=[file for file in files if file.endswith(".h")],
        extra_compile_args=FLAGS,
        optional=optional,
    )


class Build(build):
    """Builds in the scratch folder."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = SCRATCH


class EggInfo(egg_info):
    """Writes the metadata of a wheel into the scratch folder, so that the sources may be read-only."""

    def initialize_options(self) -> None:
        super().initialize_options()
        if "sdist" not in self.distribution.commands:  # which takes this folder along
            self.egg_base = SCRATCH


class BuildLibraries(build_ext):
    """Builds libraries for ctypes, with this machine's C++ compiler or with Zig's."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # a library that another build left may be for another platform

    def run(self) -> None:
        self._zig = build_backend.needs_zig()
        if self._zig and importlib.util.find_spec("ziglang") is None:
            raise SystemExit("llmzip: there is no working C++ compiler: install g++, clang++ or the package ziglang")
        with tempfile.TemporaryDirectory() as self._cache:
            super().run()

    def build_extension(self, ext: Extension) -> None:
        try:
            if self._zig:
                self._build_with_zig(ext)
            else:
                super().build_extension(ext)
        except Exception as error:
            if ext.optional:
                raise
            raise SystemExit(f"llmzip: cannot build {ext.name}, which llmzip needs: {error}") from None

    def _build_with_zig(self, ext: Extension) -> None:
        target = ["-target", build_backend.zig_target(os.environ.get(build_backend.PLATFORM, ""))]
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        # Zig's own defaults are for debugging: checks of undefined behaviour, and symbols.
        flags = [*target, *ext.extra_compile_args, "-fPIC", "-fno-sanitize=undefined", "-g0", "-s"]
        macros = [f"-D{name}={value}" for name, value in ext.define_macros]
        objects = [str(Path(self._cache, f"{ext.name}.{Path(source).stem}.o")) for source in ext.sources]
        for source, made in zip(ext.sources, objects, strict=True):
            self._zig_cpp(*flags, *macros, "-c", source, "-o", made)
        # Only headers of C++'s library are used: without -nostdlib++ Zig would compile all of it.
        self._zig_cpp(*target, "-shared", "-s", "-nostdlib++", *objects, "-o", str(output))

    def _zig_cpp(self, *arguments: str) -> None:
        caches = {"ZIG_GLOBAL_CACHE_DIR": self._cache, "ZIG_LOCAL_CACHE_DIR": self._cache}
        done = subprocess.run(
            [sys.executable, "-m", "ziglang", "c++", *arguments], check=False, env=os.environ | caches
        )
        if done.returncode:
            raise CompileError(f"Zig failed with exit status {done.returncode}")

    def get_ext_filename(self, fullname: str) -> str:
        """Returns a name without Python's version, of which the libraries are independent."""
        return str(Path(*fullname.split("."))) + ".so"


class PlatformWheel(bdist_wheel):
    """Tags a wheel for any Python 3 on this platform, or on the one that is asked for."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = os.environ.get(build_backend.PLATFORM) or super().get_tag()[2]
        if build_backend.needs_zig():
            platform = build_backend.one_machine(platform)
        return "py3", "none", platform


setup(
    ext_modules=[
        library("llmzip.engines.cpu.native._kernels", "llmzip/engines/cpu/native", optional=True),
        library("llmzip.mixing.native._mixer", "llmzip/mixing/native"),
    ],
    cmdclass={"build": Build, "egg_info": EggInfo, "build_ext": BuildLibraries, "bdist_wheel": PlatformWheel},
)
