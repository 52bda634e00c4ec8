"""The models inside the package: their names, codes and digests (format section 7). Must not read their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "embedded"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model inside the package (format section 7).

    Attributes:
        code: number that an archive's header names it by, 1 to 14.
        name: of the model and of its folder.
        model_digest, tokenizer_digest: whole SHA-256 digests that its files must have.
    """

    code: int
    name: str
    model_digest: bytes
    tokenizer_digest: bytes

    @property
    def folder(self) -> Path:
        """Where its files are; the folder may be missing in a stripped installation."""
        return _FOLDER / self.name


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


def embedded_by_name(name: str) -> EmbeddedModel | None:
    """Returns the embedded model that a name stands for, "default" included; None for other names."""
    if name == "default":
        return DEFAULT
    return next((model for model in EMBEDDED if model.name == name), None)


def embedded_by_code(code: int) -> EmbeddedModel | None:
    """Returns the embedded model with a code; None for a code without a model in this version."""
    return next((model for model in EMBEDDED if model.code == code), None)


def embedded_names() -> str:
    """Returns the names of all embedded models, as messages list them."""
    return ", ".join(model.name for model in EMBEDDED)
