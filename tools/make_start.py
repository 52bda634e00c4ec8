"""Learns the weights that mixers begin with: `python tools/make_start.py FOLDER`.

Takes as many pieces of every kind of text in FOLDER, whose files are named KIND-NUMBER.txt or .txt.xz, and mixes them
one after the other, each with statistics of its own, but with the weights of the piece before. Writes
llmzip/mixing/start.bin and prints its digest, which belongs into llmzip/mixing/weights.py and docs/numerics.md. All
archives depend on it: a new file is a new version of the format.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections import defaultdict
from pathlib import Path

import numpy as np

from llmzip.format.plan import RowPlan
from llmzip.inference import load, passes
from llmzip.inference.load import LoadedModel
from llmzip.mixing import weights
from llmzip.mixing.mixer import MixEncoder, Primed, table_bits
from llmzip.mixing.state import PAIRS, Learned, new_learned
from llmzip.mixing.weights import Weights
from llmzip.models.choice import choose_model
from llmzip.settings import EngineSettings
from llmzip.training.texts import chunks

_PIECE_BYTES = 50_000
_UPDATES = 300
"""Updates that a set counts as having seen when a piece begins, at most: later pieces should still teach it."""

_MIN_TIMES = 2000
"""Decisions after which a set of weights is worth its place in the file."""

_MIN_CHANGE = 1 / 64
"""Change of a final weight from which on its set is."""


def pieces_of(folder: Path, count: int, seed: int, size: int = _PIECE_BYTES) -> list[bytes]:
    """Returns `count` pieces of each kind of text, from all over its files, in an order that the seed decides."""
    files = defaultdict(list)
    for file in sorted([*folder.glob("*.txt"), *folder.glob("*.txt.xz")]):
        files[file.name.split(".")[0].rpartition("-")[0]].append(file)
    pieces = []
    for kind in sorted(files):
        share = -(-count // len(files[kind]))
        found = []
        for file in files[kind]:
            data = b"".join(chunks(file))
            stride = max(1, (len(data) - size) // share)
            found += [data[place * stride :][:size] for place in range(share)]
        pieces += found[:count]
    random.Random(seed).shuffle(pieces)
    return [piece for piece in pieces if piece]


def learn(model: LoadedModel, pieces: list[bytes]) -> tuple[Learned, np.ndarray]:
    """Mixes the pieces; returns what was learnt, and how often each set of weights was trained, (sets,) int64."""
    vocabulary, engine = model.vocabulary, model.engine
    readout = engine.readout()
    level = vocabulary.tree.level
    kept: Weights | None = None
    times = np.zeros(len(level) + sum(weights.GROUPS), dtype=np.int64)
    for number, piece in enumerate(pieces):
        tokens = model.tokenizer.encode(piece)
        learned = new_learned(level, table_bits(len(tokens)), with_model=False)
        if kept is not None:
            learned = learned._replace(
                weight=kept.weight, updates=np.minimum(kept.updates, _UPDATES), final_weight=kept.final_weight
            )
        before = learned.updates.copy()
        followers = np.zeros(2 * (vocabulary.size + 1), np.int32), np.zeros(2 * PAIRS, np.int32)
        encoder = MixEncoder(vocabulary, tokens, 1, with_model=True, primed=Primed(learned, *followers))
        plan = RowPlan(len(tokens), 1, engine.context // 2)
        for places, masses in passes.token_masses(engine, tokens, plan):
            encoder.add(places, readout.fetch(masses))
        payload, _ = encoder.finish()
        times += learned.updates - before
        kept = Weights(learned.weight, learned.updates, learned.final_weight)
        print(f"{number + 1} of {len(pieces)}: {len(piece):,} bytes, {len(payload):,} after mixing", flush=True)
    return learned, times


def file_of(learned: Learned, times: np.ndarray, level: np.ndarray) -> bytes:
    """Returns the bytes of the file: sets of nodes are averaged by depth, and those of tokens are averaged."""
    nodes = len(level)
    weight = learned.weight[:, : weights.NUM_INPUTS] / weights.ONE
    depths = np.minimum(level, weights.MAX_LEVELS - 1)
    at_depth = [depths == depth for depth in range(weights.MAX_LEVELS)]
    by_level = [_average(weight[:nodes][chosen], times[:nodes][chosen]) for chosen in at_depth]
    token = nodes + weights.GROUPS[0]
    after = token + weights.GROUPS[1]
    by_token = _average(weight[token:after], times[token:after])
    stored = np.concatenate([by_level, weight[nodes:token], [by_token], weight[after:]])
    always = np.ones(1, dtype=bool)
    enough = times >= _MIN_TIMES
    has_own = np.concatenate([np.ones(weights.MAX_LEVELS, dtype=bool), enough[nodes:token], always, enough[after:]])
    final_weight = learned.final_weight / weights.ONE
    has_own_final = np.abs(final_weight - 1 / weights.NUM_SETS).max(axis=1) >= _MIN_CHANGE
    return weights.packed(stored, has_own, final_weight, has_own_final)


def _average(weight: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Returns the mean of some sets, each as often as it was trained."""
    mean: np.ndarray = np.average(weight, axis=0, weights=times + 1e-9)
    return mean


def main() -> None:
    """Learns from what the command line names, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pieces", type=int, default=16, help="of each kind of text (default: 16)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the pieces (default: 1)")
    options = parser.parse_args()
    model = load.load(choose_model("default"), EngineSettings())
    learned, times = learn(model, pieces_of(options.folder, options.pieces, options.seed))
    data = file_of(learned, times, model.vocabulary.tree.level)
    weights.FILE.write_bytes(data)
    print(f"{len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
