"""Opens models: engine, tokenizer and checked digests, one of each in memory; must not know frames or files."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..engines import planes, selftest_cache
from ..engines.exact import ExactEngine
from ..engines.gpu import devices
from ..errors import EngineError, ModelMismatchError
from ..format.headers import (  # fmt: skip
    DIGEST_BYTES,
    ENGINE_FLOAT,
    FLOAT_DTYPES,
    FLOAT_VERSION,
    USER_MODEL,
    Header,
    ModelRecord,
)
from ..models import conversion_cache
from ..models.choice import ModelChoice
from ..models.model import ExactModel
from ..models.tokenizer import Tokenizer
from ..models.weights import is_int8, load_model
from ..settings import USUAL_CONTEXT, EngineSettings
from ..system import forks, torchparts
from ..system.memory import allocations_checked
from . import prompt as prompts
from . import sample_text

if TYPE_CHECKING:
    from ..engines.floating import FloatEngine
    from ..mixing.vocabulary import Vocabulary
    from .prompt import Prompt


class Kernels(NamedTuple):
    """What computed a model.

    Attributes:
        text: what it was, and if that is not the fastest, why.
        is_slower: whether it is not the fastest that there is for the device.
    """

    text: str
    is_slower: bool

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: for messages.
        engine: that runs it.
        tokenizer: with the table of its tokens.
        embedded_code: of an embedded model, else None.
        record: what an archive may say of it.
        note: what else made it slower to load than it might be; empty for nothing.
    """

    name: str
    engine: ExactEngine | FloatEngine
    tokenizer: Tokenizer
    embedded_code: int | None
    record: ModelRecord
    note: str = ""

    @property
    def kernels(self) -> Kernels:
        """What computes it."""
        text: str = getattr(self.engine, "kernels_text", "transformers")
        is_slower: bool = getattr(self.engine, "is_slower", False)
        return Kernels(f"{text}; {self.note}", True) if self.note else Kernels(text, is_slower)

    def header(self, prompt: bytes) -> Header:
        """What an archive made with it begins with."""
        if not prompt and self.embedded_code is not None:
            return Header(self.embedded_code)
        digest = prompts.digest(prompt)[:DIGEST_BYTES] if prompt else b""
        return Header(USER_MODEL, dataclasses.replace(self.record, prompt_digest=digest))

    def prompt(self, text: bytes) -> Prompt | None:
        """A text that both sides know, as this model reads it."""
        if self._last_prompt[0] != text:
            self._last_prompt[:] = [text, prompts.make(text, self.tokenizer, self.engine.context) if text else None]
        found: Prompt | None = self._last_prompt[1]
        return found

    @forks.cached_property
    def _last_prompt(self) -> list[Any]:
        return [b"", None]

    @forks.cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens' tree, for the mixer."""
        from ..mixing.vocabulary import Vocabulary

        return Vocabulary(self.tokenizer.tokens.table)


def load(choice: ModelChoice, settings: EngineSettings) -> LoadedModel:
    """Loads a model, or returns the one that is in memory.

    Raises:
        ModelError, TokenizerError, EngineError: what is wrong with the model or the device, in one line.
        ResourceError: the model does not fit into the memory.
    """
    if settings.threads is not None and not forks.is_single():
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    device = find_device(settings.device)
    if device != "cpu" or choice.engine == ENGINE_FLOAT:
        torchparts.complete()  # transformers and compilers for GPUs may want all of torch
    threads = None
    if choice.engine == ENGINE_FLOAT:
        # Its bits depend on them: the archive's number, or the one of the run that writes. The exact engine's do not,
        # so that it stays in memory whatever the number is.
        fields = dict(part.split("=", 1) for part in choice.environment.split(" ") if "=" in part)
        named = fields.get("threads", "")
        threads = int(named) if named.isdigit() and 1 <= int(named) <= 4096 else torch.get_num_threads()
    stamp = tuple((file.name, file.stat().st_mtime_ns) for file in sorted(choice.folder.iterdir()) if file.is_file())
    with allocations_checked("not enough memory for the model"):
        return _load(choice, device, settings.batch_tokens, threads, stamp)


def all_devices(settings: EngineSettings) -> list[EngineSettings]:
    """The same settings for each device that frames can be shared out to: all CUDA devices if none was named."""
    found = devices.devices(find_device(settings.device))
    if len(found) == 1:
        return [settings]
    return [dataclasses.replace(settings, device=str(device)) for device in found]


