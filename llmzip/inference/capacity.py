"""How much of a model's work fits into memory and threads at once; must not know how tokens are coded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..engines.arrays import HOST
from ..engines.base import Engine
from ..errors import ResourceError
from ..format.plan import RowPlan
from ..system import threads
from ..system.memory import allocations_checked, free_bytes
from .passes import RESTART_CHUNK
from .progress import TokenProgress

ResultT = TypeVar("ResultT")

_MEMORY_PART = 0.5
"""Part of the free memory that caches of all rows, or of several frames, may take: it could be done with less."""

_MAX_TOGETHER_BYTES = 1 << 30
"""Memory that small frames may take which are decoded together, 1 GiB: some thirty with a mixer each."""

_THREADS_PER_FRAME = 8
"""Threads that a frame's lanes keep busy before its mixer does not keep up."""

_FRAMES_PER_DEVICE = 4
"""Frames that hide the mixer's work from a CUDA device."""

_ENCODER_BYTES = 100
"""About what an encoder keeps of each token's decisions, in bytes."""

_MIN_BATCH_TOKENS = 64
"""Tokens of a prefill call below which a smaller batch saves no memory worth the time."""


def frames_at_once(engine: Engine[Any], plan: RowPlan, mixed: bool, devices: int = 1) -> int:
    """Returns how many frames like one may be worked on side by side, 1 or more.

    A frame's lanes keep some threads busy, and a device while its coder is not at work; what is beyond that goes to
    other frames, as far as half of the free memory reaches.

    Args:
        engine: the first of `devices` engines that are alike.
        plan: the rows of the frame.
        mixed: whether the frame's method is mixed.
    """
    on_processor = engine.device == HOST
    wanted = threads.count() // _THREADS_PER_FRAME if on_processor else devices * _FRAMES_PER_DEVICE
    wanted = min(wanted, os.cpu_count() or 1)
    if engine.stepwise or wanted < 2:
        return 1
    needed = {engine.device: engine.step_bytes(plan.num_rows, RESTART_CHUNK, plan.steps)}
    if mixed:
        size = _mixer_bytes(engine, plan) + _ENCODER_BYTES * plan.num_tokens
        needed[HOST] = needed.get(HOST, 0) + size
    for device, size in needed.items():
        if (free := free_bytes(device)) is not None:
            share = devices if device == engine.device and not on_processor else 1
            wanted = min(wanted, share * int(_MEMORY_PART * free // max(1, size)))
    return max(1, wanted)


def all_rows_fit(engine: Engine[Any], num_rows: int, chunk: int, positions: int) -> bool:
    """Whether there is memory enough, and to spare, for the caches of all rows at once.

    Args:
        chunk: tokens of each row that are fed at once.
        positions: tokens of each row in all.
    """
    free = free_bytes(engine.device)
    return free is None or engine.step_bytes(num_rows, chunk, positions) <= _MEMORY_PART * free


def check_decoding(engine: Engine[Any], plan: RowPlan, prompt_tokens: int, *, mixed: bool) -> None:
    """Refuses a frame before its allocation: a hostile header may ask for any number of rows.

    Args:
        plan: the rows of the frame.
        prompt_tokens: tokens that every row has read before.
        mixed: whether the frame's method is mixed.

    Raises:
        ResourceError: the frame does not fit into the free memory.
    """
    needed = engine.step_bytes(plan.num_rows, RESTART_CHUNK, prompt_tokens + plan.steps)
    free = free_bytes(engine.device)
    if mixed:
        needed += _mixer_bytes(engine, plan)
    if free is not None and needed > free:
        raise ResourceError(
            f"decoding {plan.num_rows} rows at once needs {needed / 1e9:.1f} GB of memory on {engine.device}, "
            f"{free / 1e9:.1f} GB are free"
        )


def fit_together(engine: Engine[Any], plans: Sequence[RowPlan], *, mixed: bool) -> bool:
    """Whether the rows of several frames fit into the memory at once, and take no more than small frames should.

    Args:
        plans: the rows of each frame.
        mixed: whether the frames' method is mixed.
    """
    rows, steps = sum(plan.num_rows for plan in plans), max(plan.steps for plan in plans)
    needed = engine.step_bytes(rows, RESTART_CHUNK, steps)
    if mixed:
        needed += sum(_mixer_bytes(engine, plan) for plan in plans)
    free = free_bytes(engine.device)
    return needed <= (_MAX_TOGETHER_BYTES if free is None else min(_MAX_TOGETHER_BYTES, _MEMORY_PART * free))


def with_smaller_batches(
    engine: Engine[Any],
    work: Callable[[TokenProgress | None], ResultT],
    progress: TokenProgress | None,
    message: str = "not enough memory for the model",
) -> ResultT:
    """Returns the work's result; after a failed allocation the engine's batch is halved and the work done again.

    Args:
        engine: its `batch_tokens` stay halved, as the next work would fail in the same way.
        work: called with the progress to report to; None when it is done again, as nothing is reported twice.
        progress: called with the tokens that were just done.
        message: the error's text, for callers that know what needs less memory.

    Raises:
        ResourceError: there is not enough memory, however small the batch is, or the engine goes step by step.
    """
    while True:
        try:
            with allocations_checked(message):
                return work(progress)
        except ResourceError:
            if engine.stepwise or engine.batch_tokens <= _MIN_BATCH_TOKENS:
                raise
            engine.batch_tokens //= 2
            progress = None


def _mixer_bytes(engine: Engine[Any], plan: RowPlan) -> int:
    from ..mixing.mixer import memory_bytes

    return memory_bytes(plan.num_tokens, plan.num_rows, engine.vocab_size)
