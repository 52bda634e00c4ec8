"""Models of the Hugging Face Hub: ids, the local cache, downloads. Must not know archives, engines or options.

The only module that imports huggingface_hub, and only inside functions: that library knows where the cache is, who the
user is and how files travel. The cache's layout is documented and shared with other programs, so looking into it needs
no network: models--ORG--NAME/refs/main holds a commit, snapshots/COMMIT its files, each a link to blobs/HASH.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelNotFoundError, ModelUnsupportedError
from ..system.fileops import hash_file
from . import layout
from .layout import CONFIG, INDEX, INT8, WEIGHTS

Notice = Callable[[str], object]
"""Takes a line for the user."""
Bar = Callable[[str, int | None], AbstractContextManager[Callable[[int], Any] | None]]
"""Takes a name and a number of bytes, None if unknown; gives a context with the function that counts bytes, or None."""

_SMALL = re.compile(r"[^/\\]+\.json|merges\.txt|(tokenizer|spiece)\.model|model\.llmzw")
"""Files of a model that are fetched besides its weights."""
_MAX_LISTED = 3
"""Files that a message names."""
_WATCH_SECONDS = 0.2
"""Time between two looks at how much of a download is on the disk."""

# Variables that huggingface_hub reads once, when it is imported; those that the user has set stay.
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_VERBOSITY": "error"}


# -- ids -------------------------------------------------------------------------------------------------------------

_PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(f"{_PART}(?:/{_PART})?")
_REVISION = re.compile(f"{_PART}(?:/{_PART})*")
_COMMIT = re.compile("[0-9a-f]{40}")
_SHORT_COMMIT = re.compile("[0-9a-f]{7,39}")
_MAX_CHARS = 96  # of a name or a revision


@dataclass(frozen=True)
class HubId:
    """A model's id on the Hub.

    Attributes:
        name: `name` or `org/name`.
        revision: a branch, tag or commit; None for the main branch.
    """

    name: str
    revision: str | None = None

    @property
    def commit(self) -> str | None:
        """The revision if it can never mean anything else: all 40 digits of a commit; else None."""
        return self.revision if self.revision is not None and _COMMIT.fullmatch(self.revision) else None

    @property
    def has_owner(self) -> bool:
        """Whether the name is org/name. Only then may it go to the network: other names are mostly typing errors."""
        return "/" in self.name

    @property
    def with_owner(self) -> str:
        """The id as it must be written to be downloaded: with the owner that it has now, "org" if that is unknown."""
        return str(self) if self.has_owner else f"{_OWNERS.get(self.name, 'org')}/{self}"

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


_OWNERS = {
    **dict.fromkeys(("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "openai-gpt"), "openai-community"),
    "distilgpt2": "distilbert",
}
"""Causal models that the Hub had without an owner -> the owners that they have now."""


def how_to_pull(model: HubId, does: str) -> str:
    """Returns the command that fetches a model and what it `does`; without an owner, the name that it needs."""
    if model.has_owner:
        return f"`llmzip models pull {model}` {does}"
    return f"`llmzip models pull {model.with_owner}` fetches it under its full name"


def parse(text: str) -> HubId | None:
    """Parses `name`, `org/name` or either with `@revision`; returns None for anything that the Hub would refuse.

    Name and revision become parts of paths and URLs, and may come from an archive: nothing doubtful passes.
    """
    name, at, revision = text.partition("@")
    odd = len(name) > _MAX_CHARS or ".." in name or "--" in name or name.endswith(".git")
    if odd or not _NAME.fullmatch(name):
        return None
    if not at:
        return HubId(name)
    if len(revision) > _MAX_CHARS or ".." in revision or not _REVISION.fullmatch(revision):
        return None
    return HubId(name, revision)


# -- the cache -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """The files of a model at one commit, in the cache.

    Attributes:
        name: of the model on the Hub.
        commit: all 40 digits.
        folder: where the files are.
    """

    name: str
    commit: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}"


def _settings() -> Any:
    """Returns huggingface_hub's constants: where the cache is, whether it may use the network."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from huggingface_hub import constants

    return constants


def cache_folder() -> Path:
    """Returns the folder of the Hub's cache, which may be missing."""
    return Path(_settings().HF_HUB_CACHE)


