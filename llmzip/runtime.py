"""Opens models: engine, tokenizer and checked digests, one of each in memory; must not know frames or files."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import sample
from .container import DIGEST_BYTES, USER_MODEL, Header, ModelRecord
from .engines import conversions, planes, selftest
from .engines.exact import ExactEngine
from .engines.model import ExactModel
from .engines.weights import is_int8, load_model
from .errors import EngineError, ModelMismatchError
from .models import ModelChoice
from .settings import EngineSettings
from .tokens import Tokenizer

if TYPE_CHECKING:
    from .mixing.vocabulary import Vocabulary

_USER_CONTEXT = 1024


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: for messages.
        engine: the exact engine.
        tokenizer: with the table of its tokens.
        header: what an archive made with it begins with.
    """

    name: str
    engine: ExactEngine
    tokenizer: Tokenizer
    header: Header

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens' tree, for the mixer."""
        from .mixing.vocabulary import Vocabulary

        return Vocabulary(self.tokenizer.tokens.table)


def load(choice: ModelChoice, settings: EngineSettings) -> LoadedModel:
    """Loads a model, or returns the one that is in memory.

    Raises:
        ModelError, TokenizerError, EngineError: what is wrong with the model or the device, in one line.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    device = find_device(settings.device)
    stamp = tuple((file.name, file.stat().st_mtime_ns) for file in sorted(choice.folder.iterdir()) if file.is_file())
    return _load(choice, device, settings.batch_tokens, stamp)


@functools.lru_cache(maxsize=2)
def _load(choice: ModelChoice, device: str, batch_tokens: int | None, stamp: tuple[object, ...]) -> LoadedModel:
    del stamp  # only there so that changed files are loaded again
    model = _open(choice, torch.device(device))
    config = model.config
    tokenizer = Tokenizer(choice.folder, config.vocab_size)
    model_digest, tokenizer_digest = model.digest(), tokenizer.tokens.digest()
    choice.check(model_digest, tokenizer_digest)
    stored, own = (
        (choice.planes, choice.context, choice.start_token),
        (config.planes, config.context, config.start_token),
    )
    if choice.planes is not None and stored != own:
        raise ModelMismatchError(
            f"the archive's record contradicts the model: planes, context, start token {stored}, the model has {own}"
        )
    if choice.embedded is not None:
        header = Header(choice.embedded.code)
    else:
        record = ModelRecord(
            choice.name,
            model_digest[:DIGEST_BYTES],
            tokenizer_digest[:DIGEST_BYTES],
            config.planes,
            config.context,
            config.start_token,
        )
        header = Header(USER_MODEL, record)
    selftest.check(torch.device(device))
    return LoadedModel(choice.name, ExactEngine(model, device, batch_tokens), tokenizer, header)


def _open(choice: ModelChoice, device: torch.device) -> ExactModel:
    """The weights of a folder; those of a checkpoint with the number of planes that a short text asks for."""
    if is_int8(choice.folder):
        return load_model(choice.folder)

    def choose(model: ExactModel) -> ExactModel:
        config = model.config
        ids = Tokenizer(choice.folder, config.vocab_size).encode(sample.TEXT.encode())[: config.context]
        row = np.concatenate([[config.start_token], ids])
        return planes.choose(model, [torch.from_numpy(row)], device)

    context = choice.context or _USER_CONTEXT
    return conversions.load(choice.folder, context, choice.start_token, choice.planes, choose)


def find_device(name: str) -> str:
    """The device that a setting stands for: auto is CUDA if there is a usable one.

    Raises:
        EngineError: it is not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise EngineError(
                f"device {name}: torch finds no CUDA device here; use --device cpu, the bits are the same"
            )
        if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
            raise EngineError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices")
    return name
