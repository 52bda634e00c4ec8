"""Models that Ollama keeps on this machine, by the names that Ollama gives them; must not read models."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import ModelError, ModelNotFoundError, ModelUnsupportedError

PREFIX = "ollama:"
_HOST, _OWNER, _TAG = "registry.ollama.ai", "library", "latest"
_MEDIA_TYPE = "application/vnd.ollama.image.model"
_MAX_MANIFEST_BYTES = 1 << 20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


def find(name: str) -> Path | None:
    """Returns the GGUF file of a model, None if Ollama has no model of this name here.

    Args:
        name: after the prefix: NAME, NAME:TAG, OWNER/NAME:TAG or HOST/OWNER/NAME:TAG.

    Raises:
        ModelNotFoundError: its file is missing.
        ModelUnsupportedError: a manifest that cannot be read, or that lists no GGUF file.
    """
    path = _manifest(name)
    if path is None:
        return None
    for folder in _folders():
        manifest = folder / "manifests" / path
        if manifest.is_file():
            return _blob(folder, manifest, name)
    return None


def names() -> list[tuple[str, Path]]:
    """Returns the models that Ollama has here, by name, with their files; those that it refuses are left out."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for manifest in sorted((folder / "manifests").glob("*/*/*/*")):
            host, owner, model, tag = manifest.parts[-4:]
            usual = [part for part, default in ((host, _HOST), (owner, _OWNER)) if part != default]
            before = [owner] if usual == [owner] else [host, owner] if usual else []
            name = "/".join([*before, f"{model}:{tag}"])
            with contextlib.suppress(ModelError):
                path = find(name)
                if path is not None:
                    found.setdefault(f"{PREFIX}{name}", path)
    return list(found.items())


def searched() -> str:
    """Returns the folders that are searched, for messages."""
    return ", ".join(str(folder) for folder in _folders())


def blob_digest(path: Path) -> str | None:
    """Returns the SHA-256 that a file has by its name, if it is one of Ollama's; else None."""
    match = _DIGEST.fullmatch(path.name)
    return None if match is None else match[1]


def _folders() -> Iterator[Path]:
    """Yields the folders that may hold Ollama's models: the one that the environment names, else the usual ones."""
    named = os.environ.get("OLLAMA_MODELS")
    if named:
        yield Path(named)
        return
    yield Path(os.path.expanduser("~/.ollama/models"))
    yield Path("/usr/share/ollama/.ollama/models")


def _manifest(name: str) -> Path | None:
    """Returns the path of a model's manifest; None for a name that Ollama would refuse."""
    *before, last = name.split("/")
    model, _, tag = last.partition(":")
    if len(before) > 2:
        return None
    parts = [*[_HOST, _OWNER][: 2 - len(before)], *before, model, tag or _TAG]
    return Path(*parts) if all(map(_PART.fullmatch, parts)) else None


def _blob(folder: Path, manifest: Path, name: str) -> Path:
    """Returns the file of weights that a manifest lists."""
    try:
        with open(manifest, "rb") as file:
            layers = json.loads(file.read(_MAX_MANIFEST_BYTES))["layers"]
        digests = [str(layer["digest"]) for layer in layers if layer["mediaType"] == _MEDIA_TYPE]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelUnsupportedError(f"model {PREFIX}{name}: {manifest} cannot be read: {error}") from None
    match = _DIGEST.fullmatch(digests[0]) if len(digests) == 1 else None
    if match is None:
        raise ModelUnsupportedError(f"model {PREFIX}{name}: {manifest} lists {len(digests)} GGUF files, not one")
    blob = folder / "blobs" / f"sha256-{match[1]}"
    if not blob.is_file():
        raise ModelNotFoundError(f"model {PREFIX}{name}: {blob} is missing: `ollama pull {name}` fetches it")
    return blob
