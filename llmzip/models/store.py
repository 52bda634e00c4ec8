"""Models that are stored by digest, so that archives find them: where they are, what they are, how they are written.

A stored model is a folder with the int8 form, a tokenizer and `stored.json`, named by its two digests. One that was
made from a checkpoint serves every context, start token and number of planes, because these do not change the weights.
Folders in LLMZIP_MODEL_PATH may also hold models as `llmzip train` writes them. Must not know archives or engines.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LLMZipError, ModelNotFoundError, ModelUnsupportedError
from ..settings import USUAL_CONTEXT
from ..system import cache, data, folders
from . import layout
from .layout import INT8
from .tokenizer_file import TokenizerFile

if TYPE_CHECKING:
    from .model import ExactModel

PREFIX = "stored:"
"""Before a stored model's name or digest, where a user names a model."""
PATH_VARIABLE = "LLMZIP_MODEL_PATH"
_FACTS = "stored.json"
_MAX_FACTS_BYTES = 1 << 16  # 64 KiB
_MAX_FOLDERS = 10_000
"""Folders that are looked at in one place."""
_HALF_DIGEST = 16
"""Bytes of a digest in names and facts, as in archives."""
_DIGEST = re.compile("[0-9a-f]{32}")
_MIN_DIGEST_DIGITS = 4
"""Digits of a digest that name a model."""


@dataclass(frozen=True)
class StoredModel:
    """A model in the store.

    Attributes:
        folder: where it is.
        name: what archives and messages call it.
        model_digest: first half, in hexadecimal; of a converted checkpoint, with the settings that it has by default.
        tokenizer_digest: the same of its tokenizer; empty if nobody has computed it.
        is_converted: whether it was made from a checkpoint, and so serves every context and number of planes.
        model_type: of the checkpoint; None for others.
        is_added: whether `add` has written it; false for a folder that was only found.
    """

    folder: Path
    name: str
    model_digest: str
    tokenizer_digest: str
    is_converted: bool = False
    model_type: str | None = None
    is_added: bool = True


@dataclass(frozen=True)
class Wanted:
    """The model that an archive names.

    Attributes:
        model_digest, tokenizer_digest: first half of each.
        planes, context, start_token: its settings, which the model digest covers.
    """

    model_digest: bytes
    tokenizer_digest: bytes
    planes: int | None
    context: int
    start_token: int


# -- places ----------------------------------------------------------------------------------------------------------


def own_place() -> Path | None:
    """Returns the folder that models are added to; it need not exist. None without a home."""
    return data.folder("models")


def places() -> list[Path]:
    """Returns the folders in which models are looked for, in this order; they need not exist."""
    own = own_place()
    return [*_listed(), *([] if own is None else [own])]


def _listed() -> list[Path]:
    """Returns the folders that the environment variable lists."""
    return [Path(part) for part in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if part]


def places_text() -> list[str]:
    """Returns the places as messages list them."""
    own = own_place()
    return [f"{path} ({PATH_VARIABLE})" for path in _listed()] + ([] if own is None else [str(own)])


# -- finding ---------------------------------------------------------------------------------------------------------


def find(wanted: Wanted) -> Path | None:
    """Returns the folder of an archive's model, by its digests; None if it is in none of the places.

    Whether the weights are what they should be is compared when the model is loaded.
    """
    return next((folder for place in places() if (folder := _find_in(place, wanted)) is not None), None)


def _find_in(place: Path, wanted: Wanted) -> Path | None:
    named = place / _folder_name(wanted.model_digest.hex(), wanted.tokenizer_digest.hex())
    if (named / INT8).is_file():
        return named
    return next((folder for folder in _model_folders(place) if _is_it(folder, wanted)), None)


def _folder_name(model_digest: str, tokenizer_digest: str) -> str:
    return f"{model_digest}-{tokenizer_digest}"


def _model_folders(place: Path) -> Iterator[Path]:
    """Yields the folders with an int8 form: a place itself, and those in it."""
    try:
        names = sorted(entry.name for entry in os.scandir(place) if not entry.name.startswith("."))
    except OSError:
        return
    for folder in (place, *(place / name for name in names[:_MAX_FOLDERS])):
        if (folder / INT8).is_file():
            yield folder


def _is_it(folder: Path, wanted: Wanted) -> bool:
    """Whether a folder holds a model with other settings than its name says, or one that was not added."""
    model = describe(folder)
    if model is None or model.tokenizer_digest not in ("", wanted.tokenizer_digest.hex()):
        return False
    if model.model_digest == wanted.model_digest.hex():
        return True
    return model.is_converted and _digest_with(folder, wanted).startswith(wanted.model_digest)


