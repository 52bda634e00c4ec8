"""The commands that make and read archives: `llmzip FILE`, compress, decompress and info."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource

from ...errors import EXIT_FAILED, LLMZipError
from ...system import filenames, process
from ...system.filenames import FileProblem
from ...system.streams import DescriptorWriter
from .. import options
from ..command import CONTEXT, make_messages, with_local_model
from ..inputs import Selection, gather
from ..jobs import Jobs
from ..messages import Messages
from ..records import RecordFile
from ..request import Arguments, Mode, Request
from .info import InfoTable

OWN_PROCESS = "own process"
"""The object of click's context where no other program shares the interpreter."""

_MIN_ADDRESS_BYTES = 1 << 28  # 256 MiB: Python with numpy needs them
_MIN_THREAD_ADDRESS_BYTES = 1 << 31  # 2 GiB: torch with threads needs them


# -- commands --------------------------------------------------------------------------------------------------------

_compress_settings = options.together(
    options.prompt,
    options.arithmetic,
    options.windows,
    options.frame_bytes,
    options.recovery,
    options.with_model,
)


def default_command(name: str, kind: type[click.Command]) -> click.Command:
    """Makes the command that runs if no command is named.

    Args:
        name: name of the command, which nobody types.
        kind: class of the command.
    """

    @click.command(name, cls=kind, hidden=True, context_settings=CONTEXT, epilog=options.EXIT_STATUS)
    @options.files
    @options.inputs
    @options.modes
    @options.json_of_modes
    @options.levels
    @options.model
    @_compress_settings
    @options.io_options
    @options.version
    def run(**values: Any) -> int:
        """Compress FILEs losslessly, each to FILE.llmz, with a language model and a range coder.

        With no FILE, or when FILE is -, read the standard input and write to the standard output. Files are kept unless
        --rm is given. If the first word is the name of a command, it is that command; for a file of that name write
        ./info or -- info.

        \b
        llmzip notes.txt           makes notes.txt.llmz
        llmzip -d notes.txt.llmz   makes notes.txt
        llmzip -dc a.llmz b.llmz   writes both to the standard output
        tar -I llmzip -cf notes.tar.llmz notes
        """
        return _run(None, **values)

    return run


