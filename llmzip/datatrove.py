"""Steps for pipelines of datatrove: the documents of each rank as JSON lines in one archive, whole or not at all.

Importing this module registers `.llmz` with fsspec, so everything that opens files with `compression="infer"` reads the
archives.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from datatrove.io import DataFolderLike  # type: ignore[import-untyped, import-not-found, unused-ignore]
from datatrove.pipeline.readers import JsonlReader  # type: ignore[import-untyped, import-not-found, unused-ignore]
from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-untyped, import-not-found, unused-ignore]
from fsspec.compression import register_compression  # type: ignore[import-untyped, import-not-found, unused-ignore]

from .api.file import LLMZipFile
from .api.incremental import Model
from .codec.writer import ArchiveWriter
from .settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, EngineSettings
from .system import fileops, libraries
from .system.streams import write_all


class LLMZipWriter(JsonlWriter):  # type: ignore[misc, unused-ignore]
    """Writes the documents of each rank as JSON lines into `{rank:05d}.jsonl.llmz`.

    The lines are those of datatrove's JsonlWriter. An archive gets its name when it is complete, so a rank that fails
    or is killed leaves none, and one that runs again replaces its own.

    Args:
        output_folder: folder, local or remote, as datatrove takes it.
        level, model, device: as for `llmzip.compress`.
        threads: CPU threads of a rank; None for PyTorch's own number.
        adapter, expand_metadata: as for JsonlWriter.
    """

    name = "llmzip"

    def __init__(
        self,
        output_folder: DataFolderLike,
        *,
        level: int = DEFAULT_LEVEL,
        model: Model = DEFAULT_MODEL,
        device: str = "auto",
        threads: int | None = None,
        adapter: Callable[..., dict[str, Any]] | None = None,
        expand_metadata: bool = False,
    ) -> None:
        super().__init__(output_folder, "${rank}.jsonl.llmz", None, adapter, expand_metadata)
        self.settings = CompressSettings(level=level, model=model, engine=EngineSettings(device, threads))

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Yields the documents as they come, and writes them."""
        libraries.warn_if_missing()
        with self._whole_file(f"{rank:05d}.jsonl.llmz") as file:
            archive = ArchiveWriter(self.settings)
            for document in data or ():
                with self.track_time():
                    line = io.BytesIO()
                    self._write(self.adapter(document), line, "")
                    write_all(file, archive.write(line.getvalue()))
                self.update_doc_stats(document)
                yield document
            write_all(file, archive.finish())

    @contextlib.contextmanager
    def _whole_file(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file of the output folder that appears under its name at the end, and only if there was no error."""
        folder = self.output_folder
        if folder.is_local():
            folder.makedirs("", exist_ok=True)
            with fileops.new_file(folder.resolve_paths(name), force=True) as sink:
                yield cast("BinaryIO", sink)
            return
        with tempfile.NamedTemporaryFile(suffix=".llmz") as copy:
            yield cast("BinaryIO", copy)
            copy.flush()
            folder.put_file(copy.name, name)  # an object store shows an object when all of it is there


class LLMZipReader(JsonlReader):  # type: ignore[misc, unused-ignore]
    """Reads documents from archives of JSON lines, such as those of LLMZipWriter.

    Args:
        data_folder: folder, local or remote, as datatrove takes it.
        glob_pattern: names of the archives; others in the folder are not read.
        options: as for JsonlReader.
    """

    name = "llmzip"

    def __init__(self, data_folder: DataFolderLike, glob_pattern: str = "*.jsonl.llmz", **options: Any) -> None:
        super().__init__(data_folder, glob_pattern=glob_pattern, **options)


class _ArchiveOfFile(LLMZipFile):
    """An archive that closes the file below it, as fsspec expects."""

    def close(self) -> None:
        below = self._file
        super().close()
        if below is not None:
            below.close()


def _opened(file: Any, mode: str = "r", **options: Any) -> LLMZipFile:
    """Opens an archive as fsspec asks for it."""
    return _ArchiveOfFile(file, mode, **options)


register_compression("llmzip", _opened, "llmz", force=True)
