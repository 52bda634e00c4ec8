"""From a Hugging Face checkpoint to integer weights; must not know files.

The families' names and shapes are in families.py; here tensors are joined, rearranged and rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import ModelUnsupportedError
from ..numerics import ops
from . import families
from .assembly import assemble
from .config import MAX_CONTEXT, ExactConfig, default_floor_bits
from .families import Family
from .model import ExactModel

_BLOCK = 1 << 22
"""Elements of a matrix that are rounded at once: in float32 an embedding may be larger than the whole int8 form."""


@runtime_checkable
class RowSource(Protocol):
    """Tensors whose matrices need not be in memory as a whole."""

    def rows(self, name: str) -> Any:
        """Returns a tensor, or what has its shape and dtype and gives slices of its rows."""
        ...


def quantise_rows(weight: torch.Tensor, grid: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rounds a matrix to int8 with one scale per row.

    Args:
        weight: (N, K) floating point, finite.
        grid: 0 for the finest scale, s = max(max |w|, TINY) * (1 / 127). Above 0, a step is at least grid / 127 of the
            row's root mean square, and s is rounded up to 5 bits, so that both entropy-code well (docs/weights.md).

    Returns:
        (N, K) int8, |w_q| <= 127; (N,) float32.
    """
    wide = weight.to(torch.float32)
    if not grid:
        w_q, scale = ops.quantise(wide, ops.ACT_MAX)
        return w_q.to(torch.int8), scale[:, 0].contiguous()
    finest = torch.maximum(wide.abs().amax(1), grid * wide.square().mean(1).sqrt()).clamp(min=ops.TINY) / ops.ACT_MAX
    mantissa, exponent = torch.frexp(finest)
    scale = torch.ldexp(torch.ceil(mantissa * 32) / 32, exponent)
    return torch.round(wide / scale[:, None]).to(torch.int8), scale


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    planes: int,
    context: int,
    *,
    start_token: int | None = None,
    grid: float = 0.0,
) -> ExactModel:
    """Converts a checkpoint to integers.

    Args:
        config: its config.json.
        tensors: its weights by name.
        planes: 1 or 2.
        context: maximum positions of a segment; cut to what the model was made for.
        start_token: id that each row begins with; None for the checkpoint's BOS, else its EOS, else 0.
        grid: step of the weights, as `quantise_rows` takes it.

    Raises:
        ModelUnsupportedError: something that the exact engine cannot run; names the first such thing.
        KeyError, ValueError, and others of config.MISSTATED: the configuration lacks or misstates something.
    """
    family = families.read(config)
    vocab_size = family.settings["vocab_size"]
    exact = ExactConfig(
        planes=planes,
        context=min(context, family.positions, MAX_CONTEXT),
        start_token=default_start_token(config, vocab_size) if start_token is None else start_token,
        floor_bits=default_floor_bits(vocab_size),
        **family.settings,
    )
    converted = _Conversion(exact, family, tensors, grid).all()
    return assemble(exact, {name: tensor.detach().cpu().numpy() for name, tensor in converted.items()}.get)


def default_start_token(config: Mapping[str, Any], vocab_size: int) -> int:
    """Returns a checkpoint's BOS, else its EOS, else 0; -1, lists of several and other oddities count as none."""
    candidates = (config.get(name) for name in ("bos_token_id", "eos_token_id"))
    return next((token for token in candidates if type(token) is int and 0 <= token < vocab_size), 0)


