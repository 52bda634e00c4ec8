"""The commands `llmzip cat` and `llmzip windows`: options, and what is printed; must not know the byte format."""

from __future__ import annotations

import collections
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ...errors import EXIT_DAMAGED, LLMZipError, SettingsError
from ...format.headers import MAGIC
from ...settings import DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings
from ...system import filenames, fileops, process
from ...system.streams import read_upto
from .. import options
from ..command import Output, command, explained, has_colours, piece_text
from ..messages import Messages

if TYPE_CHECKING:
    from ...codec.parts import PartReader

_RANGE = re.compile("([0-9]*):([0-9]*)")
_DEFAULT_BITS = 16
_BAR, _CLASSES = 40, 24


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    with explained(name), fileops.seekable_source(filenames.input_name(name)) as source:
        yield source.file


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What is wrong with an archive, or with its model, is said with the file's name."""
    try:
        yield
    except SettingsError:
        raise
    except LLMZipError as error:
        error.args = (f"{name}: {error}",)
        raise


class Range(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """`A:B`, either of which may be left out; if `single`, also one number for A:A+1."""

    name = "range"

    def __init__(self, single: bool) -> None:
        self._single = single

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if self._single and value.isdecimal():
            return int(value), int(value) + 1
        parts = _RANGE.fullmatch(value)
        if parts is None:
            self.fail(f"{value!r} is not of the form A:B", param, ctx)
        first, last = int(parts[1] or 0), int(parts[2]) if parts[2] else None
        if last is not None and last < first:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return first, last


# -- cat -------------------------------------------------------------------------------------------------------------


@command(
    "cat",
    click.argument("file", metavar="FILE"),
    click.option("--range", "wanted", metavar="A:B", type=Range(False), help="Bytes A up to B of the text, from 0."),
    click.option(
        "--window", "windows", metavar="I|I:J", type=Range(True),
        help="Window I, or I up to J, of an archive made with --window-bits.",
    ),
    click.option("--salvage", is_flag=True, help="All that can be had of a damaged archive; says what is lost."),
    options.decompress_model,
    options.prompt,
    options.engine,
    json=False,
)  # fmt: skip
def cat_command(
    output: Output,
    messages: Messages,
    file: str,
    wanted: tuple[int, int | None] | None,
    windows: tuple[int, int | None] | None,
    salvage: bool,
    model: str | None,
    prompt_file: str | None,
    threads: int | None,
    device: str,
) -> int:
    """Write the text of an archive, or a part of it.

    Only the frames that hold the part are read and decoded, and of frames of windows only the windows. FILE may be -
    for the standard input; a pipe is read to its end first. Bytes have passed a checksum; windows by number have none.
    """
    from ...codec.parts import PartReader  # not before it is needed: --help must be quick

    if (wanted is not None) + (windows is not None) + salvage > 1:
        raise click.UsageError("--range, --window and --salvage exclude each other")
    settings = DecompressSettings(
        model, EngineSettings(device=device, threads=threads), options.read_prompt(prompt_file)
    )
    with _opened(file) as source, _named(file):
        reader = PartReader(source, settings, salvaging=salvage)
        if salvage:
            return _salvage(output, messages, file, reader)
        if windows is not None:
            first, last = windows
            if not reader.num_windows:
                raise SettingsError(f"{file} was not made with --window-bits, so it has no windows; use --range A:B")
            last = reader.num_windows if last is None else last
            if not first <= last <= reader.num_windows:
                raise SettingsError(f"{file} has windows 0 to {reader.num_windows - 1:,}")
            for texts, _ in reader.windows(first, last):
                output.stdout.write(b"".join(texts))
            return 0
        first, last = wanted or (0, None)
        for text in reader.text(first, reader.num_bytes if last is None else last):
            output.stdout.write(text)
    return 0


def _salvage(output: Output, messages: Messages, file: str, reader: PartReader) -> int:
    code = 0
    for part in reader.salvage():
        if part.text is None:
            code = EXIT_DAMAGED
            messages.error(file, f"{_lost(part.begin, part.end)}: {part.reason}")
        else:
            output.stdout.write(part.text)
    return code


def _lost(begin: int, end: int | None) -> str:
    if end is None:
        return f"the text from byte {begin:,} on is lost"
    return f"bytes {begin:,} to {end:,} are lost" if begin < end else "no text is lost, but the archive is not whole"


# -- windows ---------------------------------------------------------------------------------------------------------


@command(
    "windows",
    click.argument("file", metavar="FILE"),
    click.option("-m", "--model", metavar="NAME|DIR", help="Embedded model, folder, or an id of the Hub that is here."),
    options.windows,
    click.option("--show", is_flag=True, help="Print the text cut by windows: in two colours, or with | behind each."),
    options.color,
    click.option("--export", metavar="FILE.npy", help="Write the windows as an array of numbers of --token-bits each."),
    click.option("--import", "imported", is_flag=True, help="FILE is such an array: write its text."),
    click.option(
        "--token-bits", type=click.Choice(["8", "16"]), default="16", show_default=True, help="For --export."
    ),
    options.engine,
)  # fmt: skip
def windows_command(
    output: Output,
    messages: Messages,
    file: str,
    model: str | None,
    window_bits: int | None,
    model_reset: bool,
    show: bool,
    color: str,
    export: str | None,
    imported: bool,
    token_bits: str,
    threads: int | None,
    device: str,
) -> int:
    """Show how a text lies in Equal-Info windows.

    FILE is an archive made with --window-bits, or a text, which is cut into windows of --window-bits (default 16).
    Prints how much text the windows hold, and how many of their bits are not used. Arrays of tokens are for training
    language models on compressed text; FILE.npy.json beside one says how it becomes text again.

    \b
    llmzip windows --window-bits 32 notes.txt
    llmzip windows --show notes.txt
    llmzip windows --export tokens.npy notes.txt.llmz
    llmzip windows --import tokens.npy > notes.txt
    """
    from ...codec import window_arrays
    from ...codec.parts import PartReader
    from ...codec.writer import compress_stream

    if color != "auto" and not show:
        raise click.UsageError("--color goes with --show")
    if export is not None:
        _check_export(export, file)
    engine = EngineSettings(device=device, threads=threads)
    settings = DecompressSettings(model, engine)
    if imported:
        if show or export is not None or window_bits is not None:
            raise click.UsageError("--import goes with none of --show, --export and --window-bits")
        with explained(file):
            archive = window_arrays.load(Path(file))
        reader = PartReader(io.BytesIO(archive), settings)
        for text in reader.text(0, reader.num_bytes):
            output.stdout.write(text)
        return 0
    with _opened(file) as source, _named(file):
        is_archive = read_upto(source, len(MAGIC)) == MAGIC
        source.seek(0)
        if is_archive:
            if window_bits is not None:
                raise click.UsageError("--window-bits is for texts; this is an archive")
            reader = PartReader(source, settings)
        else:
            made = io.BytesIO()
            bits = window_bits or _DEFAULT_BITS
            compress_stream(source, made, CompressSettings(
                model=model or DEFAULT_MODEL, engine=engine, window_bits=bits, model_reset=model_reset
            ))  # fmt: skip
            made.seek(0)
            reader = PartReader(made, settings)
        if not reader.num_windows:
            raise SettingsError(f"{file} was not made with --window-bits, so it has no windows")
        if export is not None:
            with explained(export), process.signals_clean_up(messages.stopped):
                window_arrays.save(Path(export), reader, int(token_bits))
        elif show:
            _show(output, reader, has_colours(color, output.stdout.fileno()))
        else:
            _table(output, reader)
    return 0


def _check_export(export: str, source: str) -> None:
    """Refuses what would spoil the input or be no two files."""
    if filenames.named_descriptor(export) is not None or export == "-":
        raise click.UsageError("--export makes two files, FILE.npy and FILE.npy.json: name one that is no stream")
    for name in (export, export + ".json"):
        if filenames.is_input(name, source):
            raise click.UsageError(f"--export would overwrite the input file {source}")


def _show(output: Output, reader: PartReader, coloured: bool) -> None:
    number = 0
    for texts, _ in reader.windows(0, reader.num_windows):
        for text in texts:
            whole = text.decode("utf-8", "backslashreplace")
            output.record(window=number, bytes=len(text), text=whole)
            if not output.json:
                output.stdout.write(piece_text(whole, number, coloured).encode("utf-8", "replace"))
            number += 1
    output.line("")


def _table(output: Output, reader: PartReader) -> None:
    counts: collections.Counter[int] = collections.Counter()
    num_bytes = num_characters = 0
    spare_bits = 0.0
    for texts, spare in reader.windows(0, reader.num_windows):
        counts.update(map(len, texts))
        num_bytes += sum(map(len, texts))
        num_characters += sum(byte & 0xC0 != 0x80 for text in texts for byte in text)
        spare_bits += float(spare.sum())
    records = [place.frame.header.windows for place in reader.places]
    bits = sum(record.count * record.window_bits for record in records if record is not None)
    widths = sorted({record.window_bits for record in records if record is not None})
    count = reader.num_windows
    facts: dict[str, int | float] = {
        "windows": count,
        "bytes": num_bytes,
        "characters": num_characters,
        "bytes_per_window": num_bytes / count,
        "characters_per_window": num_characters / count,
        "bytes_per_8_bits": 8 * num_bytes / bits,
        "bits_per_byte": bits / num_bytes,
        "unused_bits_per_window": spare_bits / count,
    }
    output.record(window_bits=widths, **facts, histogram={str(size): counts[size] for size in sorted(counts)})
    output.line(f"{'window bits':<24}{', '.join(map(str, widths)):>14}")
    for name, value in facts.items():
        text = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        output.line(f"{name.replace('_', ' '):<24}{text:>14}")
    output.line("")
    output.line(f"{'bytes':>12} {'windows':>10} {'share':>7}")
    step = -(-(max(counts) + 1) // _CLASSES)
    classes: collections.Counter[int] = collections.Counter()
    for size, number in counts.items():
        classes[size // step] += number
    most = max(classes.values())
    for place in range(min(classes), max(classes) + 1):
        name = str(place) if step == 1 else f"{place * step} to {place * step + step - 1}"
        bar = "#" * round(_BAR * classes[place] / most)
        output.line(f"{name:>12} {classes[place]:>10,} {100 * classes[place] / count:>6.1f}% {bar}")
