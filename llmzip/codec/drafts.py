"""Drafts of frames: bytes coded by each method that is worth its time, of which the smallest is chosen.

What is worth its time is the policy of levels.py. Knows no archives, streams or files. The model and torch are loaded
only when they are needed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CorruptError, EngineError
from ..format import writing
from ..format.headers import LM, LZMA, MIXED, STORED, ZSTD, FrameHeader, Header
from ..format.plan import RowPlan
from ..inference.on_demand import ModelOnDemand
from ..inference.progress import Progress, in_bytes
from ..settings import MAX_LEVEL, MIN_LEVEL, CompressSettings
from . import levels, methods
from .levels import LEVELS, PIECE_BYTES
from .parallel import in_order, one_at_a_time

if TYPE_CHECKING:
    import numpy as np

    from ..inference.load import LoadedModel
    from ..inference.row_start import RowStart
    from ..models.token_table import TokenTable
    from .intervals import CodedRows
    from .rows import FrameCoder

_INDEX_ENTRY_BYTES = 10
"""About what each further frame takes in the archive's index."""


class Draft(NamedTuple):
    """A frame as one method would write it, not yet marked as the archive's last one or not.

    Attributes:
        header: of the frame.
        payload: of the frame.
        original: the bytes that it stands for.
        bits: ideal length of the payload, where there is one.
    """

    header: FrameHeader
    payload: bytes
    original: bytes
    bits: float | None = None

    @property
    def bytes(self) -> int:
        """Size of the packed frame in bytes."""
        return writing.frame_bytes(self.header)

    @property
    def is_plain(self) -> bool:
        """Whether the method is one that learns nothing, and does better with neighbouring pieces together."""
        return self.header.method in (STORED, LZMA, ZSTD)


class _Piece(NamedTuple):
    """Up to 2 MiB of text, for one frame of the methods lm and mixed.

    Attributes:
        number: of the piece in its unit; devices take turns.
        data: its bytes.
    """

    number: int
    data: bytes


def cut_pieces(data: bytes, size: int | None = None) -> list[bytes]:
    """Cuts data into pieces of some bytes, 2 MiB unless said otherwise, and a rest."""
    size = size or PIECE_BYTES
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


