"""The training itself: from tokens on the disk to weights, resumable at the same bits. Must not know archives.

What a training does is settled before its first step and kept in its checkpoints: shape, plan, number format, threads,
order of the sequences. Nothing later depends on clocks, so a training that was killed ends with the weights of one that
was not (on a CPU of the same kind with the same torch; CUDA's sums are not always in the same order).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import LLMZipError, ResourceError
from . import checkpoint, machine
from .dataset import Dataset, Order
from .network import LossAndSlope, Network, bits, loss_sum, plain_loss_and_slope
from .optimizer import Optimizer, clip, orthogonal
from .schedule import Plan, change_steps
from .shapes import Shape

_MAX_GRADIENT_NORM = 1.0
_EVALUATIONS = 20  # in a training
_EVALUATED_ROWS = 64  # of all samples together
_MIN_ROWS_LARGE, _MAX_ROWS_LARGE = 4, 16  # the same in a large model
_SEQUENCES_PER_ROW_LARGE = 4  # training sequences of a large model for each row that is evaluated
_LATENESS = 1.25  # of the time that a training was given, from which on it ends early,
_LATE_SECONDS = 10.0  # unless that is less than this
_ROWS_AT_ONCE = 16
_SPEED_STEPS = 20  # that the speed is an average of


@dataclass
class Facts:
    """What a checkpoint holds besides tensors; all of JSON's types.

    Attributes:
        shape, plan: fields of `Shape` and `Plan`.
        seed: of the order of sequences.
        dtype: "bfloat16" or "float32".
        compiled: whether torch.compile is used.
        threads: torch's threads on the CPU.
        device: "cpu", "cuda" or "cuda:N".
        torch_version: version of torch that the training was begun with.
        start_token: id fed before each sequence.
        tokens_digest: digest of the dataset.
        peak_flops: floating-point operations per second of the device, measured at the start.
        seconds: time spent on steps so far.
        history: (step, training bits per token, {text: validation bits per byte}) of each evaluation.
        about: what the model card says of the texts.
        time_limit: what `seconds` should be at the end; None if the number of steps was given.
    """

    shape: dict[str, Any]
    plan: dict[str, Any]
    seed: int
    dtype: str
    compiled: bool
    threads: int
    device: str
    torch_version: str
    start_token: int
    tokens_digest: str
    peak_flops: float
    seconds: float = 0.0
    history: list[tuple[int, float, dict[str, float]]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    time_limit: float | None = None


@dataclass(frozen=True)
class Sample:
    """Text to validate on, as rows that each start from an empty context.

    Attributes:
        name: of the text.
        rows: (R, T + 1) int64, the start token first.
        num_bytes: bytes that the rows stand for.
    """

    name: str
    rows: torch.Tensor
    num_bytes: int


@dataclass(frozen=True)
class StepReport:
    """What is reported after each step.

    Attributes:
        step: number of steps done.
        steps: number of steps in all, which falls if they take longer than the plan has time for.
        loss: bits per token of the step's text.
        tokens_per_second: speed of the last 20 steps.
        peak_share: part of the device's measured peak that this speed takes.
        bits_per_byte: validation text -> bits per byte, if it was evaluated after this step; else None.
    """

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    peak_share: float
    bits_per_byte: dict[str, float] | None


class Trainer:
    """A network, its optimizer and the place in the order of sequences.

    Args:
        folder: for checkpoints.
        facts: what is settled.
        dataset: the tokens.
        samples: to validate on.

    Raises:
        LLMZipError: the tokens are not those of the facts.
    """

    def __init__(self, folder: Path, facts: Facts, dataset: Dataset, samples: list[Sample]) -> None:
        if dataset.digest != facts.tokens_digest:
            raise LLMZipError(f"{folder}: the tokens are not those that this training was begun with")
        self.folder, self.facts, self.samples = folder, facts, samples
        self.shape, self.plan = Shape(**facts.shape), Plan(**facts.plan)
        self.device = torch.device(facts.device)
        self.dtype = getattr(torch, facts.dtype)
        if facts.device == "cpu":
            torch.set_num_threads(facts.threads)
        self.step = 0
        self.network = Network(self.shape, self.dtype).to(self.device)
        self.network.recomputes = self.shape.is_large
        self.parameters: dict[str, torch.nn.Parameter] = dict(self.network.named_parameters())
        self.optimizer = Optimizer(self.parameters, self.plan, self.shape, self.dtype)
        self._order = Order(dataset.parts, self.shape.sequence, self.plan.steps * self.plan.batch, facts.seed)
        self.epochs = self._order.epochs(self.plan.steps * self.plan.batch)
        # torch has few operations on unsigned integers; two's complement holds the same bits.
        signed = dataset.ids.view("<i2" if dataset.ids.itemsize == 2 else "<i4")
        self._ids = _from_map(signed).to(self.device)
        self._id_mask = (1 << 8 * dataset.ids.itemsize) - 1
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self.network
        self._loss_and_slope: LossAndSlope | None = None
        if facts.compiled:
            machine.compile_in(folder.resolve() / "compiled")
            self._forward = torch.compile(self.network, dynamic=False)
            self._loss_and_slope = torch.compile(plain_loss_and_slope, dynamic=False)
            if self.device.type == "cuda":
                self.optimizer.orthogonalise = torch.compile(orthogonal, dynamic=False)

    @classmethod
    def resume(
        cls,
        folder: Path,
        dataset: Dataset,
        samples: Callable[[Facts], list[Sample]],
        new_steps: Callable[[Facts, int], int] | None = None,
    ) -> Trainer:
        """Continues the training whose newest checkpoint is in `folder`.

        Args:
            folder: with checkpoints.
            dataset: the tokens.
            samples: makes the samples to validate on.
            new_steps: gives the number of steps in all from the facts and the steps done, to end sooner or later than
                planned; None for the planned number.

        Raises:
            LLMZipError: no checkpoint, or one that does not fit.
        """
        step, tensors, stored_facts = checkpoint.load(folder)
        try:
            facts = Facts(**stored_facts)
            facts.time_limit = None if facts.time_limit is None else float(facts.time_limit)
            if facts.dtype not in ("bfloat16", "float32"):
                raise TypeError(f"dtype {facts.dtype!r}")
            if facts.device != "cpu" and not torch.cuda.is_available():
                raise LLMZipError(f"{folder.parent}: this training was begun on a GPU, and torch finds none here")
            if new_steps is not None:
                facts.plan = asdict(change_steps(Plan(**facts.plan), step, new_steps(facts, step)))
            trainer = cls(folder, facts, dataset, samples(facts))
        except (TypeError, AttributeError, KeyError, ValueError) as error:
            if isinstance(error, LLMZipError):
                raise
            raise LLMZipError(f"{folder}: the checkpoint lacks or misstates {error}") from None
        checkpoint.restore(trainer.tensors(), tensors)
        trainer.step = step
        return trainer

    @property
    def other_torch(self) -> str:
        """The version of torch that the training was begun with if it is not this one, else ""."""
        begun = self.facts.torch_version
        return begun if begun != str(torch.__version__) else ""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns weights and momenta by name."""
        return {f"weights.{name}": p.data for name, p in self.parameters.items()} | self.optimizer.state

    def release(self) -> None:
        """Frees what only steps need, gradients and momenta; there can be no step after it."""
        for parameter in self.parameters.values():
            parameter.grad = None
        self.optimizer.state.clear()

    def save(self) -> None:
        """Writes a checkpoint of the steps done so far."""
        checkpoint.save(self.folder, self.step, self.tensors(), asdict(self.facts))

    # -- steps -------------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[StepReport]:
        """Does the steps that are left; between them the caller may save or stop."""
        every = max(1, self.plan.steps // self._evaluations())
        times: list[float] = []
        while self.step < self.plan.steps:
            start = time.perf_counter()
            loss = self.train_step()
            machine.synchronise(self.device)
            times = [*times[1 - _SPEED_STEPS :], time.perf_counter() - start]
            self.facts.seconds += times[-1]
            self.step += 1
            self._keep_to_time(sum(times) / len(times))
            evaluated = None
            if self.step % every == 0 or self.step == self.plan.steps:
                evaluated = self.evaluate()
                self.facts.history.append((self.step, loss, evaluated))
            speed = self.plan.batch_tokens * len(times) / sum(times)
            share = speed * self.shape.flops_per_token / self.facts.peak_flops
            yield StepReport(self.step, self.plan.steps, loss, speed, share, evaluated)

    def _evaluations(self) -> int:
        """Returns how often the validation texts are evaluated: in a large model that takes as long as some steps."""
        if not self.shape.is_large:
            return _EVALUATIONS
        rows = sum(len(sample.rows) for sample in self.samples)
        sequences = self.plan.steps * self.plan.batch
        return max(1, min(_EVALUATIONS, sequences // max(1, _SEQUENCES_PER_ROW_LARGE * rows)))

    def _keep_to_time(self, step_seconds: float) -> None:
        """Takes steps off the plan if they take much longer than it has time for, so that the rates still fall."""
        limit, left = self.facts.time_limit, self.plan.steps - self.step
        if limit is None or not left or not _is_late(self.facts.seconds + left * step_seconds, limit):
            return
        fitting = max(0, int((limit - self.facts.seconds) / step_seconds))
        if fitting < left:
            self.plan = self.optimizer.plan = change_steps(self.plan, self.step, self.step + fitting)
            self.facts.plan = asdict(self.plan)

    def train_step(self) -> float:
        """Makes one update; returns the mean bits per token.

        Between the parts of the batch it looks at the time: once it is up, the parts that are done make the update.

        Raises:
            FloatingPointError: the gradients are not finite any more.
        """
        plan, started, tokens = self.plan, time.perf_counter(), 0
        starts = self._order.starts(self.step * plan.batch, plan.batch)
        total = torch.zeros((), device=self.device)
        for parameter in self.parameters.values():
            parameter.grad = None
        for first in range(0, plan.batch, plan.micro_batch):
            part = self.batch(starts[first : first + plan.micro_batch])
            total += self.accumulate(part, plan.batch_tokens)
            tokens += part[:, 1:].numel()
            limit, seconds = self.facts.time_limit, self.facts.seconds + time.perf_counter() - started
            if limit is not None and _is_late(seconds, limit):
                break
        if tokens < plan.batch_tokens:
            for parameter in self.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(plan.batch_tokens / tokens)
        norm = clip(list(self.parameters.values()), _MAX_GRADIENT_NORM)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"step {self.step:,}: the loss is not finite; start again with a lower --rate")
        self.optimizer.step(self.step)
        return float(total) / tokens / float(np.log(2))

    def batch(self, starts: np.ndarray) -> torch.Tensor:
        """Returns (B, T + 1) int64: the start token, then T tokens from each place."""
        places = torch.from_numpy(starts).to(self.device)[:, None] + torch.arange(
            self.shape.sequence, device=self.device
        )
        ids = self._ids[places].long() & self._id_mask
        ids.masked_fill_(ids >= self.shape.vocab_size, self.facts.start_token)  # what engines feed for byte tokens
        return torch.nn.functional.pad(ids, (1, 0), value=self.facts.start_token)

    def accumulate(self, ids: torch.Tensor, batch_tokens: int) -> torch.Tensor:
        """Adds the gradients of one part of a batch; returns its sum of -ln p.

        Args:
            ids: (B, T + 1) int64.
            batch_tokens: tokens of the whole batch.
        """
        hidden = self._forward(ids[:, :-1]).flatten(0, 1)
        loss = loss_sum(hidden, self.network.output_weight, ids[:, 1:].flatten(), self._loss_and_slope)
        (loss / batch_tokens).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def evaluate(self) -> dict[str, float]:
        """Returns the bits per byte of each sample."""
        return {sample.name: self.sample_bits(sample) / sample.num_bytes for sample in self.samples}

    def sample_bits(self, sample: Sample) -> float:
        """Returns the bits of a sample's tokens."""
        total = 0.0
        for start in range(0, len(sample.rows), _ROWS_AT_ONCE):
            total += float(bits(self.network, sample.rows[start : start + _ROWS_AT_ONCE].to(self.device)).sum())
        return total


def _is_late(seconds: float, limit: float) -> bool:
    """Whether a training takes much longer than it was given."""
    return seconds > max(_LATENESS * limit, limit + _LATE_SECONDS)


def _from_map(ids: np.ndarray) -> torch.Tensor:
    """Returns a tensor over a read-only memory map; nothing ever writes to it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(ids)


def evaluated_rows(shape: Shape, plan: Plan) -> int:
    """Returns how many rows of validation text are evaluated: fewer in a short training of a large model."""
    if not shape.is_large:
        return _EVALUATED_ROWS
    return min(_MAX_ROWS_LARGE, max(_MIN_ROWS_LARGE, plan.steps * plan.batch // _SEQUENCES_PER_ROW_LARGE))


def make_samples(
    ids: Mapping[str, tuple[np.ndarray, np.ndarray]], sequence: int, start_token: int, *, total_rows: int
) -> list[Sample]:
    """Takes rows from all over the validation texts, few enough to be cheap.

    Args:
        ids: name -> (n,) token ids and (n,) bytes of each.
        sequence: T, tokens of a row at most.
        start_token: id before each row.
        total_rows: of all texts together.
    """
    samples = []
    each = max(1, total_rows // max(1, len(ids)))
    for name, (tokens, lengths) in ids.items():
        length = min(sequence, len(tokens))
        if not length:
            continue
        count = min(each, len(tokens) // length)
        starts = [n * (len(tokens) - length) // max(1, count - 1) for n in range(count)] if count > 1 else [0]
        rows = np.stack([np.concatenate([[start_token], tokens[s : s + length]]) for s in starts])
        num_bytes = sum(int(lengths[s : s + length].sum()) for s in starts)
        samples.append(Sample(name, torch.from_numpy(rows), num_bytes))
    return samples


def measure(trainer: Trainer) -> tuple[float, float]:
    """Measures the seconds of one part of a batch, forward and backward, and of an update; changes the weights.

    Raises:
        ResourceError: the memory is too small.
    """
    ids = trainer.batch(np.zeros(trainer.plan.micro_batch, dtype=np.int64))
    try:
        part = machine.seconds_per_call(trainer.device, lambda: trainer.accumulate(ids, ids.numel()), 3)
        update = machine.seconds_per_call(trainer.device, lambda: trainer.optimizer.step(0), 2)
    except torch.cuda.OutOfMemoryError:
        raise ResourceError(
            f"{trainer.plan.micro_batch} sequences of {trainer.shape.sequence:,} tokens do not fit the GPU's memory"
        ) from None
    return part, update
