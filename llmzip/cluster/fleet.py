"""The machines: joins or starts Ray, and makes sure that every node would give the same bytes before work starts."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._version import FORMAT_VERSION, NUMERICS_VERSION, __version__
from ..errors import EngineError, LLMZipError
from ..inference.on_demand import ModelOnDemand

if TYPE_CHECKING:
    from .job import Job

MISSING = 'many machines need Ray: pip install "llmzip[ray]"'

_CONNECT_SECONDS = 20
"""Longest that a cluster's head may take to answer that it is there."""

_ADDRESS = re.compile(r"(\[[^]]+\]|[^:/]+):[0-9]{1,5}")
"""Host, an IPv6 address in brackets, and port of a cluster."""

_CAUSE = re.compile(r"[\w.]+(Error|Exception|Problem)\b.*: ")
"""Beginning of a line that names an error, such as "llmzip.errors.EngineError: "."""

_START_SECONDS = 120
"""Longest that a node may take to answer what it has."""


@dataclass(frozen=True)
class Resources:
    """What a worker gets, and how many workers there are.

    Attributes:
        cpus: CPUs of a worker, and its threads; 0 with GPUs alone.
        gpus: GPUs of a worker.
        min_workers: workers that are there from the start.
        max_workers: workers that there are at most.
    """

    cpus: int = 1
    gpus: float = 0
    min_workers: int = 1
    max_workers: int = 1


@dataclass(frozen=True)
class Build:
    """What decides whether two machines give the same bytes.

    Attributes:
        version: of llmzip.
        format, numerics: versions of the archive format and of the arithmetic.
        source: digest of the package's source files.
        libraries: what the libraries that code by themselves make of a text, and the version of the tokenizers'.
        model: what an archive of the run's model begins with, as hexadecimal digits.
        node: name of the machine, for messages.
    """

    version: str
    format: int
    numerics: int
    source: str
    libraries: str
    model: str
    node: str

    def difference(self, other: Build) -> str | None:
        """Returns what another machine has that is not as here, in a line; None if all is the same."""
        if other.version != self.version:
            return f"has llmzip {other.version}, this machine {self.version}"
        if (other.format, other.numerics) != (self.format, self.numerics) or other.source != self.source:
            return f"has other files of llmzip {self.version} than this machine"
        if other.libraries != self.libraries:
            return "has other versions of LZMA, Zstandard or tokenizers than this machine, which may give other bytes"
        if other.model != self.model:
            return "has another model of that name than this machine"
        return None


@functools.lru_cache(maxsize=1)
def source_digest() -> str:
    """Returns a digest of the package's source files: two checkouts may have one version number."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".py", ".cpp", ".h") and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def library_digest() -> str:
    """Returns a digest of what LZMA and Zstandard make of a text, whose versions differ, and tokenizers' version."""
    import tokenizers

    from ..codec.methods import plain_payloads

    text = b"".join(hashlib.sha256(str(n % 700).encode()).digest()[: 1 + n % 30] for n in range(4096))
    digest = hashlib.sha256(tokenizers.__version__.encode())
    for _, payload in plain_payloads(text):
        digest.update(hashlib.sha256(payload).digest())
    return digest.hexdigest()


def model_identity(job: Job) -> str:
    """Returns what an archive of the run's model begins with, as hexadecimal digits; "" if the archives say it.

    Raises:
        ModelError, TokenizerError, EngineError: the model cannot be used here.
    """
    from ..format.writing import pack_header

    if job.operation.reads_archives:
        return ""
    return pack_header(ModelOnDemand.of(job.compress).archive_header()).hex()


def build_here(job: Job) -> Build:
    """Returns what this machine has."""
    model = model_identity(job)
    versions = __version__, FORMAT_VERSION, NUMERICS_VERSION
    return Build(*versions, source_digest(), library_digest(), model, platform.node())


def check_build(expected: Build, job: Job) -> None:
    """Refuses a machine that has something else than the driver.

    Raises:
        EngineError: it would not give the same bytes; names what differs.
        ModelError: it lacks the model.
    """
    here = build_here(job)
    difference = expected.difference(here)
    if difference is not None:
        raise EngineError(f"node {here.node} {difference}")


# -- Ray -------------------------------------------------------------------------------------------------------------


