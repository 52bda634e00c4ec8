"""What sub-commands have in common: their output as tables or JSON lines, and errors in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from ..errors import LLMZipError
from ..format.headers import MAGIC
from ..models.choice import fetch_model
from ..models.reference import parse_model
from ..settings import CompressSettings
from ..system import filenames, process
from ..system.filenames import FileProblem, printable
from ..system.fileops import open_source
from ..system.streams import DescriptorWriter, OutputError
from . import options
from .jobs import explain
from .messages import PROGRAM, Messages
from .records import SCHEMA, json_line

_COLOURS, _PLAIN = ("\x1b[42;30m", "\x1b[46;30m"), "\x1b[0m"

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Output:
    """The standard output: tables for people, or JSON lines."""

    def __init__(self, stdout: DescriptorWriter, json: bool) -> None:
        self.stdout = stdout
        self.json = json

    def line(self, text: str) -> None:
        """A line for people."""
        if not self.json:
            self.stdout.write((printable(text).rstrip() + "\n").encode("utf-8", "replace"))

    def record(self, **facts: Any) -> None:
        """A line for programs."""
        if self.json:
            self.stdout.write(json_line({"schema": SCHEMA, **facts}))


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What goes wrong with a file becomes one line about it."""
    try:
        yield
    except (BrokenPipeError, OutputError):
        raise
    except OSError as error:
        raise FileProblem(f"{error.filename or name}: {error.strerror}") from error


def with_model_here(settings: CompressSettings, messages: Messages, offline: bool) -> CompressSettings:
    """The settings with a model that is on this machine: one of the Hub is downloaded if it is not."""
    model = fetch_model(
        parse_model(settings.model),
        lambda text: messages.fact(f"{PROGRAM}: {text}"),
        messages.progress,
        offline=offline,
        exact=settings.arithmetic == "exact",
    )
    return dataclasses.replace(settings, model=model)


def read_text(name: str, command: str, verb: str) -> bytes:
    """A whole text, - for the standard input; a FIFO is as good as any.

    Args:
        command, verb: of the messages: what is done with texts, not with archives.

    Raises:
        FileProblem: it is empty or an archive.
        OSError.
    """
    with open_source(filenames.input_name(name)) as source:
        data = source.file.read()
    if not data:
        raise FileProblem(f"is empty: there is nothing to {verb}")
    if data.startswith(MAGIC):
        raise FileProblem(f"is an llmzip archive: {command} {verb}s texts; decompress it first with -d")
    return data


def has_colours(choice: str, descriptor: int) -> bool:
    """Whether to write colours: as --color says, else on terminals that have some and whose user has not forbidden it.

    Args:
        choice: auto, always or never.
        descriptor: where the text goes.
    """
    if choice != "auto":
        return choice == "always"
    forbidden = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not forbidden and process.is_terminal(descriptor)


def piece_text(text: str, number: int, coloured: bool) -> str:
    """A piece of a text that is shown cut: neighbours in two colours, or with a bar behind each.

    No colour lasts over the end of a line: terminals may fill the rest of the line with the background.
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
    if not coloured:
        return shown + "|"
    return "\n".join(f"{_COLOURS[number % 2]}{line}{_PLAIN}" if line else "" for line in shown.split("\n"))


@contextlib.contextmanager
def _session(messages: Messages, json: bool) -> Iterator[Output]:
    if not messages.debug and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")  # libraries' advice to programmers; --debug shows it
    with process.standard_output() as stdout:
        yield Output(stdout, json)


def command(name: str, *decorators: options.Decorator, json: bool = True) -> Callable[[Any], click.Command]:
    """A command whose function takes its own parameters, output and messages, and whose errors are one line.

    Args:
        name: of the command.
        decorators: its own options and arguments.
        json: whether it has the option --json.
    """

    def decorate(function: Any) -> click.Command:
        def run(quiet: int, verbose: int, debug: bool, progress: bool | None = None, **values: Any) -> int:
            messages = Messages(max(-2, verbose - quiet), progress, debug)
            try:
                with _session(messages, values.pop("json", False)) as output:
                    return function(output=output, messages=messages, **values) or 0
            except (LLMZipError, FileProblem) as error:
                code, text = explain(error)
                messages.error(None, text, error)
                return code

        run.__doc__ = function.__doc__
        wrapped: Any = options.talk(run)
        for decorator in reversed([*decorators, *([options.json] if json else [])]):
            wrapped = decorator(wrapped)
        return click.command(name, context_settings=CONTEXT, epilog=options.EXIT_CODES)(wrapped)

    return decorate
