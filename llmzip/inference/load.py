"""Loads models: engine, tokenizer and checked digests, one of each in memory; must not know frames or archives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._version import NUMERICS_VERSION
from ..engines import devices, planes, selftest_cache
from ..engines.exact import ExactEngine
from ..errors import EngineError, ModelMismatchError, ModelUnsupportedError
from ..format.headers import (  # fmt: skip
    DIGEST_BYTES,
    ENGINE_FLOAT,
    FLOAT_DTYPES,
    FLOAT_VERSION,
    USER_MODEL,
    CarriedModel,
    Header,
    ModelRecord,
)
from ..models import carried, layout, store
from ..models.choice import ModelChoice
from ..models.conversion_cache import Conversion
from ..models.model import ExactModel
from ..models.token_table import TokenTable, lacking_text
from ..models.tokenizer import TableTokenizer, Tokenizer
from ..models.weights import is_int8
from ..settings import USUAL_CONTEXT, EngineSettings
from ..system import cache, forks, threads, torchparts
from ..system.memory import allocations_checked
from . import prompt as prompts
from . import sample_text

if TYPE_CHECKING:
    from ..engines.floating import FloatEngine
    from ..mixing.followers import Followers
    from ..mixing.vocabulary import Vocabulary
    from .prompt import Prompt


_KEPT_MODELS = 2
"""Models of a device that stay in memory."""


class Kernels(NamedTuple):
    """What computed a model.

    Attributes:
        text: its name, and if it is not the fastest, why.
        is_slower: whether it is not the fastest that there is for the device.
    """

    text: str
    is_slower: bool

    def __str__(self) -> str:
        return self.text


@dataclass(eq=False)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: for messages.
        engine: computes the model.
        tokenizer: with the table of its tokens.
        embedded_code: code of an embedded model, else None.
        record: what an archive may say of the model, with half of each digest.
        note: what else made it slower to load than it might be; empty for nothing.
    """

    name: str
    engine: ExactEngine | FloatEngine
    tokenizer: Tokenizer
    embedded_code: int | None
    record: ModelRecord
    note: str = ""
    _last_prompt: tuple[bytes, Prompt | None] = field(default=(b"", None), init=False, repr=False)

    @property
    def table(self) -> TokenTable:
        """The bytes of every token."""
        return self.tokenizer.table

    @property
    def kernels(self) -> Kernels:
        """What computes the model."""
        text: str = getattr(self.engine, "kernels_text", "transformers")
        is_slower: bool = getattr(self.engine, "is_slower", False)
        return Kernels(f"{text}; {self.note}", True) if self.note else Kernels(text, is_slower)

    @property
    def tokenizer_note(self) -> str:
        """What the tokenizer lacks; empty for nothing."""
        return lacking_text(self.table.lacking)

    def header(self, prompt: bytes, *, by_record: bool = False) -> Header:
        """Returns what an archive begins with that is made by this model.

        Args:
            prompt: a text that it has read before; may be empty.
            by_record: name an embedded model by its digests, too.
        """
        if not prompt and not by_record and self.embedded_code is not None:
            return Header(self.embedded_code)
        digest = prompts.digest(prompt)[:DIGEST_BYTES] if prompt else b""
        return Header(USER_MODEL, dataclasses.replace(self.record, prompt_digest=digest))

    def prompt(self, text: bytes) -> Prompt | None:
        """Returns a text that both sides know as this model reads it, None for an empty one; the last one is kept."""
        last_text, prompt = self._last_prompt
        if last_text != text:
            prompt = prompts.make(text, self.tokenizer, self.engine.context) if text else None
            self._last_prompt = (text, prompt)
        return prompt

    @forks.cached_property
    def followers(self) -> Followers | None:
        """What usually comes after tokens, for guesses; None if nothing is known of this vocabulary."""
        from ..mixing.followers import followers_of

        return followers_of(self.table.digest(), self.engine.vocab_size)

    @forks.cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens' tree, for the mixer."""
        from ..mixing.vocabulary import Vocabulary

        return Vocabulary(self.table.entries)


