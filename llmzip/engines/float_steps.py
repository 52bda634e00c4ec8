"""Finds by trial how a model of transformers runs token by token; must not import transformers.

The names of the state between two tokens, as an output and as an input, and whether the number of the position must
accompany it, have changed between versions of transformers and differ between its models. So nothing is concluded from
a name: a way is accepted if its steps predict what the whole sequence at once predicts.
Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LLMZipError
from ..system.memory import allocations_checked

MAX_LOGIT = 1e9
"""Magnitude of a logit; larger ones are as good as infinite, and their products would overflow."""

_SAME = {torch.float32: 0.02, torch.bfloat16: 0.25, torch.float16: 0.25}
"""Distance of a step from the whole pass that is accepted at once, in units of `_Gap`."""

_NEAREST = 0.5
"""Distance that is accepted of the nearest way, for models whose own steps are not quite their whole pass."""

_ROUNDINGS = 8
"""Distance that is accepted in any case, in roundings of the predictions: for models that hardly use earlier tokens."""

_FILLED = 64
"""A position beyond the width of any convolution over tokens.

Some models (Mamba and LFM2 in transformers 5.0) use `cache_position` as the place of the token in their state, which is
right only for positions from which on the state is full.
"""

_POSITIONS: tuple[Mapping[str, int], ...] = (
    {},
    {"position_ids": 0},
    {"cache_position": 0},
    {"position_ids": 0, "cache_position": 0},
    {"cache_position": _FILLED},
    {"position_ids": 0, "cache_position": _FILLED},
)
"""Ways to pass the number of the position: the arguments, and what they count from. Most models know it already."""

_NO_STATES = {"logits", "loss", "hidden_states", "attentions"}
"""Outputs of models that are not a state."""

_NO_STATE_INPUTS = {"self", "input_ids", "labels", "inputs_embeds", "position_ids", "cache_position"}
"""Inputs of models that are not a state."""

_MAX_REASON_CHARACTERS = 200
"""Length of an error of the model in a message of ours."""


class NoWayError(Exception):
    """Raised if a model runs token by token in no known way; the text says in one line what it did.

    Attributes:
        gives_state: whether the model returned anything besides its predictions that could have been a state.
    """

    def __init__(self, reason: str, gives_state: bool) -> None:
        super().__init__(reason)
        self.gives_state = gives_state


@dataclass(frozen=True)
class Way:
    """How the state of a model gets from one token to the next.

    Attributes:
        output: name of the state that the model returns.
        argument: name of the state that it takes.
        positions: the arguments that pass the number of the position, and what each counts from.
    """

    output: str
    argument: str
    positions: Mapping[str, int]


def whole(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Computes the logits after all tokens of every row at once, (B, T) to (B, T, V) float32."""
    logits: torch.Tensor = module(input_ids=ids, use_cache=False, return_dict=True).logits
    return logits.float()


def step(module: Any, way: Way, ids: torch.Tensor, state: Any, position: int) -> tuple[torch.Tensor, Any]:
    """Computes the logits after one token of every row, (B, 1, V) float32, and the state after it.

    Args:
        module: a model of transformers.
        way: how it runs token by token.
        ids: (B, 1) int64.
        state: the state after the previous token, None for the first token. The model may change it in place and return
            it.
        position: number of earlier tokens.
    """
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, "return_dict": True}
    if state is not None:
        inputs[way.argument] = state
    for name, first in way.positions.items():
        number = torch.arange(first + position, first + position + 1, device=ids.device)
        inputs[name] = number.expand(ids.shape) if name == "position_ids" else number
    output = module(**inputs)
    next_state = _fields(output).get(way.output)
    return output.logits.float(), state if next_state is None else next_state


