"""Checks the updates: Newton-Schulz, Muon on fused matrices, Adam against torch's, and clipping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from llmzip.training.network import Network
from llmzip.training.optimizer import Optimizer, clip, orthogonal
from llmzip.training.schedule import Plan, make_plan
from llmzip.training.shapes import Shape

RandomNetwork = Callable[..., Network]
PLAN = dataclasses.replace(
    make_plan(12, 4, 2, sequence=24), warm_up=2, weight_decay=0.3, embedding_rate=0.02, vector_rate=0.005
)
"""Few steps with a different rate each, but for a few."""


def gradients(parameters: dict[str, torch.nn.Parameter], seed: int) -> None:
    """Sets random gradients of very different sizes."""
    random = torch.Generator().manual_seed(seed)
    for number, parameter in enumerate(parameters.values()):
        parameter.grad = torch.randn(parameter.shape, generator=random) * 10.0 ** (number % 5 - 3)


# -- Newton-Schulz -----------------------------------------------------------------------------------------------------

SIZES = [(1, 16, 16), (3, 48, 16), (2, 16, 48), (1, 1, 40), (1, 40, 1), (4, 33, 32)]


def with_singular_values(size: tuple[int, int, int], low: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices with known singular vectors, and values from `low` to 1: matrices, left, right."""
    count, rows, columns = size
    random = torch.Generator().manual_seed(rows)
    rank = min(rows, columns)
    left, _ = torch.linalg.qr(torch.randn(count, rows, rank, generator=random))
    right, _ = torch.linalg.qr(torch.randn(count, columns, rank, generator=random))
    values = torch.logspace(math.log10(low), 0, rank).expand(count, rank)
    return left * values[:, None] @ right.mT, left, right


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_singular_values_become_nearly_one_and_their_vectors_stay(size: tuple[int, int, int]) -> None:
    matrices, left, right = with_singular_values(size, 0.02)
    core = left.mT @ orthogonal(matrices) @ right
    values = core.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6 and values.max() < 1.25
    assert (core - torch.diag_embed(values)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(5, 64, 20), (5, 20, 64), (5, 60, 64)], ids=str)
def test_random_matrices_become_orthogonal(size: tuple[int, int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = orthogonal(matrices)
    assert found.dtype == dtype and found.shape == matrices.shape
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e6])
def test_the_size_of_a_matrix_does_not_matter(factor: float) -> None:
    matrices, _, _ = with_singular_values((2, 24, 16), 0.1)
    torch.testing.assert_close(orthogonal(factor * matrices), orthogonal(matrices), rtol=0, atol=2e-3)


def test_matrices_of_a_batch_do_not_mix() -> None:
    matrices, _, _ = with_singular_values((3, 24, 16), 0.1)
    matrices[1] *= 1000
    alone = torch.cat([orthogonal(matrix[None]) for matrix in matrices])
    torch.testing.assert_close(orthogonal(matrices), alone, rtol=0, atol=1e-5)
    matrices[2] = 0
    found = orthogonal(matrices)
    assert not found[2].any()
    torch.testing.assert_close(found[:2], alone[:2], rtol=0, atol=1e-5)


# -- updates -----------------------------------------------------------------------------------------------------------


def muon(parameter: torch.Tensor, momenta: torch.Tensor, gradient: torch.Tensor, plan: Plan, step: int) -> None:
    """One update of one whole matrix, as it is told in words."""
    beta = 0.85 + (plan.momentum - 0.85) * step / 300
    momenta.copy_(beta * momenta + (1 - beta) * gradient)
    ahead = (1 - beta) * gradient + beta * momenta
    rate = plan.matrix_rate * plan.rate(step)
    parameter.mul_(1 - rate * plan.weight_decay)
    parameter.sub_(rate * max(1, parameter.shape[0] / parameter.shape[1]) ** 0.5 * orthogonal(ahead[None])[0])


@pytest.mark.parametrize("form", ["qwen3", "qwen2 untied", "mistral untied"])
def test_fused_matrices_are_updated_part_by_part(
    form: str, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes[form])
    shape = network.shape
    parameters = dict(network.named_parameters())
    optimizer = Optimizer(parameters, PLAN, shape, torch.float32)
    splits = {"qkv": list(shape.qkv_sizes), "gate_up": [shape.mlp_size] * 2}
    matrices = [name for name in parameters if f"muon.{name}" in optimizer.state]
    assert {name.rsplit(".", 1)[-1] for name in matrices} == {"qkv", "gate_up", "out", "down"}
    expected = {name: parameters[name].detach().clone() for name in matrices}
    momenta = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    for step in range(3):
        gradients(parameters, step)
        optimizer.step(step)
        for name in matrices:
            rows = splits.get(name.rsplit(".", 1)[-1], [len(expected[name])])
            gradient = parameters[name].grad
            assert gradient is not None
            for parts in zip(
                *(tensor.split(rows) for tensor in (expected[name], momenta[name], gradient)), strict=True
            ):
                muon(*parts, PLAN, step)
    for name in matrices:
        moved = expected[name] - random_network(shape).get_parameter(name).detach()
        assert moved.abs().mean() > 1e-4
        torch.testing.assert_close(parameters[name].detach(), expected[name], rtol=0, atol=1e-5)
        torch.testing.assert_close(optimizer.state[f"muon.{name}"], momenta[name], rtol=1e-4, atol=1e-6)


