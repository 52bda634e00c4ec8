"""Stores a model so that archives find it by its digests: the integers that it computes with, and its tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LLMZipError, ModelNotFoundError
from ..models import layout, store
from ..models.choice import choose_model
from ..models.config import MAX_CONTEXT
from ..models.conversion_cache import Conversion
from ..models.store import StoredModel
from ..models.weights import is_int8
from ..settings import EngineSettings
from . import load


def store_model(name: str | os.PathLike[str], place: Path | None = None) -> tuple[StoredModel, bool]:
    """Stores a copy of a model, which serves archives that were or will be made with it.

    Args:
        name: what the user calls it, as `reference.parse_model` takes it; downloads nothing.
        place: the folder to store it in; None for the user's own.

    Returns:
        the stored model, and whether it is new.

    Raises:
        ModelError, TokenizerError: the model cannot be loaded by the exact engine.
        EngineError, ResourceError: as `load.load`.
        LLMZipError: it is embedded, or it cannot be stored.
    """
    choice = choose_model(name)
    if choice.embedded is not None:
        raise LLMZipError(f"model {choice.name} is embedded in llmzip: archives find it without being stored")
    place = store.own_place() if place is None else place
    if place is None:
        raise ModelNotFoundError("there is no place for models: neither HOME nor XDG_DATA_HOME is set")
    loaded = load.load(choice, EngineSettings(device="cpu"))
    record, folder = loaded.record, choice.folder
    facts = StoredModel(
        folder,
        choice.name,
        record.model_digest.hex(),
        record.tokenizer_digest.hex(),
        is_converted=not is_int8(folder) or store.is_converted(folder),
        model_type=_model_type(folder),
    )
    if is_int8(folder):
        model = store.load(folder, planes=record.planes, context=MAX_CONTEXT, start_token=record.start_token)
    else:
        # All positions, so that it serves whatever context an archive was made with.
        model = Conversion(folder).load(MAX_CONTEXT, record.start_token, record.planes)
    return store.add(place, model, folder, facts)


def _model_type(folder: Path) -> str | None:
    """Returns the type that a checkpoint's configuration gives, or that is known of a stored one."""
    kind = layout.config_or_empty(folder).get("model_type")
    if isinstance(kind, str):
        return kind
    described = store.describe(folder) if is_int8(folder) else None
    return None if described is None else described.model_type
