"""One verified measurement: a text, a compressor, two child processes. Knows no tables and no options.

Each direction runs in a process of its own, whose peak memory is reported. The decompressed text is compared with the
original by SHA-256; a row whose texts differ has no size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._version import __version__
from ..codec.report import CharacterCounter
from ..models import layout
from ..models.choice import choose_model, resolve_model
from ..models.reference import Kind, parse_model
from ..settings import EngineSettings
from ..system.fileops import hash_file
from . import launch, machine
from .peers import Library, Program, program_version, split
from .results import FAILED, LIBRARY, LLMZIP, MISSING, OK, PROGRAM, Row

_PACKAGE_PARENT = Path(__file__).parents[2]
_READ_BYTES = 1 << 20  # 1 MiB
_MAX_RUNS = 3  # of each direction of a peer
_ENOUGH_SECONDS = 0.5  # in total, after which a peer is not run again
_COMMIT_DIGITS = 12
_IDENTITY_DIGITS = 16
_running: set[subprocess.Popen[bytes]] = set()


class _Failure(Exception):
    """The reason why a row has no figures."""


# -- texts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A file as it was when it was read, whole or in pieces, each piece in a folder of its own.

    Attributes:
        name: name to show.
        sha256: digest of the file, in hexadecimal.
        size_bytes: size of the file.
        characters: number of Unicode characters; None if it is not valid UTF-8.
        piece_bytes: length of the pieces; None for the whole file.
        folders: folders of the pieces; each has the file `text`.
        digests: digests of the pieces, in hexadecimal.
    """

    name: str
    sha256: str
    size_bytes: int
    characters: int | None
    piece_bytes: int | None
    folders: tuple[Path, ...]
    digests: tuple[str, ...]


def read_text(path: Path, name: str, folder: Path, piece_bytes: int | None) -> Text:
    """Copies a file into pieces.

    Args:
        path: the file.
        name: name to show.
        folder: folder that gets the folders of the pieces; emptied first.
        piece_bytes: length of the pieces; None for the whole file.

    Raises:
        OSError: the file cannot be read, or the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    characters, sha256, size = CharacterCounter(), hashlib.sha256(), 0
    folders: list[Path] = []
    digests: list[str] = []
    with path.open("rb") as source:
        while (data := source.read(_READ_BYTES if piece_bytes is None else piece_bytes)) or not folders:
            characters.add(data)
            sha256.update(data)
            size += len(data)
            if piece_bytes is not None or not folders:
                folders.append(folder / f"{len(folders):06}")
                folders[-1].mkdir(parents=True)
                digests.append(hashlib.sha256(data).hexdigest())
            with (folders[-1] / "text").open("ab") as sink:
                sink.write(data)
            if not data:
                break
    if piece_bytes is None:
        digests = [sha256.hexdigest()]
    return Text(name, sha256.hexdigest(), size, characters.finish(), piece_bytes, tuple(folders), tuple(digests))


# -- compressors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A compressor that is ready to be measured, or known to be missing.

    Attributes:
        label, via, command, version: fields of its rows.
        job: what the worker needs to know; for programs `executable`, `pack`, `unpack` and `archive`.
        missing: why it cannot be measured; None if it can.
        is_wanted: whether it was asked for by name, so that missing means failed.
    """

    label: str
    via: str
    command: str
    version: str
    job: dict[str, Any]
    missing: str | None = None
    is_wanted: bool = False


def library(peer: Library, *, is_wanted: bool = False) -> Contender:
    """Returns a library as it is installed here, or missing."""
    version = peer.version()
    missing = peer.missing() if version is None else None
    job = {"kind": "library", "label": peer.label}
    return Contender(peer.label, LIBRARY, peer.label, version or "", job, missing=missing, is_wanted=is_wanted)