def load(choice: ModelChoice, settings: EngineSettings) -> LoadedModel:
    """Loads a model, or returns the one that is in memory.

    Raises:
        ModelError, TokenizerError, EngineError: what is wrong with the model or the device.
        ResourceError: the model does not fit into the memory.
    """
    if settings.threads is not None and not forks.is_single():
        threads.set_count(settings.threads)
    device = devices.find(settings.device)
    float_threads = None
    if choice.engine == ENGINE_FLOAT:
        # Its bits depend on them: the archive's number, or the one of the run that writes. The exact engine's do not,
        # so it stays in memory whatever the number is.
        torchparts.complete()  # transformers may want all of torch
        from ..engines import floating

        float_threads = floating.threads_of(choice.environment) or threads.count()
    files = [] if choice.carried is not None else layout.model_files(choice.folder)
    stamp = tuple(cache.identity(file) for file in files)
    with allocations_checked("not enough memory for the model"):
        return _loader(device)(choice, device, settings.batch_tokens, float_threads, stamp)


def carried_model(choice: ModelChoice, loaded: LoadedModel) -> CarriedModel:
    """Returns a model as a file carries it, with the settings that it was loaded with.

    Raises:
        ModelUnsupportedError: it cannot be carried: it is one of the float engine, or readers would refuse it.
        ModelError: its files have changed.
    """
    record = loaded.record
    if record.planes is None:
        raise ModelUnsupportedError("a model of the float engine cannot be carried by a file")
    settings = {"planes": record.planes, "context": record.context, "start_token": record.start_token}
    if is_int8(choice.folder):
        model = store.load(choice.folder, **settings, expected=record.model_digest)
    else:
        model = Conversion(choice.folder).load(**settings)
    packed = carried.pack(model, loaded.table)
    if not packed.serves(record):
        raise ModelMismatchError(f"model {choice.folder}: its files were replaced while it was in use")
    return packed


def all_devices(settings: EngineSettings) -> list[EngineSettings]:
    """Returns the settings for each device that frames can be shared out to: all CUDA devices if none was named."""
    named = devices.all_of(devices.find(settings.device))
    if len(named) == 1:
        return [settings]
    return [dataclasses.replace(settings, device=device) for device in named]


class _Opened(NamedTuple):
    """An engine with its model and its tokenizer, whose digests were not compared yet.

    Attributes:
        engine: computes the model.
        tokenizer: with the table of its tokens.
        model_digest: all of it.
        planes: of the exact engine; None for the float engine.
        dtype: of the float engine; None for the exact engine.
        note: as in `LoadedModel`.
    """

    engine: ExactEngine | FloatEngine
    tokenizer: Tokenizer
    model_digest: bytes
    planes: int | None = None
    dtype: str | None = None
    note: str = ""


@functools.cache
def _loader(device: str) -> Callable[..., LoadedModel]:
    """Returns `_load`, which keeps the last models of a device."""
    return functools.lru_cache(maxsize=_KEPT_MODELS)(_load)


def forget() -> None:
    """Drops all models that are kept; those in use elsewhere stay in the memory until they are released."""
    _loader.cache_clear()


def _load(
    choice: ModelChoice, device: str, batch_tokens: int | None, threads: int | None, stamp: tuple[object, ...]
) -> LoadedModel:
    del stamp  # only there so that changed files are loaded again
    if choice.engine == ENGINE_FLOAT:
        opened = _open_float(choice, device, threads)
    else:
        opened = _open_exact(choice, device, batch_tokens)
    record = _checked_record(choice, opened, opened.tokenizer.table.digest())
    code = None if choice.embedded is None else choice.embedded.code
    return LoadedModel(choice.name, opened.engine, opened.tokenizer, code, record, opened.note)


