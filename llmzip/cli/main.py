"""The program: its commands, the one that runs by default, and the boundary that turns errors into exit statuses.

`llmzip FILE` and `llmzip -d FILE` are a hidden default command of a group, so that `llmzip info` and others can stand
next to them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from ..errors import EXIT_FAILED, EXIT_USAGE, SettingsError
from ..system import process
from ..system.failures import explain
from .command import CONTEXT
from .commands import archive
from .commands.bench import bench_command
from .commands.cluster import cluster_command
from .commands.distance import distance_command
from .commands.entropy import entropy_command
from .commands.estimate import estimate_command
from .commands.models import models_command
from .commands.packets import packets_command
from .commands.train import train_command
from .commands.windows import cat_command, windows_command
from .messages import PROGRAM, Messages

_DEFAULT = "\0"  # no argument of a process can be this, so nobody calls the hidden command by its name


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
    """The gzip-like form. Its help is that of the whole program."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(PROGRAM, "[OPTIONS] [FILE]...")
        formatter.write_usage(PROGRAM, "COMMAND [OPTIONS] [FILE]...", prefix="       ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        names = program.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, program.commands[name].get_short_help_str(80)) for name in names])


program = Program(PROGRAM, add_help_option=False, context_settings=CONTEXT)
for _name, _command in (
    (_DEFAULT, archive.default_command(_DEFAULT, DefaultCommand)),
    ("compress", archive.compress_command),
    ("decompress", archive.decompress_command),
    ("info", archive.info_command),
    ("train", train_command),
    ("cat", cat_command),
    ("windows", windows_command),
    ("packets", packets_command),
    ("models", models_command),
    ("entropy", entropy_command),
    ("distance", distance_command),
    ("estimate", estimate_command),
    ("bench", bench_command),
    ("cluster", cluster_command),
):
    program.add_command(_command, _name)


# -- the boundary ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program. No exception leaves it; a signal that ends the run ends the process.

    Args:
        argv: arguments without the program's name; None for those of the process, which then ends.

    Returns:
        the exit status.
    """
    if argv is not None:
        return _main(list(argv), None)
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
        program.main(prog_name=PROGRAM)  # click's own; ends the process
    process.collect_rarely()
    process.leave(_main(sys.argv[1:], archive.OWN_PROCESS))


def _main(arguments: list[str], owner: str | None) -> int:
    process.occupy_standard_descriptors()
    process.share_the_cores()
    try:
        with program.make_context(PROGRAM, arguments, obj=owner) as ctx:
            status = program.invoke(ctx)
        return int(status or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.UsageError, SettingsError) as error:
        return _usage_error(error, debug="--debug" in arguments)
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


def _usage_error(error: Exception, *, debug: bool) -> int:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    Messages(debug=debug).error(None, text, error)
    ctx = getattr(error, "ctx", None)
    path = PROGRAM if ctx is None else ctx.command_path.removesuffix(f" {_DEFAULT}")
    Messages().error(None, f"for help: {path} --help")
    return EXIT_USAGE
