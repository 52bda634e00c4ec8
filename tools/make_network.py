"""Learns the network that corrects the mixer's probabilities: `python tools/make_network.py FOLDER`.

Mixes pieces of every kind of text in FOLDER, as `tools/make_start.py` finds them, with the starting weights that there
are, and keeps a sample of the decisions: what the network reads, and the bit. Trains the network on all but the last
pieces, in floating point, rounds it, and writes llmzip/mixing/network.bin. Prints what the samples of the last pieces
cost without and with it, and the file's digest, which belongs into llmzip/mixing/network.py and docs/numerics.md. All
archives depend on it: a new file is a new version of the format.

The network that is there already changes nothing in what is learnt: samples do not depend on it.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from make_start import pieces_of
from torch import nn

from llmzip.codec.levels import LEVELS
from llmzip.format.plan import RowPlan
from llmzip.inference import load, passes
from llmzip.inference.load import LoadedModel
from llmzip.mixing import network
from llmzip.mixing.mixer import MixEncoder
from llmzip.mixing.network import CHOICES, FIRST_BITS, INPUTS, ROWS, SECOND_BITS, UNITS
from llmzip.models.choice import choose_model
from llmzip.settings import EngineSettings

_PIECE_BYTES = (50_000, 200_000)
"""Sizes of pieces, so that the network knows mixers that have learnt little, and much."""

_STRIDE = 4
"""Decisions of which one is kept: those that follow each other tell the same."""

_HELD_OUT = 0.05
"""Share of the samples that are measured with and not learnt from."""

_MIXED = INPUTS - 3
"""The value with the logit that the network corrects."""

_BATCH = 4096
_RATE = 4e-3

_MAX_FIRST = (1 << 13) / (1 << FIRST_BITS)
_MAX_SECOND = (1 << 12) / (1 << SECOND_BITS)
_MAX_OUTPUT = (1 << 14) / (1 << SECOND_BITS)
"""Largest weights of the layers (docs/numerics.md section 10.8)."""


def samples_of(model: LoadedModel, piece: bytes, stride: int) -> np.ndarray:
    """Returns (n, INPUTS + CHOICES + 1) int16: every `stride`-th decision of a piece, in the rows of level 9."""
    vocabulary, engine = model.vocabulary, model.engine
    readout = engine.readout()
    tokens = model.tokenizer.encode(piece)
    best = LEVELS[9]
    num_rows = max(1, min(len(tokens) // best.min_row_tokens, best.max_rows))
    encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
    decisions = int(vocabulary.tree.depth[vocabulary.tree.leaf[tokens]].sum())
    samples = encoder.keep_samples(decisions // stride, stride)
    for places, masses in passes.token_masses(engine, tokens, RowPlan(len(tokens), num_rows, engine.context // 2)):
        encoder.add(places, readout.fetch(masses))
    encoder.finish()
    return samples


class Trained(nn.Module):
    """The network in floating point, of values in nats: logits of (n,) samples from (n, INPUTS + CHOICES) floats."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(INPUTS, UNITS, bias=False)
        self.row = nn.Embedding(ROWS, UNITS)
        self.second = nn.Linear(UNITS, UNITS)
        self.output = nn.Linear(UNITS, 1, bias=False)
        with torch.no_grad():
            self.first.weight.div_(3)
            self.row.weight.mul_(0.05)
            self.output.weight.mul_(0.1)

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        """Returns (n,) logits in nats."""
        values, rows = sample[:, :INPUTS] / 256, sample[:, INPUTS : INPUTS + CHOICES].long()
        hidden = torch.relu(self.first(values) + self.row(rows).sum(1))
        corrected: torch.Tensor = values[:, _MIXED] + self.output(torch.relu(self.second(hidden)))[:, 0]
        return corrected

    def limit(self) -> None:
        """Keeps the weights within what the file can say."""
        with torch.no_grad():
            for layer, most in ((self.first, _MAX_FIRST), (self.row, _MAX_FIRST), (self.second, _MAX_SECOND)):
                layer.weight.clamp_(-most, most)
            self.second.bias.clamp_(-_MAX_SECOND, _MAX_SECOND)
            self.output.weight.clamp_(-_MAX_OUTPUT, _MAX_OUTPUT)