def find(module: Any, ids: torch.Tensor, logits: torch.Tensor) -> Way:
    """Finds how a model runs token by token.

    Two texts go through the model in turns, which shows whether the model returns its state or keeps it to itself: the
    engine runs several caches side by side.

    Args:
        module: a causal model of transformers.
        ids: (B, T) int64, in which each row differs from the one before it.
        logits: the model's predictions for all of them at once, (B, T, V).

    Raises:
        NoWayError: the model does not run token by token in a known way.
        ResourceError: there is not enough memory.
    """
    gap = _Gap(logits, whole(module, ids.reshape(-1, 1)).view(logits.shape), module.dtype)
    first = _attempt(lambda: module(input_ids=ids[:, :1], use_cache=True, return_dict=True))
    if isinstance(first, Exception):
        raise NoWayError(f"its first token alone: {_one_line(first)}", gives_state=False)
    outputs = [name for name, value in _fields(first).items() if name not in _NO_STATES and value is not None]
    if not outputs:
        raise NoWayError("it returns nothing but its predictions", gives_state=False)
    nearest: tuple[float, Way] | None = None
    reason = None  # why the likeliest way failed
    for way in _ways(module, outputs):
        distance = _attempt(functools.partial(_distance, gap, module, way, ids))
        if isinstance(distance, Exception):
            reason = reason or _one_line(distance)
            continue
        if distance <= gap.same:
            return way
        reason = reason or f"with what it returns ({', '.join(outputs)}), steps differ from the whole sequence"
        if nearest is None or distance < nearest[0]:
            nearest = distance, way
    if nearest is not None and nearest[0] <= _NEAREST:
        return nearest[1]
    raise NoWayError(str(reason), gives_state=True)


def _fields(output: Any) -> Mapping[str, Any]:
    """Returns a model's output by its present names, without the properties that stand for older ones."""
    return output if isinstance(output, Mapping) else vars(output)


def _ways(module: Any, outputs: list[str]) -> Iterator[Way]:
    """Yields the ways to try, the likeliest first: those in which the state has the same name as output and input."""
    known = inspect.signature(module.forward).parameters
    hidden = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    plain = [
        name
        for name, parameter in known.items()
        if parameter.default is None and name not in _NO_STATE_INPUTS and name not in outputs
    ]
    positions = [names for names in _POSITIONS if hidden or set(names) <= set(known)]
    for output in outputs:
        yield from (Way(output, output, names) for names in positions)
    for output in outputs:
        yield from (Way(output, argument, names) for argument in plain for names in positions)


def _attempt(function: Callable[[], Any]) -> Any:
    """Calls a function; returns its result or its error. It raises a lack of memory, which says nothing of the way."""
    try:
        with allocations_checked("not enough memory for the model"):
            return function()
    except (LLMZipError, MemoryError):
        raise
    except Exception as error:
        return error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_MAX_REASON_CHARACTERS] or type(error).__name__


def _steps(module: Any, way: Way, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes logits of some rows and of the same rows in another order, step by step in turns: (B, T, V) each."""
    texts = (ids, ids.roll(1, 0))
    states: list[Any] = [None, None]
    steps: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for position in range(ids.shape[1]):
        for number, text in enumerate(texts):
            token = text[:, position : position + 1]
            logits, states[number] = step(module, way, token, states[number], position)
            steps[number].append(logits)
    return torch.cat(steps[0], 1), torch.cat(steps[1], 1)


def _distance(gap: _Gap, module: Any, way: Way, ids: torch.Tensor) -> float:
    return gap.distance(*_steps(module, way, ids))


class _Gap:
    """Measures how far steps are from the whole pass: 0 if equal, 1 if as far as a model that sees the last token only.

    Attributes:
        same: the distance up to which steps count as equal.
    """

    def __init__(self, logits: torch.Tensor, alone: torch.Tensor, dtype: torch.dtype) -> None:
        self._logits = _finite(logits)
        forgetting = _size(_finite(alone) - self._logits)
        rounding = torch.finfo(dtype).eps * _size(self._logits)
        self._unit = max(forgetting, torch.finfo(torch.float32).tiny)
        self.same = max(_SAME.get(dtype, _NEAREST), _ROUNDINGS * rounding / self._unit)

    def distance(self, steps: torch.Tensor, rolled: torch.Tensor) -> float:
        """Returns the larger distance of the two texts of `_steps`."""
        texts = ((steps, self._logits), (rolled, self._logits.roll(1, 0)))
        return max(_size(_finite(logits) - expected) for logits, expected in texts) / self._unit


def _finite(logits: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(logits, nan=-MAX_LOGIT).clamp(-MAX_LOGIT, MAX_LOGIT)


def _size(logits: torch.Tensor) -> float:
    """Returns the root mean square of predictions after more than one token."""
    return float(logits[:, 1:].double().square().mean().sqrt())
