"""From text files to token ids on the disk, and which part of them each training sequence is. Must not know models.

Everything random comes from SHA-256 or Philox counters of the seed, so the order is the same on every machine, and the
sequences of any step are known without those before.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import LLMZipError, SettingsError
from ..models.tokenizer import Tokenizer
from . import texts

_SLICE_BYTES = 3000  # of each sample for the tokenizer
_SLICES = 4000  # samples of each source
_SURVEY_BLOCK_BYTES = 1 << 13  # 8 KiB: what one sample is taken from
_MIN_BLOCK_BYTES = 1 << 7  # of what is held out or not as a whole
_MAX_BLOCK_BYTES = 1 << 16  # 64 KiB
_HELD_OUT_EVERY = 100  # blocks
_MAX_HELD_OUT_BYTES = 1 << 20  # 1 MiB in all, roughly
_MAX_NAMES = 8  # of arguments that held-out text is reported by
_ENCODE_BYTES = 1 << 22  # 4 MiB go to the tokenizer at once
_DIGEST_IDS = 1 << 22  # ids that are digested at once
_REST = ""
"""Name of the files that no pattern matches; no pattern is empty."""

_TOKENS_NAME = "tokens.bin"
_INDEX_NAME = "tokens.json"

Progress = Callable[[int], Any]
"""Called with bytes of text that were read or tokenised."""


# -- first reading: how much there is, and samples for the tokenizer -------------------------------------------------


@dataclass
class Source:
    """The files of one --mix pattern, or all that match none.

    Attributes:
        name: the pattern, or "".
        files: files that match it, in order.
        size: bytes of their text.
        share: part of the training sequences that come from them.
        slices: parts of at most 3,000 bytes from all over, for the tokenizer.
    """

    name: str
    files: list[texts.TextFile]
    size: int = 0
    share: float = 0.0
    slices: list[bytes] = field(default_factory=list)


def survey(
    files: Sequence[texts.TextFile], mix: Mapping[str, float], seed: int, progress: Progress | None = None
) -> list[Source]:
    """Reads all text once: sizes, and for each source a uniform sample of slices (Vitter 1985, algorithm R).

    Args:
        files: to read.
        mix: pattern of file names -> share of the training sequences; files that no pattern matches get the rest.
        seed: of the sample.
        progress: called with bytes that were read.

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
            for block in texts.blocks(file.path, _SURVEY_BLOCK_BYTES):
                source.size += len(block.data)
                if progress is not None:
                    progress(len(block.data))
                seen += 1
                place = seen - 1 if seen <= _SLICES else int(random.random_raw()) % seen
                if place < _SLICES:
                    start = int(random.random_raw()) % max(1, len(block.data) - _SLICE_BYTES)
                    piece = block.data[start : start + _SLICE_BYTES]
                    source.slices[place : place + 1] = [piece]
    with_text = [source for source in sources.values() if source.size]
    total = sum(source.size for source in with_text)
    if total < texts.MIN_BYTES:
        raise texts.too_little(total)
    return with_text


def _set_shares(sources: Mapping[str, Source], mix: Mapping[str, float]) -> None:
    """Sets each source's share; files that no pattern matches get what the patterns leave."""
    missing = [pattern for pattern in mix if pattern not in sources]
    if missing:
        raise SettingsError(f"--mix {missing[0]}: no file matches")
    given, rest = math.fsum(mix.values()), sources.get(_REST)
    if rest is not None and given > 1 - 1e-9:
        raise SettingsError(f"--mix: the shares sum to {given:g} and leave nothing for {rest.files[0].path.name}")
    for source in sources.values():
        source.share = 1 - given if source is rest else mix[source.name] / (given if rest is None else 1)


def samples(sources: Sequence[Source], total_bytes: int = 12_000_000) -> Iterator[bytes]:
    """Yields slices of all sources by their shares, `total_bytes` in all if there are that many."""
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
        start, length: place in the file, in tokens.
        num_bytes: bytes of the text that they stand for.
        share: part of the training sequences that come from it.
    """

    name: str
    start: int
    length: int
    num_bytes: int
    share: float


class Dataset:
    """Token ids on the disk, memory mapped.

    Args:
        folder: that `write` wrote to.

    Attributes:
        ids: (n,) uint16 or uint32.
        parts: the sources, without gaps.
        held_out: name -> text that was held out for validation.
        digest: hexadecimal SHA-256 of ids and index.

    Raises:
        LLMZipError: the files are missing or damaged.
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
        for start in range(0, len(self.ids), _DIGEST_IDS):
            sha.update(self.ids[start : start + _DIGEST_IDS].tobytes())
        self.digest = sha.hexdigest()

    @property
    def num_bytes(self) -> int:
        """Bytes of the text that the ids stand for."""
        return sum(part.num_bytes for part in self.parts)


