"""The command `llmzip packets`: its options, files and folders. Knows nothing of a packet's bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import (
    EXIT_DAMAGED,
    EXIT_OK,
    CorruptError,
    LLMZipError,
    ModelMismatchError,
    ModelNotFoundError,
    SettingsError,
)
from ...format.packets import (
    MAX_PACKET_BYTES,
    MAX_TEXT_BYTES,
    MIN_PACKET_BYTES,
    STREAM_MAGIC,
    Packet,
    data_bytes,
    model_id,
    read_stream,
    stream_entry,
    stream_header,
)
from ...models.choice import choose_model
from ...models.embedded import EMBEDDED
from ...settings import DEFAULT_MODEL, EngineSettings
from ...system.filenames import input_name
from ...system.fileops import open_source
from ...system.process import is_terminal
from ...system.streams import Prefixed, read_upto
from .. import options
from ..command import Output, command, explained
from ..messages import Messages
from ..outcomes import shown_name

if TYPE_CHECKING:
    from ...inference.load import LoadedModel
    from ...windows.packets import Part

_SUFFIX = ".llmp"
_DEFAULT_PACKET_BYTES = 140
_MAX_FILE_BYTES = 2 * MAX_PACKET_BYTES + 32  # of a file that may be one packet
_MAX_LISTED_TEXTS = 8


@command(
    "packets",
    click.argument("files", metavar="FILE...", nargs=-1, required=True),
    click.option("-d", "--decompress", "unpack", is_flag=True, help="Decode packets and write their text."),
    click.option(
        "--packet-bytes", metavar="N", type=int, default=_DEFAULT_PACKET_BYTES, show_default=True,
        help=f"Length of a packet, {MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}; the last one may be shorter.",
    ),
    click.option(
        "-o", "--output", "folder", metavar="DIR", help="Write each packet to its own file in a new folder."
    ),
    click.option("--text", "text_id", metavar="ID", help="With -d: decode only the packets of this text."),
    options.local_model,
    options.engine,
    options.progress,
    json=False,
)  # fmt: skip
def packets_command(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    unpack: bool,
    packet_bytes: int,
    folder: str | None,
    text_id: str | None,
    model: str | None,
    threads: int | None,
    device: str,
) -> int:
    """Cut a text into self-contained packets.

    Packets are for channels that lose or reorder data: a lost packet costs only its own text. FILE is a text, or - for
    the standard input; the packets go to the standard output as one stream, or into a folder. With -d, FILEs are such
    streams, folders, or files with one packet each, in any order. The text that arrived goes to the standard output,
    what is missing is reported, and the exit status is then 4.

    \b
    llmzip packets --packet-bytes 140 notes.txt -o notes.packets
    llmzip packets -d notes.packets > notes.txt
    """
    engine = EngineSettings(device=device, threads=threads)
    if unpack:
        if folder is not None:
            raise click.UsageError("-o cannot be used with -d, which writes the text to the standard output")
        return _unpack(output, messages, files, text_id, model, engine)
    if len(files) > 1 or text_id is not None:
        raise click.UsageError("only one text at a time" if len(files) > 1 else "--text needs -d")
    if folder is None and is_terminal(output.stdout.fileno()):
        raise click.UsageError("packets are not written to a terminal; redirect them, or use -o DIR")
    _pack(output, messages, files[0], packet_bytes, folder, model, engine)
    return EXIT_OK


# -- text to packets -------------------------------------------------------------------------------------------------


def _pack(
    output: Output,
    messages: Messages,
    name: str,
    packet_bytes: int,
    folder: str | None,
    model: str | None,
    engine: EngineSettings,
) -> None:
    """Writes the packets of a text as a stream, or into a new folder."""
    from ...inference.load import load
    from ...windows import packets as window_packets

    data_bytes(packet_bytes, 0)  # checks the length before a long text is read
    with explained(name), open_source(input_name(name)) as source:
        text = read_upto(source.file, MAX_TEXT_BYTES + 1)
    if folder is not None:
        with explained(folder):  # finds out now, not after an hour, whether the folder can be made
            os.mkdir(folder)
            os.rmdir(folder)
    loaded = load(choose_model(model or DEFAULT_MODEL), engine)
    shown = shown_name(input_name(name))
    with messages.progress(shown, len(text)) as advance:
        packets = window_packets.encode(loaded, text, packet_bytes, advance)
    if folder is None:
        output.stdout.write(stream_header() + b"".join(map(stream_entry, packets)))
    else:
        _write_folder(Path(folder), packets)
    size = sum(map(len, packets))
    messages.summary(shown, f"{len(text):,} bytes -> {len(packets):,} packets, {size:,} bytes")


def _write_folder(folder: Path, packets: list[bytes]) -> None:
    """Makes a folder with a file for each packet; removes it again if that fails."""
    digits = len(str(len(packets) - 1))
    with explained(str(folder)):
        folder.mkdir()
        try:
            for number, packet in enumerate(packets):
                (folder / f"{number:0{digits}}{_SUFFIX}").write_bytes(packet)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


# -- packets to text -------------------------------------------------------------------------------------------------


def _unpack(
    output: Output,
    messages: Messages,
    files: tuple[str, ...],
    text_id: str | None,
    model: str | None,
    engine: EngineSettings,
) -> int:
    """Writes the text of packets. Returns the exit status."""
    from ...windows import packets as window_packets

    unread: list[tuple[str, LLMZipError]] = []
    texts, problems = window_packets.gather(_packets(files, unread))
    for name, error in [*unread, *problems]:
        messages.error(name, str(error), error)
    if text_id is not None:
        texts = {key: packets for key, packets in texts.items() if f"{packets[0].text:04x}" == text_id.lower()}
    if not texts:
        raise CorruptError("no packets" + (f" of the text {text_id}" if text_id else ""))
    by_text = sorted(texts.values(), key=len, reverse=True)
    packets = by_text[0]
    loaded = _model_of(packets[0], model, engine)
    _check_single(by_text)
    with messages.progress(files[0], None) as advance:
        parts, wrong = window_packets.decode(loaded, packets, advance)
    for reason in wrong:
        messages.error(None, reason)
    gaps = [part for part in parts if part.text is None]
    for part in parts:
        if part.text is not None:
            output.stdout.write(part.text)
    for part in gaps:
        messages.error(None, _gap_text(part))
    return EXIT_DAMAGED if gaps or wrong or unread or problems else EXIT_OK


def _check_single(by_text: list[list[Packet]]) -> None:
    """Refuses packets of more than one text.

    Args:
        by_text: the packets of each text, the longest text first.

    Raises:
        ModelMismatchError: some were made with another model.
        SettingsError: one of the texts must be chosen.
    """
    first = by_text[0][0]
    for others in by_text[1:]:
        if others[0].model != first.model:
            raise ModelMismatchError(
                f"{len(others):,} of {sum(map(len, by_text)):,} packets were made with another model, "
                f"{others[0].model.hex()} instead of {first.model.hex()}; leave them out, or choose with --text"
            )
    if len(by_text) > 1:
        texts = [f"{packets[0].text:04x} ({len(packets):,} packets)" for packets in by_text[:_MAX_LISTED_TEXTS]]
        raise SettingsError(f"packets of {len(by_text)} texts; choose one with --text: {', '.join(texts)}")


def _gap_text(part: Part) -> str:
    """Returns which bytes of the text are missing, and with which packets."""
    first, end = part.packets
    if end is None or part.end is None:
        return f"the text from byte {part.begin:,} on is missing: packet {first:,} and any after it are lost"
    which = f"packet {first:,}" if end == first + 1 else f"packets {first:,} to {end - 1:,}"
    verb = "is" if end == first + 1 else "are"
    return f"bytes {part.begin:,} to {part.end:,} of the text are missing: {which} {verb} lost"


def _packets(files: tuple[str, ...], unread: list[tuple[str, LLMZipError]]) -> Iterator[tuple[str, bytes]]:
    """Yields names and bytes of what may be packets.

    Args:
        files: names of streams, folders and single packets.
        unread: takes the names of streams that end too early, and their errors.
    """
    for name in files:
        if name != "-" and os.path.isdir(name):
            yield from _packets_in(name)
            continue
        with explained(name), open_source(input_name(name)) as source:
            head = read_upto(source.file, len(STREAM_MAGIC))
            if head == STREAM_MAGIC:
                try:
                    for number, packet in enumerate(read_stream(Prefixed(head, source.file))):
                        yield f"{name}: entry {number:,}", packet
                except LLMZipError as error:
                    unread.append((name, error))
            else:
                yield name, head + read_upto(source.file, _MAX_FILE_BYTES)


def _packets_in(folder: str) -> Iterator[tuple[str, bytes]]:
    """Yields names and bytes of the files in a folder, by name."""
    with explained(folder):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_file():
            with explained(entry.path), open(entry.path, "rb") as file:
                yield entry.path, file.read(_MAX_FILE_BYTES)


def _model_of(packet: Packet, model: str | None, engine: EngineSettings) -> LoadedModel:
    """Loads the model that packets were made with.

    Args:
        packet: one of the packets.
        model: name of the model; None for an embedded one.
        engine: where it runs.

    Raises:
        ModelMismatchError: the named model is not the packets'.
        ModelNotFoundError: no model was named, and no embedded one is the packets'.
    """
    from ...inference.load import load

    if model is None:
        for embedded in EMBEDDED:
            if model_id(embedded.model_digest, embedded.tokenizer_digest) == packet.model:
                return load(choose_model(embedded.name), engine)
        raise ModelNotFoundError(
            f"the packets were made with a model that is not embedded, {packet.model.hex()}; name it with -m"
        )
    loaded = load(choose_model(model), engine)
    loaded_id = model_id(loaded.record.model_digest, loaded.record.tokenizer_digest)
    if loaded_id != packet.model:
        raise ModelMismatchError(
            f"the packets were made with another model: they name {packet.model.hex()}, {loaded.name} is "
            f"{loaded_id.hex()}"
        )
    return loaded
