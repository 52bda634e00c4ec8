"""The program: its commands, the one that runs by default, and the boundary that turns errors into exit statuses.

`llmzip FILE` and `llmzip -d FILE` are a hidden default command of a group, so that `llmzip info` and others can stand
next to them.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from ..errors import EXIT_FAILED, EXIT_USAGE, SettingsError
from ..system import process
from ..system.failures import explain
from .command import CONTEXT
from .commands import archive
from .messages import PROGRAM, Messages

_DEFAULT = "\0"  # no argument of a process can be this, so nobody calls the hidden command by its name


class Later(NamedTuple):
    """A command that is imported when it is used.

    Attributes:
        place: module in `llmzip.cli.commands`, and the command's name there.
        help: its line in the help of the program.
    """

    place: str
    help: str

    def load(self) -> click.Command:
        """Imports the command."""
        module, _, name = self.place.partition(":")
        command: click.Command = getattr(importlib.import_module(f".commands.{module}", __package__), name)
        return command


class Commands(MutableMapping[str, click.Command]):
    """The commands of a program by name, most of which are imported only when they are asked for.

    A module that is not imported costs no time: `llmzip -l` needs none of those that measure and train.
    """

    def __init__(self) -> None:
        self._entries: dict[str, click.Command | Later] = {}

    def __getitem__(self, name: str) -> click.Command:
        entry = self._entries[name]
        return entry.load() if isinstance(entry, Later) else entry

    def __setitem__(self, name: str, command: click.Command | Later) -> None:
        self._entries[name] = command

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def help(self, name: str) -> str:
        """Returns a command's line in the help of the program, and imports nothing."""
        entry = self._entries[name]
        return entry.help if isinstance(entry, Later) else entry.get_short_help_str(80)


class Program(click.Group):
    """A group whose default command takes what does not begin with the name of a command."""

    commands: Commands

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
    """The gzip-like form. Its help is that of the whole program."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(PROGRAM, "[OPTIONS] [FILE]...")
        formatter.write_usage(PROGRAM, "COMMAND [OPTIONS] [FILE]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        names = program.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, program.commands.help(name)) for name in names])


_commands = Commands()
_commands[_DEFAULT] = archive.default_command(_DEFAULT, DefaultCommand)
_commands["compress"] = archive.compress_command
_commands["decompress"] = archive.decompress_command
_commands["info"] = archive.info_command
_commands["train"] = Later("train:train_command", "Train a language model on your own text.")
_commands["repair"] = Later("repair:repair_command", "Mend a damaged archive by its recovery data.")
_commands["cat"] = Later("cat:cat_command", "Write the text of archives, or a part of each.")
_commands["grep"] = Later("grep:grep_command", "Print the lines that match PATTERN, of archives and of other files.")
_commands["windows"] = Later("windows:windows_command", "Show how a text divides into windows.")
_commands["packets"] = Later("packets:packets_command", "Cut a text into self-contained packets.")
_commands["models"] = Later("models:models_command", "List, download, store and check models.")
_commands["entropy"] = Later("entropy:entropy_command", "Measure how well models predict texts.")
_commands["distance"] = Later("distance:distance_command", "Measure how similar texts are.")
_commands["estimate"] = Later("estimate:estimate_command", "Predict size and times of compressing.")
_commands["bench"] = Later("bench:bench_command", "Compare llmzip with other compressors.")
_commands["cluster"] = Later("cluster:cluster_command", "Work on many files and machines with Ray.")
program = Program(PROGRAM, add_help_option=False, context_settings=CONTEXT, commands=_commands)


# -- the boundary ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. No exception leaves it; a signal that ends the run ends the process.

    Args:
        argv: arguments without the program's name; None for those of the process, which then ends.

    Returns:
        the exit status.
    """
    return run(program, PROGRAM, argv)


def run(command: click.Command, name: str, argv: Sequence[str] | None) -> int:
    """Runs a command as a program of its own, as `main` does.

    Args:
        command: what the program does.
        name: name of the program, as it is typed.
        argv: as for `main`.

    Returns:
        the exit status.
    """
    if argv is not None:
        return _run(command, name, list(argv), None)
    if f"_{name.upper()}_COMPLETE" in os.environ:
        command.main(prog_name=name)  # click's own; ends the process
    process.collect_rarely()
    process.leave(_run(command, name, sys.argv[1:], archive.OWN_PROCESS))


def _run(command: click.Command, name: str, arguments: list[str], owner: str | None) -> int:
    process.occupy_standard_descriptors()
    process.share_the_cores()
    try:
        with command.make_context(name, arguments, obj=owner) as ctx:
            status = command.invoke(ctx)
        return int(status or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.UsageError, SettingsError) as error:
        return _usage_error(error, name, debug="--debug" in arguments)
    except click.ClickException as error:
        Messages().error(None, error.format_message(), error)
        return EXIT_FAILED
    except (KeyboardInterrupt, click.Abort):
        process.die_by_signal(signal.SIGINT)
    except BrokenPipeError:
        process.die_by_signal(getattr(signal, "SIGPIPE", signal.SIGTERM))
    except Exception as error:
        # Errors about files are caught in outcomes.py; what arrives here is the standard output's, or a bug.
        place = process.STDOUT if isinstance(error, OSError) else None
        Messages(debug="--debug" in arguments).error(place, explain(error)[1], error)
        process.abandon_standard_output()
    return EXIT_FAILED


def _usage_error(error: Exception, name: str, *, debug: bool) -> int:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    Messages(debug=debug).error(None, text, error)
    ctx = getattr(error, "ctx", None)
    path = name if ctx is None else ctx.command_path.removesuffix(f" {_DEFAULT}")
    Messages().error(None, f"for help: {path} --help")
    return EXIT_USAGE
