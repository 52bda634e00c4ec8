"""The constants, records, headers and limits of docs/format.md; `writing` packs them, `reading` takes them apart."""

from __future__ import annotations

from array import array
from dataclasses import KW_ONLY, dataclass, field, replace

from .._version import NUMERICS_VERSION

MAGIC = b"\xf7LZ"
INDEX_MAGIC = b"ZL\xf7\n"
SUFFIX = ".llmz"

STORED, LM, LZMA, ZSTD, MIXED, WINDOWS, SKIP, INDEX = range(8)
METHODS = ("stored", "lm", "lzma", "zstd", "mixed", "windows", "skip", "index")
"""The methods' names, by number."""

EXPLICIT_ROWS = 3
"""The profile whose number of rows and overlap are in the frame's header; profiles 0 to 2 imply them."""

FRESH, KEPT = 0, 1
"""What the profile means with method windows: each window begins with an empty context, or continues the text's."""

NO_MODEL = 0
"""Model code of archives without a model."""

CARRIED_MODEL = 14
"""Model code that marks a model which the file carries, not an archive."""

USER_MODEL = 15
"""Model code of archives whose header has a model record."""

ENGINE_EXACT, ENGINE_FLOAT = 1, 2
FLOAT_VERSION = 1
"""Version of the float engine's rules; NUMERICS_VERSION is the exact engine's."""

FLOAT_DTYPES = ("float32", "bfloat16", "float16")
"""The float engine's number formats; the model record holds their numbers, from 1 on."""

MAX_PLANES = 2
"""Planes of int8 that the exact engine's activations are split into, at most."""

MAX_FRAME_BYTES = 1 << 26
"""Original or compressed size of a frame, 64 MiB."""

MAX_LM_BYTES = 1 << 21
"""Original size of a frame that a model or the mixer codes, 2 MiB."""

MAX_ROWS = 1 << 12
MAX_STEPS = 1 << 16
"""Tokens of a row, if the header says how many rows there are: a decoder's time is bounded by it."""

MIN_WINDOW_BITS = 16
MAX_WINDOW_BITS = 1 << 16
MAX_CONTEXT = 1 << 17
MAX_VOCAB = 300_000
MAX_RECORD_BYTES = 512
MAX_NAME_BYTES = 255
MAX_ENVIRONMENT_BYTES = 200
MAX_INDEX_ENTRIES = 1 << 22
MAX_CARRIED_WEIGHTS_BYTES = 1 << 31
MAX_CARRIED_TABLE_BYTES = 1 << 26
"""Bytes of a carried model's token table, compressed and decompressed, 64 MiB."""
MAX_INDEX_ENTRY_BYTES = 12
"""Three varints, none of them above the size of a whole frame, which takes 4 bytes."""

DIGEST_BYTES = 16
"""Bytes of a digest that archives hold: the first half of a SHA-256."""

LAST_FLAG = 0x08
"""Bit of a frame's tag: the frame is its archive's last one."""

PROMPT_FLAG = 0x80
"""Bit of a model record's first byte: the record has the digest of a prompt."""


@dataclass(frozen=True)
class ModelRecord:
    """The model of an archive that is not embedded, and the engine that ran it (format section 2).

    Attributes:
        name: the model's name for people; untrusted.
        model_digest, tokenizer_digest: first half of each digest, 16 bytes.
        context: tokens that a prediction is made from, at most, 2 to 131,072.
        start_token: id of the token that every context begins with.
        planes: int8 planes of the exact engine's activations, 1 or 2; None for the float engine.
        dtype: the float engine's number format, one of FLOAT_DTYPES; None for the exact engine.
        numerics: version of the engine's rules.
        environment: what the float engine's bits depend on, ASCII; empty for the exact engine.
        prompt_digest: first half of the digest of the text that both sides know beforehand; empty if there is none.
    """

    name: str
    model_digest: bytes
    tokenizer_digest: bytes
    _: KW_ONLY
    context: int
    start_token: int
    planes: int | None = None
    dtype: str | None = None
    numerics: int = NUMERICS_VERSION
    environment: str = ""
    prompt_digest: bytes = b""

    @property
    def engine(self) -> int:
        """ENGINE_FLOAT if there is a dtype, else ENGINE_EXACT."""
        return ENGINE_EXACT if self.dtype is None else ENGINE_FLOAT

    @property
    def number_format(self) -> int:
        """The record's byte for the planes or the dtype, whichever the engine has."""
        return FLOAT_DTYPES.index(self.dtype) + 1 if self.dtype is not None else self.planes or 0


