"""From a model's name to a folder and the digests it must have; imports no torch.

A name is a local folder with a checkpoint, an embedded model's, or an id on the Hugging Face Hub. Only `fetch` goes to
the Hub, and only for what a user named as org/name: a name without an owner is looked up on this machine and nowhere
else. An archive names its model by code or by digests; the name it carries is
untrusted: it is printed, and if it is an id with a commit it is looked up in the cache, where the digests then decide.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import (
    CorruptError,
    FormatError,
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
    FLOAT_DTYPES,
    NO_MODEL,
    USER_MODEL,
    Header,
    ModelRecord,
)
from ..settings import CompressSettings
from . import hub, layout
from .hub import Bar, HubId, Notice

_EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside the package (format section 7)."""

    code: int
    name: str
    model_digest: bytes
    tokenizer_digest: bytes

    @property
    def folder(self) -> Path:
        """Where its files are; the folder may be missing in a stripped installation."""
        return _EMBEDDED_FOLDER / self.name


_TOKENIZER = bytes.fromhex("97a02c27acb2e28f2f3bff91342ee0d9ea1becb19665b99ec30e31408255893a")
EMBEDDED = (
    EmbeddedModel(
        2,
        "base",
        bytes.fromhex("a43346b5b1e89f9beb10e2173d0294e79b8c9940941ea3bb4f71213aab0563ba"),
        _TOKENIZER,
    ),
    EmbeddedModel(
        3,
        "small",
        bytes.fromhex("c61e71043f35f7c7de17a197f37b829ab182a3d07ace738a1409fed4626e2fc4"),
        _TOKENIZER,
    ),
    EmbeddedModel(
        4,
        "bytes",
        bytes.fromhex("0f5b9a53406b12e18152976ab63d05fc09687921b6a64409d62d8bd3366e762d"),
        bytes.fromhex("14a3b6cedc03521143b1f721526ff8fdb5a2704fa26281a261761867544ce574"),
    ),
)
DEFAULT = EMBEDDED[0]
RETIRED = {1: "seed"}
"""Code -> name of the models of earlier versions; a code is never given to another model."""


@dataclass(frozen=True)
class ModelChoice:
    """A model to load.

    Attributes:
        name: for messages and for the archive's record.
        folder: where its files are.
        embedded: set if it is one of the package's.
        expected: digests that it must have, whole or their first half; empty for no expectation.
        planes, context, start_token: what an archive's record says, else what the user asked for, or None. Of the float
            engine `planes` is the number of its dtype.
        engine: ENGINE_EXACT or ENGINE_FLOAT.
        environment: that an archive was made in by the float engine.
    """

    name: str
    folder: Path
    embedded: EmbeddedModel | None = None
    expected: tuple[bytes, bytes] | None = None
    planes: int | None = None
    context: int | None = None
    start_token: int | None = None
    engine: int = ENGINE_EXACT
    environment: str = ""

    @property
    def float_dtype(self) -> str:
        """The float engine's dtype; records have its number in the place of the planes."""
        return FLOAT_DTYPES[(self.planes or 1) - 1]

    def check(self, model_digest: bytes, tokenizer_digest: bytes) -> None:
        """Compares the digests of what was loaded with the expected ones.

        Raises:
            ModelMismatchError: naming what was expected and what was found.
        """
        if self.expected is None:
            return
        for kind, expected, found in zip(
            ("model", "tokenizer"), self.expected, (model_digest, tokenizer_digest), strict=True
        ):
            if not found.startswith(expected):
                raise ModelMismatchError(
                    f"another {kind} than the archive's: expected {kind} digest {expected.hex()}, "
                    f"found {found[: len(expected)].hex()} in {self.folder}"
                )


def choose(name: str | os.PathLike[str]) -> ModelChoice:
    """The model that a user named, for compressing. Downloads nothing.

    Args:
        name: a folder, "default", an embedded model's name, or an id on the Hub; what comes first here wins.

    Raises:
        ModelNotFoundError: it is none of these, or a model of the Hub that is not in the cache, or not all of it.
        ModelUnsupportedError: a model of the Hub whose index cannot be read.
    """
    folder = Path(name)
    if folder.is_dir():
        return ModelChoice(folder.resolve().name, folder)
    for model in EMBEDDED:
        if os.fspath(name) == model.name or (os.fspath(name) == "default" and model is DEFAULT):
            return _embedded(model)
    text = f"model {os.fspath(name)!r} is neither a folder nor an embedded model ({_known()})"
    wanted = hub_id(name)
    if wanted is None:
        raise ModelNotFoundError(f"{text}, and no name like org/name on the Hugging Face Hub")
    snapshot = hub.find(wanted)
    if snapshot is None:
        if not wanted.has_owner:
            raise ModelNotFoundError(no_model_text(wanted))
        raise ModelNotFoundError(
            f"{text}, and not in the Hugging Face cache: {hub.how_to_pull(wanted, 'downloads it')}"
        )
    hub.check_complete(snapshot)
    return ModelChoice(str(snapshot), snapshot.folder)


