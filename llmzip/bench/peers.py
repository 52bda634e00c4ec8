"""The other compressors: libraries in this process, and programs with their command lines. Measures nothing.

Each is used at its strongest usual setting, and writes its file format with the checksum that its program writes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError

LONG_WINDOW_LOG = 27  # 128 MiB
BROTLI_WINDOW_LOG = 24  # 16 MiB
_VERSION_SECONDS = 5.0  # that a program may take to print its version
_MAX_VERSION_CHARACTERS = 100
_DIGEST_DIGITS = 16
_INSTALL = "pip install 'llmzip[bench]'"


# -- libraries -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Library:
    """A compressor that Python can import.

    Attributes:
        label: command line of the equivalent program.
        module: module that must be importable.
        compress, decompress: functions from bytes to bytes.
    """

    label: str
    module: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]

    @property
    def family(self) -> str:
        """The first word of the label."""
        return self.label.partition(" ")[0]

    def version(self) -> str | None:
        """Returns the version of the library; None if it is not installed."""
        try:
            importlib.import_module(self.module)
        except ImportError:
            return None
        if self.module == "gzip":
            import zlib

            return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
        if self.module == "zstandard":
            import zstandard

            number = ".".join(map(str, zstandard.ZSTD_VERSION))
            return f"libzstd {number} (zstandard {zstandard.__version__})"
        if self.module == "brotli":
            return f"brotli {importlib.metadata.version('brotli')}"
        return f"{self.module} of Python {platform.python_version()}"

    def missing(self) -> str:
        """Returns that it is not installed, and what to do."""
        return f"the library {self.module} is not installed: {_INSTALL}"


def _gzip(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, 9, mtime=0)


def _gunzip(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


def _bzip2(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data, 9)


def _bunzip2(data: bytes) -> bytes:
    import bz2

    return bz2.decompress(data)


def _xz(data: bytes) -> bytes:
    import lzma

    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _unxz(data: bytes) -> bytes:
    import lzma

    return lzma.decompress(data)


def _zstd(data: bytes) -> bytes:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(19, source_size=len(data), write_checksum=True)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _zstd_long(data: bytes) -> bytes:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        22, source_size=len(data), write_checksum=True, window_log=LONG_WINDOW_LOG, enable_ldm=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _unzstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=1 << LONG_WINDOW_LOG).decompress(data)


def _brotli(data: bytes) -> bytes:
    import brotli

    return bytes(brotli.compress(data, quality=11, lgwin=BROTLI_WINDOW_LOG))


def _unbrotli(data: bytes) -> bytes:
    import brotli

    return bytes(brotli.decompress(data))


LIBRARIES = (
    Library("gzip -9", "gzip", _gzip, _gunzip),
    Library("bzip2 -9", "bz2", _bzip2, _bunzip2),
    Library("xz -9e", "lzma", _xz, _unxz),
    Library("zstd -19", "zstandard", _zstd, _unzstd),
    Library(f"zstd --ultra -22 --long={LONG_WINDOW_LOG}", "zstandard", _zstd_long, _unzstd),
    Library(f"brotli -q 11 --lgwin={BROTLI_WINDOW_LOG}", "brotli", _brotli, _unbrotli),
)


# -- programs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A compressor that may be on the PATH.

    Attributes:
        label: short name with the flags that matter.
        executables: names of the program; the first one on the PATH is used.
        pack: arguments that make `archive` from the file `text`, both in the working directory. `> F` and `< F` are
            the standard streams.
        unpack: arguments that make `text` from `../archive`.
        archive: name of the archive, with the suffix that the program requires.
        ask_version: arguments that make it print its version in the first line.
    """

    label: str
    executables: tuple[str, ...]
    pack: str
    unpack: str
    archive: str
    ask_version: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The first word of the label."""
        return self.label.partition(" ")[0]

    def find(self) -> Path | None:
        """Returns the executable; None if it is not on the PATH."""
        for name in self.executables:
            path = shutil.which(name)
            if path is not None:
                return Path(path).absolute()
        return None

    def missing(self) -> str:
        """Returns that it is not installed, and what to do."""
        return f"the program {' or '.join(self.executables)} is not on the PATH"


def _filter(label: str, name: str, flags: str, unpack: str = "-d -c") -> Program:
    """Returns a program with the command line of gzip."""
    return Program(
        label, (name,), f"{flags} -c text > packed.{name}", f"{unpack} < ../packed.{name} > text", f"packed.{name}",
        ("--version",),
    )  # fmt: skip


PROGRAMS = (
    _filter("gzip -9", "gzip", "-9 -n"),
    _filter("bzip2 -9", "bzip2", "-9"),
    _filter("xz -9e", "xz", "-9e"),
    _filter("zstd -19", "zstd", "-19 -q"),
    _filter(
        f"zstd --ultra -22 --long={LONG_WINDOW_LOG}", "zstd", f"--ultra -22 --long={LONG_WINDOW_LOG} -q",
        f"-d -c -q --long={LONG_WINDOW_LOG}",
    ),
    _filter(f"brotli -q 11 --lgwin={BROTLI_WINDOW_LOG}", "brotli", f"-q 11 --lgwin={BROTLI_WINDOW_LOG}"),
    Program("zpaq -m5", ("zpaq",), "add packed.zpaq text -m5", "extract ../packed.zpaq", "packed.zpaq"),
    Program(
        "7z PPMd", ("7zz", "7z", "7za", "7zr"), "a -bd -y -t7z -mx=9 -m0=PPMd packed.7z text", "x -bd -y ../packed.7z",
        "packed.7z",
    ),
    Program("paq8px -8", ("paq8px",), "-8 text packed.paq8px", "-d ../packed.paq8px text", "packed.paq8px"),
    Program("cmix", ("cmix",), "-c text packed.cmix", "-d ../packed.cmix text", "packed.cmix"),
)  # fmt: skip


def split(line: str) -> tuple[list[str], str | None, str | None]:
    """Returns the arguments of a `pack` or `unpack` line, and the files of its standard input and output."""
    arguments: list[str] = []
    streams: dict[str, str] = {}
    words = iter(line.split())
    for word in words:
        if word in "<>":
            streams[word] = next(words)
        else:
            arguments.append(word)
    return arguments, streams.get("<"), streams.get(">")


def program_version(program: Program, executable: Path) -> str:
    """Returns what a program prints about its version, and the beginning of its file's digest."""
    with executable.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    line = ""
    try:
        with subprocess.Popen(
            [executable, *program.ask_version],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                output, _ = process.communicate(timeout=_VERSION_SECONDS)
                text = output.decode("utf-8", "replace")
                line = next((line.strip() for line in text.splitlines() if line.strip()), "")
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        pass  # whatever is wrong with it will show when it compresses
    return f"{line[:_MAX_VERSION_CHARACTERS]} (sha256 {digest.hexdigest()[:_DIGEST_DIGITS]})".strip()


# -- which ones ------------------------------------------------------------------------------------------------------


def choose_libraries(names: Sequence[str]) -> list[Library]:
    """Returns the libraries whose labels, or first words of labels, are named; all of them for no names.

    Raises:
        SettingsError: a name is unknown.
    """
    known = {library.label: library.family for library in LIBRARIES}
    labels = _choose(names, known, "library compressor")
    return [library for library in LIBRARIES if library.label in labels]


def choose_programs(names: Sequence[str]) -> list[Program]:
    """Returns the programs whose labels, or first words of labels, are named; all of them for no names.

    Raises:
        SettingsError: a name is unknown.
    """
    known = {program.label: program.family for program in PROGRAMS}
    labels = _choose(names, known, "program")
    return [program for program in PROGRAMS if program.label in labels]


def _choose(names: Sequence[str], known: dict[str, str], kind: str) -> set[str]:
    """Returns the labels that are named; `known` maps labels to their first words."""
    if not names:
        return set(known)
    chosen: set[str] = set()
    for name in names:
        labels = {label for label, family in known.items() if name in (label, family)}
        if not labels:
            raise SettingsError(f"no {kind} {name!r}; there are {', '.join(dict.fromkeys(known.values()))}")
        chosen |= labels
    return chosen
