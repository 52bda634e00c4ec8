"""The tables of -l and `llmzip info`, made from headers alone. Knows no click, engines or payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...system.filenames import FileProblem, input_name, printable
from ...system.fileops import open_source
from ...system.process import is_terminal
from ..jobs import FROM_TERMINAL, FileRun
from ..outcomes import shown_name
from ..units import bits_per_byte_text, percentage_text

if TYPE_CHECKING:
    from ...codec.info import ArchiveInfo

_ROW = "{:>14} {:>14} {:>8} {:>9} {:>7}  {:<10}  {}"
_HEADING = _ROW.format("compressed", "uncompressed", "ratio", "bits/byte", "frames", "model", "name")


class InfoTable(FileRun):
    """Prints a line per file as it is read, and totals for several; the arguments are those of FileRun."""

    _heading_is_due = True

    def run(self, names: Sequence[str]) -> int:
        """Lists all names; "-" is the standard input. Returns the exit status.

        Raises:
            OutputError: the standard output cannot be written.
        """
        listed: list[ArchiveInfo] = []
        for argument in names:
            name = input_name(argument)
            with self._outcomes.of_file(name):
                info = self._read(name)
                listed.append(info)
                self._record(name, **info.to_dict(), error=None)
                if not self._request.json:
                    self._print_file(shown_name(name), info)
        if len(listed) > 1 and not self._request.json:
            self._print_totals(listed)
        if not self._request.json:
            self._print_places(listed)
        return self._outcomes.exit_status

    def _read(self, name: str | None) -> ArchiveInfo:
        from ...codec.info import read_info

        if name is None and not self._request.force and is_terminal(0):
            raise FileProblem(FROM_TERMINAL)
        with open_source(name) as source:
            return read_info(source.file)

    def _print(self, line: str) -> None:
        self._stdout.write((line.rstrip() + "\n").encode("utf-8", "replace"))

    def _print_file(self, name: str, info: ArchiveInfo) -> None:
        if self._heading_is_due:
            self._print(_HEADING)
            self._heading_is_due = False
        models = dict.fromkeys(archive.model or "-" for archive in info.archives if archive.recovery is None)
        self._print(_row(info.compressed_bytes, info.original_bytes, info.num_frames, ",".join(models), name))
        for archive in info.archives:
            if archive.recovery is not None:
                size = sum(frame.compressed_bytes for frame in archive.frames)
                data = archive.recovery
                self._print(
                    f"  recovery data of {size:,} bytes for {data.protected_bytes:,} before it: mends up to "
                    f"{data.parity_blocks:,} damaged of {data.num_blocks:,} blocks of {data.block_bytes:,} bytes"
                )
                self._heading_is_due = True
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

    def _print_places(self, listed: list[ArchiveInfo]) -> None:
        """Prints a line for each model that is not embedded: where it is, or that it is not on this machine."""
        archives = (archive for info in listed for archive in info.archives if archive.needs_user_model)
        places = ((a.model, a.model_digest, a.carries_model, a.model_folder) for a in archives)
        for name, digest, is_carried, folder in dict.fromkeys(places):
            place = "in the archive" if is_carried else "not on this machine" if folder is None else f"in {folder}"
            self._print(printable(f"model {name}, digest {digest}: {place}"))

    def _print_totals(self, listed: list[ArchiveInfo]) -> None:
        compressed = sum(info.compressed_bytes for info in listed)
        original = sum(info.original_bytes for info in listed)
        frames = sum(info.num_frames for info in listed)
        self._print(_row(compressed, original, frames, "", f"({len(listed)} files)"))


def _row(compressed_bytes: int, original_bytes: int, num_frames: int, model: str, name: str) -> str:
    return _ROW.format(
        f"{compressed_bytes:,}",
        f"{original_bytes:,}",
        percentage_text(original_bytes, compressed_bytes),
        bits_per_byte_text(original_bytes, compressed_bytes),
        f"{num_frames:,}",
        printable(model),
        printable(name),
    )
