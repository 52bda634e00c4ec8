"""The command `llmzip train`: its options. Knows nothing of training, which is imported when the command runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ...models.choice import fetch_model, resolve_model
from ...models.reference import parse_model
from .. import options
from ..command import Output, command
from ..messages import Messages
from ..values import Duration, Share

_SHAPE = {
    "--vocab": ("vocab_size", "Tokens in the vocabulary."),
    "--hidden": ("hidden_size", "Hidden size."),
    "--layers": ("num_layers", "Layers."),
    "--heads": ("num_heads", "Query heads."),
    "--kv-heads": ("num_kv_heads", "Key and value heads; must divide the query heads."),
    "--head-size": ("head_dim", "Size of a head."),
    "--mlp": ("mlp_size", "Size of the gated MLP."),
    "--sequence": ("sequence", "Tokens in a training sequence; also what the model sees when it compresses."),
}
"""Option -> field of the model's shape, and help."""

_shape_options = options.together(
    *(
        click.option(name, field, metavar="N", type=int, help=f"{text}  [default: set by the preset]")
        for name, (field, text) in _SHAPE.items()
    )
)


@command(
    "train",
    click.argument("texts", nargs=-1, metavar="TEXT...", type=click.Path()),
    click.option(
        "-o", "--output", "folder", metavar="DIR", required=True, type=click.Path(path_type=Path),
        help="Folder of the model.",
    ),
    click.option("--resume", is_flag=True, help="Continue the unfinished training in DIR."),
    click.option(
        "--from", "start_from", metavar="NAME|PATH",
        help="Start from a model, named as for -m, and keep its shape and tokenizer; only --layers may add some.",
    ),
    click.option(
        "--preset", type=click.Choice(["small", "bytes", "medium", "base", "large"]), default="medium",
        show_default=True,
        help="Shape of the model: about 2, 3, 5, 7 or 22 million weights, 2, 2, 4, 5 or 16 MB on disk; bytes uses "
        "single bytes as tokens, for windows.",
    ),
    click.option(
        "--time", "seconds", metavar="TIME", type=Duration(),
        help="Time for the steps, such as 90s, 20m, 2h; reading the text and the final report come on top. With "
        "--resume, time for the remaining steps.  [default: 20m]",
    ),
    click.option("--steps", metavar="N", type=int, help="Total number of steps, instead of --time."),
    click.option(
        "--valid", metavar="TEXT", multiple=True, type=click.Path(),
        help="Validate on TEXT; may be repeated. Without it a hundredth of the text is held out.",
    ),
    click.option(
        "--mix", metavar="PATTERN=SHARE", multiple=True, type=Share(),
        help="Take this share of the training text from files that match PATTERN; may be repeated.  [default: by size]",
    ),
    click.option("--batch", "batch_tokens", metavar="N", type=int, help="Tokens per step.  [default: by the budget]"),
    click.option(
        "--rate", "matrix_rate", metavar="X", type=float,
        help="Learning rate of matrices.  [default: 0.02 for Muon, 0.0001 for Adam, which large models of --from get]",
    ),
    click.option(
        "--decay", "weight_decay", metavar="X", type=float, default=0.05, show_default=True, help="Weight decay."
    ),
    _shape_options,
    click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Random seed."),
    click.option(
        "--save-every", "save_seconds", metavar="TIME", type=Duration(), default="5m", show_default=True,
        help="Time between checkpoints.",
    ),
    click.option(
        "--compile/--no-compile", "compile_", default=None, help="Use torch.compile.  [default: if it saves time]"
    ),
    click.option(
        "-T", "--threads", metavar="N", type=int, envvar="LLMZIP_THREADS", show_envvar=True,
        callback=options.check_kernels, help="CPU threads, 0 for all cores.",
    ),
    click.option(
        "--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
    ),
    click.option(
        "--store/--no-store", default=True, show_default=True,
        help="Store a copy of the model where archives find it, as llmzip models add does.",
    ),
    click.option("-f", "--force", is_flag=True, help="Replace a model or an unfinished training in DIR."),
    options.progress,
    json=False,
)  # fmt: skip
def train_command(
    output: Output,
    messages: Messages,
    texts: tuple[str, ...],
    folder: Path,
    resume: bool,
    mix: tuple[tuple[str, float], ...],
    save_seconds: float,
    compile_: bool | None,
    threads: int | None,
    device: str,
    store: bool,
    **values: Any,
) -> None:
    """Train a language model on your own text.

    TEXT is a file or a directory; .xz, .gz and .zst files are decompressed. A document is a file, or what is between
    two NUL bytes. The folder then holds a Hugging Face checkpoint, the int8 weights that llmzip compresses with, and a
    model card.

    \b
    llmzip train /var/log/app/2026-0[1-5]* -o app-model --time 20m
    llmzip --model app-model /var/log/app/2026-06-01.log
    """
    from ...settings import EngineSettings
    from ...training.settings import TrainSettings
    from ...training.texts import check_size

    del output  # a training writes to the standard error and into its folder
    overrides = {field: values.pop(field) for field, _ in _SHAPE.values()}
    if resume:
        _check_resume(click.get_current_context())
        from ...training.run import Resumed, run

        run(Resumed(folder, values["steps"], values["seconds"]), save_seconds, messages, store=store)
        return
    settings = TrainSettings(
        texts=texts,
        folder=folder,
        mix=dict(mix),
        overrides={field: value for field, value in overrides.items() if value is not None},
        engine=EngineSettings(device=device, threads=threads),
        compile=compile_,
        **values,
    )
    ref = None if settings.start_from is None else parse_model(settings.start_from)
    if ref is not None and (ref.hub_id is None or not ref.hub_id.has_owner):
        resolve_model(ref)  # what no download brings is named first, whatever the text is
    # Before torch is imported and a model downloaded, which take longer.
    check_size(settings.texts, settings.folder)
    if ref is not None:
        settings = dataclasses.replace(settings, start_from=fetch_model(ref, messages.notice, messages.progress))
    from ...training.run import run

    run(settings, save_seconds, messages, store=store)


_WITH_RESUME = (
    "folder",
    "resume",
    "seconds",
    "steps",
    "save_seconds",
    "store",
    "progress",
    "quiet",
    "verbose",
    "debug",
)
"""Parameters that --resume does not ignore."""


def _check_resume(context: click.Context) -> None:
    """Refuses options that --resume would ignore."""
    for option in context.command.params:
        is_given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if is_given and option.name not in _WITH_RESUME:
            name = "TEXT" if isinstance(option, click.Argument) else option.opts[-1]
            raise click.UsageError(f"--resume continues the training as it was started: it takes no {name}")
    if context.params["steps"] is not None and context.params["seconds"] is not None:
        raise click.UsageError("--time and --steps exclude each other")
