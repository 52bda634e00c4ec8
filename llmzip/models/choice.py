"""From a reference or an archive's header to a model's folder and the digests it must have; must not load models.

Only `fetch_model` goes to the Hub, and only for what a user named as org/name: a name without an owner is looked up on
this machine and nowhere else. An archive names its model by code or by digests; the name it carries is untrusted: it is
printed, and if it is an id with a commit it is looked up in the cache, where the digests then decide.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import (
    CorruptError,
    FormatError,
    LLMZipError,
    ModelError,
    ModelMismatchError,
    ModelNotFoundError,
    ModelUnsupportedError,
    SettingsError,
)
from ..format.headers import (
    DIGEST_BYTES,
    ENGINE_EXACT,
    ENGINE_FLOAT,
    NO_MODEL,
    USER_MODEL,
    CarriedModel,
    Header,
    ModelRecord,
)
from ..settings import CompressSettings
from . import hub, layout, store
from .embedded import EMBEDDED, RETIRED, EmbeddedModel, embedded_by_code
from .gguf import ollama
from .hub import Bar, HubId, Notice
from .reference import Kind, ModelRef, no_owner_text, not_found, parse_model, pinned

_NOWHERE = Path("(carried by the archive)")


@dataclass(frozen=True)
class ModelChoice:
    """A model to load, and how to run it.

    Attributes:
        name: for messages and for the archive's record.
        folder: where its files are; or the GGUF file that it is.
        embedded: the embedded model that it is; None for a user's model.
        expected: digests of model and tokenizer that it must have, whole or their first half; None for no expectation.
        planes: bit planes of its weights, 1 or 2, as an archive's record or the user says; None if neither does.
        context: positions that it sees; None as for `planes`.
        start_token: id that each row begins with; None as for `planes`.
        engine: ENGINE_EXACT or ENGINE_FLOAT.
        dtype: the float engine's number format; None for the exact engine, and for the float engine's default.
        environment: hardware and software that an archive of the float engine was made with; empty for others.
        carried: the model, if the archive's file carries it; `folder` then is no place.
    """

    name: str
    folder: Path
    embedded: EmbeddedModel | None = None
    expected: tuple[bytes, bytes] | None = None
    planes: int | None = None
    context: int | None = None
    start_token: int | None = None
    engine: int = ENGINE_EXACT
    dtype: str | None = None
    environment: str = ""
    carried: CarriedModel | None = None

    def check(self, model_digest: bytes, tokenizer_digest: bytes) -> None:
        """Compares the digests of what was loaded with the expected ones.

        Raises:
            ModelMismatchError: they differ; names both.
        """
        if self.expected is None:
            return
        for kind, expected, actual in zip(
            ("model", "tokenizer"), self.expected, (model_digest, tokenizer_digest), strict=True
        ):
            if not actual.startswith(expected):
                raise ModelMismatchError(
                    f"another {kind} than the archive's: expected {kind} digest {expected.hex()}, "
                    f"found {actual[: len(expected)].hex()} in {self.folder}{store.advice(self.folder)}"
                )


# -- what a user named -----------------------------------------------------------------------------------------------


def resolve_model(ref: ModelRef) -> ModelRef:
    """Returns a reference with its folder, and with its commit if it is a model of the Hub. Downloads nothing.

    Raises:
        ModelNotFoundError: it refers to no model, or to a model of the Hub that is not in the cache, or not all of it;
            or the files of an embedded model are missing.
        ModelUnsupportedError: a model of the Hub whose index cannot be read, or a file that is not a whole GGUF file.
    """
    if ref.embedded is not None:
        _check_installed(ref.embedded)
    if ref.folder is not None:
        _check_file(ref.folder)
        return ref
    snapshot = None if ref.hub_id is None else hub.find(ref.hub_id)
    if snapshot is None:
        raise not_found(ref)
    hub.check_complete(snapshot)
    return pinned(snapshot)


def choose_model(name: str | os.PathLike[str]) -> ModelChoice:
    """Returns the model that a user named, for compressing. Downloads nothing.

    Args:
        name: as `parse_model` takes it.

    Raises:
        ModelNotFoundError, ModelUnsupportedError: those of `resolve_model`.
    """
    ref = resolve_model(parse_model(name))
    if ref.embedded is not None:
        return _embedded_choice(ref.embedded)
    assert ref.folder is not None  # resolved
    return ModelChoice(ref.text if ref.kind is Kind.HUB else ref.name, ref.folder)


def model_for_compressing(settings: CompressSettings) -> ModelChoice:
    """Returns the model that settings name, to be run as they say.

    Raises:
        ModelError: the model cannot be chosen; see `choose_model`.
        SettingsError: a context for a model that has its own.
    """
    choice = choose_model(settings.model)
    has_own = choice.embedded is not None or (choice.folder / layout.INT8).exists()
    if settings.context is not None and has_own and not store.is_converted(choice.folder):
        raise SettingsError(f"--context is for checkpoints: what the model {choice.name} sees is a part of it")
    if settings.arithmetic == "float":
        _check_float(choice.folder)
        choice = replace(choice, embedded=None, expected=None, engine=ENGINE_FLOAT, dtype=settings.dtype)
    return choice if choice.embedded is not None else replace(choice, context=settings.context)


def _check_file(place: Path) -> None:
    """Refuses a file that is not a GGUF file, or not all of it."""
    if layout.is_gguf(place):
        from .gguf.reader import open_gguf

        try:
            open_gguf(place)
        except ModelUnsupportedError as error:
            raise ModelUnsupportedError(f"model {place}: {error}") from None


def _check_float(place: Path) -> None:
    """Refuses GGUF files for the float engine."""
    if layout.is_gguf(place):
        raise ModelUnsupportedError(f"model {place}: the float engine reads checkpoints only, not GGUF files")


def fetch_model(ref: ModelRef, notice: Notice, bar: Bar, *, offline: bool = False, exact: bool = True) -> ModelRef:
    """Downloads a model of the Hub if it is not on this machine, or not all of it.

    Args:
        ref: what the user named; only a name with an owner, org/name, is downloaded.
        notice, bar: what `hub.download` reports to.
        offline: download nothing.
        exact: the model is for the exact engine: if that cannot run it, it is refused before its weights are fetched.

    Returns:
        the reference to continue with: with commit and folder for a model of the Hub that is complete, else unchanged;
        `resolve_model` then says what is missing.

    Raises:
        ModelError: the download failed, or the exact engine cannot run the model.
    """
    hub_id = ref.hub_id
    if hub_id is None:
        return ref
    snapshot = hub.find(hub_id)
    if snapshot is not None and not hub.missing_files(snapshot):
        return pinned(snapshot)
    if not hub_id.has_owner or offline or hub.forbidden_by_environment():
        return ref

    def accept(folder: Path) -> None:
        reason = unsupported_reason(folder) if exact else None
        if reason is not None:
            raise ModelUnsupportedError(f"model {hub_id} is not downloaded: {reason}; see --engine float")

    wanted = hub_id if snapshot is None else HubId(snapshot.name, snapshot.commit)
    return pinned(hub.download(wanted, accept, notice, bar))


def unsupported_reason(folder: Path) -> str | None:
    """Returns why the exact engine cannot run a checkpoint, judging by its configuration; None if it can."""
    from . import families
    from .config import MAX_CONTEXT, MISSTATED, ExactConfig

    if (folder / layout.INT8).exists():
        return None
    try:
        family = families.read(layout.read_config(folder))
        ExactConfig(planes=2, context=min(family.positions, MAX_CONTEXT), start_token=0, **family.settings)
    except ModelError as error:
        return str(error)
    except MISSTATED as error:
        return f"its configuration lacks or misstates {error}"
    return None


# -- what an archive needs -------------------------------------------------------------------------------------------


def check_model_code(header: Header) -> None:
    """Refuses archives of embedded models that this version does not know, whatever their frames need.

    Raises:
        FormatError: naming the code.
    """
    code = header.model_code
    if code not in (NO_MODEL, USER_MODEL) and embedded_by_code(code) is None:
        name = RETIRED.get(code)
        model = f"embedded model {code}" + (f" (`{name}`, of an earlier version)" if name else "")
        raise FormatError(f"needs {model}, which this version of llmzip does not carry")


def model_for_archive(header: Header, override: str | os.PathLike[str] | None) -> ModelChoice:
    """Returns the model that an archive needs. Downloads nothing.

    Args:
        header: of the archive.
        override: the folder or id that the user gave, if any; only for archives of a user's model that their file does
            not carry whole. Without one it is looked for by its digests where models are stored, then in the Hub's
            cache.

    Raises:
        CorruptError: the header says that no frame needs a model; or the file carries a damaged one, and it is not on
            this machine either.
        FormatError: a model code that this version does not know.
        ModelNotFoundError: the archive needs a model that is not on this machine, or not all of it, and none was given.
        ModelUnsupportedError: a model of the Hub whose index cannot be read.
    """
    check_model_code(header)
    if header.model_code == NO_MODEL:
        raise CorruptError("damaged: a frame needs a model, and the header says that none does")
    by_code = embedded_by_code(header.model_code)
    record = header.model
    if record is None:
        assert by_code is not None  # by check_model_code
        return _embedded_choice(by_code)
    for model in EMBEDDED:
        halves = model.model_digest[:DIGEST_BYTES], model.tokenizer_digest[:DIGEST_BYTES]
        if halves == (record.model_digest, record.tokenizer_digest):
            return _embedded_choice(model)
    carried = header.carried
    if carried is None:
        folder = _folder_for(record, override)
    elif not carried.is_damaged:
        folder = _NOWHERE
    else:
        carried = None
        try:
            folder = _folder_for(record, override)
        except ModelNotFoundError as error:
            raise CorruptError(f"the carried model is damaged, and nowhere else: {error}") from None
    return ModelChoice(
        record.name,
        folder,
        expected=(record.model_digest, record.tokenizer_digest),
        planes=record.planes,
        context=record.context,
        start_token=record.start_token,
        engine=record.engine,
        dtype=record.dtype,
        environment=record.environment,
        carried=carried,
    )


def _folder_for(record: ModelRecord, override: str | os.PathLike[str] | None) -> Path:
    """Returns the folder of an archive's model: the one that the user gave, a stored one, or one of the Hub."""
    digest = record.model_digest.hex()
    wanted = f"model {record.name!r} with digest {digest}"
    recorded_id = hub.parse(record.name)
    pinned_id = recorded_id if recorded_id is not None and recorded_id.commit is not None else None
    if override is not None:
        ref = parse_model(override)
        if ref.is_place and ref.folder is not None:
            _check_file(ref.folder)
            if record.engine == ENGINE_FLOAT:
                _check_float(ref.folder)
            return ref.folder
        if ref.kind in (Kind.OLLAMA, Kind.STORED) or ref.text.lower().endswith(".gguf"):
            raise not_found(ref)
        given = ref.hub_id
        if given is None:
            raise ModelNotFoundError(f"needs {wanted}: {ref.text!r} is neither a folder nor a file")
        names_pinned = pinned_id is not None and given == HubId(pinned_id.name)
        if not given.has_owner and hub.find(given) is None and not names_pinned:
            raise ModelNotFoundError(f"needs {wanted}: {no_owner_text(given)}")
        # A name without a revision means the commit that the archive was made with.
        if not names_pinned:
            return _snapshot_folder(
                given, f"needs {wanted}: {ref.text!r} is neither a folder nor a file, and not in the Hugging Face cache"
            )
    if override is None and (folder := _stored_folder(record)) is not None:
        return folder
    looked = store.places_text() if override is None and record.engine == ENGINE_EXACT else []
    if pinned_id is None:
        place = "FILE" if record.name.lower().endswith(".gguf") or record.name.startswith(ollama.PREFIX) else "DIR"
        where = f", which is not in {_listed(looked)}" if looked else ""
        store_it = f"`llmzip models add {place}` stores it, or " if looked else ""
        raise ModelNotFoundError(
            f"needs {wanted}{where}: {store_it}give its {'file' if place == 'FILE' else 'folder'} with --model {place}"
        )
    looked.append(f"the Hugging Face cache ({hub.cache_folder()})")
    text = (
        f"needs model {pinned_id.name}, commit {pinned_id.commit}, digest {digest}, which is not in {_listed(looked)}"
    )
    return _snapshot_folder(pinned_id, text, "; or give its folder with --model DIR")