@click.command("compress", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
@options.files
@options.inputs
@options.levels
@options.compress_model
@_compress_settings
@options.io_options
def compress_command(**values: Any) -> int:
    """Compress files, each to FILE.llmz.

    With no FILE, or when FILE is -, read the standard input and write to the standard output.
    """
    return _run(Mode.COMPRESS, **values)


@click.command("decompress", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
@options.files
@options.inputs
@options.decompress_model
@options.prompt
@options.io_options
def decompress_command(**values: Any) -> int:
    """Decompress archives, each to its name without the suffix.

    With no FILE, or when FILE is -, read the standard input and write to the standard output.
    """
    return _run(Mode.DECOMPRESS, **values)


@click.command("llmzcat", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
@options.files
@options.decompress_model
@options.prompt
@options.engine
@click.option("-f", "--force", is_flag=True, help="Copy what is not an archive; read from a terminal.")
@options.suffix
@options.report
@options.progress
@options.talk
@options.version
def zcat_command(files: tuple[str, ...], suffix: str, **values: Any) -> int:
    """Decompress archives to the standard output, as zcat does; the same as llmzip -dc.

    With no FILE, or when FILE is -, read the standard input; where there is no FILE, but FILE.llmz, that is read. For
    parts of archives use llmzip cat.
    """
    return _run(Mode.DECOMPRESS, files=_existing(files, suffix), suffix=suffix, to_stdout=True, **values)


@click.command("unllmzip", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
@options.files
@options.inputs
@options.reading_modes
@options.json_of_modes
@options.decompress_model
@options.prompt
@options.io_options
@options.version
def unzip_command(files: tuple[str, ...], operation: str | None, suffix: str, **values: Any) -> int:
    """Decompress archives, each to its name without the suffix; the same as llmzip -d.

    With no FILE, or when FILE is -, read the standard input and write to the standard output; where there is no FILE,
    but FILE.llmz, that is read. Unlike gunzip, keep the archives unless --rm is given.
    """
    operation = operation or Mode.DECOMPRESS.value
    return _run(None, files=_existing(files, suffix), operation=operation, suffix=suffix, **values)


def _existing(files: tuple[str, ...], suffix: str) -> tuple[str, ...]:
    """Returns the names of files, those of archives where only these exist."""
    return tuple(name if name == "-" else filenames.existing_name(name, suffix) for name in files)


@click.command("info", context_settings=CONTEXT, epilog=options.EXIT_STATUS)
@options.files
@options.inputs
@options.json
@options.talk
def info_command(**values: Any) -> int:
    """Show what the headers of archives say.

    The same as llmzip -l: it needs no model and decodes nothing, so it finds no damage inside the data. With -v, also
    list the frames.
    """
    return _run(Mode.LIST, **values)


# -- from options to a run -------------------------------------------------------------------------------------------


def _run(
    mode: Mode | None,
    *,
    files: tuple[str, ...],
    quiet: int,
    verbose: int,
    debug: bool,
    progress: bool | None = None,
    **values: Any,
) -> int:
    """Checks the options, then does the work.

    Args:
        mode: what the command does; None if an option says it.
        files: names of the inputs.
        quiet, verbose, debug, progress: values of `options.talk` and `options.progress`.
        values: the other options, which are the fields of `Arguments`.

    Returns:
        the exit status.
    """
    selection = selected(values)
    names: Sequence[str] = selection.names(files)
    if selection.recursive and values.get("output") not in (None, "-"):
        raise click.UsageError("-o takes one input file; with -r use --output-dir DIR, or -c")
    request = parsed(mode, len(names), values)
    messages = make_messages(quiet, verbose, debug, progress)
    inputs = gather(names, selection, request)
    names, request = inputs.names, dataclasses.replace(request, places=inputs.places)
    if request.mode is not Mode.LIST and not _prepare_process(messages):
        return EXIT_FAILED
    if request.mode is Mode.COMPRESS:
        try:
            request = _with_local_model(request, messages)
        except LLMZipError as error:
            messages.error(None, str(error), error)
            return error.exit_code
    with contextlib.ExitStack() as stack:
        stack.enter_context(process.signals_clean_up(_announcement(request, messages)))
        records = stack.enter_context(_record_file(names, request))
        stdout = stack.enter_context(process.standard_output())
        kind = InfoTable if request.mode is Mode.LIST else Jobs
        files_run = kind(request, messages, stdout, records)
        for name, remark in inputs.remarks:
            messages.notice(f"{name}: {remark}")
        files_run.refuse(inputs.problems)
        status = files_run.run(names)
        if records is not None and records.error is not None:
            messages.error(request.report, records.error.strerror or "cannot be written", records.error)
            status = status or EXIT_FAILED
        return status


def _announcement(request: Request, messages: Messages) -> Callable[[str], None]:
    """Returns what says that a signal ended the run."""
    if not request.resume:
        return messages.stopped
    return lambda name: messages.stopped(name, "what is done is kept; the same command continues")


def selected(values: dict[str, Any]) -> Selection:
    """Takes the options that choose inputs out of the values of all options, and returns them."""
    names = [field.name for field in dataclasses.fields(Selection) if field.name in values]
    return Selection(**{name: values.pop(name) for name in names})


def parsed(mode: Mode | None, num_files: int, values: dict[str, Any]) -> Request:
    """Returns the request that the options of the running command make.

    Args:
        mode: what the command does; None if an option says it.
        num_files: number of inputs.
        values: values of the options by the names of their parameters.

    Raises:
        click.UsageError, SettingsError: the options are wrong.
    """
    arguments = Arguments(**values) if mode is None else Arguments(operation=mode.value, **values)
    source = click.get_current_context().get_parameter_source("model")
    return arguments.request(num_files, model_from_environment=source is ParameterSource.ENVIRONMENT)


def _prepare_process(messages: Messages) -> bool:
    """Makes the most of a limit on the address space, in a process of llmzip's own.

    Returns:
        False if the limit is too low to run at all.
    """
    if click.get_current_context().obj != OWN_PROCESS:
        return True
    from ...system import torchparts  # here, so that --help and -l are quick

    torchparts.defer()
    limit = process.address_limit()
    if limit is None or limit >= _MIN_THREAD_ADDRESS_BYTES:
        with process.one_thread_for_numpy():
            import numpy  # noqa: F401 (the work would import it anyway)
        return True
    if limit < _MIN_ADDRESS_BYTES:
        messages.error(None, f"not enough memory: the address space is limited to {limit >> 20} MiB (ulimit -v)")
        return False
    process.spare_addresses()
    messages.slower(f"one thread, because the address space is limited to {limit >> 20} MiB (ulimit -v)")
    return True


def _with_local_model(request: Request, messages: Messages) -> Request:
    """Returns the request with a model on this machine. Done first, and once for all files."""
    with process.standard_output():  # keeps what libraries print out of the data
        return dataclasses.replace(request, compress=with_local_model(request.compress, messages, request.offline))


@contextlib.contextmanager
def _record_file(inputs: Sequence[str], request: Request) -> Iterator[RecordFile | None]:
    """Opens the file of --report; yields None if there is none."""
    name = request.report
    if name is None:
        yield None
        return
    if name == "-":
        yield RecordFile(process.StandardError().write_bytes)
        return
    number = filenames.named_descriptor(name)
    _check_report(name, number, inputs, request)
    try:
        # Appending, so that a mistyped name cannot empty a file. A descriptor is duplicated before the standard output
        # is moved out of reach.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.dup(number) if number is not None else os.open(name, flags, 0o666)
    except OSError as error:
        raise click.FileError(name, error.strerror or str(error)) from error
    try:
        yield RecordFile(DescriptorWriter(descriptor).write)
    finally:
        os.close(descriptor)


def _check_report(name: str, number: int | None, inputs: Sequence[str], request: Request) -> None:
    """Refuses a file of --report that is an input or output of the run, which its lines would spoil.

    Args:
        name: name of the file.
        number: file descriptor that the name stands for; None for a real name.
        inputs: names of the inputs.
        request: what the user asked for.

    Raises:
        click.UsageError: the file is an input, an output or the prompt.
    """
    targets: set[str | None] = {None} if request.json and not request.mode.writes_files else set()
    for argument in inputs:
        if request.mode.writes_files:
            with contextlib.suppress(FileProblem):  # the run itself will report it
                targets.add(request.target(filenames.input_name(argument)))
        if filenames.is_input(name, argument):
            raise click.UsageError(f"--report would write into the input file {argument}")
    for target in targets:
        if filenames.is_same_file(name, 1 if target is None else target):
            raise click.UsageError(f"--report would write into the output {target or 'on the standard output'}")
    if request.prompt_file is not None and filenames.is_same_file(name, request.prompt_file):
        raise click.UsageError("--report would write into the file of --prompt-file")
    if number == 1 and None in targets:
        raise click.UsageError("--report would write into the standard output, where the data goes")
