"""The functions that take a whole text or archive: compress, decompress and info."""

from __future__ import annotations

import builtins
import io
import os
from typing import BinaryIO

from ..codec.info import ArchiveInfo, read_info
from ..codec.lines import LineCheck
from ..codec.reader import FrameDecoder
from ..errors import ResourceError
from ..format import reading
from ..settings import DEFAULT_LEVEL, DEFAULT_MODEL, check_type
from .incremental import Buffer, Compressor, Model, as_bytes, decompress_settings


def compress(
    data: Buffer,
    *,
    level: int = DEFAULT_LEVEL,
    model: Model = DEFAULT_MODEL,
    device: str = "auto",
    prompt: Buffer = b"",
    arithmetic: str = "exact",
    recovery: float | None = None,
    frame_bytes: int | None = None,
    with_model: bool = False,
) -> bytes:
    """Compresses bytes into one archive.

    Args:
        data: any bytes-like object; text must be encoded by the caller.
        level: 1 (fastest) to 9 (smallest).
        model: an embedded model's name, a folder with a checkpoint, or the id of a model in the Hub's cache.
        device: "auto", "cpu", "cuda" or "cuda:N"; the archive is the same on all of them.
        prompt: a text that model and mixer read first; decompressing needs the same one.
        arithmetic: "exact", or "float" for models that cannot run exactly: their archives decode only on the same
            hardware with the same software.
        recovery: share of the archive in percent, 0.1 to 100, of which `llmzip repair` can mend the damage; None for no
            recovery data.
        frame_bytes: text of each frame, 1 to 2,097,152 bytes; None for 2 MiB, or more where no model is used. A part of
            the text is read by decoding the frames that hold it: small ones decode sooner, and the archive is larger.
        with_model: write the model into the result, too, so that it decompresses where nobody has that model.

    Raises:
        ValueError: an argument out of its bounds.
        TypeError: an argument of a wrong type.
        ModelError: the model is missing or cannot be used.
    """
    compressor = Compressor(
        level=level,
        model=model,
        device=device,
        prompt=prompt,
        arithmetic=arithmetic,
        recovery=recovery,
        frame_bytes=frame_bytes,
        with_model=with_model,
    )
    return compressor.compress(data) + compressor.flush()


def decompress(
    data: Buffer,
    *,
    model: Model | None = None,
    device: str = "auto",
    max_output_size: int | None = None,
    prompt: Buffer = b"",
) -> bytes:
    """Decompresses one archive, or several in a row.

    Args:
        data: a bytes-like object.
        model: the folder of the model that the archive names; None for an embedded model.
        device: "auto", "cpu", "cuda" or "cuda:N".
        max_output_size: most bytes to return. A frame that would exceed it is not decoded: its header has its size.
        prompt: the text that the archive was made with, if any.

    Raises:
        ResourceError: the text is larger than max_output_size.
        FormatError, CorruptError, TruncatedError: not an archive, a damaged one, or only its beginning.
        ModelError, EngineError, TokenizerError: the model is missing, is not the archive's, or cannot run here.
    """
    raw = as_bytes(data)
    check_type("max_output_size", max_output_size, int, optional=True)
    decoder = FrameDecoder(decompress_settings(model, device, prompt))
    lines = LineCheck()
    parts, num_bytes = [], 0
    for frame in reading.read_archives(io.BytesIO(raw)):
        num_bytes += frame.header.original_bytes
        if max_output_size is not None and num_bytes > max_output_size:
            raise ResourceError(f"the text is larger than max_output_size, {max_output_size} bytes")
        parts.append(decoder.decode(frame))
        lines.add(frame, parts[-1].count(b"\n"))
    lines.finish()
    return b"".join(parts)


def info(source: Buffer | str | os.PathLike[str] | BinaryIO) -> ArchiveInfo:
    """Returns what the headers of an archive say; loads no model and decodes nothing.

    Args:
        source: the archive's bytes, its path, or a binary file object.

    Raises:
        TypeError: the source is none of these.
        FormatError, CorruptError, TruncatedError: not an archive, a damaged one, or only its beginning.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return read_info(io.BytesIO(bytes(source)))
    if isinstance(source, (str, os.PathLike)):
        with builtins.open(source, "rb") as file:
            return read_info(file)
    if not hasattr(source, "read"):
        raise TypeError(f"source must be bytes, a path or a binary file object, not {type(source).__name__}")
    return read_info(source)
