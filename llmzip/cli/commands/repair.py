"""The command `llmzip repair`: its options and files. Knows nothing of the code that mends."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from ...errors import EXIT_DAMAGED, EXIT_OK, LLMZipError
from ...format.reading import read_archives
from ...system import filenames, fileops, process
from ...system.filenames import FileProblem
from ...system.fileops import Source
from ..command import Output, command, explained, named
from ..messages import Messages

if TYPE_CHECKING:
    from ...recovery.repair import Repair


@command(
    "repair",
    click.argument("file", metavar="FILE"),
    click.option(
        "-o",
        "--output",
        "target",
        metavar="FILE",
        help="Write the mended archive to FILE, also if nothing was damaged.",
    ),
    click.option("--in-place", is_flag=True, help="Replace FILE, once the mended archive is complete and verified."),
    click.option("-f", "--force", is_flag=True, help="Overwrite the output if it exists."),
)
def repair_command(
    output: Output, messages: Messages, file: str, target: str | None, in_place: bool, force: bool
) -> int:
    """Mend a damaged archive by its recovery data.

    FILE was made with --recovery. Without -o or --in-place, the mended copy of notes.txt.llmz is
    notes.txt.repaired.llmz, and there is none if nothing was damaged. What was mended has passed the checksums of the
    recovery data; where these cannot mend everything, nothing is written. No model is needed.
    """
    if target is not None and in_place:
        raise click.UsageError("-o and --in-place exclude each other")
    name = filenames.input_name(file)
    if name is None and target is None:
        raise click.UsageError("the standard input needs -o FILE")
    with (
        explained(file),
        process.signals_clean_up(messages.stopped),
        fileops.seekable_source(name) as source,
        _content(source.file) as data,
    ):
        with named(file):
            done = _repaired(data, source, _Target(file, target, in_place=in_place, force=force))
        problem = _problem(done.path or file)
        _report(output, file, done, problem)
        if problem is not None:
            messages.error(done.path or file, f"the recovery data protects only a part of the file: {problem}")
            return EXIT_DAMAGED
    return EXIT_OK


class _Target:
    """Where the mended archive goes.

    Args:
        file: name of the damaged one.
        name: name of the mended one; None to derive it.
        in_place: whether it takes the place of the damaged one.
        force: whether it may replace another file.

    Attributes:
        path: name of the output.
        is_wanted: whether to write it even if nothing was damaged.
        replaces: whether another file of that name is replaced.
    """

    def __init__(self, file: str, name: str | None, *, in_place: bool, force: bool) -> None:
        stem, suffix = os.path.splitext(file)
        derived = os.path.realpath(file) if in_place else f"{stem}.repaired{suffix}"
        self.path = derived if name is None else name
        self.is_wanted, self.replaces, self.in_place = name is not None, force or in_place, in_place


class _Done:
    """What was done.

    Attributes:
        repair: to the archive.
        path: the file that was written; None if there is none.
    """

    def __init__(self, repair: Repair, path: str | None) -> None:
        self.repair, self.path = repair, path


@contextlib.contextmanager
def _content(file: BinaryIO) -> Iterator[mmap.mmap]:
    """Maps a file into memory."""
    if not os.fstat(file.fileno()).st_size:
        raise LLMZipError("is empty")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        yield mapped


def _repaired(data: mmap.mmap, source: Source, target: _Target) -> _Done:
    """Mends an archive; the output appears whole and verified, or not at all."""
    from ...recovery.repair import repair  # here, so that --help is quick

    # In place the output is the input, which only a source of another file may be.
    other = Source(None, io.BytesIO(), os.stat(os.devnull)) if target.in_place else source
    with _about(target.path), fileops.Output(target.path, other, force=target.replaces) as sink:
        done = repair(data, cast("BinaryIO", sink.sink))
        if not (done.is_changed or target.is_wanted):
            return _Done(done, None)
        sink.finish(source)
        sink.publish()
    return _Done(done, target.path)


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Adds the output's name to problems with it."""
    try:
        yield
    except FileProblem as error:
        raise FileProblem(f"{name}: {error}") from None
    except OSError as error:
        raise FileProblem(f"{name}: {error.strerror}; no output was written") from error


def _problem(path: str) -> LLMZipError | None:
    """Returns what is still wrong with an archive, by its frames' checks; None for nothing."""
    with open(path, "rb") as file:
        try:
            for _ in read_archives(file):
                pass
        except LLMZipError as error:
            return error
    return None


def _report(output: Output, file: str, done: _Done, problem: LLMZipError | None) -> None:
    """Says what was mended."""
    sets = done.repair.sets
    output.file_record(
        file,
        output=done.path,
        is_changed=done.repair.is_changed,
        restored_blocks=sum(part.lost_blocks for part in sets),
        moved_blocks=sum(part.moved_blocks for part in sets),
        rewritten_packets=sum(part.lost_packets for part in sets),
        protected=[
            {"begin": part.begin, "bytes": part.layout.protected_bytes, "restored_blocks": part.lost_blocks}
            for part in sets
        ],
        error=None if problem is None else {"code": EXIT_DAMAGED, "kind": "CorruptError", "message": str(problem)},
    )
    for part in sets:
        layout, facts = part.layout, []
        if part.lost_blocks:
            facts.append(
                f"restored {part.lost_blocks:,} of {layout.num_blocks:,} blocks of {layout.block_bytes:,} bytes"
            )
        if part.moved_blocks:
            facts.append(f"moved {part.moved_blocks:,} blocks to their places")
        if part.removed_bytes:
            facts.append(f"removed {part.removed_bytes:,} bytes that belong to no archive")
        if part.lost_packets or (done.repair.is_changed and not facts):
            facts.append(f"wrote {part.lost_packets:,} of {layout.num_packets:,} packets of recovery data again")
        place = f"bytes {part.begin:,} to {part.begin + layout.protected_bytes:,}: " if len(sets) > 1 else ""
        output.line(f"{file}: {place}{', '.join(facts) if facts else 'nothing is damaged'}")
    if done.path is not None:
        output.line(f"{file}: wrote {done.path}")
