"""Updates of the weights: Muon for matrices, Adam for embeddings, norms and biases, or Adam for all of them.

Must not know what they mean.

Muon: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): momentum, then the nearest orthogonal matrix by
five Newton-Schulz steps with the coefficients given there. Fused matrices are split first, and matrices of one shape
go through in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from .schedule import ADAM, Plan
from .shapes import Shape

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
_ADAM_BETAS = (0.9, 0.95)
_ADAM_EPS = 1e-8
_STACK_VALUES = 1 << 23
"""Values of the matrices that go through in one batch, 16 MiB in bfloat16; the steps take some copies of them. All
matrices of a shape are one batch in models of up to twenty million weights."""


class Optimizer:
    """Muon and Adam, or Adam alone, over the parameters of a network, with their momenta.

    Args:
        parameters: name -> float32 parameter.
        plan: the rates.
        shape: says how fused matrices are split.
        dtype: of the products in the Newton-Schulz steps.

    Attributes:
        plan: the rates; one with another number of steps may take its place.
        state: name -> momentum, of the same shape as the parameter: `muon.NAME`, or `mean.NAME` and `square.NAME`.
    """

    def __init__(
        self, parameters: Mapping[str, torch.nn.Parameter], plan: Plan, shape: Shape, dtype: torch.dtype
    ) -> None:
        self.plan, self._dtype = plan, dtype
        self.state: dict[str, torch.Tensor] = {}
        self._adam: list[tuple[str, torch.nn.Parameter, float]] = []
        self._matrices: dict[tuple[int, ...], list[tuple[torch.nn.Parameter, torch.Tensor, slice]]] = {}
        self._decay = plan.matrix_rate * plan.weight_decay if plan.optimizer == ADAM else 0.0
        splits = {"qkv": shape.qkv_sizes, "gate_up": (shape.mlp_size, shape.mlp_size)}
        for name, parameter in parameters.items():
            if parameter.ndim < 2 or name in ("embedding", "head") or plan.optimizer == ADAM:
                rate = plan.embedding_rate if parameter.ndim == 2 else plan.vector_rate
                self._adam.append((name, parameter, rate))
                self.state[f"mean.{name}"] = torch.zeros_like(parameter)
                self.state[f"square.{name}"] = torch.zeros_like(parameter)
                continue
            momentum = self.state[f"muon.{name}"] = torch.zeros_like(parameter)
            start = 0
            for rows in splits.get(name.rsplit(".", 1)[-1], (parameter.shape[0],)):
                part = (parameter, momentum, slice(start, start + rows))
                self._matrices.setdefault((rows, parameter.shape[1]), []).append(part)
                start += rows
        self.orthogonalise: Callable[[torch.Tensor], torch.Tensor] = orthogonal

    @torch.no_grad()
    def step(self, number: int) -> None:
        """Updates all parameters by their gradients.

        Args:
            number: number of the step, from 0.
        """
        plan, rate = self.plan, self.plan.rate(number)
        self._step_adam(rate, number)
        momentum = plan.momentum_at(number)
        for (rows, columns), all_parts in self._matrices.items():
            batch = max(1, _STACK_VALUES // (rows * columns))
            size = plan.matrix_rate * rate * math.sqrt(max(1.0, rows / columns))
            for parts in (all_parts[first : first + batch] for first in range(0, len(all_parts), batch)):
                updates = []
                for parameter, buffer, where in parts:
                    assert parameter.grad is not None
                    gradient = parameter.grad[where]
                    buffer[where].lerp_(gradient, 1 - momentum)
                    updates.append(torch.lerp(gradient, buffer[where], momentum))  # Nesterov
                stack = self.orthogonalise(torch.stack(updates).to(self._dtype))
                for (parameter, _, where), update in zip(parts, stack, strict=True):
                    part = parameter[where]
                    part.mul_(1 - plan.matrix_rate * rate * plan.weight_decay)
                    part.add_(update.to(part.dtype), alpha=-size)

    def _step_adam(self, rate: float, number: int) -> None:
        first, second = _ADAM_BETAS
        bias_first, bias_second = 1 - first ** (number + 1), 1 - second ** (number + 1)
        for name, parameter, base in self._adam:
            gradient = parameter.grad
            assert gradient is not None
            mean, square = self.state[f"mean.{name}"], self.state[f"square.{name}"]
            mean.lerp_(gradient, 1 - first)
            square.lerp_(gradient.square(), 1 - second)
            root = (square / bias_second).sqrt_().add_(_ADAM_EPS)
            if self._decay and parameter.ndim == 2:
                parameter.mul_(1 - rate * self._decay)
            parameter.addcdiv_(mean, root, value=-base * rate / bias_first)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Returns nearly the orthogonal factors of matrices.

    Args:
        matrices: (n, rows, columns).

    Returns:
        the same shape; singular values between about 0.7 and 1.2.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.float().norm(dim=(1, 2), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: torch.Tensor = x.mT if tall else x
    return result


def clip(parameters: Sequence[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Scales all gradients so that their common norm is at most `limit`; returns the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: torch.Tensor = torch.stack([gradient.norm() for gradient in gradients]).norm()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
    return norm
