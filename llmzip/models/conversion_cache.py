"""Conversions of checkpoints to integers, kept on the disk so that each is made once; must not know text.

A kept conversion is a shortcut and nothing else: its digest is compared when it is read, and one that is damaged is
rebuilt. It is a weight file of version 2, so its weights are mapped, not read: the file is replaced as a whole or not
at all, and what is mapped stays what it was. Context, start token and planes do not change the weights, so one
conversion serves all. Next to it are the numbers of planes that were measured for it, and the digest for each of these
settings: to compare that one, the weights are read once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from .._version import NUMERICS_VERSION
from ..errors import ModelUnsupportedError
from ..system import cache
from . import layout
from .config import MISSTATED, ExactConfig
from .int8form import read_int8, write_int8
from .matrix import Int8Matrix
from .model import ExactModel
from .weights import load_model

_VERSION = 5
_MIN_KEPT_BYTES = 1 << 25
"""32 MiB of int8 weights: smaller models are converted in a blink."""
_MAX_JSON_BYTES = 1 << 16  # 64 KiB
_MAX_DIGESTS = 32
"""Settings whose digests are kept, the newest."""


class Conversion:
    """The conversion of one checkpoint, read from the cache if the checkpoint has not changed since it was kept.

    Args:
        folder: of a checkpoint in the Hugging Face layout; or a GGUF file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept = _kept_path(folder)

    def load(self, context: int, start_token: int | None, planes: int | None = None) -> ExactModel:
        """Returns the checkpoint as integers; keeps a new conversion in the cache.

        Args:
            context: positions that the model sees, cut to what it was made for.
            start_token: id that each row begins with; None for the model's own.
            planes: 1 or 2; None for the number that was measured, or 2.

        Raises:
            ModelNotFoundError, ModelUnsupportedError: those of `weights.load_model`.
        """
        kept = None if self._kept is None else _read(self._kept)
        if kept is not None and self._kept is not None:
            try:
                model = self._with_settings(kept.model, context, start_token, planes)
            except ModelUnsupportedError:
                if _has_its_digest(kept):
                    raise  # the settings are wrong, and not what is kept
            else:
                if _is_intact(model, kept, self._kept.with_suffix(".digests")):
                    return model
        # With all positions, so that it serves whatever is asked for.
        whole = load_model(self._folder)
        if self._kept is not None and _is_large(whole):
            _write(whole, self._kept)
        return self._with_settings(whole, context, start_token, planes)

    def _with_settings(
        self, model: ExactModel, context: int, start_token: int | None, planes: int | None
    ) -> ExactModel:
        """Returns a conversion with the settings that `load` was asked for."""
        first = model.config.start_token if start_token is None else start_token
        try:
            model = model.with_settings(planes or 2, min(context, model.config.context), first)
            number = self.measured_planes(model.config) if planes is None else None
            return model if number is None else model.with_settings(number, model.config.context, first)
        except ModelUnsupportedError as error:
            raise ModelUnsupportedError(f"model {self._folder}: {error}") from None

    def measured_planes(self, config: ExactConfig) -> int | None:
        """Returns the number of planes that was measured with these settings, or with the same tokens; None for none.

        Args:
            config: of the loaded model.
        """
        for context, start_token, tokens, number in [] if self._choices is None else _read_choices(self._choices):
            # Fewer tokens than the context holds are the whole text.
            is_same_text = context == config.context or (tokens < context and tokens <= config.context)
            if is_same_text and start_token == config.start_token and number in (1, 2):
                return number
        return None

    def keep_planes(self, model: ExactModel, planes: int, tokens: int) -> None:
        """Keeps a number of planes next to the conversion.

        Args:
            model: with the settings that the number was measured with.
            planes: 1 or 2.
            tokens: how many tokens it was measured on, at most the context.
        """
        if self._choices is None or not _is_large(model):
            return
        config = model.config
        choices = [*_read_choices(self._choices), [config.context, config.start_token, tokens, planes]]
        cache.replace(self._choices, lambda name: Path(name).write_text(json.dumps(choices), encoding="ascii"))

    @property
    def _choices(self) -> Path | None:
        """The file of the measured numbers of planes."""
        return None if self._kept is None else self._kept.with_suffix(".planes")


def _read_choices(path: Path) -> list[list[int]]:
    """Reads the choices of planes: [context, start token, tokens, planes] each. Whatever is damaged is left out."""
    choices = _read_json(path)
    if not isinstance(choices, list):
        return []
    return [x for x in choices if isinstance(x, list) and len(x) == 4 and all(type(value) is int for value in x)]


def _read_json(path: Path) -> Any:
    """Reads one of the small files next to a conversion; returns None if it is missing or damaged."""
    try:
        return json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _kept_path(folder: Path) -> Path | None:
    """Returns the file for a checkpoint's conversion, named after the checkpoint's files; None if there is no place."""
    base = cache.folder("models")
    try:
        is_file = layout.is_gguf(folder)
        files = layout.model_files(folder) if is_file else [*folder.glob("*.safetensors"), *folder.glob("*.json")]
        name = cache.name(f"{_VERSION} {NUMERICS_VERSION}", sorted(files))
    except (OSError, ModelUnsupportedError):
        return None
    return None if base is None else base / f"{name}.int8"


class _Kept(NamedTuple):
    """A conversion as it is in the cache, whose weights nobody has looked at yet.

    Attributes:
        model: with the settings that it was kept with.
        digest: what the model's digest must be.
    """

    model: ExactModel
    digest: bytes


def _read(path: Path) -> _Kept | None:
    """Maps a kept conversion; returns None if it is missing or not the form of a model."""
    try:
        model, digest = read_int8(path)
    except (OSError, ModelUnsupportedError, RecursionError, *MISSTATED):
        return None
    return None if digest is None else _Kept(model, digest)


def _has_its_digest(kept: _Kept) -> bool:
    """Whether a kept conversion is what was written; reads all weights."""
    return kept.model.digest() == kept.digest


def _is_intact(model: ExactModel, kept: _Kept, path: Path) -> bool:
    """Whether a kept conversion is what was written; reads all weights, once if the digest for the settings is known.

    Args:
        model: the conversion with the settings that are wanted.
        kept: the same as it was read.
        path: of the file with the digests for other settings: {SHA-256 of the settings: digest}.
    """
    digests = _read_json(path)
    digests = digests if isinstance(digests, dict) else {}
    settings = hashlib.sha256(model.config.canonical()).hexdigest()
    if settings in digests and digests[settings] == model.digest().hex():
        return True
    # New settings, or a list that is damaged itself: the digest that was written with the weights decides.
    if not _has_its_digest(kept):
        return False
    recent = list(digests.items())[1 - _MAX_DIGESTS :]
    listed = json.dumps({**dict(recent), settings: model.digest().hex()})
    cache.replace(path, lambda name: Path(name).write_text(listed, encoding="ascii"))
    return True


def _is_large(model: ExactModel) -> bool:
    """Whether converting a model takes long enough to keep the result."""
    return sum(t.size for t in model.tensors().values() if isinstance(t, Int8Matrix)) >= _MIN_KEPT_BYTES


def _write(model: ExactModel, path: Path) -> None:
    """Keeps a conversion; one that cannot be written is made again the next time."""
    if cache.replace(path, lambda name: write_int8(model, Path(name))):
        cache.remove_older(path)