class Models:
    """A model on every device that frames can be shared out to; on each it is loaded when it is first needed.

    Args:
        choice: the model; settings: where it runs.

    Raises:
        what `load` raises, from `__init__` or when a model is asked for.
    """

    def __init__(self, choice: ModelChoice, settings: EngineSettings) -> None:
        self._choice, self._devices = choice, all_devices(settings)
        self._loaded: dict[int, LoadedModel] = {}
        self._lock = forks.Lock()

    def __len__(self) -> int:
        """The number of devices."""
        return len(self._devices)

    def __getitem__(self, number: int) -> LoadedModel:
        """That of a frame: devices take turns."""
        forks.settle_torch()
        place = number % len(self._devices)
        with self._lock:
            if place not in self._loaded:
                self._loaded[place] = load(self._choice, self._devices[place])
            return self._loaded[place]


@functools.lru_cache(maxsize=2 * max(1, torch.cuda.device_count()))
def _load(
    choice: ModelChoice, device: str, batch_tokens: int | None, threads: int | None, stamp: tuple[object, ...]
) -> LoadedModel:
    del stamp  # only there so that changed files are loaded again
    engine: ExactEngine | FloatEngine
    if choice.engine == ENGINE_FLOAT:
        engine, record = _open_float(choice, torch.device(device), threads)
        note = ""
    else:
        note = selftest_cache.check(torch.device(device))
        engine, record = _open_exact(choice, torch.device(device), batch_tokens)
    tokenizer = Tokenizer(choice.folder, engine.vocab_size)
    record = dataclasses.replace(record, tokenizer_digest=tokenizer.tokens.digest())
    choice.check(record.model_digest, record.tokenizer_digest)
    stored = (choice.planes, choice.context, choice.start_token)
    own = (record.planes, record.context, record.start_token)
    if choice.expected is not None and choice.planes is not None and stored != own:
        raise ModelMismatchError(
            f"the archive's record contradicts the model: planes, context, start token {stored}, the model has {own}"
        )
    if choice.environment and choice.environment != record.environment:
        raise EngineError(
            f"made with the float engine in another environment: {choice.environment}; here: {record.environment}"
        )
    halves = {name: getattr(record, name)[:DIGEST_BYTES] for name in ("model_digest", "tokenizer_digest")}
    code = None if choice.embedded is None else choice.embedded.code
    return LoadedModel(choice.name, engine, tokenizer, code, dataclasses.replace(record, **halves), note)


def _open_exact(choice: ModelChoice, device: torch.device, batch_tokens: int | None) -> tuple[ExactEngine, ModelRecord]:
    """The exact engine; a checkpoint with the number of planes that a short text asks for."""

    def choose(model: ExactModel) -> tuple[int, int]:
        config = model.config
        ids = Tokenizer(choice.folder, config.vocab_size).encode(sample_text.TEXT.encode())[: config.context]
        row = np.concatenate([[config.start_token], ids])
        return planes.choose(model, [torch.from_numpy(row)], device).config.planes, len(ids)

    if is_int8(choice.folder):
        model = load_model(choice.folder)
    else:
        context = choice.context or USUAL_CONTEXT
        model = conversion_cache.load(choice.folder, context, choice.start_token, choice.planes, choose)
    config = model.config
    record = ModelRecord(choice.name, model.digest(), b"", config.planes, config.context, config.start_token)
    return ExactEngine(model, device, batch_tokens), record


def _open_float(choice: ModelChoice, device: torch.device, threads: int | None) -> tuple[FloatEngine, ModelRecord]:
    """The float engine, in so many threads."""
    from ..engines import floating

    number = choice.planes or 1
    dtype = FLOAT_DTYPES[number - 1]
    engine = floating.FloatEngine(choice.folder, device, dtype, choice.context, choice.start_token, threads)
    record = ModelRecord(
        choice.name,
        floating.digest(choice.folder),
        b"",
        number,
        engine.context,
        engine.start_token,
        ENGINE_FLOAT,
        FLOAT_VERSION,
        engine.environment(),
    )
    return engine, record


def find_device(name: str) -> str:
    """The device that a setting stands for: auto is CUDA if there is a usable one.

    Raises:
        EngineError: it is not here.
    """
    inherited: bool = getattr(torch.cuda, "_is_in_bad_fork", lambda: False)()  # torch's own name for such children
    if name == "auto":
        return "cuda" if not inherited and torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if inherited:
            raise EngineError(
                f"device {name}: CUDA cannot be used in a child of a process that has used it; start the child by "
                "multiprocessing's method spawn, or use the device cpu: the bits are the same"
            )
        if not torch.cuda.is_available():
            raise EngineError(
                f"device {name}: torch finds no CUDA device here ({devices.missing()}); use --device cpu, the bits are "
                "the same"
            )
        if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
            raise EngineError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices")
    return name
