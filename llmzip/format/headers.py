"""The constants, records, headers and limits of docs/format.md; `writing` packs them, `reading` takes them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._version import NUMERICS_VERSION

MAGIC = b"\xf7LZ"
INDEX_MAGIC = b"ZL\xf7\n"
SUFFIX = ".llmz"

STORED, LM, LZMA, ZSTD, MIXED, WINDOWS, SKIP, INDEX = range(8)
METHODS = ("stored", "lm", "lzma", "zstd", "mixed", "windows", "skip", "index")
FRESH, KEPT = 0, 1
"""Profiles of method windows: each begins with an empty context, or not."""

NO_MODEL = 0
USER_MODEL = 15
ENGINE_EXACT, ENGINE_FLOAT = 1, 2
FLOAT_VERSION = 1
FLOAT_DTYPES = ("float32", "bfloat16", "float16")
"""The float engine's number formats; the model record holds their numbers, from 1 on."""


MAX_FRAME_BYTES = 1 << 26
MAX_LM_BYTES = 1 << 21
MAX_ROWS = 1 << 12
MAX_STEPS = 1 << 16
MIN_WINDOW_BITS, MAX_WINDOW_BITS = 16, 1 << 16
MAX_CONTEXT = 1 << 17
MAX_VOCAB = 300_000
MAX_RECORD_BYTES = 512
MAX_NAME_BYTES = 255
MAX_ENVIRONMENT_BYTES = 200
MAX_INDEX_ENTRIES = 1 << 22
DIGEST_BYTES = 16

LAST_FLAG = 0x08
"""Bit of a frame's tag: the frame is its archive's last one."""

PROMPT_FLAG = 0x80
"""Bit of a model record's first byte: the record has the digest of a prompt."""


@dataclass(frozen=True)
class ModelRecord:
    """The model of an archive that is not embedded (format section 2).

    Attributes:
        name: for people, untrusted.
        model_digest, tokenizer_digest: first half of each.
        planes: of the exact engine; of the float engine the number of its dtype.
        context, start_token: the model's.
        engine: ENGINE_EXACT or ENGINE_FLOAT.
        numerics: version of the engine's rules.
        environment: of the float engine: what its bits depend on.
        prompt_digest: first half of the digest of the text that both sides know beforehand; empty if there is none.
    """

    name: str
    model_digest: bytes
    tokenizer_digest: bytes
    planes: int
    context: int
    start_token: int
    engine: int = ENGINE_EXACT
    numerics: int = NUMERICS_VERSION
    environment: str = ""
    prompt_digest: bytes = b""


@dataclass(frozen=True)
class Header:
    """The header of one archive."""

    model_code: int = NO_MODEL
    model: ModelRecord | None = None


@dataclass(frozen=True)
class WindowsRecord:
    """How the payload of a frame of method windows is divided (format section 4d).

    Attributes:
        window_bits: W.
        count: number of windows.
        last_tokens: of the last window.
        group: windows of a group of the directory.
    """

    window_bits: int
    count: int
    last_tokens: int
    group: int

    @property
    def data_bytes(self) -> int:
        """Of all windows; the rest of the payload is the directory."""
        return -(-self.count * self.window_bits // 8)


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame before its payload (format section 3).

    Attributes:
        rows, overlap: only with profile 3, else 0.
        windows: only with method windows.
    """

    method: int
    last: bool
    original_bytes: int
    payload_bytes: int
    num_tokens: int = 0
    profile: int = 0
    rows: int = 0
    overlap: int = 0
    windows: WindowsRecord | None = None

    @property
    def uses_model(self) -> bool:
        """Whether the frame holds tokens of a language model."""
        return self.num_tokens > 0

    @property
    def method_name(self) -> str:
        """For people: as in the format, and `adaptive` for the mixer without a model."""
        return "adaptive" if self.method == MIXED and not self.uses_model else METHODS[self.method]


@dataclass(frozen=True)
class Frame:
    """A frame as read: where it lies in the file, and its payload unless that was skipped.

    `offset_bytes` and `size_bytes` cover tag to crc32.
    """

    number: int
    offset_bytes: int
    size_bytes: int
    header: FrameHeader
    payload: bytes
    crc32: int
    archive: Header


def with_last(header: FrameHeader, last: bool) -> FrameHeader:
    """The same header, marked as the archive's last frame or not."""
    return replace(header, last=last)


def is_readable(header: FrameHeader, alone: bool) -> bool:
    """Whether a frame's header keeps the rules of format section 3, so that readers take it.

    Args:
        header: of a frame.
        alone: it is the only one of its archive.
    """
    method, profile, tokens = header.method, header.profile, header.num_tokens
    codes_tokens = method in (LM, MIXED, WINDOWS)
    wrong = (
        max(header.original_bytes, header.payload_bytes, tokens) > MAX_FRAME_BYTES
        or method == INDEX
        or (profile and not tokens)
        or (tokens and not codes_tokens)
        or (method in (LM, WINDOWS) and not tokens)
        or (codes_tokens and not tokens <= header.original_bytes <= MAX_LM_BYTES)
        or (codes_tokens and not header.original_bytes)
        or (method == WINDOWS and _is_wrong(header))
        or (method == STORED and header.payload_bytes != header.original_bytes)
        or (method == SKIP and header.original_bytes)
        or (method in (LZMA, ZSTD) and not header.original_bytes)
        or (profile == 3 and not (1 <= header.rows <= min(MAX_ROWS, tokens) and header.overlap >= 1))
        or (profile == 3 and tokens > header.rows * MAX_STEPS)
        or header.overlap >= MAX_CONTEXT
        or (header.original_bytes == 0 and method != SKIP and not alone)
    )
    return not wrong


def _is_wrong(header: FrameHeader) -> bool:
    """Whether a frame of method windows breaks a rule of format section 4d."""
    record, tokens = header.windows, header.num_tokens
    return (
        record is None
        or header.profile not in (FRESH, KEPT)
        or not MIN_WINDOW_BITS <= record.window_bits <= MAX_WINDOW_BITS
        or not 1 <= record.group <= record.count <= tokens
        or not 1 <= record.last_tokens <= tokens - (record.count - 1)
        or not record.data_bytes + 3 * -(-record.count // record.group) <= header.payload_bytes
    )
