"""The options of the command line, each defined once. Knows their help, not what they are used for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..format.headers import MAX_STEPS, MAX_WINDOW_BITS, MIN_WINDOW_BITS
from ..models.embedded import DEFAULT
from ..settings import ARITHMETICS, DEFAULT_LEVEL, DTYPES, MAX_FRAME_BYTES, MAX_LEVEL, MIN_LEVEL, USUAL_CONTEXT
from ..system import libraries
from .request import Mode
from .values import Percentage, Size

EXIT_STATUS = """\b
Exit status:
  0      success
  1      a file failed or was skipped
  2      wrong usage
  3      a model is missing or not the archive's; nothing else failed
  4      an archive is damaged; nothing else failed
  128+n  ended by signal n
Scripts should test for 0.
"""

Decorator = Callable[[Any], Any]


class FirstLevel(click.Option):
    """The option -1, which stands for -1 to -9 in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        return "-1 ... -9, --fast, --best", self.help or ""


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the versions and exits; the callback of -V."""
    if not value or ctx.resilient_parsing:
        return
    from .._version import FORMAT_VERSION, __version__

    click.echo(f"{ctx.find_root().info_name} {__version__} (archive format {FORMAT_VERSION})")
    ctx.exit()


def check_kernels(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """Checks the environment variable that chooses the kernels; the callback of --threads, which every computing
    command has.

    Raises:
        SettingsError: the variable is misspelt.
    """
    if not ctx.resilient_parsing:
        libraries.wanted()
    return value


def together(*decorators: Decorator) -> Decorator:
    """Combines options into one decorator; the help lists them in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _mode(*names: str, mode: Mode, text: str) -> Decorator:
    return click.option(*names, "operation", flag_value=mode.value, type=str, default=None, help=text)


def _level(number: int, *names: str) -> Decorator:
    is_first = number == MIN_LEVEL
    text = (
        f"-{MIN_LEVEL} skips the mixer: fastest to compress, largest archives. From -{MIN_LEVEL + 1} to -{MAX_LEVEL} "
        f"archives get smaller and take longer to decompress. The last level given counts.  "
        f"[default: -{DEFAULT_LEVEL}]"
    )
    return click.option(
        f"-{number}",
        *names,
        "level",
        cls=FirstLevel if is_first else click.Option,
        flag_value=number,
        type=int,
        default=None,
        hidden=not is_first,
        help=text if is_first else None,
    )


files = click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(allow_dash=True, readable=False))
reading_modes = together(
    _mode("-d", "--decompress", "--uncompress", mode=Mode.DECOMPRESS, text="Decompress."),
    _mode("-t", "--test", mode=Mode.TEST, text="Decode and verify archives without writing. Needs their model."),
    _mode("-l", "--list", mode=Mode.LIST, text="Show what the headers of archives say. Needs no model."),
)
modes = together(_mode("-z", "--compress", mode=Mode.COMPRESS, text="Compress (the default)."), reading_modes)
levels = together(_level(1, "--fast"), *(_level(n) for n in range(2, 9)), _level(9, "--best"))
suffix = click.option("-S", "--suffix", metavar=".SUF", default=".llmz", show_default=True, help="Suffix of archives.")
inputs = together(
    click.option(
        "-r", "--recursive", is_flag=True,
        help="For a folder, take the regular files below it, in sorted order. Links in it are not followed. When "
        "compressing, skip archives; otherwise take only names with the suffix of archives.",
    ),
    click.option(
        "--filelist", metavar="FILE", multiple=True,
        help="Also take the names in FILE, one on each line; - is the standard input. May be repeated.",
    ),
    click.option("-0", "--null", is_flag=True, help="A NUL byte ends each name in --filelist, as find -print0 does."),
    click.option(
        "--include", metavar="GLOB", multiple=True,
        help="With -r: take only files whose base name matches GLOB. May be repeated.",
    ),
    click.option(
        "--exclude", metavar="GLOB", multiple=True,
        help="With -r: leave out files and folders whose base name matches GLOB. May be repeated.",
    ),
)  # fmt: skip
"""Which inputs there are: the fields of `inputs.Selection`."""
outputs = together(
    click.option("-c", "--stdout", "--to-stdout", "to_stdout", is_flag=True, help="Write to the standard output."),
    click.option("-o", "--output", metavar="FILE", help="Write to FILE (one input only); - is the standard output."),
    click.option(
        "--output-dir", metavar="DIR",
        help="Write the outputs into DIR, which is made if necessary; with -r, each folder becomes one in DIR, as with "
        "cp -r.",
    ),
    click.option(
        "-k", "--keep/--rm", "keep", default=True,
        help="Keep the input files (the default), or remove each one once its output is on the disk and verified: a "
        "new archive is decoded and compared with the file. Output to the standard output never removes the input.",
    ),
    click.option(
        "-f", "--force", is_flag=True,
        help="Overwrite files; read and write devices and FIFOs; with --rm, also remove symbolic links and files with "
        "several hard links; read and write compressed data on a terminal; with -dc, copy anything that isn't an "
        "archive.",
    ),
    click.option(
        "--resume", is_flag=True,
        help="Keep what is done in OUTPUT.partial until the output is complete, and continue from there if that file "
        "exists: after a kill, a crash or a power cut. The output is the same.",
    ),
    suffix,
)  # fmt: skip
_COMPRESS_MODEL = (
    "Model to use: an embedded model's name, a folder with a Hugging Face checkpoint, a GGUF file, ollama:NAME, "
    "stored:NAME, or org/name or org/name@revision on the Hugging Face Hub, which is downloaded if it is not in the "
    "cache."
)
DECOMPRESS_MODEL = (
    "Folder, GGUF file or name of the model that the archive names; only needed if that model is neither embedded, "
    "nor stored, nor in the Hugging Face cache."
)


