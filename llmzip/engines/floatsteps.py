"""How a model of transformers is run token by token, found out by trying; must not import transformers.

What the state between two tokens is called, as an output and as an input, and whether the number of the position has to
come with it, has changed between versions of transformers and differs between its models. So nothing is concluded from
a name: a way is taken if its steps predict what the whole sequence at once predicts.
Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import LLMZipError
from ..system.memory import allocations_checked

LARGEST = 1e9
"""Of logits; what is beyond is as good as infinite, and its products would leave the range of the numbers."""

_SAME = {torch.float32: 0.02, torch.bfloat16: 0.25, torch.float16: 0.25}
"""How far a step may be from the whole pass, as a share of what forgetting the tokens before would change."""

_NEAREST = 0.5
"""The same for a model whose own steps are not quite its whole pass. One that forgets is at 1."""

_ROUNDINGS = 8
"""The same in roundings of its type, as a share of the predictions, for models that hardly heed the tokens before."""

_FILLED = 64
"""More than the width of any convolution over tokens.

Some models (Mamba and LFM2 in transformers 5.0) take `cache_position` for the place in their state where the token
goes, and put it right only from the number on with which the state is full.
"""

_POSITIONS: tuple[Mapping[str, int], ...] = (
    {},
    {"position_ids": 0},
    {"cache_position": 0},
    {"position_ids": 0, "cache_position": 0},
    {"cache_position": _FILLED},
    {"position_ids": 0, "cache_position": _FILLED},
)
"""Ways to say the number of the position: the arguments, and what they count from. Most models know it already."""

_NO_STATES = {"logits", "loss", "hidden_states", "attentions"}
_NO_STATE_INPUTS = {"self", "input_ids", "labels", "inputs_embeds", "position_ids", "cache_position"}


class NoWayError(Exception):
    """No way was found; its text says what was seen, in one line.

    Attributes:
        gives_state: whether the model gave anything back, beside its predictions, that could have been a state.
    """

    def __init__(self, reason: str, gives_state: bool) -> None:
        super().__init__(reason)
        self.gives_state = gives_state


@dataclass(frozen=True)
class Way:
    """How the state of a model goes from one token to the next.

    Attributes:
        output: what the model calls the state that it gives back.
        argument: what it calls the state that it takes.
        positions: the arguments that tell it the number of the position, and what each counts from.
    """

    output: str
    argument: str
    positions: Mapping[str, int]


def whole(module: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits behind all tokens of every row, (B, T) to (B, T, V) float32."""
    logits: torch.Tensor = module(input_ids=ids, use_cache=False, return_dict=True).logits
    return logits.float()


def step(module: Any, way: Way, ids: torch.Tensor, state: Any, position: int) -> tuple[torch.Tensor, Any]:
    """Logits behind one token of every row, (B, 1, V) float32, and the state behind it.

    Args:
        module: a model of transformers.
        way: how it is run token by token.
        ids: (B, 1).
        state: behind the token before, None at the first. It may be changed in place, and be the one that is returned.
        position: how many tokens came before.
    """
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, "return_dict": True}
    if state is not None:
        inputs[way.argument] = state
    for name, first in way.positions.items():
        number = torch.arange(first + position, first + position + 1, device=ids.device)
        inputs[name] = number.expand(ids.shape) if name == "position_ids" else number
    found = module(**inputs)
    behind = _fields(found).get(way.output)
    return found.logits.float(), state if behind is None else behind


def find(module: Any, ids: torch.Tensor, logits: torch.Tensor) -> Way:
    """How a model is run token by token.

    Two texts go through the model in turns, so that a state which the model keeps to itself is told from one that it
    gives back: the engine runs several caches beside each other.

    Args:
        module: a causal model of transformers.
        ids: (B, T), in which no row is the one before it.
        logits: what the model says of them at once, (B, T, V).

    Raises:
        NoWayError: it cannot be run so, or only in a way that is not known here.
        ResourceError: the memory does not do.
    """
    gap = _Gap(logits, whole(module, ids.reshape(-1, 1)).view(logits.shape), module.dtype)
    first = _attempt(lambda: module(input_ids=ids[:, :1], use_cache=True, return_dict=True))
    if isinstance(first, Exception):
        raise NoWayError(f"its first token alone: {_one_line(first)}", False)
    outputs = [name for name, value in _fields(first).items() if name not in _NO_STATES and value is not None]
    if not outputs:
        raise NoWayError("it gives nothing back but its predictions", False)
    nearest: tuple[float, Way] | None = None
    reason = None  # why the likeliest way failed
    for way in _ways(module, outputs):
        distance = _attempt(lambda way=way: gap.distance(*_steps(module, way, ids)))
        if isinstance(distance, Exception):
            reason = reason or _one_line(distance)
            continue
        if distance <= gap.same:
            return way
        reason = reason or f"what it gives back ({', '.join(outputs)}) does not lead to the predictions of the whole"
        if nearest is None or distance < nearest[0]:
            nearest = distance, way
    if nearest is not None and nearest[0] <= _NEAREST:
        return nearest[1]
    raise NoWayError(str(reason), True)


def _fields(found: Any) -> Mapping[str, Any]:
    """What a model gave back, by its names: those of today, without the properties that stand for older ones."""
    return found if isinstance(found, Mapping) else vars(found)


def _ways(module: Any, outputs: list[str]) -> Iterator[Way]:
    """Ways to try, the likeliest first: what a state is called when it comes out is what it is called going in."""
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


def _attempt(what: Any) -> Any:
    """What a function returns or raises. A lack of memory is raised on: it says nothing of the way."""
    try:
        with allocations_checked("not enough memory for the model"):
            return what()
    except (LLMZipError, MemoryError):
        raise
    except Exception as error:
        return error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _steps(module: Any, way: Way, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of some rows and of the same rows in another order, step by step in turns: (B, T, V) each."""
    texts = (ids, ids.roll(1, 0))
    states: list[Any] = [None, None]
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for position in range(ids.shape[1]):
        for number, text in enumerate(texts):
            token = text[:, position : position + 1]
            logits, states[number] = step(module, way, token, states[number], position)
            found[number].append(logits)
    return torch.cat(found[0], 1), torch.cat(found[1], 1)


class _Gap:
    """How far steps are from the whole pass: 0 the same, 1 as far as a model that forgot all tokens but the last."""

    def __init__(self, logits: torch.Tensor, alone: torch.Tensor, dtype: torch.dtype) -> None:
        self._logits = _finite(logits)
        forgetting = _size(_finite(alone) - self._logits)
        rounding = torch.finfo(dtype).eps * _size(self._logits)
        self._unit = max(forgetting, torch.finfo(torch.float32).tiny)
        self.same = max(_SAME.get(dtype, _NEAREST), _ROUNDINGS * rounding / self._unit)

    def distance(self, steps: torch.Tensor, rolled: torch.Tensor) -> float:
        texts = ((steps, self._logits), (rolled, self._logits.roll(1, 0)))
        return max(_size(_finite(found) - wanted) for found, wanted in texts) / self._unit


def _finite(logits: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(logits, nan=-LARGEST).clamp(-LARGEST, LARGEST)


def _size(logits: torch.Tensor) -> float:
    """Of predictions behind more than one token."""
    return float(logits[:, 1:].double().square().mean().sqrt())