def program(peer: Program, *, is_wanted: bool = False) -> Contender:
    """Returns a program as it is on the PATH, or missing."""
    executable = peer.find()
    command = f"{peer.family} {peer.pack}"
    if executable is None:
        return Contender(peer.label, PROGRAM, command, "", {}, missing=peer.missing(), is_wanted=is_wanted)
    try:
        version = program_version(peer, executable)
    except OSError as error:
        return Contender(
            peer.label, PROGRAM, command, "", {}, missing=f"{executable}: {error.strerror}", is_wanted=True
        )
    job = {"executable": str(executable), "pack": peer.pack, "unpack": peer.unpack, "archive": peer.archive}
    return Contender(peer.label, PROGRAM, f"{executable.name} {peer.pack}", version, job, is_wanted=is_wanted)


def llmzip(level: int, model: str, engine: EngineSettings) -> Contender:
    """Returns llmzip itself at a level, with a model on this machine.

    Raises:
        ModelError: the model is not on this machine.
    """
    ref = resolve_model(parse_model(model))
    choice = choose_model(ref)
    files = [file for file in sorted(choice.folder.rglob("*")) if file.is_file() and file.suffix != ".md"]
    if layout.is_gguf(choice.folder):
        files = layout.model_files(choice.folder)
    if choice.embedded is not None:
        identity = choice.embedded.model_digest.hex()
    elif ref.kind is Kind.HUB:
        identity = choice.name
    else:
        stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        identity = hashlib.sha256(repr(stamp).encode()).hexdigest()
    commit = ref.revision
    threads = "" if engine.threads is None else f" -T {engine.threads}"
    device = "" if engine.device == "auto" else f" --device {engine.device}"
    job = {"kind": "llmzip", "level": level, "model": model, "device": engine.device, "threads": engine.threads}
    if ref.is_place:
        job["model"] = str(choice.folder.resolve())
    return Contender(
        f"llmzip -{level} {ref.name}{f'@{commit[:_COMMIT_DIGITS]}' if commit else ''}",
        LLMZIP,
        f"llmzip -{level} -m {choice.name if choice.embedded else model}{threads}{device}",
        f"{__version__}, code {machine.code_digest()}, model {commit or identity[:_IDENTITY_DIGITS]}",
        job,
        is_wanted=True,
    )


# -- measuring -------------------------------------------------------------------------------------------------------


def row_without_figures(text: Text, contender: Contender, status: str = OK, error: str | None = None) -> Row:
    """Returns a row with what is known before anything is measured."""
    return Row(
        file=text.name,
        sha256=text.sha256,
        original_bytes=text.size_bytes,
        characters=text.characters,
        piece_bytes=text.piece_bytes,
        num_pieces=len(text.folders),
        compressor=contender.label,
        via=contender.via,
        command=contender.command,
        version=contender.version,
        host=machine.digest(),
        status=status,
        error=error,
    )


def measure(text: Text, contender: Contender, repeat: int | None, seconds: float | None) -> Row:
    """Compresses, decompresses and compares.

    Args:
        text: the text.
        contender: the compressor.
        repeat: runs of each direction; None for one of llmzip, and up to three within half a second of others.
        seconds: limit for all runs of one direction of another compressor; None for no limit.

    Returns:
        the row; it has figures only if every piece came back equal.
    """
    if contender.missing is not None:
        return row_without_figures(text, contender, FAILED if contender.is_wanted else MISSING, contender.missing)
    max_runs = repeat or (1 if contender.via == LLMZIP else _MAX_RUNS)
    runs = {"max_runs": max_runs, "enough_seconds": _ENOUGH_SECONDS if repeat is None else float("1e300")}
    limit = None if contender.via == LLMZIP else seconds
    try:
        packed = _direction(text, contender, runs, limit, unpacks=False)
        unpacked = _direction(text, contender, runs, limit, unpacks=True)
        if unpacked["digests"] != list(text.digests):
            raise _Failure("the decompressed text is NOT the original")
    except _Failure as failure:
        return row_without_figures(text, contender, FAILED, str(failure))
    except OSError as error:
        return row_without_figures(text, contender, FAILED, f"{error.filename or 'file'}: {error.strerror or error}")
    archives = packed["digests"]
    joined = hashlib.sha256("".join(f"{digest}\n" for digest in archives).encode()).hexdigest()
    return dataclasses.replace(
        row_without_figures(text, contender),
        compressed_bytes=packed["bytes"],
        archive_sha256=archives[0] if len(archives) == 1 else joined,
        model_bytes=packed.get("model_bytes", 0),
        compress_times=packed["times"],
        decompress_times=unpacked["times"],
        load_seconds=packed.get("load_seconds"),
        compress_peak_bytes=packed["peak_bytes"],
        decompress_peak_bytes=unpacked["peak_bytes"],
        methods=packed.get("methods", []),
        bound_bits=packed.get("bound_bits"),
    )