def forbidden_by_environment() -> bool:
    """Whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids downloads."""
    return bool(_settings().HF_HUB_OFFLINE)


def _model_folder(name: str) -> Path:
    return cache_folder() / f"models--{name.replace('/', '--')}"


def find(model: HubId) -> Snapshot | None:
    """Returns the cached snapshot of an id, None if there is none; it may be incomplete. Uses no network."""
    folder = _model_folder(model.name)
    commit = model.commit or _cached_commit(folder, model.revision or "main")
    if commit is None or not (folder / "snapshots" / commit).is_dir():
        return None
    return Snapshot(model.name, commit, folder / "snapshots" / commit)


def _cached_commit(folder: Path, revision: str) -> str | None:
    """Returns the commit that a branch, a tag or the first digits of a commit stood for when last looked up."""
    with contextlib.suppress(OSError, ValueError):
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
        return commit if _COMMIT.fullmatch(commit) else None
    if _SHORT_COMMIT.fullmatch(revision):
        commits = [path.name for path in folder.glob(f"snapshots/{revision}*") if _COMMIT.fullmatch(path.name)]
        return commits[0] if len(commits) == 1 else None
    return None


def cached() -> list[Snapshot]:
    """Returns all snapshots that hold weights in a form that llmzip reads, by name and commit."""
    snapshots = []
    for folder in sorted(cache_folder().glob("models--*/snapshots/*")):
        name = folder.parents[1].name.removeprefix("models--").replace("--", "/")
        if parse(f"{name}@{folder.name}") is not None and _COMMIT.fullmatch(folder.name):
            files = _names(folder)
            if INT8 in files or any(file.endswith(".safetensors") for file in files):
                snapshots.append(Snapshot(name, folder.name, folder))
    return snapshots


def _names(folder: Path) -> set[str]:
    """Returns the names in a folder, including those of broken links."""
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def weight_files(folder: Path, names: Collection[str]) -> list[str]:
    """Calls `layout.weight_files`, and puts the model into the message of an error."""
    try:
        return layout.weight_files(folder, names)
    except ModelUnsupportedError as error:
        raise ModelUnsupportedError(f"model {folder}: {error}") from None


def missing_files(snapshot: Snapshot) -> list[str]:
    """Returns the names of files that a snapshot lacks: a download was interrupted, or was of another program's part.

    Raises:
        ModelUnsupportedError: an index that cannot be read.
    """
    names = _names(snapshot.folder)
    present = {name for name in names if (snapshot.folder / name).is_file()}
    needed = {CONFIG, *(name for name in names if _SMALL.fullmatch(name))}
    if INDEX not in names - present:  # the names of the weights are unknown before the index is present
        weights = weight_files(snapshot.folder, names)
        needed.update(weights or ([] if INT8 in names else [WEIGHTS]))
    if not _has_tokenizer(names):
        needed.add("tokenizer.json")
    return sorted(needed - present)


def _has_tokenizer(names: Collection[str]) -> bool:
    return "tokenizer.json" in names or ("vocab.json" in names and "merges.txt" in names)


def check_complete(snapshot: Snapshot) -> None:
    """Refuses a snapshot that lacks files.

    Raises:
        ModelNotFoundError: files are missing; names them, and the command that fetches them.
    """
    names = missing_files(snapshot)
    if names:
        listed = ", ".join(names[:_MAX_LISTED])
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        raise ModelNotFoundError(
            f"model {snapshot} is incomplete in the Hugging Face cache ({listed}{more} missing): "
            + how_to_pull(HubId(snapshot.name, snapshot.commit), "completes it")
        )


def size_bytes(folder: Path) -> int:
    """Returns the bytes of all files in a folder; links count as the files that they lead to."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class CheckedFile:
    """A file of a snapshot, compared with the hash that it had on the Hub.

    Attributes:
        name: path in the snapshot.
        verdict: "ok", "damaged", "missing" (a broken link) or "unchecked" (the cache holds no hash of it).
        blob: file to remove, so that the file is fetched again.
    """

    name: str
    verdict: str
    blob: Path


def checked_files(snapshot: Snapshot) -> Iterator[CheckedFile]:
    """Reads and checks every file of a snapshot. Blobs are named by SHA-256, or by git's SHA-1 of small files."""
    for path in sorted(snapshot.folder.rglob("*")):
        if path.is_dir():
            continue
        # One link only: the blob itself may be a link into a store that names files differently.
        blob = path.parent / os.readlink(path) if path.is_symlink() else path
        verdict = "unchecked"
        if not path.is_file():
            verdict = "missing"
        elif re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name) and path.is_symlink():
            verdict = "ok" if _hash(path, len(blob.name)) == blob.name else "damaged"
        yield CheckedFile(path.relative_to(snapshot.folder).as_posix(), verdict, blob.resolve())