class _Conversion:
    """The conversion of one checkpoint: takes its tensors one by one, and remembers which are left."""

    def __init__(self, exact: ExactConfig, family: Family, tensors: Mapping[str, torch.Tensor], grid: float) -> None:
        self._exact, self._family, self._source, self._grid = exact, family, tensors, grid
        self._left = {name for name in tensors if not name.endswith(family.ignored)}
        self._out: dict[str, torch.Tensor] = {}
        probe = family.matrices["embedding"][0] + ".weight"
        self._prefix = next((p for p in family.prefixes if p + probe in tensors), family.prefixes[0])

    def all(self) -> dict[str, torch.Tensor]:
        """Returns the tensors of the int8 form by name.

        Raises:
            ModelUnsupportedError: a tensor that is missing, unknown, or not finite.
        """
        exact, family = self._exact, self._family
        for ours, theirs in family.matrices.items():
            for number in range(exact.num_layers) if "{}" in ours else (0,):
                names = [self._place(name.format(number)) for name in theirs]
                if ours == "head":
                    self._head(names[0])
                else:
                    self._matrix(ours.format(number), names)
        for ours, name in family.vectors.items():
            for number in range(exact.num_layers) if "{}" in ours else (0,):
                self._norm(ours.format(number), self._place(name.format(number)))
        if self._left:
            raise ModelUnsupportedError(
                f"weights: unknown tensor {min(self._left)}; this is not a plain decoder of this family"
            )
        return self._out

    def _place(self, name: str) -> str:
        """Returns a name with the checkpoint's prefix; heads have none."""
        return name if name in ("lm_head", "embed_out") else self._prefix + name

    def _find(self, name: str) -> torch.Tensor:
        """Returns a tensor; of a `RowSource`, what gives the rows of one."""
        if name not in self._source:
            raise ModelUnsupportedError(f"weights: tensor {name} is missing")
        self._left.discard(name)
        source = self._source
        tensor: torch.Tensor = source.rows(name) if isinstance(source, RowSource) else source[name]
        return tensor

    def _take(self, name: str) -> torch.Tensor:
        tensor = self._find(name)
        return _finite(name, tensor if isinstance(tensor, torch.Tensor) else tensor[:])

    def _matrix(self, ours: str, names: list[str]) -> None:
        exact, layered = self._exact, ours.startswith("layers.")
        parts = [(f"{name}.weight", self._find(f"{name}.weight")) for name in names]
        if any(part.ndim != 2 for _, part in parts):
            raise ModelUnsupportedError(f"weights: {names[0]}.weight is not a matrix")
        if self._family.transposed and layered:
            parts = [(name, part.T) for name, part in parts]
        if ours == "positions":
            parts = [(name, part[: exact.context]) for name, part in parts]
        biases = [self._take(f"{name}.bias") for name in names if layered and f"{name}.bias" in self._source]
        if not biases and f"{ours.rpartition('.')[2]}_bias" in self._family.required:
            raise ModelUnsupportedError(f"weights: tensor {names[0]}.bias is missing")
        if biases and len(biases) != len(parts):
            raise ModelUnsupportedError(f"weights: only some of {', '.join(names)} have a bias")
        if len({part.shape[1] for _, part in parts}) > 1:
            raise ModelUnsupportedError(f"weights: {', '.join(names)} have rows of different lengths")
        weight_q, scale = self._rounded(parts)
        bias = torch.cat(biases) if biases else None
        if self._family.mixed_heads and ours.endswith(".qkv"):
            weight_q, scale = self._by_kind(weight_q), self._by_kind(scale)
            bias = None if bias is None else self._by_kind(bias)
        self._out[f"{ours}_q"], self._out[f"{ours}_scale"] = weight_q, scale
        if bias is not None:
            self._out[f"{ours}_bias"] = bias.contiguous()

    def _rounded(self, parts: list[tuple[str, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stacks matrices and rounds them to int8 with one scale per row, block by block."""
        rows, columns = sum(len(part) for _, part in parts), parts[0][1].shape[1]
        device = parts[0][1].device  # named, as the dtype is: a program may have other defaults
        weight_q = torch.empty((rows, columns), dtype=torch.int8, device=device)
        scale = torch.empty(rows, dtype=torch.float32, device=device)
        end = 0
        for name, part in parts:
            # Each row is rounded alone. A grid's scales are sums of floats, whose order might depend on the shape.
            for block in [part[:]] if self._grid else _blocks(part):
                begin, end = end, end + len(block)
                weight_q[begin:end], scale[begin:end] = quantise_rows(_finite(name, block), self._grid)
        return weight_q, scale

    def _by_kind(self, rows: torch.Tensor) -> torch.Tensor:
        """Reorders rows from query, key and value of each head to all queries, all keys, all values."""
        heads, dim = self._exact.num_heads, self._exact.head_dim
        if rows.shape[0] != 3 * heads * dim:
            raise ModelUnsupportedError(f"weights: {rows.shape[0]} rows for {heads} heads of {dim}")
        return rows.view(heads, 3, dim, -1).transpose(0, 1).reshape(rows.shape)

    def _head(self, name: str) -> None:
        """Converts the head, unless it is the embedding.

        The configuration alone decides whether the head is tied, as for every reader of checkpoints: if it says that
        there is a head, the embedding does not stand in for a missing one.
        """
        embedding = self._place(self._family.matrices["embedding"][0]) + ".weight"
        weight = f"{name}.weight"
        if not self._family.tied:
            if weight not in self._source:
                raise ModelUnsupportedError(
                    f"weights: tensor {weight} is missing; if it is the embedding, config.json must say "
                    '"tie_word_embeddings": true'
                )
            if not _equal(self._find(weight), self._find(embedding)):
                self._matrix("head", [name])
        self._left.discard(weight)

    def _norm(self, ours: str, name: str) -> None:
        part = ours.rpartition(".")[2]
        optional = part in ("q_norm", "k_norm") and part not in self._family.required
        if optional and f"{name}.weight" not in self._source:
            return
        self._out[ours] = self._take(f"{name}.weight") + self._family.norm_offset
        if self._exact.norm == "layer":
            self._out[f"{ours}_bias"] = self._take(f"{name}.bias")


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor in float32; refuses values that are not finite."""
    wide = tensor.to(torch.float32)
    if not bool(torch.isfinite(wide).all()):
        raise ModelUnsupportedError(f"weights: tensor {name} holds a NaN or an infinity")
    return wide


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two matrices hold the same values, whatever their dtypes."""
    if a.shape != b.shape or a.ndim != 2:
        return False
    kind, pairs = torch.promote_types(a.dtype, b.dtype), zip(_blocks(a), _blocks(b), strict=True)
    return all(torch.equal(one.to(kind), other.to(kind)) for one, other in pairs)


def _blocks(matrix: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields a matrix by rows, as many at a time as make a block."""
    step = max(1, _BLOCK // max(1, matrix.shape[1]))
    return (matrix[begin : begin + step] for begin in range(0, len(matrix), step))
