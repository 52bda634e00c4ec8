"""The whole of `llmzip train`: preparing or resuming, the steps, and the finished model. Must not know click."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LLMZipError
from ..inference.storing import store_model
from ..system.process import die_by_signal, signals_ask_to_stop, signals_clean_up
from .card import table
from .finish import finish
from .listener import Listener
from .prepare import prepare, resume
from .settings import TrainSettings
from .trainer import StepReport, Trainer


@dataclass(frozen=True)
class Resumed:
    """An unfinished training to continue.

    Attributes:
        folder: of the model.
        steps: number of steps in all, to end sooner or later than planned; None for the planned number.
        seconds: time for the steps that are left, instead of `steps`; None for no limit.
    """

    folder: Path
    steps: int | None = None
    seconds: float | None = None


def run(settings: TrainSettings | Resumed, save_seconds: float, listener: Listener, *, store: bool) -> None:
    """Trains a model, or continues a training.

    Args:
        settings: of a new training, or the unfinished one.
        save_seconds: time between checkpoints.
        listener: told how it goes.
        store: whether to store a copy of the model where archives find it.

    Raises:
        LLMZipError: the training failed; the last checkpoint is kept.
    """
    folder = settings.folder
    hint = f"to continue: llmzip train --resume -o {shlex.quote(str(folder))}"
    untrained = hint if isinstance(settings, Resumed) else "nothing was trained yet"
    with signals_clean_up(lambda name: listener.stopped(name, untrained)):
        if isinstance(settings, Resumed):
            trainer = resume(folder, settings.steps, settings.seconds)
            listener.fact(f"continuing after step {trainer.step:,} of {trainer.plan.steps:,}")
            if trainer.other_torch:
                listener.fact(
                    f"begun with torch {trainer.other_torch}, another version: the weights may differ slightly"
                )
        else:
            trainer = prepare(settings, listener)
    _train(trainer, save_seconds, listener, hint)
    with signals_clean_up(lambda name: listener.stopped(name, hint)):
        results = finish(trainer, listener)
    for line in table(results):
        listener.fact(line)
    size = (folder / "model.llmzw").stat().st_size
    listener.fact(f"{folder}: {size:,} bytes of weights; compress with: llmzip --model {folder} FILE")
    if store:
        _store(folder, listener)


def _store(folder: Path, listener: Listener) -> None:
    """Stores a copy of the finished model; the training has succeeded whether or not that does."""
    try:
        with signals_clean_up(lambda name: listener.stopped(name, "the model is finished, but no copy is stored")):
            model, _ = store_model(folder)
    except LLMZipError as error:
        listener.notice(f"{error}; archives of this model decompress with --model {shlex.quote(str(folder))}")
    else:
        listener.fact(f"stored as {model.model_digest[:12]}: its archives decompress without --model on this machine")


def _train(trainer: Trainer, save_seconds: float, listener: Listener, hint: str) -> None:
    """Does the steps that are left, with checkpoints; a signal stops it after a step and a last checkpoint."""
    saved = time.monotonic()
    steps = trainer.plan.steps
    if not trainer.step and trainer.facts.about.get("from"):
        listener.fact(f"before the first step: validation {_figures(trainer.evaluate())} bits/byte")
    with signals_ask_to_stop() as signals, listener.steps(steps, trainer.step) as advance:
        try:
            for report in trainer.run():
                advance(f"{report.loss:.3f} bits/token, {report.tokens_per_second:,.0f} tokens/s")
                if report.steps != steps:
                    steps = report.steps
                    listener.fact(f"slower than measured: {steps:,} steps in all, to end in time")
                if report.bits_per_byte is not None:
                    listener.fact(_evaluation(report))
                if signals:
                    break
                if time.monotonic() - saved >= save_seconds:
                    trainer.save()
                    saved = time.monotonic()
            trainer.save()
        except FloatingPointError as error:
            raise LLMZipError(str(error)) from None
        except LLMZipError as error:
            raise LLMZipError(f"{error}; {hint}") from None
    if signals:
        name = signal.Signals(signals[0]).name
        listener.error(None, f"stopped by {name} after step {trainer.step:,} of {steps:,}; {hint}")
        die_by_signal(signals[0])


def _figures(bits_per_byte: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {bits:.3f}" for name, bits in bits_per_byte.items())


def _evaluation(report: StepReport) -> str:
    return (
        f"step {report.step:,} of {report.steps:,}: {report.loss:.3f} bits/token; "
        f"validation {_figures(report.bits_per_byte or {})} bits/byte; "
        f"{report.tokens_per_second:,.0f} tokens/s, {100 * report.peak_share:.0f} % of peak"
    )
