"""The command `llmzip cat`: parts of texts, by bytes, lines or windows. Knows nothing of the byte format."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

from ...errors import SettingsError
from ...settings import DecompressSettings, EngineSettings
from ...system import filenames, fileops
from ...system.filenames import FileProblem
from ...system.process import is_terminal
from .. import options
from ..command import Output, command
from ..jobs import FROM_TERMINAL
from ..messages import Messages
from ..outcomes import Outcomes, shown_name
from ..values import LineRange, Range, read_prompt
from .salvage import write_salvaged

if TYPE_CHECKING:
    from ...codec.parts import PartReader

_Range = tuple[int, int | None]


@command(
    "cat",
    options.files,
    click.option(
        "--lines", metavar="A:B|N", type=LineRange(),
        help="Lines A to B, both included, or line N, as sed and bat number them: the first is 1. -1 is the last one.",
    ),
    click.option(
        "--range", "byte_range", metavar="A:B", type=Range(allows_negative=True),
        help="Bytes A up to B, B excluded, as Python slices them: the first is 0. Numbers below 0 count from the end.",
    ),
    click.option(
        "--window", "windows", metavar="I|I:J", type=Range(allows_single=True),
        help="Window I, or windows I up to J, of an archive made with --window-bits.",
    ),
    click.option(
        "--salvage", is_flag=True,
        help="Write all of a damaged archive that passes its checksums; report what is lost, in bytes and lines.",
    ),
    click.option(
        "--unverified", is_flag=True,
        help="With --salvage, also write what still decodes of the damaged parts; it passed no checksum.",
    ),
    options.decompress_model,
    options.prompt,
    options.engine,
    json=False,
)  # fmt: skip
def cat_command(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    lines: _Range | None,
    byte_range: _Range | None,
    windows: _Range | None,
    salvage: bool,
    unverified: bool,
    model: str | None,
    prompt_file: str | None,
    threads: int | None,
    device: str,
) -> int:
    """Write the text of archives, or a part of each.

    Only the frames that hold the part are read and decoded; of frames of windows, only the windows. The archive's index
    says which frames these are. With no FILE, or when FILE is -, read the standard input; a pipe is read to its end
    first. Every byte has passed a checksum, except windows chosen by number, which have none, and what --unverified
    adds.

    \b
    llmzip cat --lines 1000:1020 notes.txt.llmz
    llmzip cat --lines -10: notes.txt.llmz      the last ten lines
    llmzip cat --range -1000: notes.txt.llmz    the last thousand bytes
    """
    if unverified and not salvage:
        raise click.UsageError("--unverified needs --salvage")
    if (lines is not None) + (byte_range is not None) + (windows is not None) + salvage > 1:
        raise click.UsageError("--lines, --range, --window and --salvage exclude each other")
    settings = DecompressSettings(model, EngineSettings(device=device, threads=threads), read_prompt(prompt_file))
    outcomes = Outcomes(messages, output.file_record)
    for argument in files or ("-",):
        name = filenames.input_name(argument)
        with outcomes.of_file(name):
            if name is None and is_terminal(0):
                raise FileProblem(FROM_TERMINAL)
            with fileops.seekable_source(name) as source:
                if salvage:
                    shown = shown_name(name)
                    status = write_salvaged(output, messages, shown, source.file, settings, unverified=unverified)
                    outcomes.add(status)
                else:
                    _write(output, source.file, settings, lines, byte_range, windows)
    return outcomes.exit_status


def _write(
    output: Output,
    source: BinaryIO,
    settings: DecompressSettings,
    lines: _Range | None,
    byte_range: _Range | None,
    windows: _Range | None,
) -> None:
    """Writes the part of one file.

    Raises:
        LLMZipError, OSError: the part cannot be read.
    """
    from ...codec.parts import PartReader  # here, so that --help is quick

    reader = PartReader(source, settings)
    if windows is not None:
        _write_windows(output, reader, windows)
        return
    if lines is not None:
        begin, end = _line_places(reader, lines)
    else:
        begin, end, _ = slice(*(byte_range or (0, None))).indices(reader.num_bytes)
    for text in reader.text(begin, end):
        output.stdout.write(text)


def _line_places(reader: PartReader, lines: _Range) -> tuple[int, int]:
    """Returns where lines begin and end in the text, in bytes.

    Args:
        lines: the first one and the last one, as `LineRange` has them.
    """
    from ...codec.line_finder import LineFinder

    first, last = lines
    finder = LineFinder(reader)
    begin = finder.begin(first)
    return begin, reader.num_bytes if last in (None, -1) else finder.begin(last + 1)


def _write_windows(output: Output, reader: PartReader, windows: _Range) -> None:
    """Writes the text of windows.

    Raises:
        SettingsError: the archive has no such windows.
    """
    first, last = windows
    if not reader.num_windows:
        raise SettingsError("was not made with --window-bits, so it has no windows; use --range A:B or --lines A:B")
    last = reader.num_windows if last is None else last
    if not first <= last <= reader.num_windows:
        raise SettingsError(f"has windows 0 to {reader.num_windows - 1:,}")
    for texts, _ in reader.windows(first, last):
        output.stdout.write(b"".join(texts))