def _compress_model(text: str) -> Decorator:
    return together(
        click.option("-m", "--model", metavar="NAME|PATH", envvar="LLMZIP_MODEL", show_envvar=True, help=text),
        click.option("--offline", is_flag=True, help="Download no model. Decompressing never does."),
    )


prompt = click.option(
    "--prompt-file",
    metavar="FILE",
    help="Text that the model and the mixer read first; decompressing needs the same text.",
)
computation = together(
    click.option(
        "--engine", "arithmetic", type=click.Choice(ARITHMETICS), default="exact", show_default=True,
        help="How the model computes. float runs any model that transformers knows, but its archives decode only on "
        "the same hardware with the same software.",
    ),
    click.option(
        "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
        help="Number format of --engine float.",
    ),
)  # fmt: skip
context = click.option(
    "--context", metavar="N", type=int,
    help=f"Tokens that a model sees, unless it is embedded.  [default: {USUAL_CONTEXT}, or the model's maximum if "
    "that is lower]",
)  # fmt: skip
exact_rows = together(
    context,
    click.option(
        "--overlap", metavar="N", type=int, help="Tokens that a new context repeats.  [default: set by the level]"
    ),
    click.option(
        "--rows", metavar="N", type=int,
        help=f"Rows of each frame. More rows decode faster; each holds at most {MAX_STEPS:,} tokens.  [default: set by "
        "the level]",
    ),
)  # fmt: skip
arithmetic = together(computation, exact_rows)
with_model = click.option(
    "--with-model", is_flag=True,
    help="Write the model into the output, once, so that its archives decompress where nobody has it.",
)  # fmt: skip
windows = together(
    click.option(
        "--window-bits", metavar="W", type=int,
        help=f"Cut the text into windows of W bits, {MIN_WINDOW_BITS} to {MAX_WINDOW_BITS:,}, each decodable alone; "
        "the level has no effect.",
    ),
    click.option(
        "--no-model-reset", "model_reset", is_flag=True, default=True, flag_value=False,
        help="Carry the model's context from window to window: smaller, but they only decode in order.",
    ),
)  # fmt: skip
recovery = click.option(
    "--recovery", metavar="PERCENT", type=Percentage(),
    help="Append recovery data, by which `llmzip repair` mends damage of up to PERCENT of the archive; it takes about "
    "twice that much.",
)  # fmt: skip
frame_bytes = click.option(
    "--frame-bytes", metavar="SIZE", type=Size(),
    help=f"Text of each frame, such as 64KiB; at most {MAX_FRAME_BYTES >> 20} MiB. Parts of small frames decode "
    "sooner, and the archive is larger.  [default: 2 MiB, or more where no model is used]",
)  # fmt: skip
model = _compress_model(
    f"{_COMPRESS_MODEL} To decompress: {DECOMPRESS_MODEL[0].lower()}{DECOMPRESS_MODEL[1:]} The environment variable "
    "only affects compressing."
)
compress_model = _compress_model(_COMPRESS_MODEL)
decompress_model = click.option("-m", "--model", metavar="NAME|PATH", help=DECOMPRESS_MODEL)
local_model = click.option(
    "-m",
    "--model",
    metavar="NAME|PATH",
    help="Embedded model, folder, GGUF file, ollama:NAME, stored:NAME, or a Hub name in the cache.",
)
several_models = click.option(
    "-m", "--model", "model_lists", metavar="NAME|PATH[,...]", multiple=True,
    help="Models to compare, separated by commas: embedded models, folders, GGUF files, or Hub names in the cache; may "
    f"be repeated.  [default: {DEFAULT.name}]",
)  # fmt: skip

engine = together(
    click.option(
        "-T", "--threads", metavar="N", type=int, envvar="LLMZIP_THREADS", show_envvar=True, callback=check_kernels,
        help="CPU threads, 0 for all cores. Changes the speed, never the output.",
    ),
    click.option(
        "--device", metavar="DEVICE", default="auto", show_default=True,
        help="auto, cpu, cuda or cuda:N. Changes the speed, never the output.",
    ),
)  # fmt: skip
color = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
    help="Colour the cut text. auto: on a terminal, unless NO_COLOR is set or TERM is dumb.",
)  # fmt: skip
report = click.option(
    "--report", metavar="FILE", help="Append a JSON line about each file to FILE; - is the standard error."
)
progress = click.option("--progress/--no-progress", default=None, help="Show a progress bar.  [default: on a terminal]")
talk = together(
    click.option("-q", "--quiet", count=True, help="Print only errors; twice: nothing. The exit status is the same."),
    click.option("-v", "--verbose", count=True, help="Print a line about each file; twice: also model and frames."),
    click.option("--debug", is_flag=True, help="Show tracebacks of errors and libraries' warnings."),
)
io_options = together(engine, outputs, report, progress, talk)
"""The options of every command that writes an output for each input."""
json = click.option("--json", is_flag=True, help="Write JSON lines.")
json_of_modes = click.option("--json", is_flag=True, help="With -l and -t: write JSON lines to the standard output.")
version = click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version,
    help="Show the versions of the program and of the archive format.",
)  # fmt: skip
