"""What the program does with each name it is given; must not know click, models or the byte format."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from .. import mixing
from ..errors import EXIT_FAILED, EXIT_OK, CorruptError, LLMZipError
from ..models.reference import Kind, parse_model
from ..settings import DEFAULT_MODEL, CompressSettings, DecompressSettings
from ..system import filenames, fileops
from ..system.filenames import FileProblem, Reserved
from ..system.fileops import Output, Source
from ..system.process import STDIN, STDOUT, is_terminal
from ..system.streams import DIFFERS, Comparison, DescriptorWriter, OutputError, Prefixed, read_upto
from .messages import Messages, detail_texts, summary_text
from .records import SCHEMA, RecordFile, json_error, json_line, json_name, report_fields

if TYPE_CHECKING:
    from ..codec.report import StreamReport

COMPRESS, DECOMPRESS, TEST, LIST = "compress", "decompress", "test", "list"


@dataclass(frozen=True)
class Options:
    """What the command line asked for; the names are those of its options.

    Attributes:
        output: the file of -o; None to derive the name.
        to_stdout: -c.
        remove: --rm.
        json: -t and -l print JSON lines on the standard output.
        prompt_file: of --prompt-file, which no output may replace.
        offline: --offline.
    """

    operation: str
    compress: CompressSettings = field(default_factory=CompressSettings)
    decompress: DecompressSettings = field(default_factory=DecompressSettings)
    suffix: str = ".llmz"
    output: str | None = None
    to_stdout: bool = False
    remove: bool = False
    force: bool = False
    json: bool = False
    offline: bool = False
    prompt_file: str | None = None


FROM_TERMINAL = "compressed data is not read from a terminal; name a file, or use -f (help: llmzip --help)"
_TO_TERMINAL = "compressed data is not written to a terminal; redirect it, or use -o FILE or -f (help: llmzip --help)"


def target_of(options: Options, name: str | None) -> str | None:
    """The name of the output for an input that is compressed or decompressed; None for the standard output.

    Raises:
        FileProblem: none can be made from the name of the input.
    """
    if options.output is not None:
        return options.output
    if options.to_stdout or name is None:
        return None
    if options.operation == COMPRESS:
        return filenames.add_suffix(name, options.suffix)
    return filenames.strip_suffix(name, _suffixes(options.suffix))


def _suffixes(suffix: str) -> tuple[str, ...]:
    from ..format.headers import SUFFIX

    return (suffix,) if suffix == SUFFIX else (suffix, SUFFIX)


def explain(error: BaseException, name: str | None = None) -> tuple[int, str]:
    """The exit code of an error and its text in one line.

    Args:
        error: what was raised.
        name: the file that the line will be about, so that any other file the error is about gets named too.
    """
    if isinstance(error, LLMZipError):
        return error.exit_code, str(error)
    if isinstance(error, FileProblem):
        return EXIT_FAILED, str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return EXIT_FAILED, "not enough memory"
    if isinstance(error, SystemError):  # what is left of a failed allocation in code that did not look
        return EXIT_FAILED, f"not enough memory, or a library is broken ({error})"
    if isinstance(error, OSError) and error.strerror:
        about_another = name is not None and error.filename is not None and os.fsdecode(error.filename) != name
        return EXIT_FAILED, error.strerror + (f": {os.fsdecode(error.filename)}" if about_another else "")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return EXIT_FAILED, "not enough memory for another thread, or too many processes; --threads 1 needs less"
    if isinstance(error, (ImportError, OSError)):
        return EXIT_FAILED, _explain_library(error)
    return EXIT_FAILED, f"internal error: {type(error).__name__}: {error}; please report it, with what --debug shows"


def _explain_library(error: BaseException) -> str:
    """What became of a library that should have been loaded."""
    while error.__cause__ is not None:  # numpy's own text is a page long
        error = error.__cause__
    text = str(error).strip().partition("\n")[0]
    if any(words in text for words in ("failed to map", "cannot allocate", "Cannot allocate")):
        return f"not enough memory to load a library ({text})"
    return f"a library that llmzip needs is missing or broken ({text}); install llmzip again"


def overall_exit_code(codes: Sequence[int]) -> int:
    """The exit code of a run: that of its failures if they are all of one kind, else the general one."""
    kinds = set(codes)
    if not kinds:
        return EXIT_OK
    return kinds.pop() if len(kinds) == 1 else EXIT_FAILED


class Jobs:
    """Runs one operation over many names; a name that fails does not stop the others.

    Args:
        options: what to do.
        messages: where the user is told.
        stdout: the data stream; None if the operation does not write to it.
        report: takes the JSON lines of --report; None for none.
    """

    def __init__(
        self,
        options: Options,
        messages: Messages,
        stdout: DescriptorWriter | None,
        report: RecordFile | None = None,
    ) -> None:
        self._options = options
        self._messages = messages
        self._stdout = stdout
        self._report = report
        self._reserved = Reserved()
        self._codes: list[int] = []

    def run(self, names: Sequence[str]) -> int:
        """Does all names; "-" is the standard input. Returns the exit code."""
        mixing.on_compiling = self._messages.compiling
        for name in filter(None, map(filenames.input_name, names)):
            self._reserved.add(name, "also an input")
        if self._options.prompt_file is not None:
            self._reserved.add(self._options.prompt_file, "the prompt")
        try:
            for argument in names:
                self._run_one(filenames.input_name(argument))
        except OutputError as error:  # there is no sense in going on with other files
            code, text = explain(error)
            self._codes.append(code)
            self._messages.error(STDOUT, text, error)
        return overall_exit_code(self._codes)

    def _run_one(self, name: str | None) -> None:
        work = {COMPRESS: self._compress, DECOMPRESS: self._decompress, TEST: self._test}
        try:
            work[self._options.operation](name)
        except (BrokenPipeError, OutputError):
            raise
        except Exception as error:
            code, text = explain(error, STDIN if name is None else name)
            self._codes.append(code)
            place = error.name if isinstance(error, _Elsewhere) else STDIN if name is None else name
            self._messages.error(place, text, error)
            self._record(name, error=json_error(code, error, text))

    # -- the operations

    def _compress(self, name: str | None) -> None:
        from ..codec.reader import compress_stream

        options = self._options
        with self._source(name) as source:
            target = target_of(options, name)
            if target is None and not options.force and is_terminal(self._data.fileno()):
                raise FileProblem(_TO_TERMINAL)
            with self._opened(target, source) as (sink, output):
                with self._messages.progress(STDIN if name is None else name, source.size_bytes) as advance:
                    report = self._written(
                        output, lambda: compress_stream(source.file, sink, options.compress, advance)
                    )
                self._completed(source, output, report)
        self._succeeded(name, target, report)

    def _decompress(self, name: str | None) -> None:
        from ..codec.reader import decompress_stream

        options = self._options
        with self._source(name) as source:
            target = target_of(options, name)
            file = source.file
            if target is None and options.force:
                file, is_archive = _look_ahead(source)
                if not is_archive:
                    self._written(None, lambda: shutil.copyfileobj(file, self._data))
                    self._record(name, output=STDOUT, passed_through=True, error=None)
                    return
            with self._opened(target, source) as (sink, output):
                with self._messages.progress(STDIN if name is None else name, self._original_bytes(source)) as advance:
                    report = self._written(output, lambda: decompress_stream(file, sink, options.decompress, advance))
                self._completed(source, output, report)
        self._succeeded(name, target, report)

    def _test(self, name: str | None) -> None:
        from ..codec.reader import decompress_stream

        with (
            self._source(name) as source,
            self._messages.progress(STDIN if name is None else name, self._original_bytes(source)) as advance,
        ):
            report = decompress_stream(source.file, None, self._options.decompress, advance)
        self._succeeded(name, None, report)

    # -- their steps

    @property
    def _data(self) -> DescriptorWriter:
        if self._stdout is None:
            raise ValueError("no standard output was given")
        return self._stdout

    def _source(self, name: str | None) -> Source:
        options = self._options
        if name is None and options.operation != COMPRESS and not options.force and is_terminal(0):
            raise FileProblem(FROM_TERMINAL)
        # An output's name that is made from that of a device or FIFO is rarely meant.
        special = options.force or options.operation == TEST or options.to_stdout or options.output is not None
        return fileops.open_source(name, special=special, force=options.force, removing=self._removes(name))

    def _removes(self, name: str | None) -> bool:
        """Whether --rm has a meaning here: it never removes what went to the standard output or was only tested."""
        options = self._options
        to_file = options.output is not None or not options.to_stdout
        return options.remove and name is not None and to_file and options.operation in (COMPRESS, DECOMPRESS)

    @contextlib.contextmanager
    def _opened(self, target: str | None, source: Source) -> Iterator[tuple[BinaryIO, Output | None]]:
        if target is None:
            _check_not_itself(source, self._data)
            yield cast("BinaryIO", self._data), None
            return
        if self._removes(source.name) and not source.file.seekable():
            raise FileProblem("is kept: it is a pipe, whose text --rm cannot compare; use it without --rm")
        options = self._options
        try:
            output = Output(target, source, force=options.force)
            self._reserved.check(target, source.status)
        except (FileProblem, OSError) as error:
            raise _about(target, error) from error
        with output:
            to_terminal = output.is_special and is_terminal(output.sink.fileno())
            if to_terminal and options.operation == COMPRESS and not options.force:
                raise _about(target, FileProblem(_TO_TERMINAL))
            if output.is_special and self._removes(source.name):
                raise FileProblem(
                    f"is kept: --rm cannot verify {target}, which is no regular file; use it without --rm"
                )
            yield cast("BinaryIO", output.sink), output

    def _written(self, output: Output | None, work: Callable[[], Any]) -> Any:
        """Runs what writes, and tells a failed write from a failed read."""
        sink = output.sink if output is not None else self._data
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
        """Finishes, verifies and publishes the output, then removes the source if that is wanted."""
        if output is None:
            return
        removes = self._removes(source.name)
        try:
            output.finish(source)
        except OSError as error:
            raise _about(output.name, error) from error
        if removes and self._options.operation == COMPRESS:
            self._verify(source, output, report)
        try:
            output.publish()
        except (FileProblem, OSError) as error:
            raise _about(output.name, error) from error
        self._reserved.add(output.name, "an output of this run already", source.status)
        if removes:
            try:
                fileops.remove_source(source)
            except OSError as error:
                raise FileProblem(f"cannot be removed: {error.strerror}; its output is complete") from error

    def _verify(self, source: Source, output: Output, report: StreamReport) -> None:
        """Decodes the new archive and compares it with its source."""
        from ..codec.reader import decompress_stream

        compress = self._options.compress
        ref = parse_model(compress.model)
        model = ref if ref.kind is Kind.FOLDER else None
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
        """The length of the bar. It needs a look at the headers, so only if there is a bar and a file to go back in."""
        if not self._messages.shows_progress or source.size_bytes is None:
            return None
        from ..codec.info import read_info

        start = source.file.tell()
        try:
            return read_info(source.file).original_bytes
        except (LLMZipError, OSError):
            return None  # the decoder will say it better
        finally:
            source.file.seek(start)

    # -- what is told

    def _succeeded(self, name: str | None, target: str | None, report: StreamReport) -> None:
        operation = self._options.operation
        decoding = operation != COMPRESS
        shown = STDIN if name is None else name
        if operation != TEST or self._messages.verbosity > 0:
            prefix = "OK, " if operation == TEST else ""
            self._messages.summary(shown, prefix + summary_text(report, decoding=decoding))
        model = os.fspath(self._options.compress.model)
        if operation == COMPRESS and model != DEFAULT_MODEL:
            self._messages.model_not_used(shown, report, model)
        self._messages.slower(report.kernels)
        for line in detail_texts(report):
            self._messages.detail(line)
        output = None if operation == TEST else target or STDOUT
        self._record(name, output=output, **report_fields(report), error=None)

    def _record(self, name: str | None, **facts: Any) -> None:
        options = self._options
        record = json_line({"schema": SCHEMA, "operation": options.operation, **json_name(name), **facts})
        if self._report is not None:
            self._report.append(record)
        if options.json and options.operation == TEST:
            self._data.write(record)


class _Elsewhere(FileProblem):
    """A problem that belongs to another file than the input."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def _about(output: str, error: Exception) -> _Elsewhere:
    text = explain(error)[1]
    if isinstance(error, OSError):
        text += "; no output was written, the source is kept"
    return _Elsewhere(output, text)


def _add_consequence(error: LLMZipError, output: Output | None, num_bytes: int) -> None:
    """Adds to the error's text what it means for the output."""
    if output is not None:
        text = "no output was written"
    elif num_bytes:
        text = f"the {num_bytes:,} bytes written before it are verified"
    else:
        return
    error.args = (f"{error}; {text}",)


def _check_not_itself(source: Source, stdout: DescriptorWriter) -> None:
    """Refuses a standard output that is the input: it would be read back, or overwritten before it is read."""
    with contextlib.suppress(OSError):
        status = os.fstat(stdout.fileno())
        if stat.S_ISREG(status.st_mode) and os.path.samestat(status, source.status):
            raise FileProblem(fileops.SAME_FILE)


def _look_ahead(source: Source) -> tuple[Any, bool]:
    """Whether a stream starts like an archive; the stream comes back as if it had not been read."""
    from ..format.headers import MAGIC

    head = read_upto(source.file, len(MAGIC))
    return Prefixed(head, source.file), head == MAGIC