def _known() -> str:
    return ", ".join(model.name for model in EMBEDDED)


def no_model_text(wanted: HubId) -> str:
    """What to say of a name without an owner that means no model on this machine."""
    here = [*(model.name for model in EMBEDDED), *(snapshot.name for snapshot in hub.cached())]
    by_small_letters = {name.lower(): name for name in reversed(here)}
    near = difflib.get_close_matches(wanted.name.lower(), by_small_letters, 1)
    hub_form = "org/name" if wanted.with_owner.startswith("org/") else wanted.with_owner
    hint = f"for a model of the Hugging Face Hub write {hub_form}"
    if near:
        return f"no model {str(wanted)!r}; did you mean {by_small_letters[near[0]]!r}? ({hint})"
    return (
        f"model {str(wanted)!r} is neither a folder nor an embedded model ({_known()}), and not in the Hugging Face "
        f"cache; {hint}"
    )


def for_compressing(settings: CompressSettings) -> ModelChoice:
    """The model that settings name, run as they say.

    Raises:
        ModelError: as `choose`.
        SettingsError: a context for a model that has its own.
    """
    choice = choose(settings.model)
    if settings.context is not None and (choice.embedded or (choice.folder / layout.INT8).exists()):
        raise SettingsError(f"--context is for checkpoints: what the model {choice.name} sees is a part of it")
    if settings.arithmetic == "float":
        number = FLOAT_DTYPES.index(settings.dtype) + 1
        choice = replace(choice, embedded=None, expected=None, engine=ENGINE_FLOAT, planes=number)
    return choice if choice.embedded is not None else replace(choice, context=settings.context)


def hub_id(name: str | os.PathLike[str]) -> HubId | None:
    """The id on the Hub that a user's name for a model stands for; None if it stands for something else."""
    if not isinstance(name, str) or is_embedded(name) or os.path.isdir(name):
        return None
    return hub.parse(name)


def is_embedded(name: str) -> bool:
    """Whether a name means a model inside the package."""
    return name == "default" or any(name == model.name for model in EMBEDDED)


def fetch(
    name: str | os.PathLike[str], notice: Notice, bar: Bar, offline: bool = False, exact: bool = True
) -> str | os.PathLike[str]:
    """Downloads a model of the Hub if it is not here, or not all of it.

    Args:
        name: as for `choose`; only one with an owner, org/name, is downloaded.
        notice, bar: as for `hub.download`.
        offline: download nothing.
        exact: it is for the exact engine: a model that this cannot run is refused before its weights come.

    Returns:
        the name to go on with: with its commit for a model of the Hub that is here now, else as it was.

    Raises:
        ModelError: in one line.
    """
    wanted = hub_id(name)
    if wanted is None:
        return name
    snapshot = hub.find(wanted)
    if snapshot is not None and not hub.missing_files(snapshot):
        return str(snapshot)
    if not wanted.has_owner or offline or hub.forbidden_by_environment():
        return name  # `choose` says what is missing

    def accept(folder: Path) -> None:
        reason = unsupported(folder) if exact else None
        if reason is not None:
            raise ModelUnsupportedError(f"model {wanted} is not downloaded: {reason}; see --engine float")

    return str(hub.download(wanted if snapshot is None else HubId(snapshot.name, snapshot.commit), accept, notice, bar))


def read_config(folder: Path) -> dict[str, object]:
    """The config.json of a checkpoint; empty if there is none that can be read."""
    try:
        return layout.read_config(folder)
    except ModelError:
        return {}


def unsupported(folder: Path) -> str | None:
    """Why the exact engine cannot run a checkpoint, as far as its configuration tells; None if it can."""
    from . import families
    from .config import MAX_CONTEXT, ExactConfig

    if (folder / layout.INT8).exists():
        return None
    try:
        family = families.read(layout.read_config(folder))
        ExactConfig(planes=2, context=min(family.positions, MAX_CONTEXT), start_token=0, **family.settings)
    except ModelError as error:
        return str(error)
    except families.MISSTATED as error:
        return f"its configuration lacks or misstates {error}"
    return None


