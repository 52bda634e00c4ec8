"""Chooses how bytes become frames: which method, over which pieces; knows no archives, streams or files.

Cheap methods are simply tried. The language model is asked about samples first, because it takes long. The model and
torch are loaded only when they are needed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CorruptError, EngineError, ResourceError
from ..format import headers
from ..format.headers import LM, MIXED, STORED, FrameHeader, Header
from ..format.plan import RowPlan, profile_plan
from ..models.choice import ModelChoice
from ..settings import MAX_LEVEL, CompressSettings
from ..system import forks
from . import methods
from .parallel import in_order, one_at_a_time

if TYPE_CHECKING:
    import numpy as np

    from ..engines.base import Engine
    from ..inference.load import Kernels, LoadedModel, Models
    from ..inference.prompt import Prompt
    from ..mixing.vocabulary import Vocabulary

Progress = Callable[[int], None]

PIECE_BYTES = headers.MAX_LM_BYTES
"""Input of one frame of the methods lm and mixed."""

_LM_ONLY_LEVEL = 1
_ROWS = (
    (128, 2048), (128, 2048), (192, 1536), (256, 1024), (384, 512), (512, 256), (1024, 128), (4096, 64), (1 << 14, 64),
)  # fmt: skip
"""Tokens that a row has at least, and the most rows, of each level: docs/speed.md has what was measured."""

_MOST_ROW_BYTES, _LEAST_BATCH_TOKENS = 1 << 30, 64
_EXPLICIT = 3
"""The profile whose frames say themselves how many rows they have."""

_SAMPLED_FROM_BYTES = 1 << 15
_SAMPLES = 4
_LOOKS = ((1 / 32, 1536, 1.25), (1 / 16, 8192, 1.1))
"""Without the mixer. Part of the piece in each sample, and the most bytes of it; the factor by which the model's bits
per byte may exceed those of the plain methods on the whole piece, as each sample begins with an empty context."""

_MIXED_PART, _LEAST_SAMPLE_BYTES, _MOST_SAMPLE_BYTES = 1 / 64, 512, 4096
_MODEL_GAIN = 0.97
"""With the mixer: the model must bring samples, each with nothing learnt, to this part of their size without it. It
helps a sample more than the whole piece, so that little is missed, and what is wrongly tried costs only time."""

_LEAST_BYTES_PER_TOKEN = 2
"""Of texts, about: how many tokens a piece may have when it is asked how many pieces fit into the memory."""

_HOPELESS = 0.5
"""Nor is the model asked if the plain methods need less than this part of the mixer without it: far repetitions. That
is found out where they need less than this part of what samples need, which is more than the whole piece does."""


class Draft(NamedTuple):
    """A frame that is not marked as last or not.

    Attributes:
        header, payload: of the frame.
        original: the bytes it stands for.
        bits: ideal length, where there is one.
    """

    header: FrameHeader
    payload: bytes
    original: bytes
    bits: float | None = None

    @property
    def bytes(self) -> int:
        """Size of the packed frame."""
        return headers.frame_bytes(self.header)


class Drafter:
    """Drafts frames.

    Args:
        choice: the model.
        settings: level and engine.
        progress: called with numbers of bytes of the original that were done.
    """

    def __init__(self, choice: ModelChoice, settings: CompressSettings, progress: Progress | None) -> None:
        self._choice = choice
        self._settings = settings
        self._progress = one_at_a_time(progress)
        self._lock = forks.Lock()
        self._models: Models | None = None

    def header(self) -> Header:
        """What an archive begins with if it needs the model; loads one whose digests must be told."""
        embedded = self._choice.embedded
        if embedded is not None and not self._settings.prompt:
            return Header(embedded.code)
        return self._model().header(self._settings.prompt)

    def best_frames(self, data: bytes, alone: bool) -> list[Draft]:
        """Frames for up to 64 MiB: the plain methods over all of it, or piece by piece whatever is smallest.

        Args:
            data: at least 1 byte.
            alone: whether the archive holds nothing else; then its header tells the model only if a frame needs it.
        """
        if self._settings.window_bits is not None:
            return self._windows(data, self._settings.window_bits)
        whole = _plain_draft(data)
        pieces = [data[n : n + PIECE_BYTES] for n in range(0, len(data), PIECE_BYTES)]
        drafts: list[Draft] = []
        run: list[bytes] = []  # pieces for the plain methods, which do better with all of them together

        def work(numbered: tuple[int, bytes]) -> Draft | None:
            number, piece = numbered
            plain = whole if len(pieces) == 1 else _plain_draft(piece)
            with self._told(len(piece)) as tell:
                draft = self._best_draft(piece, plain, number, tell)
            return None if draft is plain else draft

        for (_, piece), draft in in_order(enumerate(pieces), work, lambda numbered: self._at_once(numbered[1])):
            if draft is None:
                run.append(piece)
            else:
                drafts += _run_drafts(run, whole)
                run = []
                drafts.append(draft)
        drafts += _run_drafts(run, whole)
        size = sum(draft.bytes for draft in drafts) + 10 * (len(drafts) - 1)  # about 10 bytes each in the index
        if alone and any(draft.header.uses_model for draft in drafts):
            size += len(headers.pack_header(self.header())) - len(headers.pack_header(Header()))
        return drafts if size < whole.bytes else [whole]

    def _windows(self, data: bytes, window_bits: int) -> list[Draft]:
        """Frames of windows; what would be larger than it is, is stored."""
        from ..windows import frames

        size = frames.piece_bytes(window_bits)
        texts = [data[n : n + size] for n in range(0, len(data), size)]
        drafts: list[Draft] = []
        # As many side by side as hold what a frame of the other methods does.
        together = max(1, PIECE_BYTES // size)
        for begin in range(0, len(texts), together):
            part = texts[begin : begin + together]
            with self._told(sum(map(len, part))) as tell:
                found = frames.encode(self._model(), part, window_bits, self._settings.model_reset, tell)
            for text, coded in zip(part, found, strict=True):
                stored = Draft(FrameHeader(STORED, False, len(text), len(text)), text, text)
                draft = stored if coded is None else Draft(*coded, text)
                drafts.append(_smaller(draft, stored))
        return drafts

    @property
    def kernels(self) -> Kernels | None:
        """What computes the model, once it is loaded."""
        return None if self._models is None else self._models[0].kernels

    def _model(self, number: int = 0) -> LoadedModel:
        """That of a piece; loaded at the first call."""
        with self._lock:
            if self._models is None:
                from ..inference.load import Models

                self._models = Models(self._choice, self._settings.engine)
        return self._models[number]

    def _at_once(self, piece: bytes) -> int:
        """How many pieces may be worked on side by side; until the first has needed the model, nobody knows."""
        if self._models is None or self._settings.prompt:  # what has read a prompt is for one frame at a time
            return 1
        from .rows import frames_at_once

        model, level = self._models[0], self._settings.level
        most_tokens = max(1, len(piece) // _LEAST_BYTES_PER_TOKEN)
        plan, _ = level_plan(level, most_tokens, model.engine, self._settings)
        return frames_at_once(model.engine, plan, level > _LM_ONLY_LEVEL, len(self._models))

    def _token_draft(
        self, data: bytes, level: int, progress: Progress | None, number: int, trial: bool = False
    ) -> Draft | None:
        """The data through the model, with the mixer from level 2 on; None if it has more tokens than bytes.

        Args:
            number: of the piece.
            trial: only the length counts, so that whether it decodes is not tried.
        """
        model = self._model(number)
        tokens = model.tokenizer.encode(data)
        if len(tokens) > len(data):  # nearly all escaped
            return None
        # Rows and overlap that were asked for are meant for frames: a sample would be nothing but beginnings of rows.
        settings = replace(self._settings, rows=None, overlap=None) if trial else self._settings
        prompt = model.prompt(self._settings.prompt)
        before = 0 if prompt is None else len(prompt.context)
        plan, profile = level_plan(level, len(tokens), model.engine, settings, before)
        mixed = level > _LM_ONLY_LEVEL and model.tokenizer.tokens.escape is None
        vocabulary = model.vocabulary if mixed else None
        report = None
        if progress is not None:
            table = model.tokenizer.tokens
            report = lambda ids: progress(table.num_bytes(ids))  # noqa: E731
        payload, bits = _encode(model, tokens, plan, report, vocabulary, prompt, trial)
        record = (plan.num_rows, plan.overlap) if profile == _EXPLICIT else ()
        header = FrameHeader(MIXED if mixed else LM, False, len(data), len(payload), len(tokens), profile, *record)
        return Draft(header, payload, data, bits)

    @contextlib.contextmanager
    def _told(self, num_bytes: int) -> Iterator[Progress]:
        """A progress for some bytes: what was not told in between is told at the end."""
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            told += done
            if self._progress is not None and done:
                self._progress(done)

        yield tell
        tell(num_bytes - told)

    def _best_draft(self, piece: bytes, plain: Draft, number: int, tell: Progress) -> Draft:
        """The smallest of the piece's drafts that are worth their time; of a short piece no samples are taken."""
        if methods.looks_random(piece):
            return plain
        short = len(piece) < _SAMPLED_FROM_BYTES
        if self._settings.level == _LM_ONLY_LEVEL:
            best, is_worth_it = plain, short or self._lm_looks_good(piece, plain, number)
        else:
            best, is_worth_it = (
                (_smaller(plain, _adaptive_draft(piece)), True) if short else self._mixing(piece, plain, number)
            )
        if not is_worth_it:
            return best
        tokens = self._token_draft(piece, self._settings.level, tell, number)
        return best if tokens is None else _smaller(best, tokens)

    def _lm_looks_good(self, piece: bytes, plain: Draft, number: int) -> bool:
        """Whether samples of the piece come out small enough without the mixer."""
        plain_bits = 8 * len(plain.payload) / len(piece)
        for part, most, factor in _LOOKS:
            samples = _samples(piece, min(int(part * len(piece)), most))
            bits = self._sample_bits(samples, _LM_ONLY_LEVEL, number)
            if bits > factor * plain_bits * sum(len(sample) for sample in samples):
                return False
        return True

    def _mixing(self, piece: bytes, plain: Draft, number: int) -> tuple[Draft, bool]:
        """The best draft without the model, and whether the model helps the mixer enough in samples of the piece.

        Where it does, the mixer without it is not tried on the whole piece, unless far repetitions are likely.
        """
        sample_bytes = min(max(int(_MIXED_PART * len(piece)), _LEAST_SAMPLE_BYTES), _MOST_SAMPLE_BYTES)
        samples = _samples(piece, sample_bytes)
        alone = sum(_adaptive_draft(sample).bits or 0.0 for sample in samples)
        best = plain
        if 8 * plain.bytes / len(piece) < _HOPELESS * alone / (_SAMPLES * sample_bytes):
            best = _smaller(plain, adaptive := _adaptive_draft(piece))
            if plain.bytes < _HOPELESS * adaptive.bytes:
                return best, False
        if self._sample_bits(samples, MAX_LEVEL, number) <= _MODEL_GAIN * alone:
            return best, True
        return (_smaller(plain, _adaptive_draft(piece)) if best is plain else best), False

    def _sample_bits(self, samples: list[bytes], level: int, number: int) -> float:
        """Ideal length of samples through the model, each by itself."""
        drafts = [self._token_draft(sample, level, None, number, trial=True) for sample in samples]
        return math.fsum(math.inf if draft is None or draft.bits is None else draft.bits for draft in drafts)


