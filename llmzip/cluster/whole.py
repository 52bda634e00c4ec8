"""What is done with one whole file: compress, decompress, test, or measure it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, cast

from ..codec.ahead import MAX_ARCHIVE_BYTES, DecodedAhead
from ..codec.reader import decompress_stream
from ..codec.writer import compress_stream
from ..format.headers import Header
from ..inference.on_demand import ModelOnDemand
from ..system.filenames import FileProblem
from .existing import HashingReader, HashingWriter, Pair, matching_pair
from .job import Job, Operation
from .rows import Row, shown_path
from .storage import with_retries
from .tasks import InputFile

if TYPE_CHECKING:
    from ..codec.report import StreamReport
    from ..inference.load import LoadedModel


def headers_of(job: Job) -> list[Header]:
    """Returns the headers that the run's archives may begin with: the model's, and that of archives without one."""
    return [ModelOnDemand.of(job.compress).archive_header(), Header()]


def check_unchanged(job: Job, file: InputFile) -> None:
    """Refuses an input that is not as it was found: its result would be named after something else.

    Raises:
        FileProblem: it was changed or removed.
        OSError: it cannot be looked at.
    """
    stat = job.source.stat(file.name)
    if stat is None:
        raise FileProblem("was removed while the run was under way")
    if (stat.size_bytes, stat.etag) != (file.size_bytes, file.etag):
        raise FileProblem("was changed while the run was under way; run it again")


class WholeFiles:
    """Does what the job says with whole files.

    Args:
        job: what is done.
        worker: names this process in rows.
    """

    def __init__(self, job: Job, worker: str) -> None:
        self._job = job
        self._worker = worker
        self._ahead = DecodedAhead(job.decompress)
        self._held: dict[InputFile, bytes] = {}

    def upcoming(self, files: Sequence[InputFile]) -> Iterator[InputFile]:
        """Yields files in their order; small archives are read, and their tokens decoded, before the first of some."""
        if self._job.operation not in (Operation.DECOMPRESS, Operation.TEST):
            return iter(files)
        return self._ahead.upcoming(files, self._small_archive)

    def run(self, file: InputFile) -> Row:
        """Does it with one file; what a retry may mend is tried again.

        Raises:
            LLMZipError, FileProblem, OSError: the file failed.
        """
        operations: dict[Operation, Callable[[InputFile], Row]] = {
            Operation.COMPRESS: self._compress,
            Operation.DECOMPRESS: self._decompress,
            Operation.TEST: self._test,
            Operation.ENTROPY: self._measure,
        }
        try:
            return with_retries(lambda: operations[self._job.operation](file))
        finally:
            self._held.pop(file, None)

    # -- operations

    def _compress(self, file: InputFile) -> Row:
        job, started = self._job, time.perf_counter()
        check_unchanged(job, file)
        name = job.output(file.name)
        if job.dest.stat(name) is not None:
            with job.dest.open(name) as archive, job.source.open(file.name) as text:
                pair = matching_pair(archive, text, headers_of(job))
            if pair is not None:
                return self._row(file, name, pair, started, kept=True)
        with job.source.open(file.name) as text, job.dest.create(name) as archive:
            source, sink = HashingReader(text), HashingWriter(archive)
            report = compress_stream(cast("BinaryIO", source), cast("BinaryIO", sink), job.compress)
            check_unchanged(job, file)  # before the output appears
        return self._row(file, name, _pair(report, source, sink), started)

    def _decompress(self, file: InputFile) -> Row:
        job, started = self._job, time.perf_counter()
        check_unchanged(job, file)
        name = job.output(file.name)
        if job.dest.stat(name) is not None:
            with job.source.open(file.name) as archive, job.dest.open(name) as text:
                pair = matching_pair(archive, text)
            if pair is not None:
                return self._row(file, name, pair, started, kept=True)
        with self._opened(file) as archive, job.dest.create(name) as text:
            source, sink = HashingReader(archive), HashingWriter(text)
            report = self._decoded(source, sink)
            check_unchanged(job, file)
        return self._row(file, name, _pair(report, sink, source), started - report.seconds_ahead)

    def _test(self, file: InputFile) -> Row:
        job, started = self._job, time.perf_counter()
        check_unchanged(job, file)
        with self._opened(file) as archive:
            source, sink = HashingReader(archive), HashingWriter(None)
            report = self._decoded(source, sink)
        return self._row(file, None, _pair(report, sink, source), started - report.seconds_ahead)

    def _decoded(self, archive: HashingReader, text: HashingWriter) -> StreamReport:
        settings = self._job.decompress
        return decompress_stream(cast("BinaryIO", archive), cast("BinaryIO", text), settings, ahead=self._ahead)

    def _measure(self, file: InputFile) -> Row:
        started = time.perf_counter()
        return measured_row(self._job, file, 0, file.size_bytes, started, self._worker)

    # -- small archives

    def _small_archive(self, file: InputFile) -> bytes | None:
        """Reads a small archive and holds it until its turn; None if it is large or its output is there."""
        job = self._job
        if not 0 < file.size_bytes <= MAX_ARCHIVE_BYTES:
            return None
        if job.operation is Operation.DECOMPRESS and job.dest.exists(job.output(file.name)):
            return None
        check_unchanged(job, file)
        self._held[file] = job.source.read(file.name, 0, file.size_bytes)
        return self._held[file]

    def _opened(self, file: InputFile) -> BinaryIO:
        """Opens an archive, or what is held of it; a retry reads it again."""
        held = self._held.pop(file, None)
        return self._job.source.open(file.name) if held is None else io.BytesIO(held)

    # -- their rows

    def _row(self, file: InputFile, output: str | None, pair: Pair, started: float, *, kept: bool = False) -> Row:
        return pair_row(self._job, file, output, pair, time.perf_counter() - started, self._worker, kept=kept)


def pair_row(
    job: Job, file: InputFile, output: str | None, pair: Pair, seconds: float, worker: str, *, kept: bool = False
) -> Row:
    """Returns the row of a text and its archive."""
    return Row(
        shown_path(job.source.uri_of(file.name)),
        output=None if output is None else shown_path(job.dest.uri_of(output)),
        bytes=pair.text_bytes,
        bits=8 * pair.archive_bytes,
        tokens=pair.tokens,
        sha256=pair.text_sha256,
        archive_bytes=pair.archive_bytes,
        archive_sha256=pair.archive_sha256,
        seconds=round(seconds, 6),
        worker=worker,
        kept=kept,
    )


def measured_row(job: Job, file: InputFile, begin: int, end: int, started: float, worker: str) -> Row:
    """Returns the row of a text, or a part of it, measured by the model from an empty context.

    Raises:
        FileProblem: the text is an archive, or it has changed.
        OSError: it cannot be read.
    """
    import hashlib

    from ..format.headers import MAGIC
    from ..measures.scoring import Scorer
    from ..measures.whole_bits import model_bits

    check_unchanged(job, file)
    data = job.source.read(file.name, begin, end)
    check_unchanged(job, file)
    if len(data) != end - begin:
        raise FileProblem("has become shorter while the run was under way")
    if (data if begin == 0 else job.source.read(file.name, 0, len(MAGIC))).startswith(MAGIC):
        raise FileProblem("is an llmzip archive: entropy measures texts; decompress it first")
    tokens = bits = 0
    if data:
        model: LoadedModel = ModelOnDemand.of(job.compress).load()
        ids = model.tokenizer.encode(data)
        scores = Scorer(model).score(ids)
        tokens, bits = len(ids), model_bits(scores)
    return Row(
        shown_path(job.source.uri_of(file.name)),
        begin,
        bytes=len(data),
        bits=bits,
        tokens=tokens,
        sha256=hashlib.sha256(data).hexdigest(),
        seconds=round(time.perf_counter() - started, 6),
        worker=worker,
    )


def _pair(report: StreamReport, text: HashingReader | HashingWriter, archive: HashingReader | HashingWriter) -> Pair:
    tokens = sum(frame.tokens for frame in report.frames)
    return Pair(text.num_bytes, archive.num_bytes, text.sha256, archive.sha256, tokens)
