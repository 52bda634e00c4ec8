"""What a user's name for a model refers to: a folder, an embedded model or one of the Hugging Face Hub.

A name is parsed once, here; everyone else takes the reference. Reads nothing but the file system and never downloads.
"""

from __future__ import annotations

import difflib
import enum
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelNotFoundError
from . import hub
from .embedded import EMBEDDED, EmbeddedModel, embedded_by_name, embedded_names
from .hub import HubId


class Kind(enum.Enum):
    """Where a model comes from; the values are the words of `llmzip models --json`."""

    FOLDER = "folder"
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
        name: the folder's last part, the embedded model's name, or the Hub's name without a revision.
        revision: branch, tag or commit of a model of the Hub; None for its main branch and for other kinds.
        folder: where the files are; None for a model of the Hub until `choice.resolve_model` or `fetch_model` found it.
    """

    text: str
    kind: Kind
    name: str
    revision: str | None = None
    folder: Path | None = None

    def __fspath__(self) -> str:
        return self.text

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
        name: a folder, "default", an embedded model's name, or an id on the Hub; the first of these that fits wins. A
            path never means the Hub. A reference is returned as it is.
    """
    if isinstance(name, ModelRef):
        return name
    text = os.fspath(name)
    if os.path.isdir(text):
        return ModelRef(text, Kind.FOLDER, Path(text).resolve().name, folder=Path(text))
    if (embedded := embedded_by_name(text)) is not None:
        return ModelRef(text, Kind.EMBEDDED, embedded.name, folder=embedded.folder)
    hub_id = hub.parse(text) if isinstance(name, str) else None
    if hub_id is None:
        return ModelRef(text, Kind.UNKNOWN, text)
    return ModelRef(text, Kind.HUB, hub_id.name, hub_id.revision)


def pinned(snapshot: hub.Snapshot) -> ModelRef:
    """Returns the reference to a model of the Hub that is on this machine, with its commit and folder."""
    return ModelRef(str(snapshot), Kind.HUB, snapshot.name, snapshot.commit, snapshot.folder)


def not_found(ref: ModelRef) -> ModelNotFoundError:
    """Returns the error for a reference that leads to no model on this machine."""
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