def _samples(data: bytes, sample_bytes: int) -> list[bytes]:
    """A few places of the data, evenly spread."""
    step = (len(data) - sample_bytes) // (_SAMPLES - 1)
    return [data[n * step : n * step + sample_bytes] for n in range(_SAMPLES)]


def level_plan(
    level: int, num_tokens: int, engine: Engine[Any], settings: CompressSettings, before: int = 0
) -> tuple[RowPlan, int]:
    """The rows of a frame, and the profile that says so in its header (format section 4).

    More rows decode faster, as they share the reading of the weights and each sees fewer tokens before it; fewer rows
    are smaller. The profile is the one whose rows these are, if there is one among fast (0) for levels 1-3, normal (1)
    for 4-6, best (2) for 7-9. No frame has more rows than decode in a gigabyte, whatever this machine has, unless the
    user says so or rows would be longer than the format allows. `before`: tokens of a prompt in each row's context.
    """
    profile = (level - 1) // 3
    usual = profile_plan(profile, num_tokens, engine.context)
    tokens_per_row, most_rows = _ROWS[level - 1]
    rows = max(1, min(num_tokens // tokens_per_row, most_rows))
    steps = min(engine.context, before - (-num_tokens // rows))
    if engine.step_bytes(rows, 1, steps) > _MOST_ROW_BYTES:
        rows = min(rows, max(1, _MOST_ROW_BYTES // engine.step_bytes(1, 1, engine.context)))
    # A row has a longest length by the format, whatever was asked for.
    rows = max(min(settings.rows or rows, num_tokens), -(-num_tokens // headers.MAX_STEPS))
    plan = RowPlan(num_tokens, rows, min(settings.overlap or usual.overlap, engine.context - 1))
    return plan, profile if plan == usual else _EXPLICIT


def _encode(
    model: LoadedModel,
    tokens: np.ndarray,
    plan: RowPlan,
    report: Callable[[np.ndarray], None] | None,
    vocabulary: Vocabulary | None,
    prompt: Prompt | None,
    trial: bool,
) -> tuple[bytes, float]:
    """Payload and ideal bits; with less at once if the memory does not do.

    Raises:
        EngineError: the float engine does not decode what it encoded.
        ResourceError: there is not enough memory, however little is done at once.
    """
    from ..system.memory import allocations_checked
    from . import rows

    engine = model.engine
    while True:
        try:
            with allocations_checked("not enough memory for the model; fewer rows need less (levels -7 to -9)"):
                payload, bits = rows.encode(engine, tokens, plan, report, vocabulary, prompt)
                break
        except ResourceError:
            if engine.stepwise or engine.batch_tokens <= _LEAST_BATCH_TOKENS:
                raise
            engine.batch_tokens //= 2
            report = None  # what is done again is not told again
    if engine.stepwise and not trial and not _comes_back(model, tokens, payload, plan, vocabulary, prompt):
        raise EngineError("the float engine does not decode what it encoded: its results vary on this machine")
    return payload, bits


def _comes_back(
    model: LoadedModel,
    tokens: np.ndarray,
    payload: bytes,
    plan: RowPlan,
    vocabulary: Vocabulary | None,
    prompt: Prompt | None,
) -> bool:
    """Whether a payload decodes to its tokens."""
    from . import rows

    table = model.tokenizer.tokens
    most = table.num_bytes(tokens)
    try:
        back = rows.decode(model.engine, payload, plan, table.num_bytes, most, None, vocabulary, prompt)
    except CorruptError:
        return False
    return bool((back == tokens).all())  # as many they are


def _plain_draft(data: bytes) -> Draft:
    method, payload = methods.compress_plain(data)
    return Draft(FrameHeader(method, False, len(data), len(payload)), payload, data)


def _run_drafts(run: list[bytes], whole: Draft) -> list[Draft]:
    """The frame of neighbouring pieces; the whole unit's is known already."""
    data = b"".join(run)
    if not data:
        return []
    return [whole if len(data) == len(whole.original) else _plain_draft(data)]


def _smaller(first: Draft, second: Draft) -> Draft:
    return min(first, second, key=lambda draft: draft.bytes)


def _adaptive_draft(data: bytes) -> Draft:
    from ..mixing.mixer import encode_bytes

    payload, bits = encode_bytes(data)
    return Draft(FrameHeader(MIXED, False, len(data), len(payload)), payload, data, bits)
