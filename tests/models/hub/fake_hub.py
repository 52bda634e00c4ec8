"""What the tests run: a cache in the Hub's layout, a server that speaks enough of its language, the program."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import llmzip.errors

ROOT = Path(llmzip.errors.__file__).resolve().parents[1]


def _text() -> bytes:
    """Letters of which each is followed by one of two others: a bit each for a model of pairs, more for all else."""
    random = Random(4)
    letters = "BCDGHJKQVWXYZ"
    nexts = {letter: random.sample(letters, 2) for letter in letters}
    text = letters[0]
    while len(text) < 2500:
        text += random.choice(nexts[text[-1]])
    return text.encode()


TEXT = _text()


# -- the cache ---------------------------------------------------------------------------------------------------------


def commit_of(number: int) -> str:
    """A commit's 40 digits."""
    return hashlib.sha1(str(number).encode()).hexdigest()


def etag(name: str, data: bytes) -> str:
    """What the Hub calls a file: SHA-256 of large files, git's SHA-1 of others."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def fill(cache: Path, name: str, commit: str, files: dict[str, bytes], revision: str | None = "main") -> Path:
    """Puts a model into a cache as the Hub's library does; returns the snapshot's folder."""
    folder = cache / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        blob = folder / "blobs" / etag(file, data)
        blob.write_bytes(data)
        link = snapshot / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if revision is not None:
        (folder / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(commit)
    return snapshot


# -- the server --------------------------------------------------------------------------------------------------------


@dataclass
class Repository:
    """What the server says about a model.

    Attributes:
        commits: revision -> commit; each commit's files are in `files`.
        gated: files are refused, the list of them is not.
        stalls: a file whose content stops half-way; the server then waits for `released`.
        fails: a file that is answered with status 500.
    """

    commits: dict[str, str]
    files: dict[str, dict[str, bytes]]
    gated: bool = False
    stalls: str | None = None
    fails: str | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


class Server(http.server.ThreadingHTTPServer):
    """Some of the Hub, on this machine.

    Attributes:
        repositories: by name.
        requests: (method, path) of all that were asked for.
        tokens: all values of the header Authorization.
        agents: all values of the header User-Agent.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.agents: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, files: dict[str, bytes], number: int = 1) -> Repository:
        """A repository with one commit; returns it."""
        commit = commit_of(number)
        self.repositories[name] = Repository({"main": commit, commit: commit}, {commit: files})
        return self.repositories[name]

    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [path.split("/resolve/")[1].partition("/")[2] for method, path in self.requests
                if method == "GET" and "/resolve/" in path]  # fmt: skip


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, path))
        self.server.tokens.add(self.headers["Authorization"])
        self.server.agents.add(self.headers["User-Agent"])
        if path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            self._file(name, *rest.partition("/")[::2])

    def _api(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        found = self.server.repositories.get(name)
        if found is None:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        commit = found.commits.get(revision.replace("%2F", "/") or "main")
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": file, "size": len(data)} for file, data in found.files[commit].items()]
        answer = {"id": name, "sha": commit, "siblings": siblings, "private": False, "gated": found.gated}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str) -> None:
        found = self.server.repositories[name]
        if found.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        commit = found.commits[revision]
        data = found.files[commit][file]
        headers = {"ETag": f'"{etag(file, data)}"', "X-Repo-Commit": commit}
        if self.command == "GET" and found.fails == file:
            return self._send(500, b"")
        self._send(200, data, headers, found if found.stalls == file else None)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, stalling: Repository | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if stalling is not None:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            stalling.stalled.set()
            stalling.released.wait(60)
            self.close_connection = True
        else:
            self.wfile.write(data)


# -- the program -------------------------------------------------------------------------------------------------------


class Program:
    """The command line as a process, with a home, a cache and a Hub of its own."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        dropped = ("LLMZIP_", "HF_", "HUGGINGFACE", "TRANSFORMERS_")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "HF_HOME": str(folder / "home"),
            "HF_HUB_CACHE": str(self.cache),
            "HF_ENDPOINT": endpoint,
            "NO_PROXY": "127.0.0.1",
            "COLUMNS": "80",
        }

    def start(
        self, *arguments: str | Path, stderr: int = subprocess.PIPE, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A process that runs; it reads nothing."""
        return subprocess.Popen(
            [sys.executable, "-m", "llmzip", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def __call__(self, *arguments: str | Path, **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, standard output, and lines of the standard error."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out.decode(), err.decode().splitlines()
