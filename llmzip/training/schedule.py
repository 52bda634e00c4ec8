"""The plan of a training: size of a batch, number of steps, learning rates, from the budget. Must not know torch.

The settings come from published runs on models of this size (docs/training.md names them) and are in tokens, not in
seconds: a run that is interrupted must end with the same weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MUON = "muon"
"""Optimizer: Muon for matrices, Adam for all else."""
ADAM = "adam"
"""Optimizer: Adam for everything, at one rate."""
DEFAULT_RATES = {MUON: 0.02, ADAM: 1e-4}
"""Optimizer -> learning rate of matrices."""
MIN_BATCH = 4096  # tokens
MIN_STEPS = 16
"""Steps that a large model gets if its batch can be made small enough for so many."""
MAX_BATCH = 131072  # tokens
_STEPS_WANTED = 3600
"""Batches grow with the number of tokens so that there are about this many steps."""

_REFERENCE_BATCH = 8192
"""Tokens of the batch that Adam's rates are given for."""


@dataclass(frozen=True)
class Plan:
    """What one training does, fixed before its first step and kept in every checkpoint.

    Attributes:
        steps: number of updates.
        batch: training sequences of one update.
        micro_batch: sequences of one forward and backward pass; divides `batch`.
        sequence: tokens of a sequence.
        matrix_rate: learning rate of matrices.
        embedding_rate: Adam's learning rate for embedding and head.
        vector_rate: Adam's learning rate for norms and biases.
        momentum: Muon's momentum after its first steps.
        weight_decay: of matrices, times the learning rate at each step.
        warm_up: number of steps in which the rates rise.
        decay_share: part of the steps, at their end, in which the rates fall linearly.
        final_rate: factor of the rates that they fall to.
        top_rate: factor of the rates that they fall from; below 1 only if the plan was changed while they fell.
        optimizer: MUON or ADAM.
    """

    steps: int
    batch: int
    micro_batch: int
    sequence: int
    matrix_rate: float
    embedding_rate: float
    vector_rate: float
    momentum: float
    weight_decay: float
    warm_up: int
    decay_share: float
    final_rate: float
    top_rate: float = 1.0
    optimizer: str = MUON

    @property
    def batch_tokens(self) -> int:
        """Tokens of one update."""
        return self.batch * self.sequence

    def rate(self, step: int) -> float:
        """Returns the factor of all learning rates at a step, from 0."""
        return min(self.falling(step), (step + 1) / (self.warm_up + 1))

    def falling(self, step: int) -> float:
        """Returns the same factor without the warm-up."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.final_rate + (self.top_rate - self.final_rate) * min(1.0, left)

    def momentum_at(self, step: int) -> float:
        """Returns Muon's momentum at a step: it rises from 0.85 over the first 300 steps."""
        return 0.85 + (self.momentum - 0.85) * min(1.0, step / 300)


def batch_tokens(tokens: int) -> int:
    """Returns the batch for a budget of tokens: a power of two, 8,192 for 30 million, 131,072 for 500 million."""
    wanted = max(1.0, tokens / _STEPS_WANTED)
    return min(MAX_BATCH, max(MIN_BATCH, 1 << round(math.log2(wanted))))


def make_plan(
    steps: int,
    batch: int,
    micro_batch: int,
    *,
    sequence: int,
    matrix_rate: float | None = None,
    weight_decay: float = 0.05,
    optimizer: str = MUON,
) -> Plan:
    """Returns the plan for a number of steps of `batch` sequences.

    Muon's companion Adam has rates that grow with the root of the batch; Adam alone has one rate for everything.

    Args:
        steps, batch, micro_batch, sequence, weight_decay, optimizer: as in `Plan`.
        matrix_rate: learning rate of matrices; None for the optimizer's usual one.
    """
    if matrix_rate is None:
        matrix_rate = DEFAULT_RATES[optimizer]
    adam = 0.004 * math.sqrt(batch * sequence / _REFERENCE_BATCH)
    return Plan(
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        sequence=sequence,
        matrix_rate=matrix_rate,
        embedding_rate=matrix_rate if optimizer == ADAM else min(adam, 0.016),
        vector_rate=matrix_rate if optimizer == ADAM else min(adam, 0.01),
        momentum=0.95,
        weight_decay=weight_decay,
        warm_up=min(30, steps // 10),
        decay_share=0.6,
        final_rate=0.03,
        optimizer=optimizer,
    )


def parts_of_large_model(part_seconds: float, update_seconds: float, seconds: float, parts: int) -> int:
    """Returns the parts of a batch of a model whose steps are slow: few enough for 16 steps if that can be.

    Args:
        part_seconds: time of one forward and backward pass.
        update_seconds: time of an update of the weights.
        seconds: time for all steps.
        parts: parts of the batch that the budget of tokens asks for.
    """
    wanted = (seconds / MIN_STEPS - update_seconds) / part_seconds
    return max(1, min(parts, int(wanted)))


def change_steps(plan: Plan, done: int, steps: int) -> Plan:
    """Returns a plan that ends after another number of steps, so that no rate jumps.

    Rates that are falling already continue linearly to the new end. Otherwise they fall over the usual part of the
    steps, or over all that are left if those are fewer.

    Args:
        plan: the plan so far.
        done: number of steps that are done.
        steps: new number of steps in all, more than `done`.
    """
    left = (steps - done) / steps
    if done >= (1 - plan.decay_share) * plan.steps:
        return replace(plan, steps=steps, decay_share=left, top_rate=plan.falling(done))
    return replace(plan, steps=steps, decay_share=min(plan.decay_share, left))