def check_code(header: Header) -> None:
    """Refuses archives of embedded models that this version does not know, whatever their frames need.

    Raises:
        FormatError: naming the code.
    """
    if header.model_code not in (NO_MODEL, USER_MODEL, *(model.code for model in EMBEDDED)):
        name = RETIRED.get(header.model_code)
        which = f"embedded model {header.model_code}" + (f" (`{name}`, of an earlier version)" if name else "")
        raise FormatError(f"needs {which}, which this version of llmzip does not carry")


def for_archive(header: Header, override: str | os.PathLike[str] | None) -> ModelChoice:
    """The model that an archive needs.

    Args:
        header: of the archive.
        override: the folder or id that the user gave, if any; only for archives of a user's model.

    Raises:
        CorruptError: the header says that no frame needs one.
        FormatError: a model code that this version does not know.
        ModelNotFoundError: the archive needs a model that is not here, or not all of it, and none was given.
        ModelUnsupportedError: a model of the Hub whose index cannot be read.
    """
    check_code(header)
    if header.model_code == NO_MODEL:
        raise CorruptError("damaged: a frame needs a model, and the header says that none does")
    if header.model is None:
        return _embedded(next(model for model in EMBEDDED if model.code == header.model_code))
    record = header.model
    for model in EMBEDDED:
        if (model.model_digest[:DIGEST_BYTES], model.tokenizer_digest[:DIGEST_BYTES]) == (
            record.model_digest,
            record.tokenizer_digest,
        ):
            return _embedded(model)
    return ModelChoice(
        record.name,
        _folder(record, override),
        expected=(record.model_digest, record.tokenizer_digest),
        planes=record.planes,
        context=record.context,
        start_token=record.start_token,
        engine=record.engine,
        environment=record.environment,
    )


def _folder(record: ModelRecord, override: str | os.PathLike[str] | None) -> Path:
    """Where the model of an archive is: in the folder that the user gave, or in the cache of the Hub."""
    digest = record.model_digest.hex()
    wanted = f"model {record.name!r} with digest {digest}"
    named = hub.parse(record.name)
    pinned = named if named is not None and named.commit is not None else None
    if override is not None:
        if os.path.isdir(override):
            return Path(override)
        given = hub_id(override)
        if given is None:
            raise ModelNotFoundError(f"needs {wanted}: {os.fspath(override)!r} is not a folder")
        if not given.has_owner and hub.find(given) is None and (pinned is None or given != HubId(pinned.name)):
            raise ModelNotFoundError(f"needs {wanted}: {no_model_text(given)}")
        # Who gives only the name means the commit that the archive was made with.
        if pinned is None or given != HubId(pinned.name):
            return _snapshot(given, f"needs {wanted}: {override!r} is not a folder, and not in the Hugging Face cache")
    if pinned is None:
        raise ModelNotFoundError(f"needs {wanted}: give its folder with --model DIR")
    text = f"needs model {pinned.name}, commit {pinned.commit}, digest {digest}, which is not in the Hugging Face cache"
    return _snapshot(pinned, text, "; or give its folder with --model DIR")


def _snapshot(wanted: HubId, missing: str, hint: str = "") -> Path:
    """The folder of a model of the Hub that must be in the cache."""
    snapshot = hub.find(wanted)
    if snapshot is None:
        raise ModelNotFoundError(f"{missing}: {hub.how_to_pull(wanted, 'downloads it')}{hint}")
    hub.check_complete(snapshot)
    return snapshot.folder


def describe(header: Header) -> tuple[str | None, str | None, str | None]:
    """Name and digests in hexadecimal of the model in a header; all None if it has none."""
    if header.model_code == NO_MODEL:
        return None, None, None
    if header.model_code == USER_MODEL and header.model is not None:
        return header.model.name, header.model.model_digest.hex(), header.model.tokenizer_digest.hex()
    for model in EMBEDDED:
        if model.code == header.model_code:
            return model.name, model.model_digest.hex(), model.tokenizer_digest.hex()
    return f"unknown embedded model {header.model_code}", None, None


def _embedded(model: EmbeddedModel) -> ModelChoice:
    if not model.folder.is_dir():
        raise ModelNotFoundError(
            f"the embedded model {model.name} is missing from this installation; install llmzip again"
        )
    return ModelChoice(model.name, model.folder, model, (model.model_digest, model.tokenizer_digest))
