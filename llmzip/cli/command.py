"""What commands share: their frame with output, messages and error handling, and the reading of texts and models."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ..errors import LLMZipError, SettingsError
from ..format.headers import MAGIC
from ..settings import CompressSettings
from ..system import process
from ..system.failures import explain
from ..system.filenames import FileProblem, printable
from ..system.fileops import open_source
from ..system.streams import DescriptorWriter, OutputError
from . import options
from .messages import Messages
from .records import SCHEMA, json_line, json_name

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""click's settings for every command."""

_ARGUMENTS = f"{__name__}.arguments"
_COLOURS = ("\x1b[42;30m", "\x1b[46;30m")  # black on green, black on cyan
_PLAIN = "\x1b[0m"


# -- the frame of a command ------------------------------------------------------------------------------------------


class Output:
    """The standard output of a command: tables for people, or JSON lines for programs.

    Args:
        stdout: where it goes.
        json: whether to write JSON lines instead of tables.
    """

    def __init__(self, stdout: DescriptorWriter, json: bool) -> None:
        self.stdout = stdout
        self.json = json

    def line(self, text: str) -> None:
        """Writes a line, unless the output is JSON."""
        if not self.json:
            self.stdout.write((printable(text).rstrip() + "\n").encode("utf-8", "replace"))

    def record(self, **facts: Any) -> None:
        """Writes an object, if the output is JSON."""
        if self.json:
            self.stdout.write(json_line({"schema": SCHEMA, **facts}))

    def file_record(self, name: str | None, /, **facts: Any) -> None:
        """Writes an object about a file, if the output is JSON; None stands for the standard input, or no file."""
        self.record(**json_name(name), **facts)


class Command(click.Command):
    """A command that remembers its arguments as they were typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def typed_arguments() -> tuple[str, ...]:
    """Returns the arguments of the running command as they were typed."""
    arguments: tuple[str, ...] = click.get_current_context().meta[_ARGUMENTS]
    return arguments


def make_messages(quiet: int, verbose: int, debug: bool, progress: bool | None = None) -> Messages:
    """Returns the messages that the options in `options.talk` and `options.progress` ask for.

    Libraries' warnings to programmers are silenced, unless --debug or Python's -W asks for them.
    """
    if not debug and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")
    return Messages(max(-2, verbose - quiet), progress, debug)


def command(name: str, *decorators: options.Decorator, json: bool = True) -> Callable[[Any], click.Command]:
    """Makes a command of a function, which gets its own parameters, `output` and `messages`.

    An LLMZipError or FileProblem that leaves the function becomes one line and the exit status; a SettingsError is
    wrong usage.

    Args:
        name: name of the command.
        decorators: its own options and arguments.
        json: whether it has the option --json.
    """

    def decorate(function: Any) -> click.Command:
        def run(quiet: int, verbose: int, debug: bool, progress: bool | None = None, **values: Any) -> int:
            messages = make_messages(quiet, verbose, debug, progress)
            try:
                with process.standard_output() as stdout:
                    output = Output(stdout, values.pop("json", False))
                    return function(output=output, messages=messages, **values) or 0
            except SettingsError as error:
                raise click.UsageError(str(error), click.get_current_context()) from error
            except (LLMZipError, FileProblem) as error:
                status, reason = explain(error)
                messages.error(None, reason, error)
                return status

        run.__doc__ = function.__doc__
        wrapped: Any = options.talk(run)
        for decorator in reversed([*decorators, *([options.json] if json else [])]):
            wrapped = decorator(wrapped)
        return click.command(name, cls=Command, context_settings=CONTEXT, epilog=options.EXIT_STATUS)(wrapped)

    return decorate


# -- texts and models ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns a system's error about a file into a FileProblem that names the file."""
    try:
        yield
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        raise FileProblem(f"{error.filename or name}: {error.strerror}") from error


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Adds the file's name to errors about an archive or its model."""
    try:
        yield
    except SettingsError:
        raise
    except LLMZipError as error:
        error.args = (f"{name}: {error}",)
        raise


def with_local_model(settings: CompressSettings, messages: Messages, offline: bool) -> CompressSettings:
    """Returns the settings with a model on this machine; downloads it from the Hub if necessary and allowed.

    Raises:
        ModelError: the model is not available.
    """
    from ..models.choice import fetch_model  # here, so that --help and -l are quick
    from ..models.reference import parse_model

    model = fetch_model(
        parse_model(settings.model),
        messages.notice,
        messages.progress,
        offline=offline,
        exact=settings.arithmetic == "exact",
    )
    return dataclasses.replace(settings, model=model)


def read_text(name: str | None, command: str, verb: str) -> bytes:
    """Reads a whole text from a file or pipe; None stands for the standard input.

    Args:
        name: name of the file.
        command: name of the command, for messages.
        verb: what the command does with texts, for messages.

    Raises:
        FileProblem: the text is empty, or an archive.
        OSError: it cannot be read.
    """
    with open_source(name) as source:
        data = source.file.read()
    if not data:
        raise FileProblem(f"is empty: there is nothing to {verb}")
    if data.startswith(MAGIC):
        raise FileProblem(f"is an llmzip archive: {command} {verb}s texts; decompress it first with -d")
    return data


# -- cut texts -------------------------------------------------------------------------------------------------------


def has_colours(choice: str, descriptor: int) -> bool:
    """Returns whether to write colours: as --color says; by default on terminals, unless NO_COLOR or TERM forbids it.

    Args:
        choice: auto, always or never.
        descriptor: file descriptor that the text is written to.
    """
    if choice != "auto":
        return choice == "always"
    is_forbidden = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return not is_forbidden and process.is_terminal(descriptor)


def piece_text(text: str, number: int, coloured: bool) -> str:
    """Returns a piece of a text that is shown cut: neighbours in two colours, or followed by a bar.

    No colour reaches past the end of a line: terminals may fill the rest of the line with the background.
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    if not coloured:
        return shown + "|"
    return "\n".join(f"{_COLOURS[number % 2]}{line}{_PLAIN}" if line else "" for line in shown.split("\n"))
