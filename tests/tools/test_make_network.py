"""Checks the tool that learns the network, on made samples and a small text."""

from __future__ import annotations

import make_network
import numpy as np

from llmzip.mixing import network
from llmzip.mixing.network import CHOICES, INPUTS


def made_samples(count: int) -> np.ndarray:
    """Decisions whose bit depends on a value and a row that the mixed logit does not know."""
    generator = np.random.default_rng(3)
    samples = np.zeros((count, INPUTS + CHOICES + 1), dtype=np.int16)
    samples[:, :INPUTS] = generator.normal(0, 200, (count, INPUTS))
    samples[:, INPUTS - 3] = generator.normal(0, 300, count)
    samples[:, INPUTS : INPUTS + CHOICES] = generator.integers(16, size=(count, CHOICES))
    samples[:, INPUTS : INPUTS + CHOICES] += np.array([0, 16, 32, 56, 72], dtype=np.int16)
    hidden = samples[:, INPUTS - 3] + samples[:, 5] + 40 * (samples[:, INPUTS] - 8.0)
    samples[:, -1] = generator.random(count) < 1 / (1 + np.exp(-hidden / 256))
    return samples


def test_what_is_learnt_survives_rounding() -> None:
    samples = made_samples(60_000)
    stored = make_network.rounded(make_network.train(samples[:50_000], epochs=8, seed=1))
    assert [(table.shape, table.dtype) for table in stored] == [
        (table.shape, table.dtype) for table in network.unpacked(network.FILE.read_bytes())
    ]
    assert network.packed(network.unpacked(network.packed(stored))) == network.packed(stored)
    held_out = samples[50_000:]
    logit = (held_out[:, INPUTS - 3] + held_out[:, 5] + 40 * (held_out[:, INPUTS] - 8.0)) / 256
    ideal = float(np.logaddexp(0, np.where(held_out[:, -1], -logit, logit)).mean())
    before, after = make_network.cost_of(held_out, None), make_network.cost_of(held_out, stored)
    assert ideal < after < ideal + 0.3 * (before - ideal)


def test_weights_keep_their_bounds_when_rounded() -> None:
    trained = make_network.Trained()
    with make_network.torch.no_grad():
        for part in (trained.first.weight, trained.row.weight, trained.second.weight, trained.second.bias):
            part.mul_(1000)
    trained.limit()
    stored = make_network.rounded(trained)
    assert max(np.abs(stored.first.astype(int)).max(), np.abs(stored.row.astype(int)).max()) == 1 << 13
    assert max(np.abs(stored.second.astype(int)).max(), np.abs(stored.bias.astype(int)).max()) == 1 << 12
