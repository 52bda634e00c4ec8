"""The plan of a training from measured steps: batch, number of steps, optimizer, compiling. Must not know texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import SettingsError
from . import dataset, machine, schedule
from .listener import Listener
from .settings import DEFAULT_SECONDS, TrainSettings
from .shapes import Shape
from .trainer import Facts, Trainer, measure

_MICRO_TOKENS_CPU = 8192
"""Tokens of one forward and backward pass on a CPU."""
_MICRO_TOKENS_LARGE = 1024
"""The same for a large model."""
_MICRO_TOKENS_CUDA = 65536
"""The same on a GPU."""
_COMPILE_FROM_SECONDS = 240.0
"""Compiling takes about 25 s on a CPU and gains a third."""


class _Cost(NamedTuple):
    """What the work of a step takes.

    Attributes:
        part_seconds: one forward and backward pass.
        update_seconds: an update of the weights.
        peak_bytes: memory of the process; on a GPU, of its tensors.
    """

    part_seconds: float
    update_seconds: float
    peak_bytes: int

    def step_seconds(self, parts: float) -> float:
        """Returns the time of a step with so many parts."""
        return parts * self.part_seconds + self.update_seconds


def make(settings: TrainSettings, facts: Facts, data: dataset.Dataset, *, folder: Path, listener: Listener) -> None:
    """Settles plan and compiling by measuring some steps, and writes them into the facts."""
    device, shape = torch.device(facts.device), Shape(**facts.shape)
    sequence = shape.sequence
    is_tuned = shape.is_large and settings.start_from is not None
    optimizer = schedule.ADAM if is_tuned else schedule.MUON
    most = max_part(shape, device)
    micro = min(most, max(1, settings.batch_tokens // sequence)) if settings.batch_tokens else most
    seconds = settings.seconds if settings.seconds is not None else DEFAULT_SECONDS

    def cost(compiled: bool) -> _Cost:
        trial = dataclasses.replace(facts, compiled=compiled)
        trial.plan = dataclasses.asdict(schedule.make_plan(1, micro, micro, sequence=sequence, optimizer=optimizer))
        trainer = Trainer(folder, trial, data, [])
        trainer.network.initialise(0)
        return _Cost(*measure(trainer), machine.peak_bytes(device))

    measured = cost(False)
    if settings.steps is not None:
        batch = max(1, (settings.batch_tokens or 8192) // sequence)
        seconds = settings.steps * measured.step_seconds(batch / micro)
    facts.compiled, measured = _compiled(settings, shape, device, seconds=seconds, eager=measured, cost=cost)
    if settings.steps is not None:
        steps = settings.steps
    else:
        tokens = int(seconds / measured.part_seconds * micro * sequence)
        batch = max(1, (settings.batch_tokens or schedule.batch_tokens(tokens)) // sequence)
        if shape.is_large and settings.batch_tokens is None:
            batch = micro * schedule.parts_of_large_model(*measured[:2], seconds, batch // micro)
        steps = max(1, int(seconds / measured.step_seconds(batch / micro)))
        facts.time_limit = seconds
    step_seconds = measured.step_seconds(batch / micro)
    micro = next(size for size in range(min(micro, batch), 0, -1) if batch % size == 0)
    plan = schedule.make_plan(
        steps,
        batch,
        micro,
        sequence=sequence,
        matrix_rate=settings.matrix_rate,
        weight_decay=settings.weight_decay,
        optimizer=optimizer,
    )
    facts.plan = dataclasses.asdict(plan)
    listener.fact(_described(plan, facts, len(data.ids), step_seconds, measured.peak_bytes))


def max_part(shape: Shape, device: torch.device) -> int:
    """Returns the sequences of one forward and backward pass at most."""
    if device.type == "cuda":
        return max(1, _MICRO_TOKENS_CUDA // shape.sequence)
    return max(1, (_MICRO_TOKENS_LARGE if shape.is_large else _MICRO_TOKENS_CPU) // shape.sequence)


def _compiled(
    settings: TrainSettings,
    shape: Shape,
    device: torch.device,
    *,
    seconds: float,
    eager: _Cost,
    cost: Callable[[bool], _Cost],
) -> tuple[bool, _Cost]:
    """Returns whether to use torch.compile, and what a step then takes.

    Args:
        settings: which may have decided.
        shape: of the model; on a CPU a large one is compiled only if the settings say so, because that takes minutes.
        device: to train on.
        seconds: time of all steps.
        eager: what a step takes without.
        cost: measures it with or without.
    """
    wanted = seconds >= _COMPILE_FROM_SECONDS and not (shape.is_large and device.type == "cpu")
    if settings.compile is False or not (settings.compile or wanted):
        return False, eager
    if not machine.can_compile(device):
        if settings.compile:
            raise SettingsError("--compile: torch.compile needs a C++ compiler here (or Triton, on a GPU)")
        return False, eager
    compiled = cost(True)
    if compiled.part_seconds > eager.part_seconds and settings.compile is None:
        return False, compiled._replace(part_seconds=eager.part_seconds)
    return True, compiled


def _described(plan: schedule.Plan, facts: Facts, num_tokens: int, step_seconds: float, peak_bytes: int) -> str:
    """Returns the line about a plan.

    Args:
        plan: what will be done.
        facts: on what.
        num_tokens: of the texts.
        step_seconds: time of a step.
        peak_bytes: memory of a step.
    """
    epochs = plan.steps * plan.batch_tokens / max(1, num_tokens)
    return (
        f"plan: {plan.steps:,} steps of {plan.batch_tokens:,} tokens ({epochs:.2f} epochs), "
        f"about {plan.steps * step_seconds / 60:.0f} min; a step takes {step_seconds:.2g} s and "
        f"{peak_bytes / 1e9:.1f} GB of memory; {facts.device}, {facts.dtype}{', compiled' if facts.compiled else ''}, "
        f"peak {facts.peak_flops / 1e12:.2f} TFLOP/s"
    )
