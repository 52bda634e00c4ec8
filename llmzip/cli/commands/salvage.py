"""What `llmzip cat --salvage` writes, and how it says what is lost. Knows nothing of the byte format."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ...errors import EXIT_DAMAGED, EXIT_FAILED
from ...settings import DecompressSettings
from ..command import Output
from ..messages import Messages
from ..outcomes import overall_exit_status

if TYPE_CHECKING:
    from ...codec.salvage import Salvaged


class _Sum:
    """Counts what was saved and lost.

    Attributes:
        num_bytes, num_breaks: bytes and line breaks written so far that passed a checksum.
        lost_bytes: bytes that are lost, at least.
        lost_breaks: line breaks that are lost, at least.
        unsure_bytes: bytes of those lost of which nobody knows whether they were line breaks.
        is_exact: whether there are no more of them.
        is_refused: whether the rest is not read because it is of another version.
        unverified_bytes: bytes written that passed no checksum.
    """

    def __init__(self) -> None:
        self.num_bytes = self.num_breaks = 0
        self.lost_bytes, self.is_exact, self.is_refused = 0, True, False
        self.unverified_bytes = self.lost_breaks = self.unsure_bytes = 0

    def saved(self, text: bytes) -> None:
        """Counts text that has passed its checksum."""
        self.num_bytes += len(text)
        self.num_breaks += text.count(b"\n")

    def lost(self, part: Salvaged) -> None:
        """Counts a part that is lost."""
        self.unverified_bytes += sum(map(len, part.pieces))
        if part.refused:
            self.is_refused = True
        elif part.end is None:
            self.is_exact = False
        else:
            size = part.end - part.begin
            self.lost_bytes += size
            self.lost_breaks += part.line_feeds or 0
            self.unsure_bytes += size if part.line_feeds is None else 0

    def line(self) -> str:
        """Returns from which line on what comes next is, as far as that is known."""
        is_known = self.is_exact and not self.unsure_bytes
        return f"from line {self.num_breaks + self.lost_breaks + 1:,} {'on' if is_known else 'at the earliest'}"

    def text(self) -> str:
        """Returns the line at the end."""
        text = f"saved {self.num_bytes:,} bytes with {self.num_breaks:,} line breaks; "
        if self.is_refused and not self.lost_bytes:
            return f"{text}an unknown number of bytes is not read"
        text += "lost "
        if self.is_exact:
            text += f"{self.lost_bytes:,} bytes"
            most = f" to {self.lost_breaks + self.unsure_bytes:,}" if self.unsure_bytes else ""
            text += f" with {self.lost_breaks:,}{most} line breaks" if self.lost_bytes else ""
        else:
            text += f"at least {self.lost_bytes:,} bytes" if self.lost_bytes else "an unknown number of bytes"
            text += " and an unknown number of line breaks"
        if self.is_refused:
            text += "; the rest is not read"
        if self.unverified_bytes:
            text += f"; {self.unverified_bytes:,} of the bytes written passed no checksum"
        return text


def write_salvaged(
    output: Output, messages: Messages, file: str, source: BinaryIO, settings: DecompressSettings, *, unverified: bool
) -> int:
    """Writes all readable text and reports what is lost.

    Args:
        output: where the text goes.
        messages: where the report goes.
        file: name of the file, for messages.
        source: the file.
        settings: model, engine.
        unverified: whether to write what passed no checksum, too.

    Returns:
        the exit status.

    Raises:
        LLMZipError: the file is no archive, or its model is not available.
    """
    from ...codec.salvage import Salvager

    total, statuses = _Sum(), []
    for part in Salvager(source, settings, unverified=unverified).salvage():
        if part.text is not None:
            output.stdout.write(part.text)
            total.saved(part.text)
            continue
        statuses.append(EXIT_FAILED if part.refused else EXIT_DAMAGED)
        written = total.num_bytes + total.unverified_bytes
        messages.error(file, _missing(part, total.line()))
        for piece in part.pieces:
            output.stdout.write(piece)
        total.lost(part)
        if part.pieces:
            messages.error(file, _unverified(part, written))
    if statuses:
        messages.error(file, total.text())
    return overall_exit_status(statuses)


def _missing(part: Salvaged, line: str) -> str:
    """Says which part of the text is missing, and why.

    Args:
        part: the part.
        line: where it begins, in lines.
    """
    begin, end = part.begin, part.end
    if part.is_model:
        return f"a model that the file carries is lost, and looked for on this machine: {part.reason}"
    if part.refused:
        return f"{part.reason}; the text from byte {begin:,} on is not written"
    if end is None:
        lost = f"the text from byte {begin:,} on is lost, {line}"
    elif begin == end:
        lost = "no text is lost, but the archive is incomplete"
    else:
        lost = f"bytes {begin:,} to {end:,} are lost, {line}"
    return f"{lost}: {part.reason}"


def _unverified(part: Salvaged, written: int) -> str:
    """Says what was written of a lost part, and where that is in the output."""
    size, breaks = sum(map(len, part.pieces)), sum(piece.count(b"\n") for piece in part.pieces)
    pieces = f" in {len(part.pieces):,} pieces" if len(part.pieces) > 1 else ""
    return (
        f"unverified: bytes {written:,} to {written + size:,} of the output{pieces}, with {breaks:,} line breaks, are "
        "what still decodes of that part; nothing says that it is right"
    )
