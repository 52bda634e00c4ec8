"""What a user's name for a model refers to: a folder or GGUF file, or a model embedded, stored, of Ollama or the Hub.

A name is parsed once, here; everyone else takes the reference. Reads nothing but the file system and never downloads.
"""

from __future__ import annotations

import difflib
import enum
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelNotFoundError
from . import hub, store
from .embedded import EMBEDDED, EmbeddedModel, embedded_by_name, embedded_names
from .gguf import ollama
from .hub import HubId

_GGUF = ".gguf"


class Kind(enum.Enum):
    """Where a model comes from; the values are the words of `llmzip models --json`."""

    FOLDER = "folder"
    GGUF = "gguf"
    OLLAMA = "ollama"
    STORED = "stored"
    EMBEDDED = "embedded"
    HUB = "hub"
    UNKNOWN = "unknown"
    """Not the name of any model: no folder, no embedded model, and not a valid name on the Hub."""


@dataclass(frozen=True)
class ModelRef:
    """A parsed name for a model. Settings carry it as they carry a path: `os.fspath` gives the name back.

    Attributes:
        text: the name as the user wrote it; of a model of the Hub that was found, with its commit.
        kind: what it refers to.
        name: the last part of a folder's or file's path, the embedded or stored model's name, Ollama's name, or the
            Hub's name without a revision.
        revision: branch, tag or commit of a model of the Hub; None for its main branch and for other kinds.
        folder: where the files are, or the GGUF file; None for a model of the Hub until `choice.resolve_model` or
            `fetch_model` found it, and for one that Ollama or the store does not have here.
    """

    text: str
    kind: Kind
    name: str
    revision: str | None = None
    folder: Path | None = None

    def __fspath__(self) -> str:
        return self.text

    @property
    def is_place(self) -> bool:
        """Whether the name says itself where the files are: nothing but this name leads to them."""
        return self.kind in (Kind.FOLDER, Kind.GGUF, Kind.OLLAMA, Kind.STORED)

    @property
    def embedded(self) -> EmbeddedModel | None:
        """The embedded model that it refers to; None for the other kinds."""
        return embedded_by_name(self.name) if self.kind is Kind.EMBEDDED else None

    @property
    def hub_id(self) -> HubId | None:
        """The id on the Hub that it refers to; None for the other kinds."""
        return HubId(self.name, self.revision) if self.kind is Kind.HUB else None


def parse_model(name: str | os.PathLike[str]) -> ModelRef:
    """Parses a user's name for a model. Whether a model of the Hub is on this machine is not asked yet.

    Args:
        name: a folder, "default", an embedded model's name, a GGUF file, ollama:NAME, stored:NAME or stored:DIGEST, or
            an id on the Hub; the first of these that fits wins. A path never means the Hub, nor does what ends like a
            GGUF file. A reference is returned as it is.

    Raises:
        ModelNotFoundError, ModelUnsupportedError: a model of Ollama whose files are not what they should be, or a name
            that several stored models have.
    """
    if isinstance(name, ModelRef):
        return name
    text = os.fspath(name)
    if os.path.isdir(text):
        return ModelRef(text, Kind.FOLDER, Path(text).resolve().name, folder=Path(text))
    if (embedded := embedded_by_name(text)) is not None:  # before files: a text may be called base
        return ModelRef(text, Kind.EMBEDDED, embedded.name, folder=embedded.folder)
    if os.path.isfile(text):
        return ModelRef(text, Kind.GGUF, Path(text).name, folder=Path(text))
    if text.startswith(ollama.PREFIX):
        return ModelRef(text, Kind.OLLAMA, text, folder=ollama.find(text.removeprefix(ollama.PREFIX)))
    if text.startswith(store.PREFIX):
        model = store.one_named(text.removeprefix(store.PREFIX))
        if model is None:
            return ModelRef(text, Kind.STORED, text)
        return ModelRef(text, Kind.STORED, model.name, folder=model.folder)
    is_file_name = text.lower().endswith(_GGUF)
    hub_id = hub.parse(text) if isinstance(name, str) and not is_file_name else None
    if hub_id is None:
        return ModelRef(text, Kind.UNKNOWN, text)
    return ModelRef(text, Kind.HUB, hub_id.name, hub_id.revision)


def pinned(snapshot: hub.Snapshot) -> ModelRef:
    """Returns the reference to a model of the Hub that is on this machine, with its commit and folder."""
    return ModelRef(str(snapshot), Kind.HUB, snapshot.name, snapshot.commit, snapshot.folder)


def not_found(ref: ModelRef) -> ModelNotFoundError:
    """Returns the error for a reference that leads to no model on this machine."""
    if ref.kind is Kind.OLLAMA:
        name = ref.text.removeprefix(ollama.PREFIX)
        return ModelNotFoundError(
            f"model {ref.text!r}: Ollama has no such model in {ollama.searched()}: `ollama pull {name}` fetches it, "
            "and OLLAMA_MODELS names another folder"
        )
    if ref.kind is Kind.STORED:
        return ModelNotFoundError(
            f"model {ref.text!r}: no stored model has this name or digest; looked in {', '.join(store.places_text())}: "
            "`llmzip models list` shows them"
        )
    if ref.text.lower().endswith(_GGUF):
        return ModelNotFoundError(f"model {ref.text!r}: there is no such file")
    text = f"model {ref.text!r} is neither a folder nor an embedded model ({embedded_names()})"
    hub_id = ref.hub_id
    if hub_id is None:
        return ModelNotFoundError(f"{text}, and no name like org/name on the Hugging Face Hub")
    if hub_id.has_owner:
        return ModelNotFoundError(
            f"{text}, and not in the Hugging Face cache: {hub.how_to_pull(hub_id, 'downloads it')}"
        )
    return ModelNotFoundError(no_owner_text(hub_id))


def no_owner_text(hub_id: HubId) -> str:
    """Explains that a name without an owner refers to no model on this machine, and what may have been meant."""
    local = [*(model.name for model in EMBEDDED), *(snapshot.name for snapshot in hub.cached())]
    by_small_letters = {name.lower(): name for name in reversed(local)}
    near = difflib.get_close_matches(hub_id.name.lower(), by_small_letters, 1)
    hub_form = "org/name" if hub_id.with_owner.startswith("org/") else hub_id.with_owner
    hint = f"for a model of the Hugging Face Hub write {hub_form}"
    if near:
        return f"no model {str(hub_id)!r}; did you mean {by_small_letters[near[0]]!r}? ({hint})"
    return (
        f"model {str(hub_id)!r} is neither a folder nor an embedded model ({embedded_names()}), and not in the "
        f"Hugging Face cache; {hint}"
    )
