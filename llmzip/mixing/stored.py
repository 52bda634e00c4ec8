"""Files inside the package whose bytes archives depend on; must not know what they mean."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import EngineError


def stored_file(path: Path, digest: str) -> bytes:
    """Returns a file's bytes.

    Args:
        digest: the SHA-256 that they must have, in hexadecimal.

    Raises:
        EngineError: the file is missing or has another digest.
    """
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise EngineError(
            f"{path.name}, part of llmzip's mixer, is missing or damaged; install llmzip again: "
            "pip install --force-reinstall --no-deps llmzip"
        )
    return data
