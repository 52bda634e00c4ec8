"""What a run on a cluster does: operation, settings, model and places; and the keys that follow from them.

A key is a digest of everything that a result depends on. An object named by a key is therefore right wherever and
whenever it was made, so a rerun takes it as it is, and two workers that make it twice write the same bytes.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .._version import FORMAT_VERSION, NUMERICS_VERSION, __version__
from ..errors import SettingsError
from ..format.headers import SUFFIX
from ..settings import CompressSettings, DecompressSettings
from ..system.filenames import has_suffix
from .storage import RUN_FOLDER, Store, with_retries

ROWS = f"{RUN_FOLDER}/rows"
TASKS = f"{RUN_FOLDER}/tasks"
WORK = f"{RUN_FOLDER}/work"
RUNNING = f"{RUN_FOLDER}/running"
RUN_FILE = f"{RUN_FOLDER}/run.json"
ALL_ROWS = f"{RUN_FOLDER}/rows.jsonl"

_KEY_BYTES = 16


class Operation(enum.Enum):
    """What is done with each file; the values are the names of the commands."""

    COMPRESS = "compress"
    DECOMPRESS = "decompress"
    TEST = "test"
    ENTROPY = "entropy"

    @property
    def writes_files(self) -> bool:
        """Whether each input has an output."""
        return self in (Operation.COMPRESS, Operation.DECOMPRESS)

    @property
    def reads_archives(self) -> bool:
        """Whether the inputs are archives."""
        return self in (Operation.DECOMPRESS, Operation.TEST)

    def wants(self, name: str) -> bool:
        """Whether a file that was found in a folder, not named by the user, is an input."""
        return has_suffix(name, SUFFIX) == self.reads_archives


@dataclass(frozen=True)
class Job:
    """A run, as every worker knows it. It is pickled, so it holds no open files and no model.

    Attributes:
        operation: what is done with each file.
        source: the folder that all inputs lie in.
        dest: where outputs and rows go.
        compress: settings of compressing and measuring.
        decompress: settings of decompressing and testing.
        model: what an archive of the model begins with, as hexadecimal digits; empty where the archives say it.
        prompt: digest of the prompt, as hexadecimal digits; empty for none.
    """

    operation: Operation
    source: Store
    dest: Store
    compress: CompressSettings = field(default_factory=CompressSettings)
    decompress: DecompressSettings = field(default_factory=DecompressSettings)
    model: str = ""
    prompt: str = ""

    def facts(self) -> dict[str, Any]:
        """Returns everything that results depend on besides the inputs; the content of RUN_FILE."""
        made_by = {"format": FORMAT_VERSION, "numerics": NUMERICS_VERSION, "llmzip": __version__}
        facts: dict[str, Any] = {"schema": 1, "operation": self.operation.value, "prompt": self.prompt, **made_by}
        if not self.operation.reads_archives:
            settings = self.compress
            facts |= {"model": self.model, "context": settings.context}
            if self.operation is Operation.COMPRESS:
                facts |= {"level": settings.level, "rows": settings.rows, "overlap": settings.overlap}
        return facts

    def key(self, *inputs: object) -> str:
        """Returns the key of a result.

        Args:
            inputs: what it depends on besides `facts`, in a form for JSON.
        """
        text = json.dumps([self.facts(), *inputs], sort_keys=True)
        return hashlib.sha256(text.encode("ascii")).digest()[:_KEY_BYTES].hex()

    def output(self, name: str) -> str:
        """Returns the name of an input's output, for an operation that has outputs.

        Raises:
            SettingsError: an input that was named has the wrong suffix for the operation.
        """
        if self.operation is Operation.COMPRESS:
            if has_suffix(name, SUFFIX):
                raise SettingsError(f"already has the suffix {SUFFIX}")
            return name + SUFFIX
        if not has_suffix(name, SUFFIX):
            raise SettingsError(f"has no suffix {SUFFIX}, so its output has no name")
        return name.removesuffix(SUFFIX)


def bind(job: Job, *, takes_over: bool = True) -> None:
    """Binds the destination to the run's operation, settings and source; the first run does it, later ones must agree.

    So everything in a destination was made in one way, and an output that belongs to its input is kept whoever made it.
    Inputs of another folder are refused too: their outputs might have the names of those that are there.

    Args:
        job: the run.
        takes_over: whether the first run may take a destination that has files already.

    Raises:
        SettingsError: the destination belongs to a run with other settings, or of another folder; or it has files that
            no run made.
    """
    store, facts = job.dest, {**job.facts(), "source": job.source.uri_of("")}
    if with_retries(lambda: store.stat(RUN_FILE)) is None:
        if not takes_over and with_retries(lambda: _has_files(store)):
            raise SettingsError(f"{store.uri_of('')} has files that no run made; name an empty folder, or use -f")
        with_retries(lambda: store.write(RUN_FILE, json.dumps(facts, indent=1).encode("ascii") + b"\n"))
    try:
        found = json.loads(with_retries(lambda: store.read_all(RUN_FILE)))
        differing = [f"{name} {found.get(name)!r}" for name in facts if found.get(name) != facts[name]]
    except (ValueError, AttributeError):
        differing = [f"a {RUN_FILE} that cannot be read"]
    if differing:
        raise SettingsError(f"{store.uri_of('')} was made with {', '.join(differing)}; name another destination")


def _has_files(store: Store) -> bool:
    """Whether there is anything in a destination but what runs keep there."""
    try:
        return any(entry.name != RUN_FOLDER for entry in store.entries(""))
    except FileNotFoundError:
        return False