@dataclass(frozen=True)
class CarriedModel:
    """A model that a file carries (format section 5a), as it is there: untrusted, and not decoded yet.

    Two are equal if digests and checksum are: the digests are compared with what is decoded.

    Attributes:
        model_digest, tokenizer_digest: first half of each digest, 16 bytes.
        weights: a weight file of version 1; empty if it was passed over.
        table: the compressed table of tokens; empty if it was passed over.
        table_bytes: size of the table when it is decompressed.
        checksum: crc32 of weights and table.
        is_damaged: whether weights and table differ from that, and are left out.
    """

    model_digest: bytes
    tokenizer_digest: bytes
    weights: bytes = field(default=b"", compare=False, repr=False)
    table: bytes = field(default=b"", compare=False, repr=False)
    table_bytes: int = 0
    checksum: int = 0
    is_damaged: bool = field(default=False, compare=False)

    def serves(self, record: ModelRecord) -> bool:
        """Whether an archive with this record is decoded with the model."""
        digests = (record.model_digest, record.tokenizer_digest)
        is_plain = record.engine == ENGINE_EXACT and not record.prompt_digest
        return is_plain and digests == (self.model_digest, self.tokenizer_digest)


@dataclass(frozen=True)
class Header:
    """The header of one archive.

    Attributes:
        model_code: NO_MODEL, an embedded model's code, or USER_MODEL.
        model: the record that goes with USER_MODEL.
        carried: the model, if the file carries it; not a part of the header itself.
    """

    model_code: int = NO_MODEL
    model: ModelRecord | None = None
    carried: CarriedModel | None = field(default=None, compare=False)


