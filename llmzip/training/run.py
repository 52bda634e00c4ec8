"""What `llmzip train` does, told to the user line by line; must not know click or how anything is computed."""

from __future__ import annotations

import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import LLMZipError
from ..system.process import die_by_signal, signals_ask_to_stop, signals_clean_up
from .card import table
from .finish import finish
from .prepare import prepare, resume
from .settings import TrainSettings
from .trainer import Progress, Trainer


class Messages(Protocol):
    """Where the user is told what happens."""

    def fact(self, text: str) -> None:
        """One line of the log."""

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        """One line about what went wrong."""

    def stopped(self, signal_name: str, what: str) -> None:
        """One line from a signal handler."""

    def progress(
        self, name: str, total_bytes: int | None
    ) -> contextlib.AbstractContextManager[Callable[[int], Any] | None]:
        """A bar over bytes; gives the function that advances it, or None if there is no bar."""
        ...

    def steps(self, total: int, done: int) -> contextlib.AbstractContextManager[Callable[[str], Any]]:
        """A bar over steps; gives the function that advances it by one and says how it goes."""
        ...


class _Told:
    """The listener of prepare and finish."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def line(self, text: str) -> None:
        self._messages.fact(text)

    @contextlib.contextmanager
    def stage(self, name: str, total_bytes: int | None) -> Iterator[Callable[[int], Any]]:
        with self._messages.progress(name, total_bytes) as advance:
            yield advance or (lambda count: None)


@dataclass(frozen=True)
class Resumed:
    """An unfinished training to go on with.

    Attributes:
        folder: of the model.
        steps: in all, if it is to end sooner or later than planned.
        seconds: or the time for the steps that are left.
    """

    folder: Path
    steps: int | None = None
    seconds: float | None = None


def run(settings: TrainSettings | Resumed, save_seconds: float, messages: Messages) -> None:
    """Trains a model, or goes on with a training.

    Args:
        settings: of a new training, or the unfinished one.
        save_seconds: between checkpoints.
        messages: to tell what happens.

    Raises:
        LLMZipError: in one line, what went wrong; the last checkpoint is kept.
    """
    told = _Told(messages)
    folder = settings.folder
    again = f"to go on: llmzip train --resume -o {shlex.quote(str(folder))}"
    before = again if isinstance(settings, Resumed) else "nothing was trained yet"
    with signals_clean_up(lambda name: messages.stopped(name, before)):
        if isinstance(settings, Resumed):
            trainer = resume(folder, settings.steps, settings.seconds)
            told.line(f"going on after step {trainer.step:,} of {trainer.plan.steps:,}")
            if trainer.other_torch:
                told.line(f"begun with torch {trainer.other_torch}, another version: the weights may differ a little")
        else:
            trainer = prepare(settings, told)
    _train(trainer, save_seconds, messages, again)
    with signals_clean_up(lambda name: messages.stopped(name, again)):
        results = finish(trainer, told)
    for line in table(results):
        told.line(line)
    size = (folder / "model.llmzw").stat().st_size
    told.line(f"{folder}: {size:,} bytes of weights; compress with: llmzip --model {folder} FILE")


def _train(trainer: Trainer, save_seconds: float, messages: Messages, again: str) -> None:
    """Does the steps that are left, with checkpoints; a signal stops it behind a step and a last checkpoint."""
    saved = time.monotonic()
    steps = trainer.plan.steps
    with signals_ask_to_stop() as asked, messages.steps(steps, trainer.step) as advance:
        try:
            for progress in trainer.run():
                advance(f"{progress.loss:.3f} bits/token, {progress.tokens_per_second:,.0f} tokens/s")
                if progress.bits_per_byte is not None:
                    messages.fact(_evaluation(progress, steps))
                if asked:
                    break
                if time.monotonic() - saved >= save_seconds:
                    trainer.save()
                    saved = time.monotonic()
            trainer.save()
        except FloatingPointError as error:
            raise LLMZipError(str(error)) from None
        except LLMZipError as error:
            raise LLMZipError(f"{error}; {again}") from None
    if asked:
        name = signal.Signals(asked[0]).name
        messages.error(None, f"stopped by {name} after step {trainer.step:,} of {steps:,}; {again}")
        die_by_signal(asked[0])


def _evaluation(progress: Progress, steps: int) -> str:
    found = ", ".join(f"{name} {bits:.3f}" for name, bits in (progress.bits_per_byte or {}).items())
    return (
        f"step {progress.step:,} of {steps:,}: {progress.loss:.3f} bits/token; validation {found} bits/byte; "
        f"{progress.tokens_per_second:,.0f} tokens/s, {100 * progress.peak_share:.0f} % of peak"
    )
