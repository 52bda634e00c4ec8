"""The options of `llmzip train`; must not know what training is: it is imported when the command runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .. import options

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Seconds, or a number with s, m, h or d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: use a number with s, m, h or d, like 20m", param, ctx)
        return float(found.group(1)) * _UNITS[found.group(2)]


class Share(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """PATTERN=SHARE."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        pattern, _, share = str(value).rpartition("=")
        try:
            return (pattern, float(share)) if pattern else self.fail(f"{value!r} is not PATTERN=SHARE", param, ctx)
        except ValueError:
            self.fail(f"{share!r} in {value!r} is no number", param, ctx)


def _option(*names: str, text: str, **how: Any) -> options.Decorator:
    return click.option(*names, help=text, **how)


_SHAPE = {
    "--vocab": ("vocab_size", "Tokens of the vocabulary."),
    "--hidden": ("hidden_size", "Hidden size."),
    "--layers": ("num_layers", "Layers."),
    "--heads": ("num_heads", "Query heads."),
    "--kv-heads": ("num_kv_heads", "Key and value heads; divides the query heads."),
    "--head-size": ("head_dim", "Size of a head."),
    "--mlp": ("mlp_size", "Size of the gated MLP."),
    "--sequence": ("sequence", "Tokens of a training sequence; also what the model sees when it compresses."),
}


def _shape_options(function: Any) -> Any:
    for name, (field, text) in reversed(list(_SHAPE.items())):
        function = _option(name, field, metavar="N", type=int, text=f"{text}  [default: by the preset]")(function)
    return function


@click.command(
    "train",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=options.EXIT_CODES,
)
@click.argument("texts", nargs=-1, metavar="TEXT...", type=click.Path())
@_option("-o", "--output", metavar="DIR", required=True, type=click.Path(path_type=Path), text="The model's folder.")
@_option("--resume", is_flag=True, text="Go on with the unfinished training in DIR.")
@_option(
    "--from",
    "start_from",
    metavar="NAME|DIR",
    text="Continue from a model; keeps its shape and tokenizer, but --layers may add some.",
)
@_option(
    "--preset",
    type=click.Choice(["small", "bytes", "medium", "base", "large"]),
    default="medium",
    show_default=True,
    text="Shape of the model: some 2, 3, 5, 7 or 22 million weights, 2, 2, 4, 5 or 16 MB on disk; bytes has no other "
    "tokens, for windows.",
)
@_option(
    "--time",
    "seconds",
    metavar="TIME",
    type=Duration(),
    text="Time for the steps, like 90s, 20m, 2h; reading and the final report come on top. With --resume, for those "
    "that are left.  [default: 20m]",
)
@_option("--steps", metavar="N", type=int, text="Number of steps in all, instead of --time.")
@_option(
    "--valid",
    metavar="TEXT",
    multiple=True,
    type=click.Path(),
    text="Validate on TEXT; may be repeated. Without it a hundredth of the text is kept back.",
)
@_option(
    "--mix",
    metavar="PATTERN=SHARE",
    multiple=True,
    type=Share(),
    text="Share of the files whose names match PATTERN in what is trained on; may be repeated.  [default: by size]",
)
@_option("--batch", "batch_tokens", metavar="N", type=int, text="Tokens of a step.  [default: by the budget]")
@_option("--rate", "matrix_rate", metavar="X", type=float, default=0.02, show_default=True, text="Muon's rate.")
@_option("--decay", "weight_decay", metavar="X", type=float, default=0.05, show_default=True, text="Weight decay.")
@_shape_options
@_option("--seed", metavar="N", type=int, default=0, show_default=True, text="Of everything random.")
@_option(
    "--save-every",
    "save_seconds",
    metavar="TIME",
    type=Duration(),
    default="5m",
    show_default=True,
    text="Time between checkpoints.",
)
@_option("--compile/--no-compile", "compile_", default=None, text="Use torch.compile.  [default: if it pays]")
@_option(
    "-T",
    "--threads",
    metavar="N",
    type=int,
    envvar="LLMZIP_THREADS",
    show_envvar=True,
    callback=options.with_kernels,
    text="CPU threads, 0 for all cores.",
)
@_option("--device", metavar="DEVICE", default="auto", show_default=True, text="auto, cpu, cuda or cuda:N.")
@_option("-f", "--force", is_flag=True, text="Replace a model or an unfinished training in DIR.")
@options.progress
@options.talk
def train_command(
    *,
    texts: tuple[str, ...],
    output: Path,
    resume: bool,
    mix: tuple[tuple[str, float], ...],
    save_seconds: float,
    compile_: bool | None,
    threads: int | None,
    device: str,
    progress: bool | None,
    quiet: int,
    verbose: int,
    debug: bool,
    **values: Any,
) -> int:
    """Train a language model on your own text.

    TEXT is a file or a directory; .xz, .gz and .zst files are read through. Documents are files, or what lies between
    NUL bytes. The folder then holds a Hugging Face checkpoint, the int8 weights that llmzip compresses with, and a
    model card.

    \b
    llmzip train /var/log/app/2026-0[1-5]* -o app-model --time 20m
    llmzip --model app-model /var/log/app/2026-06-01.log
    """
    from ...errors import LLMZipError, SettingsError
    from ...settings import EngineSettings
    from ...training.run import Resumed, run
    from ...training.settings import TrainSettings
    from ..messages import Messages

    messages = Messages(max(-2, verbose - quiet), progress, debug)
    overrides = {field: values.pop(field) for field, _ in _SHAPE.values()}
    try:
        if resume:
            _check_resume(click.get_current_context())
            run(Resumed(output, values["steps"], values["seconds"]), save_seconds, messages)
        else:
            settings = TrainSettings(
                texts=texts,
                folder=output,
                mix=dict(mix),
                overrides={field: value for field, value in overrides.items() if value is not None},
                engine=EngineSettings(device=device, threads=threads),
                compile=compile_,
                **values,
            )
            run(settings, save_seconds, messages)
    except SettingsError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    except LLMZipError as error:
        messages.error(None, str(error), error)
        return error.exit_code
    return 0


_WITH_RESUME = ("output", "resume", "seconds", "steps", "save_seconds", "progress", "quiet", "verbose", "debug")


def _check_resume(context: click.Context) -> None:
    """Refuses what --resume would ignore."""
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and option.name not in _WITH_RESUME:
            name = "TEXT" if isinstance(option, click.Argument) else option.opts[-1]
            raise click.UsageError(f"--resume goes on as the training was begun: it takes no {name}")
    if context.params["steps"] is not None and context.params["seconds"] is not None:
        raise click.UsageError("--time and --steps exclude each other")
