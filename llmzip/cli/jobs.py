"""Compresses, decompresses or tests each file of a run. Knows no click, models or byte formats."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import CorruptError, LLMZipError
from ..settings import DEFAULT_MODEL, DecompressSettings
from ..system import filenames, fileops
from ..system.failures import explain
from ..system.filenames import FileProblem, Reserved
from ..system.fileops import Output, Source
from ..system.process import STDOUT, is_terminal
from ..system.streams import DIFFERS, Comparison, DescriptorWriter, OutputError, Prefixed, read_upto
from ..system.unfinished import open_unfinished
from .messages import Messages, detail_texts, summary_text
from .outcomes import OtherFileProblem, Outcomes, shown_name
from .records import SCHEMA, RecordFile, json_line, json_name, report_fields
from .request import Mode, Request
from .small import small_input

if TYPE_CHECKING:
    from ..codec.ahead import DecodedAhead
    from ..codec.report import StreamReport
    from ..codec.writer import Scope

FROM_TERMINAL = "compressed data is not read from a terminal; name a file, or use -f (help: llmzip --help)"
_TO_TERMINAL = "compressed data is not written to a terminal; redirect it, or use -o FILE or -f (help: llmzip --help)"


class FileRun:
    """One operation over many names; a name that fails does not stop the others.

    Args:
        request: what the user asked for.
        messages: what the user reads.
        stdout: the standard output, which takes data, a table or JSON lines.
        report: file for the JSON lines of --report; None for none.
    """

    def __init__(
        self, request: Request, messages: Messages, stdout: DescriptorWriter, report: RecordFile | None = None
    ) -> None:
        self._request, self._messages = request, messages
        self._stdout, self._report = stdout, report
        self._outcomes = Outcomes(messages, self._record)

    def refuse(self, problems: Iterable[tuple[str, Exception]]) -> None:
        """Reports names that cannot be inputs, each with its reason, as failures of the run."""
        for name, problem in problems:
            with self._outcomes.of_file(name):
                raise problem

    def _record(self, name: str | None, /, **facts: Any) -> None:
        """Writes a JSON line about a file where the user asked for some."""
        request = self._request
        line = json_line({"schema": SCHEMA, "operation": request.mode.value, **json_name(name), **facts})
        if self._report is not None:
            self._report.append(line)
        if request.json and request.mode in (Mode.TEST, Mode.LIST):  # the others write data there
            self._stdout.write(line)


class Jobs(FileRun):
    """Compresses, decompresses or tests each file; the arguments are those of FileRun."""

    def __init__(
        self, request: Request, messages: Messages, stdout: DescriptorWriter, report: RecordFile | None = None
    ) -> None:
        super().__init__(request, messages, stdout, report)
        self._reserved = Reserved()
        self._ahead: DecodedAhead | None = None
        self._scope: Scope | None = None  # what the standard output carries

    def run(self, names: Sequence[str]) -> int:
        """Processes all names; "-" is the standard input. Returns the exit status."""
        inputs = [filenames.input_name(argument) for argument in names]
        for name in inputs:
            if name:
                self._reserved.add(name, "also an input")
        if self._request.prompt_file is not None:
            self._reserved.add(self._request.prompt_file, "the prompt")
        operation = self._operation()
        try:
            for name in self._upcoming(inputs):
                with self._outcomes.of_file(name):
                    operation(name)
        except OutputError as error:  # the other files could not be written either
            self._outcomes.report(error, STDOUT)
        return self._outcomes.exit_status

    # -- operations

    def _operation(self) -> Callable[[str | None], None]:
        match self._request.mode:
            case Mode.COMPRESS:
                return self._compress
            case Mode.DECOMPRESS:
                return self._decompress
            case Mode.TEST:
                return self._test
            case Mode.LIST:
                raise ValueError("archives are listed by InfoTable")

    def _upcoming(self, names: Sequence[str | None]) -> Iterable[str | None]:
        """Returns the names; of archives the tokens of small ones are decoded before their turn, many together."""
        request = self._request
        if request.mode is Mode.COMPRESS or len(names) < 2:
            return names
        from ..codec.ahead import MAX_ARCHIVE_BYTES, DecodedAhead

        self._ahead = DecodedAhead(request.decompress)
        return self._ahead.upcoming(names, lambda name: small_input(name, request, MAX_ARCHIVE_BYTES))

    def _compress(self, name: str | None) -> None:
        from ..codec.writer import Scope, compress_stream

        request = self._request
        self._scope = self._scope or Scope()
        with self._source(name) as source:
            target = self._target(name)
            if target is None and not request.force and is_terminal(self._stdout.fileno()):
                raise FileProblem(_TO_TERMINAL)
            with self._journal(target, source) as journal, self._opened(target, source) as (sink, output):
                with self._messages.progress(shown_name(name), source.size_bytes) as advance:
                    report = self._written(
                        output,
                        lambda: compress_stream(
                            source.file,
                            sink,
                            request.compress,
                            advance,
                            journal=journal,
                            scope=self._scope if output is None else None,
                        ),
                    )
                self._completed(source, output, report)
        self._succeeded(name, target, report)

    def _decompress(self, name: str | None) -> None:
        from ..codec.reader import decompress_stream

        request = self._request
        with self._source(name) as source:
            target = self._target(name)
            file = source.file
            if target is None and request.force:
                file, is_archive = _look_ahead(source)
                if not is_archive:
                    self._written(None, lambda: shutil.copyfileobj(file, self._stdout))
                    self._record(name, output=STDOUT, passed_through=True, error=None)
                    return
            with self._opened(target, source) as (sink, output), self._known(output) as known:
                with self._messages.progress(shown_name(name), self._original_bytes(source)) as advance:
                    report = self._written(
                        output,
                        lambda: decompress_stream(
                            file, sink, request.decompress, advance, ahead=self._ahead, known=known
                        ),
                    )
                self._completed(source, output, report)
        self._succeeded(name, target, report)

    def _test(self, name: str | None) -> None:
        from ..codec.reader import decompress_stream

        with (
            self._source(name) as source,
            self._messages.progress(shown_name(name), self._original_bytes(source)) as advance,
        ):
            report = decompress_stream(source.file, None, self._request.decompress, advance, ahead=self._ahead)
        self._succeeded(name, None, report)

    # -- their steps

    def _source(self, name: str | None) -> Source:
        request = self._request
        if name is None and request.mode is not Mode.COMPRESS and not request.force and is_terminal(0):
            raise FileProblem(FROM_TERMINAL)
        # An output's name derived from that of a device or FIFO is rarely meant.
        special = request.force or request.mode is Mode.TEST or request.to_stdout or request.output is not None
        return fileops.open_source(name, special=special, force=request.force, removing=self._removes(name))

    def _target(self, name: str | None) -> str | None:
        """Returns the name of the output, and makes its folder below --output-dir."""
        target = self._request.target(name)
        if target is not None and self._request.output_dir is not None:
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
            except OSError as error:
                raise _about(target, error) from error
        return target

    def _removes(self, name: str | None) -> bool:
        """Returns whether --rm applies: it never removes what went to the standard output or was only tested."""
        request = self._request
        to_file = request.output is not None or not request.to_stdout
        return request.remove and name is not None and to_file and request.mode.writes_files

    @contextlib.contextmanager
    def _opened(self, target: str | None, source: Source) -> Iterator[tuple[BinaryIO, Output | None]]:
        """Opens the output; yields the file to write and, unless it is the standard output, its Output."""
        if target is None:
            _check_not_itself(source, self._stdout)
            yield cast("BinaryIO", self._stdout), None
            return
        if self._removes(source.name) and not source.file.seekable():
            raise FileProblem("is kept: --rm cannot compare the text of a pipe; run it without --rm")
        request = self._request
        try:
            output = self._output(target, source)
            self._reserved.check(target, source.status)
        except (FileProblem, OSError) as error:
            raise _about(target, error) from error
        with output:
            to_terminal = output.is_special and is_terminal(output.sink.fileno())
            if to_terminal and request.mode is Mode.COMPRESS and not request.force:
                raise _about(target, FileProblem(_TO_TERMINAL))
            if output.is_special and self._removes(source.name):
                raise FileProblem(
                    f"is kept: --rm cannot verify {target}, which is not a regular file; run it without --rm"
                )
            yield cast("BinaryIO", output.sink), output

    def _output(self, target: str, source: Source) -> Output:
        """Makes the output; with --resume it has a name by which the next run finds it."""
        request = self._request
        if not request.resume:
            return Output(target, source, force=request.force)
        if request.mode is Mode.COMPRESS:  # whose journal makes it again, and lets only one process do so
            folder, name = os.path.split(target)
            digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
            return Output(target, source, force=request.force, temporary=os.path.join(folder, f".llmzip-{digest}.tmp"))
        self._reserved.check(_partial(target), source.status)
        return Output(target, source, force=request.force, unfinished=_partial(target))

    @contextlib.contextmanager
    def _journal(self, target: str | None, source: Source) -> Iterator[BinaryIO | None]:
        """Opens the file in which --resume keeps what is done; removes it once the output is complete."""
        if not self._request.resume or target is None:
            yield None
            return
        name = _partial(target)
        try:
            if filenames.named_descriptor(target) is not None or (
                os.path.exists(target) and not os.path.isfile(target)
            ):
                raise FileProblem("is not a regular file, so nothing can be continued there")
            self._reserved.check(name, source.status)
            descriptor = open_unfinished(name)
        except (FileProblem, OSError) as error:
            raise _about(target, error) from error
        with open(name, "r+b", opener=lambda name, flags: descriptor) as file:
            try:
                yield file
            except BaseException:
                if not os.fstat(descriptor).st_size:
                    os.unlink(name)
                raise
            os.unlink(name)

    @contextlib.contextmanager
    def _known(self, output: Output | None) -> Iterator[BinaryIO | None]:
        """Opens the text that an interrupted run has left, of which no more is used than passes its checksums."""
        if not self._request.resume or output is None:
            yield None
            return
        with output.reopen() as file:
            yield file

    def _written(self, output: Output | None, work: Callable[[], Any]) -> Any:
        """Runs what writes the output; distinguishes a failed write from a failed read."""
        sink = output.sink if output is not None else self._stdout
        try:
            return work()
        except (BrokenPipeError, OutputError):
            raise
        except OSError as error:
            if output is None or sink.error is None:
                raise
            raise _about(output.name, error) from error
        except LLMZipError as error:
            _add_consequence(error, output, sink.num_bytes)
            raise

    def _completed(self, source: Source, output: Output | None, report: StreamReport) -> None:
        """Finishes, verifies and publishes the output, then removes the source if --rm asks for it."""
        if output is None:
            return
        removes = self._removes(source.name)
        try:
            output.finish(source)
        except OSError as error:
            raise _about(output.name, error) from error
        if removes and self._request.mode is Mode.COMPRESS:
            self._verify(source, output, report)
        try:
            output.publish()
        except (FileProblem, OSError) as error:
            raise _about(output.name, error) from error
        self._reserved.add(output.name, "already an output of this run", source.status)
        if removes:
            try:
                fileops.remove_source(source)
            except OSError as error:
                raise FileProblem(f"cannot be removed: {error.strerror}; its output is complete") from error

    def _verify(self, source: Source, output: Output, report: StreamReport) -> None:
        """Decodes the new archive and compares it with its source."""
        from ..codec.reader import decompress_stream
        from ..models.reference import parse_model

        compress = self._request.compress
        ref = parse_model(compress.model)
        model = ref if ref.is_place else None
        settings = DecompressSettings(model=model, engine=compress.engine, prompt=compress.prompt)
        source.file.seek(0)
        comparison = Comparison(source.file)
        with (
            output.reopen() as archive,
            self._messages.progress(f"verify {source.name}", report.original_bytes) as advance,
        ):
            try:
                decompress_stream(archive, cast("BinaryIO", comparison), settings, advance)
            except CorruptError as error:
                raise LLMZipError(f"{DIFFERS} ({error})") from error
        comparison.finish()

    def _original_bytes(self, source: Source) -> int | None:
        """Returns the length of the progress bar, from the headers; None if there is no bar or no seekable file."""
        if not self._messages.shows_progress or source.size_bytes is None:
            return None
        from ..format.reading import read_archives

        start = source.file.tell()
        try:
            frames = read_archives(source.file, skip_payloads=True, skip_models=True)
            return sum(frame.header.original_bytes for frame in frames)
        except (LLMZipError, OSError):
            return None  # the decoder will explain it better
        finally:
            source.file.seek(start)

    # -- reports

    def _succeeded(self, name: str | None, target: str | None, report: StreamReport) -> None:
        mode, compress = self._request.mode, self._request.compress
        shown = shown_name(name)
        if mode is not Mode.TEST or self._messages.verbosity > 0:
            prefix = "OK, " if mode is Mode.TEST else ""
            self._messages.summary(shown, prefix + summary_text(report, decoding=mode is not Mode.COMPRESS))
        model = os.fspath(compress.model)
        if mode is Mode.COMPRESS and model != DEFAULT_MODEL:
            self._messages.model_not_used(shown, report, model)
        if report.kernels is not None and report.kernels.is_slower:
            self._messages.slower(report.kernels.text)
        if report.tokenizer_note:
            self._messages.remark(f"model {report.model}: its tokenizer has {report.tokenizer_note}")
        for line in detail_texts(report):
            self._messages.detail(line)
        output = None if mode is Mode.TEST else target or STDOUT
        self._record(name, output=output, **report_fields(report), error=None)


def _partial(target: str) -> str:
    """Returns the name of the file in which --resume keeps what is done."""
    return f"{target}.partial"


def _about(output: str, error: Exception) -> OtherFileProblem:
    """Returns an error as a problem of the output."""
    reason = explain(error)[1]
    if isinstance(error, OSError):
        reason += "; no output was written, the source is kept"
    return OtherFileProblem(output, reason)


def _add_consequence(error: LLMZipError, output: Output | None, num_bytes: int) -> None:
    """Adds to the error's text what the error means for the output."""
    if output is not None:
        text = "no output was written"
    elif num_bytes:
        text = f"the {num_bytes:,} bytes written before it are verified"
    else:
        return
    error.args = (f"{error}; {text}",)


def _check_not_itself(source: Source, stdout: DescriptorWriter) -> None:
    """Refuses a standard output that is the input, which would be read back, or overwritten before it is read."""
    with contextlib.suppress(OSError):
        status = os.fstat(stdout.fileno())
        if stat.S_ISREG(status.st_mode) and os.path.samestat(status, source.status):
            raise FileProblem(fileops.SAME_FILE)


def _look_ahead(source: Source) -> tuple[Any, bool]:
    """Returns the stream as if it had not been read, and whether it begins like an archive."""
    from ..format.headers import MAGIC

    head = read_upto(source.file, len(MAGIC))
    return Prefixed(head, source.file), head == MAGIC