def import_ray() -> Any:
    """Returns Ray, quiet.

    Raises:
        LLMZipError: it is not installed.
    """
    # A cluster that this program starts for itself reports to nobody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of this process; what nodes log is in their own files
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise LLMZipError(f"{MISSING} ({' '.join(str(error).split())})") from error
    for name in ("ray", "ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


class Connection(NamedTuple):
    """A cluster that was joined or started.

    Attributes:
        ray: the module.
        dashboard: where Ray's dashboard is, as host and port; "" if there is none.
    """

    ray: Any
    dashboard: str


@contextlib.contextmanager
def connected(address: str | None, *, is_quiet: bool = True) -> Iterator[Connection]:
    """Joins a cluster, or starts Ray on this machine for as long as the block runs.

    Args:
        address: of the cluster, as Ray takes it ("auto", "host:6379", "ray://host:10001"); None to start one here.
        is_quiet: whether to drop what Ray prints, such as pages about each process that died and was replaced; what
            llmzip itself prints goes to the descriptors.

    Raises:
        LLMZipError: Ray is missing, or there is no cluster at the address.
    """
    ray = import_ray()
    if address is not None:
        _check_address(address)
    with contextlib.ExitStack() as stack:
        if is_quiet:
            stack.enter_context(contextlib.redirect_stdout(_Silence(1)))
            stack.enter_context(contextlib.redirect_stderr(_Silence(2)))
        try:
            with _quiet_descriptor(2) if is_quiet else contextlib.nullcontext():
                place = "local" if address is None else address
                context = ray.init(place, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            place = "on this machine" if address is None else f"at {address}"
            raise LLMZipError(f"Ray cannot be reached {place}: {reason}") from error
        stack.callback(ray.shutdown)
        if is_quiet:
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # what is an error comes as an exception, too
        yield Connection(ray, str(context.dashboard_url or ""))


def _check_address(address: str) -> None:
    """Refuses an address where no cluster answers: Ray would wait there for minutes.

    A process asks, by Ray's own command for that, because the question cannot be interrupted either.

    Raises:
        LLMZipError: nothing answers.
    """
    if _ADDRESS.fullmatch(address) is None:
        return  # "auto", ray:// and what is not valid: Ray answers these soon
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "health-check",
        "--skip-version-check",
        "--address",
        address,
    ]
    try:
        nobody = subprocess.run(command, capture_output=True, timeout=_CONNECT_SECONDS, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        nobody = True
    if nobody:
        raise LLMZipError(f"Ray cannot be reached at {address}: no cluster answers within {_CONNECT_SECONDS} s")


class _Silence(io.TextIOBase):
    """A `sys.stdout` or `sys.stderr` that drops what is written to it.

    Args:
        descriptor: what it says that its descriptor is.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        return len(text)

    def fileno(self) -> int:
        return self._descriptor


@contextlib.contextmanager
def _quiet_descriptor(number: int) -> Iterator[None]:
    """Drops what native code of Ray writes while it starts; its errors come as exceptions."""
    saved = os.dup(number)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)
        os.close(nowhere)


def check_nodes(ray: Any, expected: Build, job: Job) -> int:
    """Asks every node that is there what it has; nodes that come later are asked as their workers start.

    Returns:
        the number of nodes.

    Raises:
        EngineError: a node would not give the same bytes, cannot import llmzip, or does not answer.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    remote = ray.remote(num_cpus=0, max_retries=0)(_build_of_node)
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(job): node
        for node in nodes
    }
    for reference, node in asked.items():
        address = node["NodeManagerAddress"]
        try:
            answer = ray.get(reference, timeout=_START_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise EngineError(f"node {address} does not answer within {_START_SECONDS} s") from error
        except ray.exceptions.RayError as error:
            if node["NodeID"] not in {other["NodeID"] for other in ray.nodes() if other["Alive"]}:
                continue  # it has died since
            raise EngineError(f"node {address} cannot run llmzip: {last_line(error)}") from error
        difference = answer if isinstance(answer, str) else expected.difference(answer)
        if difference is not None:
            raise EngineError(f"node {address} {difference}")
    return len(nodes)


def _build_of_node(job: Job) -> Build | str:
    """Returns what the node has, or in a line why it cannot work."""
    try:
        return build_here(job)
    except LLMZipError as error:
        return f"cannot use the model: {error}"


def last_line(error: BaseException) -> str:
    """Returns the line of an error's text that has the cause: in Ray's errors the last one that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if _CAUSE.match(line)]
    return (causes or lines or [type(error).__name__])[-1]


def worker_room(ray: Any, resources: Resources) -> int:
    """Returns how many workers the cluster has room for now.

    Raises:
        EngineError: not even one.
    """
    total = ray.cluster_resources()
    rooms = []
    if resources.cpus:
        rooms.append(int(total.get("CPU", 0) // resources.cpus))
    if resources.gpus:
        rooms.append(int(total.get("GPU", 0) / resources.gpus))
    room = min(rooms, default=1)
    if room < 1:
        have = f"{total.get('CPU', 0):.0f} CPUs and {total.get('GPU', 0):.0f} GPUs"
        raise EngineError(
            f"a worker of {resources.cpus} CPUs and {resources.gpus:g} GPUs fits on no node: the cluster has {have}"
        )
    return room