def _checked_record(choice: ModelChoice, opened: _Opened, tokenizer_digest: bytes) -> ModelRecord:
    """Returns what an archive may say of a model, compared with what its archive does say.

    Raises:
        ModelMismatchError: another model than the archive's.
        EngineError: another environment of the float engine.
    """
    engine, is_float = opened.engine, choice.engine == ENGINE_FLOAT
    choice.check(opened.model_digest, tokenizer_digest)
    record = ModelRecord(
        name=choice.name,
        model_digest=opened.model_digest[:DIGEST_BYTES],
        tokenizer_digest=tokenizer_digest[:DIGEST_BYTES],
        context=engine.context,
        start_token=engine.start_token,
        planes=opened.planes,
        dtype=opened.dtype,
        numerics=FLOAT_VERSION if is_float else NUMERICS_VERSION,
        environment="" if isinstance(engine, ExactEngine) else engine.environment(),
    )
    stored = (choice.planes, choice.context, choice.start_token)
    loaded = (record.planes, record.context, record.start_token)
    if choice.expected is not None and choice.context is not None and stored != loaded:
        raise ModelMismatchError(
            f"the archive's record contradicts the model: planes, context, start token {stored}, the model has {loaded}"
        )
    if choice.environment and choice.environment != record.environment:
        raise EngineError(
            f"made with the float engine in another environment: {choice.environment}; here: {record.environment}"
        )
    return record


def _open_exact(choice: ModelChoice, device: str, batch_tokens: int | None) -> _Opened:
    """Opens the exact engine; a checkpoint with the archive's number of planes, or the one that suits it."""
    note = selftest_cache.check(device)
    if choice.carried is not None:
        model, table = carried.unpack(choice.carried)
        return _with_engine(model, TableTokenizer(table), device, batch_tokens, note=note)
    conversion = None if is_int8(choice.folder) else Conversion(choice.folder)
    if conversion is None:
        expected = choice.expected[0] if choice.expected is not None else b""
        model = store.load(
            choice.folder,
            planes=choice.planes,
            context=choice.context or USUAL_CONTEXT,
            start_token=choice.start_token,
            expected=expected,
        )
    else:
        note = selftest_cache.check(device, by_torch=True) or note  # torch converts
        model = conversion.load(choice.context or USUAL_CONTEXT, choice.start_token, choice.planes)
    tokenizer = Tokenizer(choice.folder, model.config.vocab_size)
    if conversion is not None and choice.planes is None:
        model = _with_measured_planes(conversion, model, tokenizer, device)
    return _with_engine(model, tokenizer, device, batch_tokens, note=note)


def _with_engine(
    model: ExactModel, tokenizer: Tokenizer, device: str, batch_tokens: int | None, *, note: str
) -> _Opened:
    """Opens the engine of a model."""
    engine = ExactEngine(model, device, batch_tokens, byte_tokens=tokenizer.table.num_byte_tokens)
    if engine.is_slower:
        note = selftest_cache.check(device, by_torch=True) or note
    return _Opened(engine, tokenizer, model.digest(), planes=model.config.planes, note=note)


def _with_measured_planes(conversion: Conversion, model: ExactModel, tokenizer: Tokenizer, device: str) -> ExactModel:
    """Returns a converted model with the number of planes that a short text asks for."""
    config = model.config
    number = conversion.measured_planes(config)
    if number is None:
        ids = tokenizer.encode(sample_text.TEXT.encode())[: config.context]
        row = np.concatenate([[config.start_token], ids])
        byte_tokens = tokenizer.table.num_byte_tokens
        number = planes.choose(model, [row], device, byte_tokens=byte_tokens).config.planes
        conversion.keep_planes(model, number, len(ids))
    return model.with_settings(number, config.context, config.start_token)


def _open_float(choice: ModelChoice, device: str, threads: int | None) -> _Opened:
    """Opens the float engine, to compute in a number of threads."""
    from ..engines import floating

    dtype = choice.dtype or FLOAT_DTYPES[0]
    engine = floating.FloatEngine(choice.folder, device, dtype, choice.context, choice.start_token, threads)
    tokenizer = Tokenizer(choice.folder, engine.vocab_size)
    engine.add_byte_tokens(tokenizer.table.num_byte_tokens)
    return _Opened(engine, tokenizer, floating.digest(choice.folder), dtype=dtype)
