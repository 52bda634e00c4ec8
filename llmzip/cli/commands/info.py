"""The tables of -l and `llmzip info`, from headers alone; must not know click, engines or payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...system.filenames import FileProblem, input_name, printable
from ...system.fileops import open_source
from ...system.process import STDIN, is_terminal
from ...system.streams import DescriptorWriter
from ..jobs import FROM_TERMINAL, LIST, Options, explain, overall_exit_code
from ..messages import Messages, bits_per_byte_text, ratio_text
from ..records import SCHEMA, RecordFile, json_error, json_line, json_name

if TYPE_CHECKING:
    from ...codec.info import ArchiveInfo

_ROW = "{:>14} {:>14} {:>8} {:>9} {:>7}  {:<10}  {}"
_HEADING = _ROW.format("compressed", "uncompressed", "ratio", "bits/byte", "frames", "model", "name")


class InfoTable:
    """Prints a line per file as it is read, and totals for several.

    Args:
        options: what was asked for.
        messages: where errors go.
        stdout: where the table goes.
        report: takes the JSON lines of --report; None for none.
    """

    def __init__(
        self,
        options: Options,
        messages: Messages,
        stdout: DescriptorWriter,
        report: RecordFile | None = None,
    ) -> None:
        self._options = options
        self._messages = messages
        self._stdout = stdout
        self._report = report
        self._heading_is_due = True

    def run(self, names: Sequence[str]) -> int:
        """Lists all names; "-" is the standard input. Returns the exit code.

        Raises:
            OSError: the standard output takes no more.
        """
        codes: list[int] = []
        listed: list[ArchiveInfo] = []
        for argument in names:
            name = input_name(argument)
            try:
                info = self._read(name)
            except Exception as error:
                code, text = explain(error, STDIN if name is None else name)
                codes.append(code)
                self._messages.error(STDIN if name is None else name, text, error)
                self._record(name, {"error": json_error(code, error, text)})
                continue
            listed.append(info)
            self._record(name, {**info.to_dict(), "error": None})
            if not self._options.json:
                self._print_file(STDIN if name is None else name, info)
        if len(listed) > 1 and not self._options.json:
            self._print_totals(listed)
        return overall_exit_code(codes)

    def _read(self, name: str | None) -> ArchiveInfo:
        from ...codec.info import read_info

        if name is None and not self._options.force and is_terminal(0):
            raise FileProblem(FROM_TERMINAL)
        with open_source(name) as source:
            return read_info(source.file)

    def _record(self, name: str | None, facts: dict[str, Any]) -> None:
        line = json_line({"schema": SCHEMA, "operation": LIST, **json_name(name), **facts})
        if self._report is not None:
            self._report.append(line)
        if self._options.json:
            self._stdout.write(line)

    def _print(self, line: str) -> None:
        self._stdout.write((line.rstrip() + "\n").encode("utf-8", "replace"))

    def _print_file(self, name: str, info: ArchiveInfo) -> None:
        if self._heading_is_due:
            self._print(_HEADING)
            self._heading_is_due = False
        models = dict.fromkeys(archive.model or "-" for archive in info.archives)  # a set that keeps the order
        self._print(_row(info.compressed_bytes, info.original_bytes, info.num_frames, ",".join(models), name))
        if self._messages.verbosity > 0:
            self._print_frames(info)
            self._heading_is_due = True

    def _print_frames(self, info: ArchiveInfo) -> None:
        for number, archive in enumerate(info.archives):
            if len(info.archives) > 1:
                self._print(f"  archive {number}")
            for index, frame in enumerate(archive.frames):
                tokens = f", {frame.tokens:,} tokens" if frame.tokens else ""
                tokens += f" in {frame.rows:,} rows" if frame.rows else ""
                self._print(
                    f"  frame {index}: {frame.method}, at byte {frame.offset_bytes:,}, "
                    f"{frame.compressed_bytes:,} compressed, {frame.original_bytes:,} uncompressed{tokens}, "
                    f"crc32 {frame.crc32:08x}"
                )

    def _print_totals(self, listed: list[ArchiveInfo]) -> None:
        compressed = sum(info.compressed_bytes for info in listed)
        original = sum(info.original_bytes for info in listed)
        frames = sum(info.num_frames for info in listed)
        self._print(_row(compressed, original, frames, "", f"({len(listed)} files)"))


def _row(compressed_bytes: int, original_bytes: int, num_frames: int, model: str, name: str) -> str:
    return _ROW.format(
        f"{compressed_bytes:,}",
        f"{original_bytes:,}",
        ratio_text(original_bytes, compressed_bytes),
        bits_per_byte_text(original_bytes, compressed_bytes),
        f"{num_frames:,}",
        printable(model),
        printable(name),
    )
