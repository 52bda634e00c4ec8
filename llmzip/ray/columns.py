"""Compresses, decompresses and measures the cells of a column; each object is a function of batches.

What a batch looks like is the business of batches.py, what Ray assigned that of resources.py.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..api.incremental import Buffer, Model, as_bytes
from ..codec.ahead import MAX_ARCHIVE_BYTES, DecodedAhead
from ..codec.lines import LineCheck
from ..codec.parallel import in_order
from ..codec.reader import FrameDecoder
from ..codec.writer import ArchiveWriter
from ..errors import LLMZipError, ResourceError, SettingsError
from ..format import reading
from ..format.headers import ENGINE_FLOAT, Header
from ..inference.on_demand import ModelOnDemand
from ..models.choice import model_for_compressing
from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings, check_type
from ..system import forks, libraries, threads
from . import batches
from .batches import BatchT, Column
from .resources import engine_settings

if TYPE_CHECKING:
    import numpy as np

    from ..measures.scoring import Scores

ARCHIVE_SUFFIX = "_llmz"
"""End of the name of a column of archives."""

ERROR_SUFFIX = "_error"
"""End of the name of a column of errors."""

_MAX_SHORT_BYTES = 32 * 1024
"""Size of a cell up to which a thread for each cell is quicker than threads that share one."""

_CELLS_PER_DEVICE = 4
"""Short cells that hide the mixer's work from a CUDA device."""


class _ColumnFunction:
    """What the functions of a column have in common: where they run, and what an error in a cell means.

    Args:
        column: name of the column that is read.
        device, threads: as for `engine_settings`.
        alone: whether no two cells may be worked on side by side.
        errors: "raise" to stop at the first cell that fails; "record" to leave such a cell empty, with the error's text
            in a column of its own.
    """

    def __init__(self, column: str, *, device: str, threads: int | None, errors: str, alone: bool = False) -> None:
        check_type("column", column, str)
        if errors not in ("raise", "record"):
            raise SettingsError(f"errors must be 'raise' or 'record', not {errors!r}")
        libraries.warn_if_missing()
        self.column = column
        self._engine: EngineSettings = engine_settings(device, threads)
        self._alone = alone
        self._records = errors == "record"

    def _each(self, cells: Sequence[Any], work: Callable[[Any], Any]) -> tuple[list[Any], dict[str, Column]]:
        """Works on cells, on short ones side by side.

        Args:
            cells: values; None is left alone.
            work: returns the result for a value.

        Returns:
            the results in the order of the cells, None where there is none; and the column of the errors, if they are
            recorded.

        Raises:
            LLMZipError: naming column and row, if errors are not recorded.
        """

        def attempt(numbered: tuple[int, Any]) -> tuple[Any, str | None]:
            row, value = numbered
            if value is None:
                return None, None
            try:
                return work(value), None
            except LLMZipError as error:
                if self._records:
                    return None, str(error)
                raise type(error)(f"column {self.column!r}, row {row} of the batch: {error}") from error

        many = self._cells_at_once()
        numbered_cells = self._upcoming(list(enumerate(cells)))
        done = [
            result
            for _, result in in_order(numbered_cells, attempt, lambda numbered: many if _is_short(numbered[1]) else 1)
        ]
        errors: dict[str, Column] = {}
        if self._records:
            errors[self.column + ERROR_SUFFIX] = (str, [error for _, error in done])
        return [result for result, _ in done], errors

    def _upcoming(self, cells: Sequence[tuple[int, Any]]) -> Iterable[tuple[int, Any]]:
        """Returns numbered cells in their order; what several need may be prepared before the first of them comes."""
        return cells

    def _cells_at_once(self) -> int:
        """Returns how many short cells are worked on side by side."""
        if self._alone:
            return 1
        from ..engines import devices

        if devices.find(self._engine.device) != "cpu":
            return _CELLS_PER_DEVICE
        return self._engine.threads or (os.cpu_count() or 1 if self._engine.threads == 0 else threads.count())