def _digest_with(folder: Path, wanted: Wanted) -> bytes:
    """Returns the digest of a converted checkpoint with the settings of an archive; b"" if it cannot have them.

    It takes all weights, so it is kept in the cache.
    """
    from .int8form import read_int8

    settings = f"{wanted.planes} {wanted.context} {wanted.start_token}"
    with contextlib.suppress(OSError, ModelUnsupportedError):
        base = cache.folder("digests")
        kept = None if base is None else base / cache.name(f"stored {settings}", [folder / INT8])
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):
                return bytes.fromhex(kept.read_text(encoding="ascii")[:64])
        model, _ = read_int8(folder / INT8)
        if wanted.context <= model.config.context:
            planes = model.config.planes if wanted.planes is None else wanted.planes
            digest = model.with_settings(planes, wanted.context, wanted.start_token).digest()
            if kept is not None:
                cache.replace(kept, lambda name: Path(name).write_text(digest.hex(), encoding="ascii"))
            return digest
    return b""


def describe(folder: Path) -> StoredModel | None:
    """Returns what a folder says of its model; None if it does not hold one, or its description is damaged."""
    facts = _read_facts(folder)
    if facts is not None:
        return facts
    from .mappedfile import read_header

    try:
        digest = read_header(folder / INT8).digest[:_HALF_DIGEST].hex()
    except (OSError, ModelUnsupportedError):
        return None
    return StoredModel(folder, folder.resolve().name, digest, "", is_added=(folder / _FACTS).is_file())


def _read_facts(folder: Path) -> StoredModel | None:
    path = folder / _FACTS
    try:
        if path.stat().st_size > _MAX_FACTS_BYTES:
            return None
        facts = json.loads(path.read_bytes())
        digests = facts["model_digest"], facts["tokenizer_digest"]
        kind = facts["model_type"]
        if not all(_DIGEST.fullmatch(digest) for digest in digests) or not isinstance(kind, str | None):
            return None
        return StoredModel(folder, str(facts["name"]), *digests, bool(facts["is_converted"]), kind)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def stored() -> list[StoredModel]:
    """Returns all models in all places, in the order in which they are looked for."""
    models = [describe(folder) for place in places() for folder in _model_folders(place)]
    return [model for model in models if model is not None]


def named(text: str) -> list[StoredModel]:
    """Returns the models that a user's text means: a name, or the beginning of a model digest. Names come first."""
    models = list({model.folder.resolve(): model for model in stored()}.values())
    by_name = [model for model in models if model.name == text]
    if by_name or len(text) < _MIN_DIGEST_DIGITS:
        return by_name
    return [model for model in models if model.model_digest.startswith(text.lower())]


def one_named(text: str) -> StoredModel | None:
    """Returns the model that a user's text means, None for none. Equal models in several places are one.

    Raises:
        ModelNotFoundError: it means several.
    """
    models = named(text)
    tokenizers = {model.tokenizer_digest for model in models} - {""}
    if len({model.model_digest for model in models}) > 1 or len(tokenizers) > 1:
        digests = ", ".join(model.model_digest[:12] for model in models)
        raise ModelNotFoundError(f"model {PREFIX + text!r}: several stored models are meant; name a digest: {digests}")
    return models[0] if models else None


# -- loading ---------------------------------------------------------------------------------------------------------