def _stored_folder(record: ModelRecord) -> Path | None:
    """Returns the folder of an archive's model where models are stored; None if it is not there."""
    if record.engine != ENGINE_EXACT:  # its digests are those of a checkpoint's files
        return None
    return store.find(
        store.Wanted(record.model_digest, record.tokenizer_digest, record.planes, record.context, record.start_token)
    )


def _listed(places: Sequence[str]) -> str:
    """Returns places as a message lists them."""
    return places[0] if len(places) == 1 else f"{', '.join(places[:-1])} or {places[-1]}"


def _snapshot_folder(hub_id: HubId, missing: str, hint: str = "") -> Path:
    """Returns the folder of a model of the Hub that must be in the cache."""
    snapshot = hub.find(hub_id)
    if snapshot is None:
        raise ModelNotFoundError(f"{missing}: {hub.how_to_pull(hub_id, 'downloads it')}{hint}")
    hub.check_complete(snapshot)
    return snapshot.folder


def place_of_model(header: Header) -> Path | None:
    """Returns where the model of an archive is; None if it needs none, carries it, or it is not on this machine."""
    if header.model_code == NO_MODEL or header.carried is not None:
        return None
    try:
        return model_for_archive(header, None).folder
    except LLMZipError:
        return None


def describe_model(header: Header) -> tuple[str | None, str | None, str | None]:
    """Returns name, model digest and tokenizer digest (hexadecimal) of a header's model; all None if it has none."""
    if header.model_code == NO_MODEL:
        return None, None, None
    if header.model_code == USER_MODEL and header.model is not None:
        return header.model.name, header.model.model_digest.hex(), header.model.tokenizer_digest.hex()
    model = embedded_by_code(header.model_code)
    if model is None:
        return f"unknown embedded model {header.model_code}", None, None
    return model.name, model.model_digest.hex(), model.tokenizer_digest.hex()


# -- embedded models -------------------------------------------------------------------------------------------------


def _check_installed(model: EmbeddedModel) -> None:
    """Refuses an embedded model whose files are missing."""
    if not model.folder.is_dir():
        raise ModelNotFoundError(
            f"the embedded model {model.name} is missing from this installation; install llmzip again"
        )


def _embedded_choice(model: EmbeddedModel) -> ModelChoice:
    _check_installed(model)
    return ModelChoice(model.name, model.folder, model, (model.model_digest, model.tokenizer_digest))
