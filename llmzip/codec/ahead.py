"""Tokens of small frames, decoded before their turn and many frames together; knows no files or options.

A model reads all of its weights for every step, however few rows take part in it. So the frames of many small archives
cost least when their rows advance in lockstep. What is decoded here are tokens and nothing else: an archive's own turn
still parses it, bounds its text, compares its checksums and reports what is wrong with it. Whatever is odd or fails
ahead is left to that turn.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import LLMZipError
from ..format.headers import ENGINE_FLOAT, LM, MIXED, Frame, FrameHeader, Header
from ..format.plan import RowPlan, header_plan
from ..format.reading import read_archives
from ..inference.on_demand import ModelOnDemand
from ..models.choice import model_for_archive
from ..settings import DecompressSettings
from ..system import forks

if TYPE_CHECKING:
    import numpy as np

    from ..inference.load import LoadedModel

ItemT = TypeVar("ItemT")

MAX_ARCHIVE_BYTES = 64 * 1024
"""Size of an input up to which it is looked at ahead."""

_MAX_ITEMS = 128
_MAX_BYTES = 4 << 20  # 4 MiB
_MAX_TOKENS = 1 << 16
"""What is looked at together: no more inputs, and none once there are so many bytes or tokens.

So many tokens take some ten seconds of a core: as long may a run seem to stand still, and an interrupt cost no more.
"""

_MAX_ROWS = 256
"""Rows that advance together, and at which no more inputs are looked at: more make hardly better use of the weights."""

_MAX_FRAMES = 3
_MAX_FRAME_TOKENS = 1 << 14
"""Frames of an input, and tokens of each, up to which it counts as small: larger ones have rows enough of their own."""

_MAX_MODELS = 2
"""Models that are used together; `inference.load` keeps as many, so that each is loaded once."""


class _Key(NamedTuple):
    """What tokens depend on, and nothing else.

    Attributes:
        model: decodes them; a model that was loaded anew is another one.
        method: LM or MIXED.
        plan: the frame's rows.
        payload: what the tokens are decoded from.
    """

    model: LoadedModel
    method: int
    plan: RowPlan
    payload: bytes


@dataclass
class _Entry:
    """Tokens that wait for their turn.

    Attributes:
        uses: number of frames that are alike in everything that tokens depend on.
        tokens: (N,) int64; None before they are decoded, and if they cannot be.
        seconds: share of each of these frames in the time that looking ahead took, loading of a model included.
    """

    uses: int = 0
    tokens: np.ndarray | None = None
    seconds: float = 0.0


class DecodedAhead:
    """Tokens of frames whose turn will come, each used once; nothing here changes what a frame's turn gives.

    Several threads may call `take` at once.

    Args:
        settings: model and engine, as for the frames' turn.
        max_bytes: size of a text from which its archive is left to its turn; None for no limit.
    """

    def __init__(self, settings: DecompressSettings, max_bytes: int | None = None) -> None:
        self._settings, self._max_bytes = settings, max_bytes
        self._entries: dict[_Key, _Entry] = {}
        self._before: dict[_Key, _Entry] = {}  # threads may still be at the last items that were looked at
        self._lock = forks.Lock()

    def upcoming(self, items: Sequence[ItemT], read: Callable[[ItemT], bytes | None]) -> Iterator[ItemT]:
        """Yields items in their order; looks at some together before the first of them comes.

        Args:
            items: what is decompressed, one after the other.
            read: returns what an item holds now; None for an item that must be left to its turn, such as one of more
                than MAX_ARCHIVE_BYTES.
        """
        seen = 0
        for number, item in enumerate(items):
            if number == seen and len(items) > 1:
                seen += self._look_at(items[number : number + _MAX_ITEMS], read)
            yield item

    def take(self, model: LoadedModel, method: int, plan: RowPlan, payload: bytes) -> tuple[np.ndarray, float] | None:
        """Returns the tokens of a frame, (N,) int64, and the seconds that they took; None if they are not there.

        Args:
            model: the frame's model.
            method: the frame's method.
            plan: the frame's rows.
            payload: the frame's payload.
        """
        key = _Key(model, method, plan, payload)
        with self._lock:
            for entries in (self._entries, self._before):
                entry = entries.get(key)
                if entry is None or entry.tokens is None:
                    continue
                entry.uses -= 1
                if not entry.uses:
                    del entries[key]
                return entry.tokens, entry.seconds
        return None

    def _look_at(self, items: Sequence[ItemT], read: Callable[[ItemT], bytes | None]) -> int:
        """Decodes the frames of the first items, as many as the limits allow; returns how many it has looked at."""
        begin = time.perf_counter()
        frames: list[Frame] = []
        num_bytes = num_tokens = num_rows = count = 0
        for item in items:
            count += 1
            data: bytes | None = None
            with contextlib.suppress(Exception):  # its turn will report it
                data = read(item)
            if data is None or len(data) > MAX_ARCHIVE_BYTES:
                continue
            small = self._small_frames(data)
            frames += small
            num_bytes += len(data)
            num_tokens += sum(frame.header.num_tokens for frame in small)
            num_rows += sum(_rows(frame.header) for frame in small)
            if num_bytes >= _MAX_BYTES or num_tokens >= _MAX_TOKENS or num_rows >= _MAX_ROWS:
                break
        self._prepare(frames, begin)
        return count

    def _small_frames(self, data: bytes) -> list[Frame]:
        """Returns the frames of an input that can be decoded ahead; none if it is damaged or not small."""
        frames = []
        try:
            for frame in read_archives(io.BytesIO(data)):
                frames.append(frame)
                if len(frames) > _MAX_FRAMES:
                    return []
        except LLMZipError:
            return []
        if self._max_bytes is not None and sum(frame.header.original_bytes for frame in frames) > self._max_bytes:
            return []
        return [frame for frame in frames if _is_candidate(frame)]

    def _prepare(self, frames: list[Frame], begin: float) -> None:
        """Decodes frames together, and keeps their tokens instead of those before the last ones.

        Args:
            frames: those that can be decoded ahead.
            begin: when looking at them began.
        """
        ready: dict[_Key, _Entry] = {}
        if len(frames) > 1:
            for (model, method), group in self._groups(frames).items():
                for batch in _batches(group):
                    with contextlib.suppress(Exception):  # its turn will report it, if it happens there, too
                        _decode(model, method, batch)
                ready.update((key, entry) for key, entry in group.items() if entry.tokens is not None)
        num_tokens = sum(entry.uses * key.plan.num_tokens for key, entry in ready.items())
        for key, entry in ready.items():
            entry.seconds = (time.perf_counter() - begin) * key.plan.num_tokens / num_tokens
        with self._lock:
            self._before, self._entries = self._entries, ready

    def _groups(self, frames: Iterable[Frame]) -> dict[tuple[LoadedModel, int], dict[_Key, _Entry]]:
        """Returns the frames by model and method."""
        groups: dict[tuple[LoadedModel, int], dict[_Key, _Entry]] = {}
        models: dict[Header, ModelOnDemand | None] = {}
        for frame in frames:
            header = frame.archive
            if header not in models:
                models[header] = self._model_of(header) if len(models) < _MAX_MODELS else None
            on_demand = models[header]
            if on_demand is None:
                continue
            try:
                model = on_demand.load(frame.number)
                plan = header_plan(frame.header, model.engine.context)
            except Exception:  # its turn will report it
                models[header] = None
                continue
            if model.engine.stepwise or plan.steps > model.engine.context:
                continue  # its rows are not independent, or begin again
            group = groups.setdefault((model, frame.header.method), {})
            key = _Key(model, frame.header.method, plan, frame.payload)
            group.setdefault(key, _Entry()).uses += 1
        return groups

    def _model_of(self, header: Header) -> ModelOnDemand | None:
        """Returns the model of an archive; None if there is none to decode with."""
        try:
            return ModelOnDemand(model_for_archive(header, self._settings.model), self._settings.engine)
        except Exception:  # its turn will report it
            return None


def _is_candidate(frame: Frame) -> bool:
    """Whether a frame is small, and its tokens depend on nothing but model, rows and payload."""
    record = frame.archive.model
    depends = record is not None and (bool(record.prompt_digest) or record.engine == ENGINE_FLOAT)
    return frame.header.method in (LM, MIXED) and 0 < frame.header.num_tokens <= _MAX_FRAME_TOKENS and not depends


def _rows(header: FrameHeader) -> int:
    """Returns the rows of a frame, which are the same with every context."""
    return header.rows if header.has_explicit_rows else header_plan(header, 2).num_rows


def _batches(entries: dict[_Key, _Entry]) -> Iterator[list[tuple[_Key, _Entry]]]:
    """Yields entries that advance together: those of about as many steps, in batches of at most _MAX_ROWS rows."""
    batch: list[tuple[_Key, _Entry]] = []
    num_rows = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[0].plan.steps, reverse=True):
        if batch and num_rows + key.plan.num_rows > _MAX_ROWS:
            yield batch
            batch, num_rows = [], 0
        batch.append((key, entry))
        num_rows += key.plan.num_rows
    if batch:
        yield batch


def _decode(model: LoadedModel, method: int, batch: list[tuple[_Key, _Entry]]) -> None:
    """Decodes a batch: all of it if there is memory enough, else halves; a frame that is alone is left to its turn."""
    from ..inference import capacity
    from ..system.memory import allocations_checked
    from .rows import FrameCoder

    if sum(entry.uses for _, entry in batch) < 2:
        return
    plans = [key.plan for key, _ in batch]
    if not capacity.fit_together(model.engine, plans, mixed=method == MIXED):
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]) if middle else ():
            _decode(model, method, half)
        return
    coder = FrameCoder(model.engine, model.vocabulary if method == MIXED else None, followers=model.followers)
    with allocations_checked("not enough memory for the model"):
        decoded = coder.decode_together([(key.payload, key.plan) for key, _ in batch])
    for (_, entry), tokens in zip(batch, decoded, strict=True):
        if tokens is not None and tokens.max() < model.engine.vocab_size:
            entry.tokens = tokens