def load(
    folder: Path, *, planes: int | None, context: int, start_token: int | None, expected: bytes = b""
) -> ExactModel:
    """Loads the int8 form in a folder, with other settings if it is a converted checkpoint; checks its digest.

    Args:
        folder: of a stored model, or of any other one with the int8 form, whose settings are its own.
        planes: 1 or 2; None for the model's own.
        context: positions, cut to what the model was made for.
        start_token: id that each row begins with; None for the model's own.
        expected: what the digest with these settings begins with, if that is known; the weights are then read once.

    Raises:
        ModelUnsupportedError: it cannot be read, or is damaged.
    """
    from .int8form import read_int8
    from .weights import load_model

    facts = _read_facts(folder)
    try:
        if facts is None or not facts.is_converted:
            return load_model(folder)
        model, digest = read_int8(folder / INT8)
        config = model.config
        first = config.start_token if start_token is None else start_token
        changed = model.with_settings(planes or config.planes, min(context, config.context), first)
        if not (expected and changed.digest().startswith(expected)) and model.digest() != digest:
            raise ModelUnsupportedError(f"model {folder}: {INT8}: damaged: the digest of its weights is wrong")
        return changed
    except ModelUnsupportedError as error:
        raise ModelUnsupportedError(f"{error}{advice(folder)}") from None


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a stored model that was made from a checkpoint."""
    facts = _read_facts(folder)
    return facts is not None and facts.is_converted


def advice(folder: Path) -> str:
    """Returns what to do about a damaged model, to follow a message; "" for one that is not stored."""
    if not (folder / _FACTS).is_file():
        return ""
    digest = folder.name.partition("-")[0]
    return f"; the stored model is damaged: `llmzip models remove {digest}` removes it, then add it again"


# -- writing ---------------------------------------------------------------------------------------------------------


def add(place: Path, model: ExactModel, source: Path, facts: StoredModel) -> tuple[StoredModel, bool]:
    """Stores a model, whole or not at all; what was written is read back and compared.

    Args:
        place: the folder to store it in, which is made if it is missing.
        model: the weights, with all positions if they are those of a checkpoint.
        source: where its tokenizer is: a folder, or a GGUF file.
        facts: what is known of it; its folder does not count.

    Returns:
        the stored model, and whether it is new; a damaged one is replaced.

    Raises:
        LLMZipError: it cannot be written.
        ModelError, TokenizerError: what was written is not what was meant.
    """
    name = place / _folder_name(facts.model_digest, facts.tokenizer_digest)
    described = {
        "schema": 1,
        "name": facts.name,
        "model_digest": facts.model_digest,
        "tokenizer_digest": facts.tokenizer_digest,
        "is_converted": facts.is_converted,
        "model_type": facts.model_type,
    }
    from .int8form import write_int8

    try:
        with folders.temporary(place) as folder:
            write_int8(model, folder / INT8)
            _copy_tokenizer(source, folder)
            (folder / _FACTS).write_text(json.dumps(described, indent=1) + "\n", encoding="ascii")
            check(folder)
            is_new = folders.publish(folder, name, _is_whole)
    except OSError as error:
        raise LLMZipError(f"the model cannot be stored in {place}: {error.strerror}") from None
    return StoredModel(name, *list(vars(facts).values())[1:]), is_new


def _copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies a tokenizer's files; a GGUF file's becomes a tokenizer.json."""
    if layout.is_gguf(source):
        text = json.dumps(TokenizerFile.read(source).description)
        (folder / "tokenizer.json").write_text(text, encoding="ascii")
        return
    names = ("tokenizer.json",) if (source / "tokenizer.json").exists() else ("vocab.json", "merges.txt")
    for name in names:
        shutil.copyfile(source / name, folder / name)


def check(folder: Path) -> StoredModel:
    """Compares a stored model, weights and tokenizer, with the digests in its description.

    Raises:
        ModelError, TokenizerError: it cannot be read, is damaged, or is another one.
    """
    from .token_table import TokenTable

    facts = describe(folder)
    if facts is None:
        raise ModelUnsupportedError(f"model {folder}: not a stored model, or its description is damaged")
    digest = bytes.fromhex(facts.model_digest)
    model = load(folder, planes=None, context=USUAL_CONTEXT, start_token=None, expected=digest)
    table = TokenTable(TokenizerFile.read(folder).byte_table(model.config.vocab_size))
    tokenizer_digest = table.digest()[:_HALF_DIGEST].hex()
    if facts.tokenizer_digest not in ("", tokenizer_digest):
        raise ModelUnsupportedError(
            f"model {folder}: its tokenizer is another one: expected tokenizer digest {facts.tokenizer_digest}, found "
            f"{tokenizer_digest}{advice(folder)}"
        )
    if not model.digest().startswith(digest):
        raise ModelUnsupportedError(f"model {folder}: its weights are those of another model{advice(folder)}")
    return facts


def _is_whole(folder: Path) -> bool:
    try:
        return _read_facts(folder) is not None and check(folder).is_added
    except (OSError, LLMZipError):
        return False


def remove(text: str) -> list[StoredModel]:
    """Removes the stored models that a user's text means, in whatever places they are.

    Raises:
        ModelNotFoundError: none, or several different ones.
        LLMZipError: it was not added by llmzip, or cannot be removed.
    """
    if one_named(text) is None:
        raise ModelNotFoundError(f"no stored model {text!r} in {', '.join(places_text()) or 'any place'}")
    models = [model for model in named(text) if model.is_added]
    if not models:
        raise LLMZipError(f"{named(text)[0].folder} is a model's folder of yours, not a stored copy; it is kept")
    for model in models:
        try:
            folders.remove(model.folder)
        except OSError as error:
            raise LLMZipError(f"{model.folder} cannot be removed: {error.strerror}") from None
    return models