def train(samples: np.ndarray, epochs: float, seed: int) -> Trained:
    """Trains a network on (n, INPUTS + CHOICES + 1) int16 samples."""
    torch.manual_seed(seed)
    trained, data = Trained(), torch.from_numpy(samples)
    steps = max(1, int(epochs * len(data) / _BATCH))
    optimizer = torch.optim.Adam(trained.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1)
    order = torch.empty(0, dtype=torch.int64)
    cost = 0.0
    for step in range(steps):
        if len(order) < _BATCH:
            order = torch.randperm(len(data))
        batch, order = data[order[:_BATCH]].float(), order[_BATCH:]
        loss = nn.functional.binary_cross_entropy_with_logits(trained(batch), batch[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        trained.limit()
        cost += 0.01 * (loss.item() - cost) if step else loss.item()
        if step % 500 == 0:
            print(f"step {step} of {steps}: {cost:.5f} nats a decision", flush=True)
    return trained


def rounded(trained: Trained) -> network.Stored:
    """Returns the network in the units of the file."""

    def units(weight: torch.Tensor, bits: int) -> np.ndarray:
        return np.rint(weight.detach().double().numpy() * (1 << bits)).astype(np.int16)

    return network.Stored(
        units(trained.first.weight.T, FIRST_BITS),
        units(trained.row.weight, FIRST_BITS),
        units(trained.second.weight.T, SECOND_BITS),
        units(trained.second.bias, SECOND_BITS),
        units(trained.output.weight[0], SECOND_BITS),
    )


def cost_of(samples: np.ndarray, stored: network.Stored | None) -> float:
    """Returns the mean cost of samples in nats, by the integers of docs/numerics.md section 10.7, or as they came."""
    base, bit = samples[:, _MIXED].astype(np.int64), samples[:, -1]
    if stored is not None:
        first, row, second, bias, output = (table.astype(np.int64) for table in stored)
        rows = samples[:, INPUTS : INPUTS + CHOICES].astype(np.int64)
        hidden = np.clip((samples[:, :INPUTS].astype(np.int64) @ first + 256 * row[rows].sum(1)) >> 13, 0, 8191)
        unit = np.clip((hidden @ second + 256 * bias) >> 12, 0, 4095)
        base = base + ((unit @ output + 2048) >> 12)
    logit = np.clip(base, -2815, 2815) / 256
    return float(np.logaddexp(0, np.where(bit, -logit, logit)).mean())


def main() -> None:
    """Learns from what the command line names, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pieces", type=int, default=7, help="of each kind of text and of each size (default: 7)")
    parser.add_argument("--epochs", type=float, default=2.5, help="times each sample is learnt from (default: 2.5)")
    parser.add_argument("--seed", type=int, default=2, help="of the order of pieces and samples (default: 2)")
    options = parser.parse_args()
    model = load.load(choose_model("default"), EngineSettings())
    parts = []
    for size in _PIECE_BYTES:
        pieces = pieces_of(options.folder, options.pieces, options.seed, size)
        for number, piece in enumerate(pieces):
            parts.append(samples_of(model, piece, _STRIDE))
            print(f"{number + 1} of {len(pieces)}: {len(piece):,} bytes, {len(parts[-1]):,} samples", flush=True)
    held_out = [part[int(len(part) * (1 - _HELD_OUT)) :] for part in parts]
    samples = np.concatenate([part[: int(len(part) * (1 - _HELD_OUT))] for part in parts])
    del parts
    stored = rounded(train(samples, options.epochs, options.seed))
    last = np.concatenate(held_out)
    print(f"held out: {cost_of(last, None):.5f} nats a decision without, {cost_of(last, stored):.5f} with the network")
    data = network.packed(stored)
    network.FILE.write_bytes(data)
    print(f"{len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
