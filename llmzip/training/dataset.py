"""From text files to token ids on the disk, and which part of them each training sequence is; must not know models.

Everything random comes from SHA-256 or Philox counters of the seed, so the order is the same on every machine, and any
step's sequences can be told without those before.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LLMZipError, SettingsError
from ..models.tokenizer import Tokenizer
from . import texts

MIN_BYTES = 20_000
"""Text that is too short for any training."""

_SLICE_BYTES = 3000
_SLICES = 4000
_SURVEY_BLOCK = 1 << 13
_MAX_BLOCK, _MIN_BLOCK = 1 << 16, 1 << 7
_HELD_OUT_EVERY = 100
_MAX_HELD_OUT = 1 << 20
_MOST_NAMES = 8
_ENCODE_BYTES = 1 << 22
_REST = ""
"""Name of the files that no pattern matches; no pattern is empty."""

_TOKENS_NAME = "tokens.bin"
_INDEX_NAME = "tokens.json"


# -- first reading: how much there is, and samples for the tokenizer -------------------------------------------------


@dataclass
class Source:
    """The files of one --mix pattern, or all that match none.

    Attributes:
        name: the pattern, or "".
        files: of it, in order.
        size: bytes of text.
        share: of the training sequences.
        slices: parts of some 3,000 bytes from all over, for the tokenizer.
    """

    name: str
    files: list[texts.TextFile]
    size: int = 0
    share: float = 0.0
    slices: list[bytes] = field(default_factory=list)


def survey(
    files: Sequence[texts.TextFile], mix: Mapping[str, float], seed: int, tick: Callable[[int], Any]
) -> list[Source]:
    """Reads all text once: sizes, and for each source a uniform sample of slices (Vitter's algorithm R).

    Args:
        files: to read.
        mix: pattern of file names -> share of the training sequences; what no pattern matches gets the rest.
        seed: of the sample.
        tick: called with bytes that were read.

    Raises:
        SettingsError: a pattern without a file, or shares that do not fit.
        LLMZipError: too little text.
    """
    sources: dict[str, Source] = {}
    for file in files:
        name = next((pattern for pattern in mix if fnmatch.fnmatch(file.path.name, pattern)), _REST)
        sources.setdefault(name, Source(name, [])).files.append(file)
    _set_shares(sources, mix)
    for source in sources.values():
        random = _random(seed, f"slices of {source.name}")
        seen = 0
        for file in source.files:
            for block in texts.blocks(file.path, _SURVEY_BLOCK):
                source.size += len(block.data)
                tick(len(block.data))
                seen += 1
                place = seen - 1 if seen <= _SLICES else int(random.random_raw()) % seen
                if place < _SLICES:
                    start = int(random.random_raw()) % max(1, len(block.data) - _SLICE_BYTES)
                    piece = block.data[start : start + _SLICE_BYTES]
                    source.slices[place : place + 1] = [piece]
    found = [source for source in sources.values() if source.size]
    total = sum(source.size for source in found)
    if total < MIN_BYTES:
        raise LLMZipError(f"the text has {total:,} bytes; at least {MIN_BYTES:,} are needed to train on")
    return found


def _set_shares(sources: Mapping[str, Source], mix: Mapping[str, float]) -> None:
    missing = [pattern for pattern in mix if pattern not in sources]
    if missing:
        raise SettingsError(f"--mix {missing[0]}: no file matches")
    given, rest = math.fsum(mix.values()), sources.get(_REST)
    if rest is not None and given > 1 - 1e-9:
        raise SettingsError(f"--mix: the shares sum to {given:g} and leave nothing for {rest.files[0].path.name}")
    for source in sources.values():
        source.share = 1 - given if source is rest else mix[source.name] / (given if rest is None else 1)


def samples(sources: Sequence[Source], total_bytes: int = 12_000_000) -> Iterator[bytes]:
    """Slices of all sources by their shares, `total_bytes` in all if there are so many."""
    for source in sources:
        left = source.share * total_bytes
        for piece in source.slices:
            if left <= 0:
                break
            left -= len(piece)
            yield piece


# -- second reading: tokens on the disk ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One source's tokens in the file.

    Attributes:
        name: of the source.
        start, length: in tokens.
        num_bytes: of the text that they stand for.
        share: of the training sequences.
    """

    name: str
    start: int
    length: int
    num_bytes: int
    share: float


class Dataset:
    """Token ids on the disk, memory mapped.

    Attributes:
        ids: (n,) uint16 or uint32.
        parts: the sources, without gaps.
        held_out: name -> text that was kept back for validation.
        digest: hexadecimal SHA-256 of ids and index.
    """

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / _INDEX_NAME).read_text(encoding="utf-8"))
            self.parts = [Part(**part) for part in index["parts"]]
            self.ids: np.ndarray = np.memmap(folder / _TOKENS_NAME, dtype=index["dtype"], mode="r")
            self.held_out = {name: bytes.fromhex(text) for name, text in index["held_out"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LLMZipError(f"{folder}: the tokens cannot be read: {error}") from None
        sha = hashlib.sha256((folder / _INDEX_NAME).read_bytes())
        for start in range(0, len(self.ids), 1 << 22):
            sha.update(self.ids[start : start + (1 << 22)].tobytes())
        self.digest = sha.hexdigest()


def write(
    folder: Path,
    sources: Sequence[Source],
    names: Sequence[str],
    tokenizer: Tokenizer,
    hold_out: bool,
    tick: Callable[[int], Any],
) -> None:
    """Tokenises all sources into `folder`; documents are separated by a NUL byte.

    Args:
        folder: for the ids and their index.
        sources: to read.
        names: the arguments that the files came from; held-out text is told by them if they are few, or by --mix
            patterns.
        tokenizer: to use.
        hold_out: whether to keep every hundredth block back, or fewer, for some 1 MiB in all at most.
        tick: called with bytes of text that were tokenised.
    """
    dtype = np.dtype("<u2" if tokenizer.table.vocab_size <= 1 << 16 else "<u4")
    total = sum(source.size for source in sources)
    size = min(_MAX_BLOCK, max(_MIN_BLOCK, total // (4 * _HELD_OUT_EVERY)))
    every = max(_HELD_OUT_EVERY, -(-total // _MAX_HELD_OUT))
    parts: list[Part] = []
    held_out: dict[str, list[bytes]] = {}
    number = written = 0
    with open(folder / _TOKENS_NAME, "wb") as out:

        def flush(waiting: bytearray) -> int:
            ids = tokenizer.encode(bytes(waiting))
            out.write(ids.astype(dtype).tobytes())
            tick(len(waiting))
            waiting.clear()
            return len(ids)

        for source in sources:
            start, num_bytes, waiting, apart = written, 0, bytearray(), False
            for file in source.files:
                for block in texts.blocks(file.path, size):
                    number += 1
                    apart |= block.begins  # also where the beginning is held out
                    if hold_out and number % every == every // 2:
                        own = source.name != _REST
                        name = source.name if own else names[file.source] if len(names) <= _MOST_NAMES else "held out"
                        held_out.setdefault(name, []).append(block.data)
                        continue
                    if apart and (written > start or waiting):
                        waiting += b"\0"
                    apart = False
                    waiting += block.data
                    num_bytes += len(block.data)
                    if len(waiting) >= _ENCODE_BYTES:
                        written += flush(waiting)
            written += flush(waiting)
            if written > start:
                parts.append(Part(source.name, start, written - start, num_bytes, source.share))
    index = {
        "dtype": dtype.str,
        "parts": [vars(part) for part in parts],
        "held_out": {name: b"\0".join(kept).hex() for name, kept in held_out.items()},
    }
    (folder / _INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


# -- the order of the training sequences -----------------------------------------------------------------------------


class Order:
    """Where each training sequence begins.

    A source is cut into sequences at an offset that differs in each epoch, and they are taken in an order that differs
    too. Sources take turns in proportion to their shares (Sainte-Laguë's method), so each has had its share at any
    time, to within a few sequences.

    Args:
        parts: of the dataset.
        sequence: T, tokens of a sequence.
        total: sequences in all.
        seed: of everything random.

    Raises:
        SettingsError: a source that is too short for one sequence.
    """

    def __init__(self, parts: Sequence[Part], sequence: int, total: int, seed: int) -> None:
        for part in parts:
            if part.length < 2 * sequence:
                raise SettingsError(
                    f"{part.name or 'the text'}: {part.length:,} tokens are too few for sequences of {sequence:,}; "
                    "choose a shorter --sequence"
                )
        self._parts, self._sequence, self._seed = parts, sequence, seed
        # Sequence k of a source with share p is due at time (k + phase) / p.
        shares = np.array([part.share for part in parts])
        shares /= shares.sum()
        counts = np.ceil(shares * total).astype(np.int64) + 1
        source = np.repeat(np.arange(len(parts)), counts)
        number = np.concatenate([np.arange(count) for count in counts])
        due = np.argsort((number + 0.5) / shares[source], kind="stable")[:total]
        self._source, self._number = source[due], number[due]
        self._epochs: dict[tuple[int, int], np.ndarray] = {}

    def starts(self, first: int, count: int) -> np.ndarray:
        """(count,) int64: where sequences first, first + 1, ... begin in the ids."""
        return np.array([self._start(n) for n in range(first, first + count)], dtype=np.int64)

    def epochs(self, total: int) -> float:
        """How often the first `total` sequences go through all tokens, on average over the tokens."""
        return total * self._sequence / sum(part.length for part in self._parts)

    def _start(self, n: int) -> int:
        source = int(self._source[n])
        part = self._parts[source]
        per_epoch = part.length // self._sequence - 1
        epoch, place = divmod(int(self._number[n]), per_epoch)
        if (source, epoch) not in self._epochs:
            random = _random(self._seed, f"epoch {epoch} of source {source}")
            offset = int(random.random_raw()) % self._sequence
            order = np.argsort(random.random_raw(per_epoch), kind="stable")
            self._epochs = {key: value for key, value in self._epochs.items() if key[0] != source}
            self._epochs[source, epoch] = part.start + offset + self._sequence * order
        return int(self._epochs[source, epoch][place])


def _random(seed: int, purpose: str) -> np.random.Philox:
    """A bit generator whose raw output numpy promises never to change."""
    digest = hashlib.sha256(f"llmzip train, seed {seed}, {purpose}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))
