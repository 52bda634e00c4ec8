"""The command line: options to settings, settings to jobs, errors to exit codes; must not know files or the format.

`llmzip FILE` and `llmzip -d FILE` are a hidden default command of a group, so that `llmzip info` and others can stand
beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from ..errors import EXIT_FAILED, EXIT_USAGE, LLMZipError, SettingsError
from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, CompressSettings, DecompressSettings, EngineSettings
from ..system import filenames, process, torchparts
from ..system.filenames import FileProblem
from ..system.streams import DescriptorWriter
from . import options
from .command import with_model_here
from .commands.bench import bench_command
from .commands.distance import distance_command
from .commands.entropy import entropy_command
from .commands.estimate import estimate_command
from .commands.info import InfoTable
from .commands.models import models_command
from .commands.packets import packets_command
from .commands.train import train_command
from .commands.windows import cat_command, windows_command
from .jobs import COMPRESS, DECOMPRESS, LIST, TEST, Jobs, Options, explain, target_of
from .messages import PROGRAM, Messages
from .records import RecordFile

_DEFAULT = "\0"  # no argument of a process can be this, so nobody calls the hidden command by its name
_OWN_PROCESS = "own process"  # a context's object where no other program shares the interpreter
_LEAST_ADDRESSES, _FEW_ADDRESSES = 1 << 28, 1 << 31  # for Python with numpy; for torch with threads


# -- the group -------------------------------------------------------------------------------------------------------


class Program(click.Group):
    """A group whose default command takes what does not begin with the name of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names_command = bool(args) and args[0] in self.list_commands(ctx)
        if not names_command and not (ctx.resilient_parsing and not args):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in super().list_commands(ctx) if name != _DEFAULT]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes the first word: a command, an option of the default command, or a file."""
        default = self.commands[_DEFAULT].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *default, CompletionItem(incomplete, type="file")]


class DefaultCommand(click.Command):
    """The gzip form. Its help is that of the whole program."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(PROGRAM, "[OPTIONS] [FILE]...")
        formatter.write_usage(PROGRAM, "COMMAND [OPTIONS] [FILE]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        names = program.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, program.commands[name].get_short_help_str(80)) for name in names])


# -- commands --------------------------------------------------------------------------------------------------------

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

program = Program(PROGRAM, add_help_option=False, context_settings=_CONTEXT)


@click.command(_DEFAULT, cls=DefaultCommand, hidden=True, context_settings=_CONTEXT, epilog=options.EXIT_CODES)
@options.files
@options.modes
@options.levels
@options.model
@options.prompt
@options.arithmetic
@options.windows
@options.engine
@options.outputs
@options.json_of_modes
@options.report
@options.progress
@options.talk
@options.version
def default_command(**values: Any) -> int:
    """Compress FILEs without loss, each to FILE.llmz, by a language model and a range coder.

    With no FILE, or when FILE is -, the standard input goes to the standard output. Files are kept unless --rm is
    given. A first word that is the name of a command is a command; a file of that name is ./info or -- info.

    \b
    llmzip notes.txt           makes notes.txt.llmz
    llmzip -d notes.txt.llmz   makes notes.txt
    llmzip -dc a.llmz b.llmz   writes both to the standard output
    tar -I llmzip -cf notes.tar.llmz notes
    """
    return _run(values.pop("operation") or COMPRESS, **values)


@click.command("compress", context_settings=_CONTEXT, epilog=options.EXIT_CODES)
@options.files
@options.levels
@options.compress_model
@options.prompt
@options.arithmetic
@options.windows
@options.engine
@options.outputs
@options.report
@options.progress
@options.talk
def compress_command(**values: Any) -> int:
    """Compress files, each to FILE.llmz.

    With no FILE, or when FILE is -, the standard input goes to the standard output.
    """
    return _run(COMPRESS, **values)


@click.command("decompress", context_settings=_CONTEXT, epilog=options.EXIT_CODES)
@options.files
@options.decompress_model
@options.prompt
@options.engine
@options.outputs
@options.report
@options.progress
@options.talk
def decompress_command(**values: Any) -> int:
    """Decompress archives, each to its name without the suffix.

    With no FILE, or when FILE is -, the standard input goes to the standard output.
    """
    return _run(DECOMPRESS, **values)


@click.command("info", context_settings=_CONTEXT, epilog=options.EXIT_CODES)
@options.files
@options.json
@options.talk
def info_command(**values: Any) -> int:
    """Show what the headers of archives say.

    The same as llmzip -l: needs no model, decodes nothing, so it sees no damage inside the data. With -v also the
    frames.
    """
    return _run(LIST, **values)


for _name, _command in (
    (_DEFAULT, default_command),
    ("compress", compress_command),
    ("decompress", decompress_command),
    ("info", info_command),
    ("train", train_command),
    ("cat", cat_command),
    ("windows", windows_command),
    ("packets", packets_command),
    ("models", models_command),
    ("entropy", entropy_command),
    ("distance", distance_command),
    ("estimate", estimate_command),
    ("bench", bench_command),
):
    program.add_command(_command, _name)


# -- from options to a run -------------------------------------------------------------------------------------------


def _run(
    operation: str,
    *,
    files: tuple[str, ...],
    quiet: int,
    verbose: int,
    debug: bool,
    progress: bool | None = None,
    report: str | None = None,
    **values: Any,
) -> int:
    """Checks what goes together, then does the work. Returns the exit code."""
    names = files or ("-",)
    chosen = _options(operation, len(names), **values)
    messages = Messages(max(-2, verbose - quiet), progress, debug)
    if click.get_current_context().obj == _OWN_PROCESS and operation != LIST:
        torchparts.defer()
        limit = process.address_limit()
        if limit is not None and limit < _FEW_ADDRESSES:
            if limit < _LEAST_ADDRESSES:
                messages.error(None, f"not enough memory: {limit >> 20} MB of addresses are allowed (ulimit -v)")
                return EXIT_FAILED
            process.spare_addresses()
            messages.reason(f"one thread, as {limit >> 20} MB of addresses are allowed (ulimit -v)")
    if not debug and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")  # libraries' advice to programmers; --debug shows it
    if operation == COMPRESS:
        try:
            chosen = _with_model_here(chosen, messages)
        except LLMZipError as error:
            messages.error(None, str(error), error)
            return error.exit_code
    with contextlib.ExitStack() as stack:
        stack.enter_context(process.signals_clean_up(messages.stopped))
        records = stack.enter_context(_record_file(report, names, chosen))
        stdout = stack.enter_context(process.standard_output())
        work = (InfoTable if operation == LIST else Jobs)(chosen, messages, stdout, records)
        code = work.run(names)
        if records is not None and records.error is not None:
            messages.error(report, records.error.strerror or "cannot be written", records.error)
            code = code or EXIT_FAILED
        return code


def _options(
    operation: str,
    num_names: int,
    *,
    level: int | None = None,
    model: str | None = None,
    threads: int | None = None,
    device: str = "auto",
    output: str | None = None,
    to_stdout: bool = False,
    keep: bool = True,
    force: bool = False,
    suffix: str = ".llmz",
    json: bool = False,
    offline: bool = False,
    prompt_file: str | None = None,
    **use: Any,
) -> Options:
    """What was asked for; `use`: fields of CompressSettings that say how the model is used."""
    if json and operation not in (LIST, TEST):
        raise click.UsageError("--json goes with -l and -t; for other operations there is --report FILE")
    if output is not None:
        if operation in (LIST, TEST):
            raise click.UsageError("-o does not go with -l and -t, which write no file")
        if num_names > 1:
            raise click.UsageError("-o takes one input file; use -c to write several to the standard output")
        if output == "-" or filenames.named_descriptor(output) == 1:
            output, to_stdout = None, True
        elif to_stdout:
            raise click.UsageError("-c and -o exclude each other")
    if not suffix or "/" in suffix or os.sep in suffix:
        raise click.UsageError(f"the suffix {suffix!r} is empty or has a {os.sep} in it")
    engine = EngineSettings(device=device, threads=threads)
    ctx = click.get_current_context()
    from_environment = ctx.get_parameter_source("model") is ParameterSource.ENVIRONMENT
    prompt = options.read_prompt(prompt_file)
    return Options(
        operation,
        CompressSettings(level or DEFAULT_LEVEL, model or DEFAULT_MODEL, engine, prompt=prompt, **use),
        # Decoding takes no model from the environment: what an archive means must not depend on who reads it.
        DecompressSettings(None if from_environment else model, engine, prompt),
        suffix=suffix,
        output=output,
        to_stdout=to_stdout,
        remove=not keep,
        force=force,
        json=json,
        offline=offline,
        prompt_file=prompt_file,
    )


def _with_model_here(chosen: Options, messages: Messages) -> Options:
    """Downloads the model if it is one of the Hub that is not here. Before all else, and once for all files."""
    with process.standard_output():  # nothing that a library prints may come before the data
        return dataclasses.replace(chosen, compress=with_model_here(chosen.compress, messages, chosen.offline))


@contextlib.contextmanager
def _record_file(name: str | None, inputs: Sequence[str], chosen: Options) -> Iterator[RecordFile | None]:
    """Opens the file of --report."""
    if name is None:
        yield None
        return
    if name == "-":
        yield RecordFile(process.StandardError().write_bytes)
        return
    number = filenames.named_descriptor(name)
    _check_report(name, number, inputs, chosen)
    try:
        # Appending, so that a slip of the hand cannot empty a file. A descriptor is duplicated before the standard
        # output is moved out of reach.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.dup(number) if number is not None else os.open(name, flags, 0o666)
    except OSError as error:
        raise click.FileError(name, error.strerror or str(error)) from error
    try:
        yield RecordFile(DescriptorWriter(descriptor).write)
    finally:
        os.close(descriptor)


def _check_report(name: str, number: int | None, inputs: Sequence[str], chosen: Options) -> None:
    """Refuses a file of --report that is an input or output of the run, which its lines would spoil.

    Args:
        name: of the file.
        number: of the descriptor that the name stands for, if it is one.
    """
    targets: set[str | None] = {None} if chosen.operation in (LIST, TEST) and chosen.json else set()
    for argument in inputs:
        if chosen.operation in (COMPRESS, DECOMPRESS):
            with contextlib.suppress(FileProblem):  # the run itself will say it
                targets.add(target_of(chosen, filenames.input_name(argument)))
        if filenames.is_input(name, argument):
            raise click.UsageError(f"--report would write into the input file {argument}")
    for target in targets:
        if filenames.is_same_file(name, 1 if target is None else target):
            raise click.UsageError(f"--report would write into the output {target or 'on the standard output'}")
    if chosen.prompt_file is not None and filenames.is_same_file(name, chosen.prompt_file):
        raise click.UsageError("--report would write into the file of --prompt-file")
    if number == 1 and None in targets:
        raise click.UsageError("--report would write into the standard output, where the data goes")


# -- the boundary ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. No exception leaves it; a signal that ends it does so itself.

    Args:
        argv: the arguments without the program's name; None for those of the process, which then ends.

    Returns:
        the exit code.
    """
    if argv is not None:
        return _main(list(argv), None)
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
        program.main(prog_name=PROGRAM)  # click's own; ends the process
    process.collect_rarely()
    process.leave(_main(sys.argv[1:], _OWN_PROCESS))


def _main(arguments: list[str], whose: str | None) -> int:
    process.occupy_standard_descriptors()
    process.share_the_cores()
    try:
        with program.make_context(PROGRAM, arguments, obj=whose) as ctx:
            code = program.invoke(ctx)
        return int(code or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.UsageError, SettingsError) as error:
        return _usage_error(error)
    except click.ClickException as error:
        Messages().error(None, error.format_message(), error)
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        process.die_by_signal(signal.SIGINT)
    except BrokenPipeError:
        process.die_by_signal(getattr(signal, "SIGPIPE", signal.SIGTERM))
    except Exception as error:
        # Files have their errors caught in jobs.py; what arrives here is the standard output's, or a bug.
        place = process.STDOUT if isinstance(error, OSError) else None
        Messages(debug="--debug" in arguments).error(place, explain(error)[1], error)
        process.abandon_standard_output()
    return EXIT_FAILED


def _usage_error(error: Exception) -> int:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    Messages().error(None, text)
    ctx = getattr(error, "ctx", None)
    path = PROGRAM if ctx is None else ctx.command_path.removesuffix(f" {_DEFAULT}")
    Messages().error(None, f"for help: {path} --help")
    return EXIT_USAGE
