"""Turns errors of storage libraries into OSErrors with a reason on one line, and repeats what may succeed later.

The libraries behind fsspec raise their own classes, with texts of several lines. No such text may reach a user, and
workers must be able to tell a passing fault from a lasting one without knowing any library. So everything that touches
storage runs inside `translated`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..errors import LLMZipError
from ..system.filenames import printable

_Result = TypeVar("_Result")

_MAX_REASON_CHARACTERS = 200
_MAX_WAIT_S = 30.0

_BUGS = (TypeError, AttributeError, NameError, MemoryError, AssertionError)
"""Builtin errors that say that llmzip is wrong, not storage; they are left as they are."""

_LASTING = frozenset(
    getattr(errno, name)
    for name in (
        "ENOENT", "EACCES", "EPERM", "EISDIR", "ENOTDIR", "EEXIST", "ENOTEMPTY", "ENOSPC", "EROFS", "EDQUOT", "EFBIG",
        "EINVAL", "ENOSYS", "ENOTSUP", "ENAMETOOLONG", "ELOOP", "EMSGSIZE", "EXDEV",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""Error numbers that a repetition does not change."""

_CLASSES = (
    (FileNotFoundError, errno.ENOENT),
    (PermissionError, errno.EACCES),
    (FileExistsError, errno.EEXIST),
    (IsADirectoryError, errno.EISDIR),
    (NotADirectoryError, errno.ENOTDIR),
    (TimeoutError, errno.ETIMEDOUT),
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (ConnectionError, errno.ECONNRESET),
    (NotImplementedError, errno.ENOTSUP),
    (ValueError, errno.EINVAL),
)
"""Error class -> error number, for errors that bring none."""

_NAMES = (
    (re.compile(r"NoCredentials|PartialCredentials|CredentialRetrieval|DefaultCredentials|TokenRetrieval"), "no login"),
    (re.compile(r"ClientAuthentication|LocalTokenNotFound|GatedRepo"), "no login"),
    (re.compile(r"RepositoryNotFound|RevisionNotFound|EntryNotFound|BucketNotFound|ResourceNotFound"), "missing"),
    (re.compile(r"EndpointConnection|ConnectorError|NameResolution|ConnectError|ServiceRequestError"), "unreachable"),
    (re.compile(r"Timeout"), "timeout"),
    (re.compile(r"Connection|Proxy|IncompleteRead|Payload|ServerDisconnected|HTTPClient|RemoteProtocol"), "dropped"),
    (re.compile(r"ChunkedEncoding|ResponseParser|ChecksumError|ContentDecoding|ServiceResponseError"), "dropped"),
    (re.compile(r"ParamValidation|InvalidURL|LocationParse"), "invalid"),
)
"""Names of classes, their parents included, of botocore, aiohttp, requests, google-auth, azure-core, httpx and
huggingface_hub -> what happened. The first that fits is taken."""

_KINDS = {
    "no login": (errno.EACCES, "no valid credentials"),
    "missing": (errno.ENOENT, ""),
    "unreachable": (errno.EHOSTUNREACH, "cannot reach the server"),
    "timeout": (errno.ETIMEDOUT, "the server did not answer in time"),
    "dropped": (errno.ECONNRESET, "the connection was lost"),
    "invalid": (errno.EINVAL, ""),
}
"""What happened -> error number, and what the reason begins with."""

_STATUSES = {400: errno.EINVAL, 401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 409: errno.EBUSY,
             410: errno.ENOENT, 412: errno.EEXIST, 416: errno.EINVAL, 501: errno.ENOSYS}  # fmt: skip
"""Lasting HTTP status -> error number; all others count as passing."""


_DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})
"""Codes by which S3 says that an upload was damaged on its way, though s3fs calls that an invalid argument."""


@contextlib.contextmanager
def translated(uri: str) -> Iterator[None]:
    """Raises errors of storage libraries inside the block as OSErrors with an error number, a reason and a name.

    Args:
        uri: the object in question, for the message.
    """
    try:
        yield
    except (LLMZipError, GeneratorExit):
        raise
    except OSError as error:
        if error.filename == uri and error.errno is not None and error.strerror and "\n" not in error.strerror:
            raise  # one of ours
        raise storage_error(error, uri) from error
    except Exception as error:
        if isinstance(error, _BUGS) and type(error).__module__ == "builtins":
            raise
        raise storage_error(error, uri) from error


def storage_error(error: BaseException, uri: str) -> OSError:
    """Returns an OSError for an error of a storage library; its subclass follows from the error number."""
    number = error.errno if isinstance(error, OSError) and isinstance(error.errno, int) else None
    prefix = ""
    if number is None:
        number = next((number for kind, number in _CLASSES if isinstance(error, kind)), None)
    if number is None or (number == errno.EINVAL and not isinstance(error, OSError)):
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        kind = next((kind for pattern, kind in _NAMES if pattern.search(names)), None)
        status = _http_status(error)
        if kind is not None and (status is None or kind == "no login"):
            number, prefix = _KINDS[kind]
        elif status is not None:
            number = _STATUSES.get(status, errno.EIO)
    if number is None or _s3_code(error.__cause__) in _DAMAGED:
        number = errno.EIO
    return OSError(number, _reason(error, number, prefix, uri), uri)


def _s3_code(error: BaseException | None) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _http_status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, str) and value.isdecimal():
                value = int(value)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _reason(error: BaseException, number: int, prefix: str, uri: str) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or " ".join(
        str(argument) for argument in error.args[-1:]
    )
    text = printable(" ".join(text.split())).rstrip(".")
    if ":***@" in uri:  # `stores.without_password` has hidden one there
        text = re.sub(r"([^/@:\s]+):[^/@\s]+@", r"\1:***@", text)
    name = re.sub(r"^[a-z0-9+]+://", "", uri)
    if text in ("", uri, name, "/" + name, str(number)):  # many libraries give the name alone
        text = os.strerror(number)
    if len(text) > _MAX_REASON_CHARACTERS:
        text = text[: _MAX_REASON_CHARACTERS - 3] + "..."
    return f"{prefix}: {text}" if prefix else text


def is_transient(error: BaseException) -> bool:
    """Whether an error may pass: a lost connection, a busy server, a fault of a network file system.

    Missing files, missing rights, full disks, quotas, read-only file systems and invalid requests do not pass.
    """
    if not isinstance(error, OSError):
        return False
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
    return not isinstance(error, lasting) and error.errno not in _LASTING


def with_retries(
    work: Callable[[], _Result],
    *,
    attempts: int = 5,
    first_wait_s: float = 0.5,
    sleep: Callable[[float], object] = time.sleep,
) -> _Result:
    """Calls `work` until it returns, and repeats it after transient errors (`is_transient`).

    The waits double each time, up to 30 s, and each is shortened by a random part of up to a half, so that many
    workers do not all return to a busy server at once. `work` must be repeatable as a whole.

    Args:
        work: what to do.
        attempts: the number of calls at most, 1 or more.
        first_wait_s: wait after the first error, in seconds.
        sleep: waits for a number of seconds.

    Returns:
        what `work` returns.

    Raises:
        OSError: the error of the last attempt, or the first that does not pass.
    """
    wait_s = first_wait_s
    for _ in range(attempts - 1):
        try:
            return work()
        except OSError as error:
            if not is_transient(error):
                raise
        sleep(wait_s * random.uniform(0.5, 1.0))
        wait_s = min(2 * wait_s, _MAX_WAIT_S)
    return work()