class Drafter:
    """Drafts frames and chooses among them.

    Args:
        model: loaded when a draft needs it.
        settings: level, rows and windows.
        progress: called with numbers of bytes of the original that were done.
    """

    def __init__(self, model: ModelOnDemand, settings: CompressSettings, progress: Progress | None) -> None:
        self._model = model
        self._settings = settings
        self._progress = one_at_a_time(progress)

    def best_frames(self, data: bytes, *, alone: bool, pieces: Iterable[Draft] | None = None) -> list[Draft]:
        """Returns frames for up to 64 MiB: the plain methods over all of it, or piece by piece whatever is smallest.

        Args:
            data: at least 1 byte.
            alone: whether the archive holds nothing else; then its header names the model only if a frame needs it.
            pieces: what `piece_drafts` gives for the data, if that was made before; windows have no pieces.
        """
        if self._settings.window_bits is not None:
            return self._windows(data, self._settings.window_bits)
        size = self._settings.frame_bytes
        if size is not None and len(data) > size:  # no frame may hold more than a piece
            return list(self.piece_drafts(data))
        whole = _plain_draft(data)
        drafts: list[Draft] = []
        run: list[Draft] = []  # pieces for the plain methods, which do better with all of them together
        for draft in self.piece_drafts(data, whole) if pieces is None else pieces:
            if draft.is_plain:
                run.append(draft)
                continue
            drafts += _run_drafts(run, whole)
            run = []
            drafts.append(draft)
        drafts += _run_drafts(run, whole)
        size = sum(draft.bytes for draft in drafts) + _INDEX_ENTRY_BYTES * (len(drafts) - 1)
        if alone and any(draft.header.uses_model for draft in drafts):
            size += len(writing.pack_header(self._model.archive_header())) - len(writing.pack_header(Header()))
        return drafts if size < whole.bytes else [whole]

    def piece_drafts(self, data: bytes, whole: Draft | None = None) -> Iterator[Draft]:
        """Yields the smallest draft of each piece of up to 2 MiB, or the size of the settings, in their order.

        Args:
            data: at least 1 byte.
            whole: the draft of all the data by the plain methods, if it was made before; an only piece needs no other.
        """
        pieces = [_Piece(number, part) for number, part in enumerate(cut_pieces(data, self._settings.frame_bytes))]

        def work(piece: _Piece) -> Draft:
            plain = whole if whole is not None and len(pieces) == 1 else _plain_draft(piece.data)
            with self._all_reported(len(piece.data)) as progress:
                return min(self._candidates(piece, plain, progress), key=lambda draft: draft.bytes)

        return (draft for _, draft in in_order(pieces, work, self._frames_at_once))

    def _frames_at_once(self, piece: _Piece) -> int:
        """Returns how many pieces may be worked on side by side: 1 until one of them has needed the model."""
        loaded, level = self._model.loaded, self._settings.level
        if loaded is None:
            return 1
        plan, _ = levels.level_plan(level, levels.max_tokens(len(piece.data)), loaded.engine, self._settings)
        return self._model.frames_at_once(plan, mixed=LEVELS[level].mixes)

    @contextlib.contextmanager
    def _all_reported(self, num_bytes: int) -> Iterator[Progress]:
        """Gives a progress for some bytes; what was not reported in between is reported at the end."""
        reported = 0

        def report(done: int) -> None:
            nonlocal reported
            reported += done
            if self._progress is not None and done:
                self._progress(done)

        yield report
        report(num_bytes - reported)

    # -- which drafts are made ---------------------------------------------------------------------------------------

    def _candidates(self, piece: _Piece, plain: Draft, progress: Progress) -> Iterator[Draft]:
        """Yields the drafts of a piece that are worth their time, the plain one first."""
        yield plain
        if methods.looks_random(piece.data):
            return
        if LEVELS[self._settings.level].mixes:
            yield from self._mixed_candidates(piece, plain, progress)
        elif not levels.needs_samples(len(piece.data)) or self._looks_good(piece, plain):
            yield from self._by_model(piece, plain, progress)

    def _mixed_candidates(self, piece: _Piece, plain: Draft, progress: Progress) -> Iterator[Draft]:
        """Yields drafts by the mixer, without the model and with it.

        Where the model helps, the mixer without it is not tried on the whole piece, unless far repetitions are likely.
        """
        data = piece.data
        if not levels.needs_samples(len(data)):
            yield _adaptive_draft(data)
            yield from self._by_model(piece, plain, progress)
            return
        sample_bytes = levels.mixer_sample_bytes(len(data))
        samples = levels.samples(data, sample_bytes)
        bits_without = sum(_adaptive_draft(sample).bits or 0.0 for sample in samples)
        has_adaptive = False
        if levels.model_may_be_hopeless(8 * plain.bytes / len(data), bits_without / (len(samples) * sample_bytes)):
            adaptive = _adaptive_draft(data)
            has_adaptive = True
            yield adaptive
            if levels.model_is_hopeless(plain.bytes, adaptive.bytes):
                return
        if levels.model_helps(self._sample_bits(samples, MAX_LEVEL, piece.number), bits_without):
            yield from self._by_model(piece, plain, progress)
        elif not has_adaptive:
            yield _adaptive_draft(data)

    def _looks_good(self, piece: _Piece, plain: Draft) -> bool:
        """Whether samples of the piece come out small enough by the model alone."""
        plain_bits = 8 * len(plain.payload) / len(piece.data)
        for look in levels.LOOKS:
            samples = levels.samples(piece.data, look.sample_bytes(len(piece.data)))
            bits = self._sample_bits(samples, MIN_LEVEL, piece.number)
            sampled_bytes = sum(map(len, samples))
            if not look.is_good(bits, sampled_bytes, plain_bits):
                return False
            if look.is_clear(bits, sampled_bytes, plain_bits):
                return True
        return True

    def _sample_bits(self, samples: list[bytes], level: int, number: int) -> float:
        """Returns the ideal length of samples by the model, each by itself.

        Args:
            number: of their piece.
        """
        pieces = [_Piece(number, sample) for sample in samples]
        if self._samples_use_one_thread(level, number):
            from ..system.threads import workers

            futures = [workers.submit(self._token_draft, piece, level, None) for piece in pieces]
            drafts = [future.result() for future in futures]
        else:
            drafts = [self._token_draft(piece, level, None) for piece in pieces]
        return math.fsum(math.inf if draft.bits is None else draft.bits for draft in drafts)

    def _samples_use_one_thread(self, level: int, number: int) -> bool:
        """Whether samples are rows by themselves, which would leave all threads but one idle if they came in turn.

        Samples in several rows share them out; what a prompt has taught the mixer is for one thread at a time.
        """
        engine = self._model.load(number).engine
        return level == MAX_LEVEL and engine.is_compiled and engine.callers > 1 and not self._model.prompt

    # -- drafts by the model -----------------------------------------------------------------------------------------

    def _by_model(self, piece: _Piece, plain: Draft, progress: Progress) -> Iterator[Draft]:
        """Yields the draft by the model at the level of the settings."""
        yield self._token_draft(piece, self._settings.level, progress, plain=plain)

    def _token_draft(
        self, piece: _Piece, level: int, progress: Progress | None, *, plain: Draft | None = None
    ) -> Draft:
        """Returns the piece by the model, with the mixer if the level says so.

        Args:
            plain: the piece by the methods that need no model; None for a sample, of which only the length counts.
        """
        from .rows import FrameCoder

        model, data, is_sample = self._model.load(piece.number), piece.data, plain is None
        table = model.table
        tokens = model.tokenizer.encode(data)
        # Rows and overlap that were asked for are meant for frames: a sample would be nothing but beginnings of rows.
        settings = replace(self._settings, rows=None, overlap=None) if is_sample else self._settings
        prompt = model.prompt(self._model.prompt)
        prompt_tokens = 0 if prompt is None else len(prompt.context)
        mixed = LEVELS[level].mixes
        start = None if plain is None or settings.rows else _row_start(model, tokens, plain, mixed=mixed)
        plan, profile = levels.level_plan(level, len(tokens), model.engine, settings, prompt_tokens, start)
        coder = FrameCoder(model.engine, model.vocabulary if mixed else None, prompt)
        payload, bits = _coded(coder, tokens, plan, table, progress)
        if model.engine.stepwise and not is_sample and not _comes_back(coder, tokens, payload, plan):
            raise EngineError("the float engine does not decode what it encoded: its results vary on this machine")
        header = FrameHeader(MIXED if mixed else LM, len(data), len(payload), num_tokens=len(tokens), profile=profile)
        if header.has_explicit_rows:
            header = replace(header, rows=plan.num_rows, overlap=plan.overlap)
        return Draft(header, payload, data, bits)

    def _windows(self, data: bytes, window_bits: int) -> list[Draft]:
        """Returns frames of windows; what would be larger than its text is stored."""
        from ..windows import frames

        size = frames.piece_bytes(window_bits)
        size = min(size, self._settings.frame_bytes or size)
        texts = [data[begin : begin + size] for begin in range(0, len(data), size)]
        drafts: list[Draft] = []
        # As many side by side as hold what a frame of the other methods does.
        together = max(1, PIECE_BYTES // size)
        for begin in range(0, len(texts), together):
            part = texts[begin : begin + together]
            with self._all_reported(sum(map(len, part))) as progress:
                coded = frames.encode(
                    self._model.load(), part, window_bits, fresh=self._settings.model_reset, progress=progress
                )
            for text, frame in zip(part, coded, strict=True):
                stored = Draft(FrameHeader.stored(len(text)), text, text)
                drafts.append(min(Draft(*frame, text), stored, key=lambda draft: draft.bytes))
        return drafts


def _coded(
    coder: FrameCoder, tokens: np.ndarray, plan: RowPlan, table: TokenTable, progress: Progress | None
) -> CodedRows:
    """Codes the tokens of a frame; with less at once if the memory is too small."""
    from ..inference.capacity import with_smaller_batches

    return with_smaller_batches(
        coder.engine,
        lambda report: coder.encode(tokens, plan, report),
        in_bytes(progress, table.num_bytes),
        "not enough memory for the model; fewer rows need less (levels -7 to -9)",
    )


def _row_start(model: LoadedModel, tokens: np.ndarray, plain: Draft, *, mixed: bool) -> RowStart | None:
    """Returns what a row's start costs in a text; None if that is part of what the levels mean."""
    from ..inference import row_start
    from ..inference.capacity import with_smaller_batches

    if not row_start.matters(model):
        return None
    usually = row_start.usual(model.engine, 8 * plain.bytes / len(tokens))
    runs = row_start.runs_of(tokens)
    start = with_smaller_batches(model.engine, lambda _: row_start.measured(model.engine, runs, usually), None)
    return start.mixed() if mixed else start


def _comes_back(coder: FrameCoder, tokens: np.ndarray, payload: bytes, plan: RowPlan) -> bool:
    """Whether a payload decodes to its tokens."""
    from ..inference.progress import ByteMeter

    try:
        decoded = coder.decode(payload, plan, ByteMeter(len, len(tokens)))
    except CorruptError:
        return False
    return bool((decoded == tokens).all())  # there are as many


def _plain_draft(data: bytes) -> Draft:
    """Returns the smallest draft by the methods that learn nothing: stored, LZMA, Zstandard."""
    method, payload = methods.compress_plain(data)
    return Draft(FrameHeader(method, len(data), len(payload)), payload, data)


def _adaptive_draft(data: bytes) -> Draft:
    """Returns the draft by the mixer without a model."""
    from ..mixing.mixer import encode_bytes

    payload, bits = encode_bytes(data)
    return Draft(FrameHeader.adaptive(len(data), len(payload)), payload, data, bits)


def _run_drafts(run: list[Draft], whole: Draft) -> list[Draft]:
    """Returns the frame of neighbouring pieces for the plain methods; a piece's and the whole unit's are known."""
    if len(run) < 2:
        return run
    data = b"".join(draft.original for draft in run)
    return [whole if len(data) == len(whole.original) else _plain_draft(data)]