def test_three_matrices_in_one_are_three_matrices(shapes: dict[str, Shape]) -> None:
    shape = shapes["qwen3"]
    random = torch.Generator().manual_seed(1)
    whole = torch.nn.Parameter(torch.randn(sum(shape.qkv_sizes), 32, generator=random))
    apart = [torch.nn.Parameter(part.clone()) for part in whole.detach().split(shape.qkv_sizes)]
    one = Optimizer({"layers.0.qkv": whole}, PLAN, shape, torch.float32)
    three = Optimizer(
        {f"layers.0.{name}": part for name, part in zip("abc", apart, strict=True)}, PLAN, shape, torch.float32
    )
    for step in range(3):
        whole.grad = torch.randn(whole.shape, generator=random)
        for part, gradient in zip(apart, whole.grad.split(shape.qkv_sizes), strict=True):
            part.grad = gradient.clone()
        one.step(step)
        three.step(step)
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in apart]), rtol=0, atol=1e-6)


def test_adam_is_that_of_torch_without_weight_decay(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    network, other = random_network(shapes["qwen2 untied"]), random_network(shapes["qwen2 untied"])
    parameters, twins = dict(network.named_parameters()), dict(other.named_parameters())
    optimizer = Optimizer(parameters, PLAN, network.shape, torch.float32)
    adam = [name for name in parameters if f"mean.{name}" in optimizer.state]
    assert {name.rsplit(".", 1)[-1] for name in adam} == {
        *("embedding", "head", "input_norm", "post_norm", "final_norm", "qkv_bias"),
    }
    theirs = torch.optim.Adam([{"params": [twins[name]]} for name in adam], betas=(0.9, 0.95), eps=1e-8)
    for step in range(8):
        gradients(parameters, step)
        gradients(twins, step)
        for group, name in zip(theirs.param_groups, adam, strict=True):
            group["lr"] = PLAN.rate(step) * (0.02 if name in ("embedding", "head") else 0.005)
        optimizer.step(step)
        theirs.step()
    for name in adam:
        torch.testing.assert_close(parameters[name], twins[name], rtol=0, atol=1e-6)
        state = theirs.state[twins[name]]
        torch.testing.assert_close(optimizer.state[f"mean.{name}"], state["exp_avg"], rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(optimizer.state[f"square.{name}"], state["exp_avg_sq"], rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("form", ["qwen3", "qwen2 untied"])
def test_state_has_the_names_and_shapes_of_the_parameters(
    form: str, shapes: dict[str, Shape], random_network: RandomNetwork
) -> None:
    network = random_network(shapes[form])
    parameters = dict(network.named_parameters())
    state = Optimizer(parameters, PLAN, network.shape, torch.bfloat16).state
    seen = set()
    for name, tensor in state.items():
        kind, _, of = name.partition(".")
        matrix = parameters[of].ndim == 2 and of not in ("embedding", "head")
        assert kind in (("muon",) if matrix else ("mean", "square"))
        assert tensor.shape == parameters[of].shape and tensor.dtype == torch.float32 and not tensor.any()
        seen.add(of)
    assert seen == parameters.keys()


def test_an_optimizer_goes_on_from_its_state(shapes: dict[str, Shape], random_network: RandomNetwork) -> None:
    def run(stop: int) -> dict[str, torch.nn.Parameter]:
        network = random_network(shapes["qwen3"])
        parameters = dict(network.named_parameters())
        optimizer = Optimizer(parameters, PLAN, network.shape, torch.bfloat16)
        for step in range(6):
            if step == stop:
                state = {name: tensor.clone() for name, tensor in optimizer.state.items()}
                optimizer = Optimizer(parameters, PLAN, network.shape, torch.bfloat16)
                for name, tensor in optimizer.state.items():
                    tensor.copy_(state[name])
            gradients(parameters, step)
            optimizer.step(step)
        return parameters

    whole, resumed = run(99), run(3)
    assert all(torch.equal(parameter, resumed[name]) for name, parameter in whole.items())


# -- clipping ----------------------------------------------------------------------------------------------------------


def parameters_with(*values: list[float]) -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(made, values, strict=True):
        parameter.grad = torch.tensor(value)
    return made


def test_large_gradients_are_scaled_to_the_limit() -> None:
    made = parameters_with([3.0, 0.0], [0.0, -4.0, 0.0])
    assert float(clip(made, 1.0)) == 5.0
    torch.testing.assert_close(made[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(made[1].grad, torch.tensor([0.0, -0.8, 0.0]))


def test_small_gradients_stay_as_they_are() -> None:
    made = [*parameters_with([0.3, 0.1], [-0.4]), torch.nn.Parameter(torch.zeros(3))]
    before = [parameter.grad.clone() for parameter in made[:2] if parameter.grad is not None]
    assert float(clip(made, 1.0)) == pytest.approx(0.26**0.5)
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(made, before, strict=False))
    assert made[2].grad is None
    assert float(clip(parameters_with([0.0]), 1.0)) == 0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_gradients_that_are_no_numbers_show_in_the_norm(value: float) -> None:
    assert not torch.isfinite(clip(parameters_with([1.0], [value, 2.0]), 1.0))