class Compress(_ColumnFunction):
    """Compresses the cells of a column, each into an archive of its own, as `llmzip.compress` would.

    Made for `map_batches` of Ray Data: the model is loaded once for each object. Without Ray, call an object with a
    batch. str is compressed as UTF-8; a missing cell stays missing.

    Args:
        column: name of a column of str or bytes.
        output: name of the column of archives; None for the column's name with _llmz at its end.
        level, model, prompt: as for `llmzip.compress`.
        device: "auto", "cpu", "cuda" or "cuda:N"; in a Ray worker "auto" is a GPU only if Ray assigned one.
        threads: CPU threads; None for the CPUs that Ray assigned, and PyTorch's own number outside Ray.
        errors: "raise" to stop at the first cell that cannot be compressed; "record" to leave it empty, and to put the
            error's text into the column that has the column's name with _error at its end.

    Raises:
        ValueError: an argument out of its bounds.
        TypeError: an argument of a wrong type.
        ModelError: the model is missing or cannot be used.
    """

    def __init__(  # the parameters of llmzip.compress, and those of a column
        self,
        column: str,
        *,
        output: str | None = None,
        level: int = DEFAULT_LEVEL,
        model: Model = DEFAULT_MODEL,
        prompt: Buffer = b"",
        device: str = "auto",
        threads: int | None = None,
        errors: str = "raise",
    ) -> None:
        # What has read a prompt serves one frame at a time.
        super().__init__(column, device=device, threads=threads, errors=errors, alone=bool(prompt))
        check_type("output", output, str, optional=True)
        self.output = column + ARCHIVE_SUFFIX if output is None else output
        self._settings = CompressSettings(level=level, model=model, engine=self._engine, prompt=as_bytes(prompt))
        self._model = ModelOnDemand.of(self._settings)
        self._model.load()  # so that a missing model stops the worker before its first batch

    def __call__(self, batch: BatchT) -> BatchT:
        """Returns a batch with the column of archives.

        Args:
            batch: a dict of numpy arrays, a pandas.DataFrame or a pyarrow.Table; it stays as it is.

        Raises:
            SettingsError: the batch has no such column.
            LLMZipError: a cell cannot be compressed, if errors are not recorded.
        """
        archives, errors = self._each(batches.cells(batch, self.column), self._compressed)
        return batches.with_columns(batch, {self.output: (bytes, archives), **errors})

    def _compressed(self, value: Any) -> bytes:
        writer = ArchiveWriter(self._settings, model=self._model)
        return writer.write(_encoded(value)) + writer.finish()


class Decompress(_ColumnFunction):
    """Decompresses the archives in a column, as `llmzip.decompress` would.

    Made for `map_batches` of Ray Data: a model is loaded once for each object, when an archive first needs it. Without
    Ray, call an object with a batch. A missing cell stays missing.

    Args:
        column: name of a column of archives, bytes.
        output: name of the column of texts; None for the column's name without _llmz at its end.
        as_text: return str, decoded as UTF-8, instead of bytes.
        model, prompt, max_output_size: as for `llmzip.decompress`; the size is that of one cell.
        device, threads, errors: as for `Compress`.

    Raises:
        ValueError: an argument out of its bounds, or no output for a column whose name does not end in _llmz.
        TypeError: an argument of a wrong type.
    """

    def __init__(  # the parameters of llmzip.decompress, and those of a column
        self,
        column: str,
        *,
        output: str | None = None,
        as_text: bool = False,
        model: Model | None = None,
        prompt: Buffer = b"",
        max_output_size: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        errors: str = "raise",
    ) -> None:
        super().__init__(column, device=device, threads=threads, errors=errors)
        check_type("output", output, str, optional=True)
        check_type("max_output_size", max_output_size, int, optional=True)
        if output is None:
            output = column.removesuffix(ARCHIVE_SUFFIX)
            if output in ("", column):
                raise SettingsError(f"output must be given: the name {column!r} does not end in {ARCHIVE_SUFFIX}")
        self.output = output
        self._as_text = as_text
        self._max_bytes = max_output_size
        settings = DecompressSettings(model=model, engine=self._engine, prompt=as_bytes(prompt))
        self._ahead = DecodedAhead(settings, max_output_size)
        self._decoder = FrameDecoder(settings, self._ahead)
        self._lock = forks.Lock()

    def __call__(self, batch: BatchT) -> BatchT:
        """Returns a batch with the column of texts.

        Args:
            batch: a dict of numpy arrays, a pandas.DataFrame or a pyarrow.Table; it stays as it is.

        Raises:
            SettingsError: the batch has no such column.
            LLMZipError: a cell cannot be decompressed, if errors are not recorded.
        """
        texts, errors = self._each(batches.cells(batch, self.column), self._decompressed)
        return batches.with_columns(batch, {self.output: (str if self._as_text else bytes, texts), **errors})

    def _upcoming(self, cells: Sequence[tuple[int, Any]]) -> Iterable[tuple[int, Any]]:
        return self._ahead.upcoming(cells, lambda numbered: _small_archive(numbered[1]))

    def _decompressed(self, value: Any) -> bytes | str:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise LLMZipError(f"not an archive: {type(value).__name__} instead of bytes")
        lines = LineCheck()
        parts, num_bytes = [], 0
        for frame in reading.read_archives(io.BytesIO(value)):
            num_bytes += frame.header.original_bytes
            if self._max_bytes is not None and num_bytes > self._max_bytes:
                raise ResourceError(f"the text is larger than max_output_size, {self._max_bytes} bytes")
            with self._lock if _takes_turns(frame.archive) else contextlib.nullcontext():
                parts.append(self._decoder.decode(frame))
            lines.add(frame, parts[-1].count(b"\n"))
        lines.finish()
        data = b"".join(parts)
        if not self._as_text:
            return data
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise LLMZipError(f"the text is not valid UTF-8 at byte {error.start}; take bytes: as_text=False") from None