def _direction(
    text: Text, contender: Contender, runs: dict[str, Any], seconds: float | None, unpacks: bool
) -> dict[str, Any]:
    """Runs the child for one direction; adds `digests` and `bytes` of its outputs to its answer."""
    if contender.via == PROGRAM:
        name = str(contender.job["archive"])
        outputs = [folder / "back" / "text" if unpacks else folder / name for folder in text.folders]
        steps = [
            _step(contender.job, folder, output, unpacks) for folder, output in zip(text.folders, outputs, strict=True)
        ]
        for output in outputs:
            output.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-I", "-S", launch.__file__]
        result = _child(command, {"steps": steps, "repeat": runs}, seconds, text.folders[0].parent)
        result["digests"] = [_digest(output) for output in outputs]
    else:
        outputs = [folder / "packed" for folder in text.folders]
        sources = [str(output) for output in outputs] if unpacks else [str(folder / "text") for folder in text.folders]
        job = {
            **contender.job, "unpacks": unpacks, "repeat": runs, "sources": sources,
            "sinks": [str(output) for output in outputs], "warm_up": str(text.folders[0].parent / "warm-up"),
        }  # fmt: skip
        command = [sys.executable, "-m", "llmzip.bench.worker"]
        result = _child(command, job, seconds, text.folders[0].parent)
    result["bytes"] = sum(output.stat().st_size for output in outputs)
    return result


def _step(job: dict[str, Any], folder: Path, output: Path, unpacks: bool) -> dict[str, Any]:
    """Returns one run of a program, for the launcher."""
    working_folder = folder / "back" if unpacks else folder
    arguments, stdin, stdout = split(job["unpack"] if unpacks else job["pack"])
    return {
        "arguments": [job["executable"], *arguments],
        "folder": str(working_folder),
        "stdin": stdin,
        "stdout": stdout,
        "stderr": str(folder / "errors"),
        "output": str(output),
    }


def _child(command: Sequence[str], job: dict[str, Any], seconds: float | None, folder: Path) -> dict[str, Any]:
    """Sends a job to a child process, and returns its answer.

    Raises:
        _Failure: it took too long, crashed or reported a failure.
    """
    path = os.pathsep.join(filter(None, [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]))
    errors = folder / "errors"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=folder,
            env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        _running.add(process)
        try:
            output, _ = process.communicate(json.dumps(job).encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            raise _Failure(f"stopped after {seconds:g} s (--timeout)") from None
        finally:
            _kill(process)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
            _running.discard(process)
    if process.returncode < 0:
        raise _Failure(f"crashed, killed by {_signal_name(-process.returncode)}")
    try:
        result: dict[str, Any] = json.loads(output)
    except ValueError:
        lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise _Failure(f"crashed: exit status {process.returncode}{f': {lines[-1]}' if lines else ''}") from None
    if "error" in result:
        killed = f", killed by {_signal_name(result['signal'])}" if "signal" in result else ""
        raise _Failure(f"{result['error']}{killed}")
    return result


def stop() -> None:
    """Kills the running children and their own children, without waiting, so that signal handlers can call it."""
    for process in list(_running):
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # otherwise its number may belong to another process by now
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # its session, which includes a program that hangs


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _digest(path: Path) -> str:
    try:
        return hash_file(path, hashlib.sha256())
    except OSError as error:
        raise _Failure(f"cannot read {path.name}: {error.strerror}") from None