def _hash(path: Path, digits: int) -> str:
    if digits == 64:
        return hash_file(path, hashlib.sha256())
    return hash_file(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


# -- downloads -------------------------------------------------------------------------------------------------------


def download(model: HubId, accept: Callable[[Path], None], notice: Notice, bar: Bar) -> Snapshot:
    """Fetches what llmzip reads of a model: configuration, tokenizer, safetensors. Files that are present stay.

    The only function that uses the network. It fetches one file after the other, so that an interruption ends it at
    once and the library tidies up after itself.

    Args:
        model: its id; a branch or tag is looked up again.
        accept: called with the snapshot's folder once it holds the configuration; raises to refuse the rest.
        notice: takes a line about what will be downloaded.
        bar: shows the progress.

    Returns:
        the snapshot, complete.

    Raises:
        ModelNotFoundError: no owner in its name, no such model, no permission, no network or no room; says what to do.
        ModelUnsupportedError: the repository holds no model in a form that llmzip reads.
    """
    if not model.has_owner:
        raise ModelNotFoundError(
            f"model {model} is not downloaded: write a model of the Hugging Face Hub as {model.with_owner}"
        )
    if forbidden_by_environment():
        raise ModelNotFoundError(f"model {model} is not downloaded: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids it")
    from huggingface_hub import hf_hub_download

    snapshot, sizes = _looked_up(model)

    def get(name: str) -> None:
        with _explained(model):
            hf_hub_download(model.name, name, revision=snapshot.commit)

    for name in (CONFIG, INDEX):
        if name in sizes:
            get(name)
    accept(snapshot.folder)
    weights = weight_files(snapshot.folder, sizes)
    unlisted = [name for name in weights if name not in sizes]
    if unlisted:
        raise ModelUnsupportedError(
            f"model {snapshot}: its index names {unlisted[0]}, which the repository does not have"
        )
    small = sorted(name for name in sizes if _SMALL.fullmatch(name))
    wanted = [name for name in (*small, *weights) if not (snapshot.folder / name).is_file()]
    if wanted:
        known_sizes = [size for name in wanted if (size := sizes[name]) is not None]
        total = sum(known_sizes) if len(known_sizes) == len(wanted) else None
        _check_room(model, total)
        about = "" if total is None else f", {size_text(total)}"
        notice(f"downloading {model.name} (commit {snapshot.commit[:12]}{about}) into {cache_folder()}")
        with bar(model.name, total) as advance, _watched(snapshot.folder.parents[1] / "blobs", advance):
            for name in wanted:
                get(name)
    _remember(snapshot, model)
    check_complete(snapshot)
    return snapshot


def _looked_up(model: HubId) -> tuple[Snapshot, dict[str, int | None]]:
    """Asks the Hub for a model: its snapshot, yet to be fetched, and name -> bytes of its files, None if unknown."""
    from huggingface_hub import HfApi

    with _explained(model):
        info = HfApi().model_info(
            model.name, revision=model.revision, files_metadata=True, timeout=_settings().HF_HUB_ETAG_TIMEOUT
        )
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit) or model.commit not in (None, commit):
        raise ModelNotFoundError(f"model {model}: the Hub's answer names no commit, or another one ({commit!r})")
    # Folders inside a repository hold other forms of the model, or other models.
    sizes = {file.rfilename: file.size for file in info.siblings or () if "/" not in file.rfilename}
    _check_listing(model, sizes)
    return Snapshot(model.name, commit, _model_folder(model.name) / "snapshots" / commit), sizes


