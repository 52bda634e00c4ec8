"""The mixer written from docs/numerics.md alone (tests/contract/reference), run as an encoder that shows its decisions.

It shares no code with the package.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmzip.mixing.coder import Encoder
from llmzip.mixing.state import Learned

NUM_PAIRS = 1 << 16
Decision = tuple[int, int]
"""k, the probability of a one in units of 2^-16, and the bit."""


def _load() -> Any:
    """Loads the module by its path: others have its name."""
    path = Path(__file__).parents[1] / "contract" / "reference" / "mixer.py"
    spec = importlib.util.spec_from_file_location("documented_mixer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


reference = _load()


def interval(k: int, bit: int) -> tuple[int, int]:
    """Left end and size of a decision's interval of 2^24 (section 9)."""
    q = 2**16 - k
    z = 2**8 * q if q <= 2**15 else 2**8 * q - 1
    return (z, 2**24 - z) if bit else (0, z)


@dataclass(frozen=True)
class Coded:
    """A frame as the document has it.

    Attributes:
        payload: what the range coder makes of the decisions' intervals.
        bits: ideal length of the decisions.
        mixer: the reference, with all that it has learnt.
    """

    payload: bytes
    bits: float
    mixer: Any


def encode(
    table: Sequence[bytes],
    tokens: Sequence[int],
    num_rows: int,
    masses: np.ndarray | None = None,
    prompt: tuple[Sequence[int], np.ndarray] | None = None,
) -> Coded:
    """Encodes a frame.

    Args:
        table: bytes of each token.
        tokens: in the order of the text.
        num_rows: R.
        masses: (N, V), or None without a model.
        prompt: tokens, and their masses.
    """
    count = len(tokens) + (len(prompt[0]) if prompt else 0)
    mixer = reference.Mixer(list(table), count, with_model=masses is not None)
    if prompt:
        mixer.begin_prompt(list(prompt[0]))
        for token, row in zip(prompt[0], prompt[1].tolist(), strict=True):
            assert mixer.step([row], 1) == [token]
    decisions = _decisions(mixer, list(tokens), num_rows, None if masses is None else masses.tolist())
    left, frequency = np.array([interval(k, bit) for k, bit in decisions], dtype=np.int64).T
    encoder = Encoder()
    encoder.encode(left, frequency)
    bits = -sum(math.log2((k if bit else 65536 - k) / 65536) for k, bit in decisions)
    return Coded(encoder.finish(), bits, mixer)


def _decisions(mixer: Any, tokens: list[int], num_rows: int, masses: list[list[int]] | None) -> list[Decision]:
    short, num_long = divmod(len(tokens), num_rows)
    starts = [row * short + min(row, num_long) for row in range(num_rows)]
    steps = short + (num_long > 0)
    places = [[start + step for start in (starts if step < short else starts[:num_long])] for step in range(steps)]
    bits = _bits_in_order(mixer.tree, [[tokens[place] for place in step] for step in places])
    decisions: list[Decision] = []

    def bit(k: int) -> int:
        decisions.append((k, next(bits)))
        return decisions[-1][1]

    mixer.begin(num_rows, steps, bit)
    for step in places:
        step_masses = None if masses is None else [masses[place] for place in step]
        assert mixer.step(step_masses, len(step)) == [tokens[place] for place in step]
    assert next(bits, None) is None
    return decisions


def _bits_in_order(tree: Any, steps: list[list[int]]) -> Iterator[int]:
    """Yields the bits of the tokens of each step in the order of section 10.1."""
    for step in steps:
        for first in range(0, len(step), 16):
            paths = [list(tree.path(token)) for token in step[first : first + 16]]
            for depth in range(max(map(len, paths))):
                yield from (path[depth] for path in paths if depth < len(path))


class Followed(Protocol):
    """The last two tokens that followed each leaf and each pair of leaves: (2 (V + 1),) and (2^17,) int32."""

    @property
    def follower(self) -> np.ndarray: ...

    @property
    def pair_follower(self) -> np.ndarray: ...


def assert_learnt(learned: Learned, texts: Followed, mixer: Any) -> None:
    """Asserts that the package's arrays hold what the reference has learnt, and nothing else."""
    states, matches = (
        [[pair.p << 10 | pair.n for pair in row] for row in m] for m in (mixer.state_map, mixer.match_map)
    )
    assert learned.state_map[:, : len(states[0])].tolist() == states
    assert learned.match_map.tolist() == matches
    weight, updates = _weights(mixer)
    assert len(learned.weight) == len(learned.updates) == len(weight)
    assert np.array_equal(learned.weight[:, : reference.INPUTS], weight) and np.array_equal(learned.updates, updates)
    assert not learned.weight[:, reference.INPUTS :].any()
    assert np.array_equal(learned.final_weight, mixer.final_weights)
    assert not mixer.network or np.array_equal(learned.output_weight, mixer.output_weights)
    for table, rows in (
        (learned.node_map, mixer.node_map),
        (learned.pair_map[learned.pair_row[:-1]], mixer.pair_map),
        (learned.model_node_map, mixer.model_node_map),
        (learned.model_match_map, mixer.model_match_map),
    ):
        expected = np.tile(np.array(reference.FIRST_MAP), (len(table), 1))
        for row, entries in rows.items():
            expected[row] = entries
        assert np.array_equal(table, expected)
    blocks = np.zeros((2**mixer.block_bits, 16), dtype=np.uint8)
    for number, block in mixer.blocks.items():
        blocks[number] = list(block)
    assert np.array_equal(learned.blocks, blocks)
    assert np.array_equal(texts.follower, _followers(mixer.followers, len(mixer.words) + 1))
    assert np.array_equal(texts.pair_follower, _followers(mixer.pair_followers, NUM_PAIRS))


@functools.lru_cache(maxsize=1)
def _weights(mixer: Any) -> tuple[np.ndarray, np.ndarray]:
    """All weight sets of a mixer that learns no more, (sets, 46), and their updates, (sets,)."""
    total = len(mixer.tree.nodes) + sum(reference.GROUP_SETS)
    fresh = (mixer.beginning.weights(number, mixer.depths) for number in range(total))
    sets = [mixer.weights.get(number, weight_set) for number, weight_set in enumerate(fresh)]
    return np.array([weight_set.w for weight_set in sets]), np.array([weight_set.u for weight_set in sets])


def _followers(pairs: dict[int, tuple[int, int]], size: int) -> np.ndarray:
    """(F, G) one after the other: (2 size,)."""
    out = np.zeros(2 * size, dtype=np.int64)
    for number, pair in pairs.items():
        out[2 * number : 2 * number + 2] = pair
    return out
