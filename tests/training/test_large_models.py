"""Checks what fits the training of large models into memory and time: none of it changes what is computed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.errors import LLMZipError
from llmzip.training import machine, network, optimizer, planning, shapes, texts, trainer
from llmzip.training.dataset import Part
from llmzip.training.network import Network, bits, loss_sum
from llmzip.training.schedule import ADAM, MUON, Plan, make_plan, parts_of_large_model
from llmzip.training.shapes import Shape
from llmzip.training.trainer import Facts, Sample, StepReport, Trainer, evaluated_rows

RandomNetwork = Callable[..., Network]
FORMS = ["qwen3", "qwen3 untied", "qwen2", "qwen2 untied", "mistral", "mistral untied"]
SEQUENCE = 24

# -- memory ------------------------------------------------------------------------------------------------------------


def test_few_logits_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes_seen: list[torch.Size] = []

    def slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shapes_seen.append(logits.shape)
        return network.plain_loss_and_slope(logits, targets)

    vocab = 1 << 17
    hidden, weight = torch.randn(300, 2), torch.randn(vocab, 2)
    loss_sum(hidden, weight, torch.zeros(300, dtype=torch.int64), slope)
    assert sum(size[0] for size in shapes_seen) == 300
    assert max(size.numel() for size in shapes_seen) <= network._LOSS_VALUES


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_are_recomputed_give_the_same_bits(
    form: str, dtype: torch.dtype, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    found = []
    for recomputes in (False, True):
        made = random_network(shapes[form], dtype=dtype)
        made.recomputes = recomputes
        ids = torch.randint(300, (3, 20), generator=torch.Generator().manual_seed(1))
        loss = loss_sum(made(ids[:, :-1]).flatten(0, 1), made.output_weight, ids[:, 1:].flatten())
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in made.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("values", [1, 300, 4000])
def test_bits_in_blocks_are_those_at_once(
    values: int, shapes: dict[str, Shape], random_network: RandomNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_network(shapes["qwen3"])
    ids = torch.randint(300, (4, 20), generator=torch.Generator().manual_seed(1))
    expected = bits(made, ids)
    monkeypatch.setattr(network, "_BITS_VALUES", values)
    torch.testing.assert_close(bits(made, ids), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("values", [1, 3 * 32 * 40])
def test_small_stacks_of_matrices_give_the_same_update(
    values: int, shapes: dict[str, Shape], random_network: RandomNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for limit in (optimizer._STACK_VALUES, values):
        monkeypatch.setattr(optimizer, "_STACK_VALUES", limit)
        made = random_network(shapes["qwen3"])
        parameters = dict(made.named_parameters())
        updates = optimizer.Optimizer(parameters, make_plan(9, 1, 1, sequence=24), made.shape, torch.float32)
        for step in range(2):
            random = torch.Generator().manual_seed(step)
            for parameter in parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=random)
            updates.step(step)
        found.append({name: parameter.detach() for name, parameter in parameters.items()})
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-6)


def test_adam_alone_is_that_of_torch(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    plan = dataclasses.replace(make_plan(9, 1, 1, sequence=24, optimizer=ADAM, weight_decay=0.3), warm_up=2)
    assert plan.embedding_rate == plan.vector_rate == plan.matrix_rate == 1e-4
    ours, theirs = (random_network(shapes["qwen2 untied"]) for _ in range(2))
    parameters = dict(ours.named_parameters())
    updates = optimizer.Optimizer(parameters, plan, ours.shape, torch.float32)
    assert {name.partition(".")[0] for name in updates.state} == {"mean", "square"}
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    for step in range(5):
        random = torch.Generator().manual_seed(step)
        for one, other in zip(parameters.values(), theirs.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=random)
            other.grad = one.grad.clone()
        updates.step(step)
        for group in reference.param_groups:
            group["lr"] = plan.matrix_rate * plan.rate(step)
        reference.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-5, atol=1e-7)


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_presets_are_not_large() -> None:
    assert not any(shape.is_large for shape in shapes.PRESETS.values())
    smollm2 = Shape(
        vocab_size=49152, hidden_size=576, num_layers=30, num_heads=9, num_kv_heads=3, mlp_size=1536, qk_norm=False,
        sequence=1024,
    )  # fmt: skip
    assert smollm2.is_large and round(smollm2.num_parameters / 1e6) == 135
    assert planning.max_part(smollm2, torch.device("cpu")) == 1
    assert planning.max_part(shapes.PRESETS["large"], torch.device("cpu")) == 8


@pytest.mark.parametrize(
    ("part", "update", "seconds", "parts", "expected"),
    [
        (1.0, 0.5, 160.0, 4, 4),
        (3.0, 1.0, 160.0, 4, 3),
        (5.0, 1.0, 160.0, 4, 1),
        (10.0, 1.0, 20.0, 4, 1),
        (1.0, 0.5, 1e6, 4, 4),
    ],
)
def test_batches_of_slow_models_leave_time_for_steps(
    part: float, update: float, seconds: float, parts: int, expected: int
) -> None:
    assert parts_of_large_model(part, update, seconds, parts) == expected


def test_plans_of_older_checkpoints_are_muons() -> None:
    stored = dataclasses.asdict(make_plan(9, 1, 1, sequence=24))
    assert stored.pop("optimizer") == MUON
    assert Plan(**stored) == make_plan(9, 1, 1, sequence=24)


def test_short_trainings_of_large_models_are_evaluated_less() -> None:
    small, large = shapes.PRESETS["base"], dataclasses.replace(shapes.PRESETS["base"], vocab_size=1 << 18)
    assert large.is_large
    plans = [make_plan(steps, 2, 1, sequence=512) for steps in (1, 8, 20, 1000)]
    assert [evaluated_rows(small, plan) for plan in plans] == [64] * 4
    assert [evaluated_rows(large, plan) for plan in plans] == [4, 4, 10, 16]


def test_a_slow_call_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SLOW_SECONDS", 0.01)
    calls: list[int] = []
    cpu = torch.device("cpu")
    assert 0.02 <= machine.seconds_per_call(cpu, lambda: (calls.append(1), time.sleep(0.02)), 3) < 1
    assert len(calls) == 1
    machine.seconds_per_call(cpu, lambda: calls.append(1), 3)
    assert len(calls) == 5


def test_peak_memory_is_that_of_the_process() -> None:
    before = machine.peak_bytes(torch.device("cpu"))
    taken = torch.ones(1 << 27, dtype=torch.uint8) + 1
    assert taken[0] == 2
    assert before >= 50e6 and machine.peak_bytes(torch.device("cpu")) >= before


# -- time --------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that moves on by itself."""

    def __init__(self) -> None:
        self.now, self.part_seconds = 0.0, 1.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes in the parts of batches alone."""
    made = Clock()
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=made))
    accumulate = Trainer.accumulate

    def slow(self: Trainer, ids: torch.Tensor, batch_tokens: int) -> torch.Tensor:
        made.now += made.part_seconds
        return accumulate(self, ids, batch_tokens)

    monkeypatch.setattr(Trainer, "accumulate", slow)
    return made


def make_trainer(folder: Path, limit: float | None, steps: int = 10, batch: int = 4) -> Trainer:
    """A training of a tiny model with parts of one sequence."""
    shape = Shape(
        vocab_size=300, hidden_size=32, num_layers=2, num_heads=2, head_dim=16, mlp_size=40, sequence=SEQUENCE
    )
    ids = np.random.default_rng(0).integers(0, 300, 5000).astype("<u2")
    data: Any = SimpleNamespace(digest="d", ids=ids, parts=[Part("", 0, len(ids), len(ids), 1.0)])
    plan = dataclasses.asdict(make_plan(steps, batch, 1, sequence=SEQUENCE))
    facts = Facts(
        shape=dataclasses.asdict(shape), plan=plan, seed=0, dtype="float32", compiled=False, threads=1, device="cpu",
        torch_version="", start_token=0, tokens_digest="d", peak_flops=1e12, time_limit=limit,
    )  # fmt: skip
    rows = torch.from_numpy(ids[: 4 * SEQUENCE + 4].astype(np.int64)).view(4, -1)
    made = Trainer(folder, facts, data, [Sample("s", rows, 100)])
    made.network.initialise(0)
    return made


def run(made: Trainer) -> list[StepReport]:
    threads = torch.get_num_threads()
    try:
        return list(made.run())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("limit", [None, 40.0, 33.0])
def test_a_training_in_time_does_all_its_steps(tmp_path: Path, clock: Clock, limit: float | None) -> None:
    made = make_trainer(tmp_path, limit)
    assert [report.step for report in run(made)] == list(range(1, 11))
    assert made.facts.seconds == clock.now == 40


def test_a_training_that_is_slower_than_planned_has_fewer_steps(tmp_path: Path, clock: Clock) -> None:
    clock.part_seconds = 2.0
    made = make_trainer(tmp_path, 40.0)
    reports = run(made)
    assert [report.step for report in reports] == [1, 2, 3, 4, 5]
    assert [report.steps for report in reports] == [5] * 5
    assert made.plan.steps == made.facts.plan["steps"] == 5
    assert made.facts.seconds == clock.now == 40
    assert made.optimizer.plan.rate(4) < 0.4 < made.optimizer.plan.rate(1)  # the rates fell
    assert reports[-1].bits_per_byte is not None and made.facts.history[-1][0] == 5


def test_the_time_is_looked_at_within_a_step(tmp_path: Path, clock: Clock) -> None:
    clock.part_seconds = 30.0
    made = make_trainer(tmp_path, 40.0, batch=100)
    before = {name: parameter.detach().clone() for name, parameter in made.parameters.items()}
    (report,) = run(made)
    assert clock.now == 60 and report.steps == made.plan.steps == 1
    assert not torch.equal(before["embedding"], made.parameters["embedding"])
    assert 8 < report.loss < 8.5  # bits per token of what was read, log2(300) = 8.2


def test_part_of_a_batch_makes_the_update_of_a_smaller_batch(tmp_path: Path, clock: Clock) -> None:
    clock.part_seconds = 30.0
    cut, small = make_trainer(tmp_path, 40.0, batch=100), make_trainer(tmp_path, None, steps=1, batch=2)
    cut.optimizer.plan = small.optimizer.plan
    (one,), (other,) = run(cut), run(small)
    assert one.loss == pytest.approx(other.loss, rel=1e-6)
    for name, parameter in small.parameters.items():
        if name.endswith(("qkv", "gate_up", "out", "down")):  # Adam's rate depends on the batch that was planned
            torch.testing.assert_close(cut.parameters[name], parameter, rtol=1e-4, atol=1e-5)


# -- before torch is there ---------------------------------------------------------------------------------------------


def test_too_little_text_is_refused_by_reading_no_more_than_needed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 19_999)
    (tmp_path / "b").write_bytes(b"\0" * 99_999 + b"x")
    texts.check_size([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(LLMZipError, match="the text has 19,999 bytes; at least 20,000 are needed to train on"):
        texts.check_size([tmp_path / "a"])
    (tmp_path / "c.gz").write_bytes(b"not read")
    texts.check_size([tmp_path / "a", tmp_path / "b", tmp_path / "c.gz"])


def test_the_command_refuses_too_little_text_before_it_loads_anything(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(b"a short text\n" * 9)
    code = (
        "import sys\nfrom llmzip.cli.main import main\n"
        "status = main(['train', 'short.txt', '-o', 'model', '--from', 'nobody/nothing', '--time', '20s'])\n"
        "print(status, sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 []\n"
    assert done.stderr == "llmzip: the text has 117 bytes; at least 20,000 are needed to train on\n"


def test_facts_are_of_jsons_types(tmp_path: Path) -> None:
    facts = make_trainer(tmp_path, 3.0).facts
    assert Facts(**json.loads(json.dumps(dataclasses.asdict(facts)))) == facts
