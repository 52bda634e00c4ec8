"""From a model's name to a folder and the digests it must have; imports no torch and downloads nothing.

A name is an embedded model's, or a local folder with a checkpoint. An archive names its model by code or by digests;
the name it carries is untrusted and only ever printed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .container import NO_MODEL, USER_MODEL, Header
from .errors import CorruptError, FormatError, ModelMismatchError, ModelNotFoundError

_EMBEDDED_FOLDER = Path(__file__).parent / "embedded"


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


EMBEDDED = (
    EmbeddedModel(
        1,
        "seed",
        bytes.fromhex("72eb9fde5cfaf68903cbedb79005a1b376862bfd594569cbd830432176e72bbe"),
        bytes.fromhex("c58f4de16fb3e92bc7ae7e0e0d79563243b28e9aeb1bc7647e51b473c2674060"),
    ),
)
DEFAULT = EMBEDDED[0]


@dataclass(frozen=True)
class ModelChoice:
    """A model to load.

    Attributes:
        name: for messages and for the archive's record.
        folder: where its files are.
        embedded: set if it is one of the package's.
        expected: digests that it must have, whole or their first half; empty for no expectation.
        planes, context, start_token: what an archive's record says, else None.
    """

    name: str
    folder: Path
    embedded: EmbeddedModel | None = None
    expected: tuple[bytes, bytes] | None = None
    planes: int | None = None
    context: int | None = None
    start_token: int | None = None

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
    """The model that a user named, for compressing.

    Args:
        name: "default", an embedded model's name, or a folder; a folder wins over a name.

    Raises:
        ModelNotFoundError: it is neither.
    """
    folder = Path(name)
    if folder.is_dir():
        return ModelChoice(folder.resolve().name, folder)
    for model in EMBEDDED:
        if os.fspath(name) == model.name or (os.fspath(name) == "default" and model is DEFAULT):
            return _embedded(model)
    known = ", ".join(model.name for model in EMBEDDED)
    raise ModelNotFoundError(f"model {os.fspath(name)!r} is neither a folder nor an embedded model ({known})")


def check_code(header: Header) -> None:
    """Refuses archives of embedded models that this version does not know, whatever their frames need.

    Raises:
        FormatError: naming the code.
    """
    if header.model_code not in (NO_MODEL, USER_MODEL, *(model.code for model in EMBEDDED)):
        raise FormatError(f"needs embedded model {header.model_code}, which this version of llmzip does not carry")


def for_archive(header: Header, override: str | os.PathLike[str] | None) -> ModelChoice:
    """The model that an archive needs.

    Args:
        header: of the archive.
        override: the folder or name that the user gave, if any; only for archives of a user's model.

    Raises:
        CorruptError: the header says that no frame needs one.
        FormatError: a model code that this version does not know.
        ModelNotFoundError: the archive needs a user's model, and none was given.
    """
    check_code(header)
    if header.model_code == NO_MODEL:
        raise CorruptError("damaged: a frame needs a model, and the header says that none does")
    if header.model is None:
        return _embedded(next(model for model in EMBEDDED if model.code == header.model_code))
    record = header.model
    wanted = f"model {record.name!r} with digest {record.model_digest.hex()}"
    if override is None:
        raise ModelNotFoundError(f"needs {wanted}: give its folder with --model DIR")
    folder = Path(override)
    if not folder.is_dir():
        raise ModelNotFoundError(f"needs {wanted}: {os.fspath(override)!r} is not a folder")
    return ModelChoice(
        record.name,
        folder,
        expected=(record.model_digest, record.tokenizer_digest),
        planes=record.planes,
        context=record.context,
        start_token=record.start_token,
    )


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
