"""The options of the command line, each defined once; must not know what they are used for beyond their help."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from ..format.headers import MAX_STEPS, MAX_WINDOW_BITS, MIN_WINDOW_BITS
from ..models.embedded import DEFAULT
from ..settings import ARITHMETICS, DEFAULT_LEVEL, DTYPES, MAX_LEVEL, MIN_LEVEL, USUAL_CONTEXT
from ..system import libraries
from ..system.filenames import FileProblem, input_name
from ..system.fileops import open_source
from ..system.streams import read_upto
from .jobs import COMPRESS, DECOMPRESS, LIST, TEST
from .messages import PROGRAM

EXIT_CODES = """\b
Exit codes:
  0      all went well
  1      a file failed or was skipped
  2      wrong usage
  3      a model is missing or another than the archive's, if nothing else failed
  4      an archive is damaged, if nothing else failed
  128+n  ended by signal n
Scripts should test for 0.
"""

Decorator = Callable[[Any], Any]


class FirstLevel(click.Option):
    """The option -1, which stands for -1 to -9 in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return "-1 ... -9, --fast, --best", self.help or ""


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """The eager callback of -V."""
    if not value or ctx.resilient_parsing:
        return
    from .._version import FORMAT_VERSION, __version__

    click.echo(f"{PROGRAM} {__version__} (archive format {FORMAT_VERSION})")
    ctx.exit()


def with_kernels(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """The callback of --threads, which every command that computes has: the kernels are chosen by a variable alone.

    Raises:
        SettingsError: the variable is misspelt.
    """
    if not ctx.resilient_parsing:
        libraries.wanted()
    return value


def _together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which the help shows them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _mode(*names: str, value: str, text: str) -> Decorator:
    return click.option(*names, "operation", flag_value=value, type=str, default=None, help=text)


def _level(number: int, *names: str) -> Decorator:
    first = number == 1
    text = (
        f"-{MIN_LEVEL} skips the mixer: quickest to compress, largest archive. From -{MIN_LEVEL + 1} to -{MAX_LEVEL} "
        f"archives become smaller and take longer to decompress. The last one given counts.  "
        f"[default: -{DEFAULT_LEVEL}]"
    )
    return click.option(
        f"-{number}",
        *names,
        "level",
        cls=FirstLevel if first else click.Option,
        flag_value=number,
        type=int,
        default=None,
        hidden=not first,
        help=text if first else None,
    )


files = click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True, readable=False))
modes = _together(
    _mode("-z", "--compress", value=COMPRESS, text="Compress; this is the default."),
    _mode("-d", "--decompress", "--uncompress", value=DECOMPRESS, text="Decompress."),
    _mode("-t", "--test", value=TEST, text="Decode archives and check them, write nothing. Needs their model."),
    _mode("-l", "--list", value=LIST, text="Show what the headers of archives say. Needs no model."),
)
levels = _together(_level(1, "--fast"), *(_level(n) for n in range(2, 9)), _level(9, "--best"))
outputs = _together(
    click.option("-c", "--stdout", "--to-stdout", "to_stdout", is_flag=True, help="Write to the standard output."),
    click.option("-o", "--output", metavar="FILE", help="Write to FILE (one input only); - is the standard output."),
    click.option(
        "-k", "--keep/--rm", "keep", default=True,
        help="Keep the input files (the default), or remove each one after its output is on the disk and verified: "
        "a new archive is decoded and compared with the file. What goes to the standard output removes nothing.",
    ),
    click.option(
        "-f", "--force", is_flag=True,
        help="Overwrite files; read and write devices and FIFOs; with --rm remove links and files with several links; "
        "use a terminal for compressed data; with -dc copy what is no archive.",
    ),
    click.option("-S", "--suffix", metavar=".SUF", default=".llmz", show_default=True, help="Suffix of archives."),
)  # fmt: skip
_COMPRESS_MODEL = (
    "Model to compress with: a folder with a Hugging Face checkpoint, the name of an embedded model, or a model of the "
    "Hugging Face Hub, org/name or org/name@revision, which is downloaded if it is not here."
)
_DECOMPRESS_MODEL = (
    "The folder of the model that the archive names, or its name on the Hub; not needed if that is an embedded one or "
    "in the Hugging Face cache."
)


def _compress_model(text: str) -> Decorator:
    return _together(
        click.option("-m", "--model", metavar="NAME|DIR", envvar="LLMZIP_MODEL", show_envvar=True, help=text),
        click.option("--offline", is_flag=True, help="Download no model. Decompressing never does."),
    )


def model_names(values: Sequence[str]) -> tuple[str, ...]:
    """The models that values of `several_models` name, once each, in order; none if there are no values.

    A comma stands between two names, unless it is a part of a folder's name: the longest part of a value that is a
    folder is taken first.
    """
    return tuple(dict.fromkeys(name for value in values for name in _listed_models(value)))