class _TokenFile:
    """Tokenises text as it comes in and appends the ids to a file."""

    def __init__(self, out: BinaryIO, tokenizer: Tokenizer, progress: Progress | None) -> None:
        self.dtype = np.dtype("<u2" if tokenizer.table.vocab_size <= 1 << 16 else "<u4")
        self.length = 0
        self._out, self._tokenizer, self._progress = out, tokenizer, progress
        self._waiting = bytearray()

    @property
    def is_waiting(self) -> bool:
        """Whether there is text that was not tokenised yet."""
        return bool(self._waiting)

    def add(self, text: bytes) -> None:
        """Takes text; what is tokenised at once depends on its length alone."""
        self._waiting += text
        if len(self._waiting) >= _ENCODE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Tokenises the text that is waiting."""
        ids = self._tokenizer.encode(bytes(self._waiting))
        self._out.write(ids.astype(self.dtype).tobytes())
        self.length += len(ids)
        if self._progress is not None:
            self._progress(len(self._waiting))
        self._waiting.clear()


def write(
    folder: Path,
    sources: Sequence[Source],
    names: Sequence[str],
    *,
    tokenizer: Tokenizer,
    hold_out: bool,
    progress: Progress | None = None,
) -> None:
    """Tokenises all sources into `folder`; documents are separated by a NUL byte.

    Args:
        folder: for the ids and their index.
        sources: to read.
        names: the arguments that the files came from; held-out text is named after them if they are few, or after
            --mix patterns.
        tokenizer: to use.
        hold_out: hold out every hundredth block, or fewer, for 1 MiB in all at most, roughly.
        progress: called with bytes of text that were tokenised.
    """
    total = sum(source.size for source in sources)
    block_bytes = min(_MAX_BLOCK_BYTES, max(_MIN_BLOCK_BYTES, total // (4 * _HELD_OUT_EVERY)))
    every = max(_HELD_OUT_EVERY, -(-total // _MAX_HELD_OUT_BYTES))
    parts: list[Part] = []
    held_out: dict[str, list[bytes]] = {}
    number = 0
    with open(folder / _TOKENS_NAME, "wb") as out:
        tokens = _TokenFile(out, tokenizer, progress)
        for source in sources:
            start, num_bytes, is_new = tokens.length, 0, False
            for file in source.files:
                for block in texts.blocks(file.path, block_bytes):
                    number += 1
                    is_new |= block.begins  # also where the beginning is held out
                    if hold_out and number % every == every // 2:
                        held_out.setdefault(_held_out_name(source, file, names), []).append(block.data)
                        continue
                    separator = b"\0" if is_new and (tokens.length > start or tokens.is_waiting) else b""
                    is_new = False
                    tokens.add(separator + block.data)
                    num_bytes += len(block.data)
            tokens.flush()
            if tokens.length > start:
                parts.append(Part(source.name, start, tokens.length - start, num_bytes, source.share))
    index = {
        "dtype": tokens.dtype.str,
        "parts": [vars(part) for part in parts],
        "held_out": {name: b"\0".join(blocks).hex() for name, blocks in held_out.items()},
    }
    (folder / _INDEX_NAME).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _held_out_name(source: Source, file: texts.TextFile, names: Sequence[str]) -> str:
    """Returns the name that held-out text of a file is reported by."""
    if source.name != _REST:
        return source.name
    return names[file.source] if len(names) <= _MAX_NAMES else "held out"


# -- the order of the training sequences -----------------------------------------------------------------------------


class Order:
    """The order of the training sequences: where each begins.

    A source is cut into sequences at an offset that differs in each epoch, and they are taken in an order that differs
    too. Sources take turns in proportion to their shares (Sainte-Laguë's method), so each has had its share at any
    time, to within a few sequences.

    Args:
        parts: of the dataset.
        sequence: T, tokens of a sequence.
        total: number of sequences in all.
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
        """Returns (count,) int64: where sequences first, first + 1, ... begin in the ids."""
        return np.array([self._start(n) for n in range(first, first + count)], dtype=np.int64)

    def epochs(self, total: int) -> float:
        """Returns how often the first `total` sequences go through all tokens, on average over the tokens."""
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
    """Returns a bit generator whose raw output numpy promises never to change."""
    digest = hashlib.sha256(f"llmzip train, seed {seed}, {purpose}".encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little"))
