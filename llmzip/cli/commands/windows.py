"""The command `llmzip windows`: its options and tables. Knows nothing of the byte format."""

from __future__ import annotations

import collections
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from ...errors import EXIT_OK, SettingsError
from ...format.headers import MAGIC
from ...settings import DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings
from ...system import filenames, fileops, process
from ...system.streams import read_upto
from .. import options
from ..command import Output, command, explained, has_colours, named, piece_text
from ..messages import Messages

if TYPE_CHECKING:
    from ...codec.parts import PartReader

_DEFAULT_WINDOW_BITS = 16
_BAR_CHARACTERS = 40
_MAX_CLASSES = 24  # lines of the histogram


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    with explained(name), fileops.seekable_source(filenames.input_name(name)) as source:
        yield source.file


@command(
    "windows",
    click.argument("file", metavar="FILE"),
    options.local_model,
    options.windows,
    click.option(
        "--show", is_flag=True, help="Print the text cut into its windows: in two colours, or with | after each."
    ),
    options.color,
    click.option("--export", metavar="FILE.npy", help="Write the windows as an array of --token-bits integers."),
    click.option("--import", "imported", is_flag=True, help="Read such an array from FILE and write its text."),
    click.option(
        "--token-bits", type=click.Choice(["8", "16"]), default="16", show_default=True,
        help="Size of the integers of --export.",
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
    """Show how a text divides into windows.

    FILE is an archive made with --window-bits, or a text, which is cut into windows of --window-bits (default 16).
    Print how much text the windows hold, and how many of their bits are unused. Arrays of tokens are for training
    language models on compressed text; FILE.npy.json next to an array says how to turn it back into text.

    \b
    llmzip windows --window-bits 32 notes.txt
    llmzip windows --show notes.txt
    llmzip windows --export tokens.npy notes.txt.llmz
    llmzip windows --import tokens.npy > notes.txt
    """
    from ...codec import window_arrays

    if color != "auto" and not show:
        raise click.UsageError("--color needs --show")
    if export is not None:
        _check_export(export, file)
    engine = EngineSettings(device=device, threads=threads)
    if imported:
        if show or export is not None or window_bits is not None:
            raise click.UsageError("--import cannot be used with --show, --export or --window-bits")
        _import(output, file, DecompressSettings(model, engine))
        return EXIT_OK
    with _opened(file) as source, named(file):
        reader = _reader(source, model, engine, window_bits, model_reset)
        if not reader.num_windows:
            raise SettingsError(f"{file} was not made with --window-bits, so it has no windows")
        if export is not None:
            with explained(export), process.signals_clean_up(messages.stopped):
                window_arrays.save(Path(export), reader, int(token_bits))
        elif show:
            _show(output, reader, has_colours(color, output.stdout.fileno()))
        else:
            _table(output, reader)
    return EXIT_OK


def _import(output: Output, file: str, settings: DecompressSettings) -> None:
    """Writes the text of an exported array."""
    from ...codec import window_arrays
    from ...codec.parts import PartReader

    with explained(file):
        archive = window_arrays.load(Path(file))
    with named(file):
        reader = PartReader(io.BytesIO(archive), settings)
        for text in reader.text(0, reader.num_bytes):
            output.stdout.write(text)


def _reader(
    source: BinaryIO, model: str | None, engine: EngineSettings, window_bits: int | None, model_reset: bool
) -> PartReader:
    """Returns a reader of an archive, or of the archive that a text is compressed to.

    Raises:
        click.UsageError: a window size was given for an archive.
    """
    from ...codec.parts import PartReader
    from ...codec.writer import compress_stream

    settings = DecompressSettings(model, engine)
    is_archive = read_upto(source, len(MAGIC)) == MAGIC
    source.seek(0)
    if is_archive:
        if window_bits is not None:
            raise click.UsageError("--window-bits is for texts; this is an archive")
        return PartReader(source, settings)
    archive = io.BytesIO()
    compress = CompressSettings(
        model=model or DEFAULT_MODEL,
        engine=engine,
        window_bits=window_bits or _DEFAULT_WINDOW_BITS,
        model_reset=model_reset,
    )
    compress_stream(source, archive, compress)
    archive.seek(0)
    return PartReader(archive, settings)


def _check_export(export: str, source: str) -> None:
    """Refuses a name of --export that would spoil the input, or that is a stream."""
    if filenames.named_descriptor(export) is not None or export == "-":
        raise click.UsageError("--export writes two files, FILE.npy and FILE.npy.json, so it needs the name of a file")
    for name in (export, export + ".json"):
        if filenames.is_input(name, source):
            raise click.UsageError(f"--export would overwrite the input file {source}")


def _show(output: Output, reader: PartReader, coloured: bool) -> None:
    """Prints the text cut into its windows."""
    number = 0
    for texts, _ in reader.windows(0, reader.num_windows):
        for data in texts:
            text = data.decode("utf-8", "backslashreplace")
            output.record(window=number, bytes=len(data), text=text)
            if not output.json:
                output.stdout.write(piece_text(text, number, coloured).encode("utf-8", "replace"))
            number += 1
    output.line("")


def _table(output: Output, reader: PartReader) -> None:
    """Prints how much text the windows hold, and a histogram."""
    sizes: collections.Counter[int] = collections.Counter()
    num_characters = 0
    spare_bits = 0.0
    for texts, spare in reader.windows(0, reader.num_windows):
        sizes.update(map(len, texts))
        num_characters += sum(byte & 0xC0 != 0x80 for text in texts for byte in text)
        spare_bits += float(spare.sum())
    num_bytes = sum(size * count for size, count in sizes.items())
    records = [place.frame.header.windows for place in reader.places]
    num_bits = sum(record.count * record.window_bits for record in records if record is not None)
    widths = sorted({record.window_bits for record in records if record is not None})
    num_windows = reader.num_windows
    facts: dict[str, int | float] = {
        "windows": num_windows,
        "bytes": num_bytes,
        "characters": num_characters,
        "bytes_per_window": num_bytes / num_windows,
        "characters_per_window": num_characters / num_windows,
        "bytes_per_8_bits": 8 * num_bytes / num_bits,
        "bits_per_byte": num_bits / num_bytes,
        "unused_bits_per_window": spare_bits / num_windows,
    }
    output.record(window_bits=widths, **facts, histogram={str(size): sizes[size] for size in sorted(sizes)})
    output.line(f"{'window bits':<24}{', '.join(map(str, widths)):>14}")
    for name, value in facts.items():
        text = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        output.line(f"{name.replace('_', ' '):<24}{text:>14}")
    output.line("")
    _histogram(output, sizes)


def _histogram(output: Output, sizes: collections.Counter[int]) -> None:
    """Prints how many windows have how many bytes, in classes of equal width."""
    output.line(f"{'bytes':>12} {'windows':>10} {'share':>7}")
    width = -(-(max(sizes) + 1) // _MAX_CLASSES)
    classes: collections.Counter[int] = collections.Counter()
    for size, count in sizes.items():
        classes[size // width] += count
    largest = max(classes.values())
    for number in range(min(classes), max(classes) + 1):
        name = str(number) if width == 1 else f"{number * width} to {number * width + width - 1}"
        bar = "#" * round(_BAR_CHARACTERS * classes[number] / largest)
        share = 100 * classes[number] / sum(sizes.values())
        output.line(f"{name:>12} {classes[number]:>10,} {share:>6.1f}% {bar}")