@dataclass(frozen=True)
class WindowsRecord:
    """How the payload of a frame of method windows is divided (format section 4d).

    Attributes:
        window_bits: size W of a window in bits, 16 to 65,536.
        count: number of windows, at least 1.
        last_tokens: tokens in the last window.
        group: windows that share an entry of the directory.
    """

    window_bits: int
    count: int
    last_tokens: int
    group: int

    @property
    def data_bytes(self) -> int:
        """Size of all windows in bytes; the rest of the payload is the directory."""
        return -(-self.count * self.window_bits // 8)


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame before its payload (format section 3).

    Attributes:
        method: number of the method, an index of METHODS.
        original_bytes: size of the text that the frame stands for.
        payload_bytes: size of the payload.
        num_tokens: tokens of the language model; 0 if the frame uses none.
        profile: the header's two bits as they are; `has_explicit_rows` and `keeps_context` say what they mean.
        rows, overlap: number of rows and overlap of the contexts; 0 unless the profile is EXPLICIT_ROWS.
        windows: how the payload is divided, with method windows only.
        last: whether this is the archive's last frame.
    """

    method: int
    original_bytes: int
    payload_bytes: int
    _: KW_ONLY
    num_tokens: int = 0
    profile: int = 0
    rows: int = 0
    overlap: int = 0
    windows: WindowsRecord | None = None
    last: bool = False

    @classmethod
    def stored(cls, num_bytes: int) -> FrameHeader:
        """The header of a frame that holds its text as it is."""
        return cls(STORED, num_bytes, num_bytes)

    @classmethod
    def adaptive(cls, original_bytes: int, payload_bytes: int) -> FrameHeader:
        """The header of a frame that the mixer codes without a language model: method mixed with no tokens."""
        return cls(MIXED, original_bytes, payload_bytes)

    @classmethod
    def of_windows(
        cls, original_bytes: int, payload_bytes: int, record: WindowsRecord, *, num_tokens: int, fresh: bool
    ) -> FrameHeader:
        """The header of a frame of windows, each with an empty context if `fresh`, else with the text's."""
        profile = FRESH if fresh else KEPT
        return cls(WINDOWS, original_bytes, payload_bytes, num_tokens=num_tokens, profile=profile, windows=record)

    @property
    def uses_model(self) -> bool:
        """Whether the frame holds tokens of a language model."""
        return self.num_tokens > 0

    @property
    def is_adaptive(self) -> bool:
        """Whether the mixer codes the frame without a language model."""
        return self.method == MIXED and not self.uses_model

    @property
    def has_explicit_rows(self) -> bool:
        """Whether the header itself says how many rows there are and how contexts overlap."""
        return self.profile == EXPLICIT_ROWS

    @property
    def keeps_context(self) -> bool:
        """Whether the frame's windows continue one context, so that none can be decoded without those before it."""
        return self.method == WINDOWS and self.profile == KEPT

    @property
    def method_name(self) -> str:
        """The method's name for people: as in the format, and `adaptive` for the mixer without a model."""
        return "adaptive" if self.is_adaptive else METHODS[self.method]


@dataclass
class LineCounts:
    """What the index of an archive says about its lines.

    Attributes:
        line_feeds: number of line feeds in the text of each frame; None until the index has been read, and for an
            archive of one frame, which has no index.
    """

    line_feeds: array[int] | None = None


@dataclass(frozen=True)
class Frame:
    """A frame as read.

    Attributes:
        number: position of the frame in its archive, from 0.
        offset_bytes: where the frame's tag is in the file.
        size_bytes: size of the frame from its tag to its crc32.
        header: the fields before the payload.
        payload: the compressed bytes; empty if they were skipped, of skip frames the first 48 bytes then.
        crc32: checksum of the original bytes.
        archive: header of the frame's archive.
        index: what the archive's index says; all frames of the archive share it, and it is filled when they were read.
    """

    number: int
    offset_bytes: int
    size_bytes: int
    header: FrameHeader
    payload: bytes
    crc32: int
    archive: Header
    index: LineCounts = field(default_factory=LineCounts, compare=False, repr=False)

    @property
    def line_feeds(self) -> int | None:
        """Number of line feeds in the text by the archive's index; None if it has none, or it was not read yet."""
        counts = self.index.line_feeds
        return None if counts is None else counts[self.number]


def with_last(header: FrameHeader, last: bool) -> FrameHeader:
    """Returns the same header, marked as the archive's last frame or not."""
    return replace(header, last=last)


def is_readable(header: FrameHeader, *, alone: bool) -> bool:
    """Checks whether a frame's header keeps the rules of format section 3, so that readers accept it.

    Args:
        header: the header to check.
        alone: whether it is the only frame of its archive.
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
        or (method == WINDOWS and _breaks_window_rules(header))
        or (method == STORED and header.payload_bytes != header.original_bytes)
        or (method == SKIP and header.original_bytes)
        or (method in (LZMA, ZSTD) and not header.original_bytes)
        or (header.has_explicit_rows and not (1 <= header.rows <= min(MAX_ROWS, tokens) and header.overlap >= 1))
        or (header.has_explicit_rows and tokens > header.rows * MAX_STEPS)
        or header.overlap >= MAX_CONTEXT
        or (header.original_bytes == 0 and method != SKIP and not alone)
    )
    return not wrong


def _breaks_window_rules(header: FrameHeader) -> bool:
    """Checks whether a frame of method windows breaks a rule of format section 4d."""
    record, tokens = header.windows, header.num_tokens
    return (
        record is None
        or header.profile not in (FRESH, KEPT)
        or not MIN_WINDOW_BITS <= record.window_bits <= MAX_WINDOW_BITS
        or not 1 <= record.group <= record.count <= tokens
        or not 1 <= record.last_tokens <= tokens - (record.count - 1)
        or not record.data_bytes + 3 * -(-record.count // record.group) <= header.payload_bytes
    )