def size_text(size: int) -> str:
    """Returns a number of bytes for people; MB and GB are powers of ten, as the Hub shows them."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _check_listing(model: HubId, names: Collection[str]) -> None:
    """Refuses a repository without a model that llmzip reads, before anything of it is fetched.

    Raises:
        ModelUnsupportedError: naming what it lacks.
    """

    def any_of(*suffixes: str) -> bool:
        return any(name.endswith(suffixes) for name in names)

    if CONFIG not in names:
        hint = "; download one of its GGUF files, and name that" if any_of(".gguf") else ""
        raise ModelUnsupportedError(f"model {model}: no {CONFIG} in its repository, so it holds no checkpoint{hint}")
    if INT8 not in names and not any_of(".safetensors"):
        pickled = any_of(".bin", ".pt", ".pth", ".ckpt")
        hint = " (pickled weights are refused: they can run code)" if pickled else ""
        raise ModelUnsupportedError(f"model {model}: no .safetensors file in its repository{hint}")
    if not _has_tokenizer(names):
        raise ModelUnsupportedError(
            f"model {model}: no tokenizer.json in its repository; save model and tokenizer into a folder with "
            "transformers' save_pretrained, and name that"
        )


def _check_room(model: HubId, total: int | None) -> None:
    """Refuses a download that does not fit the disk."""
    folder = cache_folder()
    free = shutil.disk_usage(folder).free
    if total is not None and total > free:
        raise ModelNotFoundError(
            f"model {model} is not downloaded: it needs {size_text(total)}, and the disk of {folder} has "
            f"{size_text(free)} free; HF_HUB_CACHE names another place"
        )


def _remember(snapshot: Snapshot, model: HubId) -> None:
    """Writes which commit a branch or tag stands for now; only then is the snapshot found without its commit."""
    if model.commit is None:
        path = snapshot.folder.parents[1] / "refs" / (model.revision or "main")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(snapshot.commit, encoding="ascii")


@contextlib.contextmanager
def _watched(folder: Path, advance: Callable[[int], Any] | None) -> Iterator[None]:
    """Reports, while it is active, how many bytes came into a folder.

    The library's own bars differ from version to version; the files on the disk do not.
    """
    if advance is None:
        yield
        return
    ended = threading.Event()
    before = size_bytes(folder)

    def watch() -> None:
        done, last = before, False
        while not last:
            last = ended.wait(_WATCH_SECONDS)
            with contextlib.suppress(OSError):  # a file was renamed meanwhile
                now = max(done, size_bytes(folder))
                advance(now - done)
                done = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _explained(model: HubId) -> Iterator[None]:
    """Turns whatever the library raises into one line. Its versions use different HTTP clients, with other errors."""
    from huggingface_hub import errors

    page = f"{_settings().ENDPOINT}/{model.name}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        text = f"model {model} is gated: accept its licence at {page}, then {login}"
        raise ModelNotFoundError(text) from error
    except errors.RepositoryNotFoundError as error:
        text = f"model {model}: there is no {page}, or it is private; check the name, or {login}"
        raise ModelNotFoundError(text) from error
    except errors.RevisionNotFoundError as error:
        hint = "; a commit has 40 digits" if _SHORT_COMMIT.fullmatch(model.revision or "") else ""
        raise ModelNotFoundError(f"model {model}: {page} has no branch, tag or commit of this name{hint}") from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(model, error) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise ModelNotFoundError(f"model {model}: {page} refuses access (HTTP {status}); {login}") from error
        raise _unreachable(model, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"model {model} is not downloaded: the disk of {cache_folder()} is full; HF_HUB_CACHE names another"
            raise ModelNotFoundError(text) from error
        if error.errno is not None and error.filename is not None:
            raise ModelNotFoundError(
                f"model {model} cannot be stored: {error.strerror}: {os.fsdecode(error.filename)}"
            ) from error
        raise _unreachable(model, error) from error
    except Exception as error:
        raise _unreachable(model, error) from error


def _unreachable(model: HubId, error: BaseException) -> ModelNotFoundError:
    """Returns the error of a download that failed, with the first cause in a chain of errors."""
    root = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    lines = (getattr(root, "strerror", None) or str(root)).strip().splitlines() or [type(root).__name__]
    kept = "what has arrived is kept: " if any((_model_folder(model.name) / "blobs").glob("*")) else ""
    return ModelNotFoundError(
        f"model {model} cannot be downloaded from {_settings().ENDPOINT}: {lines[0]}; {kept}try again, or give a folder"
    )