class Measure(_ColumnFunction):
    """Measures how many bits a model needs for the cells of a column, as `llmzip entropy` does; compresses nothing.

    All results are integers that are the same on every machine, so their sums are too, in any order. Made for
    `map_batches` of Ray Data: the model is loaded once for each object. Without Ray, call an object with a batch.
    A missing cell has missing results.

    The new columns are, with a prefix and an underscore before their names:

    - bits: `total_bits` of `llmzip entropy`, rounded up: what the model itself says.
    - coded_bits: `arithmetic_bits` of `llmzip entropy`, rounded up: what a coder pays, without headers.
    - bytes: size of the text; that of str as UTF-8.
    - characters: Unicode characters; missing if the text is not valid UTF-8.
    - tokens: tokens of the text.

    Args:
        column: name of a column of str or bytes.
        prefix: first part of the names of the new columns; None for the column's name.
        model: an embedded model's name, a folder with a checkpoint, or the id of a model in the Hub's cache.
        context: tokens that a prediction is made from, at most; None for the model's context.
        device, threads, errors: as for `Compress`.

    Raises:
        ValueError: an argument out of its bounds.
        TypeError: an argument of a wrong type.
        ModelError: the model is missing or cannot be used.
    """

    def __init__(
        self,
        column: str,
        *,
        prefix: str | None = None,
        model: Model = DEFAULT_MODEL,
        context: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        errors: str = "raise",
    ) -> None:
        super().__init__(column, device=device, threads=threads, errors=errors)
        check_type("prefix", prefix, str, optional=True)
        from ..inference.load import load
        from ..measures.scoring import Scorer, checked_context

        self.prefix = column if prefix is None else prefix
        self._model = load(model_for_compressing(CompressSettings(model=model, engine=self._engine)), self._engine)
        self._scorer = Scorer(self._model, checked_context(self._model.engine, context))

    def __call__(self, batch: BatchT) -> BatchT:
        """Returns a batch with the columns of the results.

        Args:
            batch: a dict of numpy arrays, a pandas.DataFrame or a pyarrow.Table; it stays as it is.

        Raises:
            SettingsError: the batch has no such column.
            LLMZipError: a cell cannot be measured, if errors are not recorded.
        """
        texts, errors = self._each(batches.cells(batch, self.column), self._tokenized)
        known = [text for text in texts if text is not None]
        scored = iter(self._scorer.score_many([tokens for _, tokens in known]) if known else ())
        rows = [None if text is None else _measures(text[0], next(scored)) for text in texts]
        columns: dict[str, Column] = {
            f"{self.prefix}_{name}": (int, [None if row is None else row[number] for row in rows])
            for number, name in enumerate(("bits", "coded_bits", "bytes", "characters", "tokens"))
        }
        return batches.with_columns(batch, {**columns, **errors})

    def _tokenized(self, value: Any) -> tuple[bytes, np.ndarray]:
        data = _encoded(value)
        return data, self._model.tokenizer.encode(data)


def _measures(data: bytes, scores: Scores) -> tuple[int, int, int, int | None, int]:
    """Returns bits, coded bits, bytes, characters and tokens of a text."""
    from ..measures import whole_bits

    try:
        characters: int | None = len(data.decode("utf-8"))
    except UnicodeDecodeError:
        characters = None
    return whole_bits.model_bits(scores), whole_bits.coded_bits(scores), len(data), characters, len(scores.tokens)


def _encoded(value: Any) -> bytes:
    """Returns the bytes of a cell.

    Raises:
        LLMZipError: it is neither text nor bytes, or it is text that UTF-8 cannot encode.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise LLMZipError(f"neither str nor bytes: {type(value).__name__}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LLMZipError(f"not valid Unicode: a lone surrogate at character {error.start}") from None


def _small_archive(value: Any) -> bytes | None:
    """Returns a cell's archive; None if it is not a small one."""
    if not isinstance(value, (bytes, bytearray, memoryview)) or memoryview(value).nbytes > MAX_ARCHIVE_BYTES:
        return None
    return bytes(value)


def _takes_turns(header: Header) -> bool:
    """Whether frames of an archive are decoded one at a time: what has read its prompt, or the float engine, is one."""
    record = header.model
    return record is not None and (bool(record.prompt_digest) or record.engine == ENGINE_FLOAT)


def _is_short(value: Any) -> bool:
    return value is None or not hasattr(value, "__len__") or len(value) <= _MAX_SHORT_BYTES