def _listed_models(value: str) -> Iterator[str]:
    parts = value.split(",")
    while parts:
        count = next((n for n in range(len(parts), 1, -1) if os.path.isdir(",".join(parts[:n]))), 1)
        name = ",".join(parts[:count])
        name = name if os.path.isdir(name) else name.strip()
        if name:
            yield name
        parts = parts[count:]


_MOST_PROMPT_BYTES = 1 << 26


def read_prompt(name: str | None) -> bytes:
    """The text of --prompt-file; nothing if there is none.

    Raises:
        click.UsageError: it cannot be read, is empty or too long.
    """
    if name is None:
        return b""
    if input_name(name) is None:
        raise click.UsageError(f"--prompt-file {name}: name a file; the standard input is for the text")
    try:
        with open_source(name) as source:
            text = read_upto(source.file, _MOST_PROMPT_BYTES + 1)
    except FileProblem:
        raise click.UsageError(f"--prompt-file {name}: Is a directory") from None
    except OSError as error:
        raise click.UsageError(f"--prompt-file {name}: {error.strerror}") from None
    if not text or len(text) > _MOST_PROMPT_BYTES:
        raise click.UsageError(f"--prompt-file {name}: must have 1 to {_MOST_PROMPT_BYTES:,} bytes")
    return text


prompt = click.option(
    "--prompt-file",
    metavar="FILE",
    help="A text that the model and the mixer read first; whoever decompresses must give the same one.",
)
computation = _together(
    click.option(
        "--engine", "arithmetic", type=click.Choice(ARITHMETICS), default="exact", show_default=True,
        help="How the model computes. float runs every model that transformers knows, but its archives decode only on "
        "the same hardware with the same software.",
    ),
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Numbers of --engine float."
    ),
)  # fmt: skip
arithmetic = _together(
    computation,
    click.option(
        "--context", metavar="N", type=int,
        help=f"Tokens that a model of yours or of the Hub sees.  [default: {USUAL_CONTEXT}, or what it was made for]",
    ),
    click.option("--overlap", metavar="N", type=int, help="Tokens a new context begins with.  [default: by level]"),
    click.option(
        "--rows", metavar="N", type=int,
        help=f"Rows of each frame: more decode faster; at least one for {MAX_STEPS:,} tokens.  [default: by level]",
    ),
)  # fmt: skip
windows = _together(
    click.option(
        "--window-bits", metavar="W", type=int,
        help=f"Cut the text into windows of W bits, {MIN_WINDOW_BITS} to {MAX_WINDOW_BITS:,}, each of which decodes "
        "alone; the level has no effect.",
    ),
    click.option(
        "--no-model-reset", "model_reset", is_flag=True, default=True, flag_value=False,
        help="The model's context goes on from window to window: smaller, but they only decode in order.",
    ),
)  # fmt: skip
model = _compress_model(
    f"{_COMPRESS_MODEL} To decompress: {_DECOMPRESS_MODEL[0].lower()}{_DECOMPRESS_MODEL[1:]} The variable is for "
    "compressing only."
)
compress_model = _compress_model(_COMPRESS_MODEL)
decompress_model = click.option("-m", "--model", metavar="NAME|DIR", help=_DECOMPRESS_MODEL)
several_models = click.option(
    "-m", "--model", "model_lists", metavar="NAME|DIR[,...]", multiple=True,
    help="Models to compare: each an embedded model, a folder, or a model of the Hub that is in the cache; with commas "
    f"between, or repeated.  [default: {DEFAULT.name}]",
)  # fmt: skip

engine = _together(
    click.option(
        "-T", "--threads", metavar="N", type=int, envvar="LLMZIP_THREADS", show_envvar=True, callback=with_kernels,
        help="CPU threads, 0 for all cores. Changes the speed, never the output.",
    ),
    click.option(
        "--device", metavar="DEVICE", default="auto", show_default=True,
        help="auto, cpu, cuda or cuda:N. Changes the speed, never the output.",
    ),
)  # fmt: skip
color = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
    help="Colours of the cut text. auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
)  # fmt: skip
report = click.option(
    "--report", metavar="FILE", help="Append a JSON line about each file to FILE; - is the standard error."
)
progress = click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
talk = _together(
    click.option("-q", "--quiet", count=True, help="Only errors; twice: not even those. The exit code stays."),
    click.option("-v", "--verbose", count=True, help="A line about each file; twice: also model and frames."),
    click.option("--debug", is_flag=True, help="Show where in the program an error came from."),
)
json = click.option("--json", is_flag=True, help="Write JSON lines.")
json_of_modes = click.option("--json", is_flag=True, help="With -l and -t: write JSON lines to the standard output.")
version = click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version,
    help="Show the versions of the program and of the archive format.",
)  # fmt: skip
