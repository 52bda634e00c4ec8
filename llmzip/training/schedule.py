"""How large a batch, how many steps, which learning rates: numbers only, from the budget; must not know torch.

The settings come from published runs on models of this size (docs/training.md names them) and are in tokens, not in
seconds: a run that is interrupted must end at the same weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MIN_BATCH, MAX_BATCH = 4096, 131072
_STEPS_WANTED = 3600
"""Batches grow with the number of tokens so that there are about this many steps."""

_REFERENCE_BATCH = 8192


@dataclass(frozen=True)
class Plan:
    """What one training does, fixed before its first step and kept in every checkpoint.

    Attributes:
        steps: number of updates.
        batch: training sequences of one update.
        micro_batch: sequences of one forward and backward pass; divides `batch`.
        sequence: tokens of a sequence.
        matrix_rate: Muon's learning rate.
        embedding_rate, vector_rate: Adam's, for the embedding and head and for norms and biases.
        momentum: Muon's.
        weight_decay: of matrices, times the learning rate at each step.
        warm_up: steps in which the rates rise.
        decay_share: the last part of the steps, in which the rates fall in a line ...
        final_rate: ... to this part of them ...
        top_rate: ... from this part of them, which is below 1 only if the plan was changed while they fell.
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

    @property
    def batch_tokens(self) -> int:
        """Tokens of one update."""
        return self.batch * self.sequence

    def rate(self, step: int) -> float:
        """Factor of all learning rates at a step, counted from 0."""
        return min(self.falling(step), (step + 1) / (self.warm_up + 1))

    def falling(self, step: int) -> float:
        """The same without the warm-up."""
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return self.final_rate + (self.top_rate - self.final_rate) * min(1.0, left)

    def momentum_at(self, step: int) -> float:
        """Muon's momentum at a step: it rises from 0.85 over the first 300 steps."""
        return 0.85 + (self.momentum - 0.85) * min(1.0, step / 300)


def batch_tokens(tokens: int) -> int:
    """The batch for a budget of tokens: a power of two, 8 k for 30 M, 131 k for half a billion."""
    wanted = max(1.0, tokens / _STEPS_WANTED)
    return min(MAX_BATCH, max(MIN_BATCH, 1 << round(math.log2(wanted))))


def make_plan(
    steps: int,
    batch: int,
    micro_batch: int,
    *,
    sequence: int,
    matrix_rate: float = 0.02,
    weight_decay: float = 0.05,
) -> Plan:
    """Returns the plan for a number of steps of `batch` sequences; Adam's rates grow with the root of the batch."""
    adam = 0.004 * math.sqrt(batch * sequence / _REFERENCE_BATCH)
    return Plan(
        steps=steps,
        batch=batch,
        micro_batch=micro_batch,
        sequence=sequence,
        matrix_rate=matrix_rate,
        embedding_rate=min(adam, 0.016),
        vector_rate=min(adam, 0.01),
        momentum=0.95,
        weight_decay=weight_decay,
        warm_up=min(30, steps // 10),
        decay_share=0.6,
        final_rate=0.03,
    )


def change_steps(plan: Plan, done: int, steps: int) -> Plan:
    """A plan that ends after another number of steps; no rate jumps.

    Rates that fall already go on to fall, in one line to the new end. Otherwise they fall over the usual part of the
    steps, or over all that are left if those are fewer.

    Args:
        plan: so far.
        done: steps that are done.
        steps: the new number, more than `done`.
    """
    left = (steps - done) / steps
    if done >= (1 - plan.decay_share) * plan.steps:
        return replace(plan, steps=steps, decay_share=left, top_rate=plan.falling(done))
    return replace(plan, steps=steps, decay_share=min(plan.decay_share, left))
