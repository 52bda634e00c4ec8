"""The exact operations: sums of integers, and float32 that rounds once per operation; must not know models.

Every function gives the same bits on every device and for every batch size and number of threads, because each sum is
a sum of integers that is exact in the type that holds it (the bound is in its docstring), and everything else is
elementwise IEEE-754 float32 with + - * / min max round, one rounding each (docs/numerics.md section 2). Not allowed
here: sqrt of float32, exp, rsqrt, softmax, addcmul, lerp, a float division by a Python number (CUDA turns it into a
product), torch.compile. T, S, D, H, K, N are sizes; `*_q` are integer-valued.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..errors import EngineError
from . import scalars, tables

# For callers that have tensors.
TINY = scalars.TINY
ACT_MAX = scalars.ACT_MAX
ACT_MAX_2 = scalars.ACT_MAX_2
NORM_MAX = scalars.NORM_MAX
KV_MAX = scalars.KV_MAX
WEIGHT_SUM = scalars.WEIGHT_SUM
VALUE_KEYS = scalars.VALUE_KEYS
query_max = scalars.query_max
inverse = scalars.inverse

_FLOAT_TERMS = 1024
"""Terms of an int8 product that are exact in float32: 128 * 127 * 1024 < 2^24."""


def quantise(x: torch.Tensor, q_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantises rows: round(x * (q_max / a)), and the scale a * (1 / q_max), with a = max(max |x|, TINY).

    Args:
        x: (..., K) float32, finite.
        q_max: at most 2^22.

    Returns:
        x_q: (..., K) float32, integer-valued, |x_q| <= q_max (the product exceeds q_max by less than 1/2, so it
            rounds to q_max); scale: (..., 1) float32.
    """
    amax = x.abs().amax(-1, keepdim=True).clamp_(min=TINY)
    x_q = torch.mul(x, torch.full_like(amax, float(q_max)).div_(amax)).round_()
    return x_q, amax.mul_(inverse(q_max))


def quantise_heads(x: torch.Tensor, q_max: torch.Tensor, q_unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantises rows as `quantise` does, with a bound for each head.

    Args:
        x: (..., n, D) float32.
        q_max, q_unit: (n, 1) float32, the bounds and their inverses rounded to float32.

    Returns:
        (..., n, D) and (..., n, 1) float32.
    """
    amax = x.abs().amax(-1, keepdim=True).clamp_(min=TINY)
    return torch.mul(x, q_max / amax).round_(), amax.mul_(q_unit)


def square_root(v: torch.Tensor) -> torch.Tensor:
    """Computes correctly rounded square roots by way of float64: torch.sqrt of float32 isn't correct on every CPU.

    The root of a 24-bit number is never within 2^-51 of itself of a point halfway between two float32 (that point's
    square has 50 bits, the last one set), so a float64 root with an error of less than two units in its last place
    rounds correctly.

    Args:
        v: float32, positive and normal.
    """
    return torch.sqrt(v.to(torch.float64)).to(torch.float32)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Computes x / sqrt(mean(x^2) + eps) * weight.

    The mean is that of the row in 11 bits and a sign: the sum of squares is at most 2047^2 * K < 2^53 in float64.

    Args:
        x: (..., K) float32.
        weight: (..., K) float32, broadcast.
        eps: a float32 value.

    Returns:
        (..., K) float32.
    """
    x_q, scale = quantise(x, NORM_MAX)
    total = x_q.mul_(x_q).sum(-1, keepdim=True, dtype=torch.float64).to(torch.float32)
    mean = total.mul_(inverse(x.shape[-1])).mul_(scale * scale)
    root = square_root(mean.add_(eps))
    return torch.mul(x, torch.ones_like(root).div_(root)).mul_(weight)


def centred(x: torch.Tensor) -> torch.Tensor:
    """Subtracts from x its mean over the last dimension, the mean of the row in 11 bits and a sign.

    The sum is at most 2047 * K in magnitude, exact in float64.

    Args:
        x: (..., K) float32.

    Returns:
        (..., K) float32.
    """
    x_q, scale = quantise(x, NORM_MAX)
    total = x_q.sum(-1, keepdim=True, dtype=torch.float64).to(torch.float32)
    return x - total.mul_(inverse(x.shape[-1])).mul_(scale)


def exp2_index(steps: torch.Tensor, size: int = tables.EXP2_SIZE) -> torch.Tensor:
    """Converts arguments in units of 2^-10 bits to indices of the table; overwrites its argument.

    Args:
        steps: float32 >= 0.
        size: entries of the table.

    Returns:
        int64 in [0, size): the argument, truncated.
    """
    return steps.clamp_(max=float(size - 1)).to(torch.int64)


def exp2_lookup(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Returns E[index] in the table's dtype (gather is torch's fastest look-up on CPUs).

    Args:
        table: (EXP2_SIZE,).
        index: (..., n) int64.
    """
    flat = index.reshape(-1, index.shape[-1])
    return torch.gather(table.expand(flat.shape[0], -1), 1, flat).view(index.shape)


def silu(x: torch.Tensor, exp2_unit: torch.Tensor) -> torch.Tensor:
    """Computes x * sigmoid(x).

    Args:
        x: (..., K) float32.
        exp2_unit: (EXP2_SIZE,) float32, the table times 2^-20 (exact).
    """
    return _times_sigmoid(x, x.abs().mul_(tables.log2e_steps()), exp2_unit)


def gelu_tanh(x: torch.Tensor, exp2_unit: torch.Tensor) -> torch.Tensor:
    """Computes x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), which is x (1 + tanh(...)) / 2.

    Args:
        x, exp2_unit: as in `silu`.
    """
    first, third = tables.gelu_factors()
    size = x.abs().clamp_(max=4096.0)  # E is 0 well below that; the cube stays finite
    return _times_sigmoid(x, torch.mul(size, size).mul_(third).add_(first).mul_(size), exp2_unit)


def _times_sigmoid(x: torch.Tensor, steps: torch.Tensor, exp2_unit: torch.Tensor) -> torch.Tensor:
    """Computes x / (1 + E) for x >= 0 and x * E / (1 + E) for x < 0, E = 2^-20 * E[steps + 1/2]; overwrites `steps`.

    One of the two terms of u below is 0.
    """
    e = exp2_lookup(exp2_unit, exp2_index(steps.add_(0.5)))
    u = x.clamp(max=0.0).mul_(e).add_(x.clamp(min=0.0))
    return u.div_(e.add_(1.0))


def gelu(x: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Computes x * Phi(x), Phi the integral of the normal distribution: x - x * N for x >= 0 and x * N for x < 0.

    Args:
        x: (..., K) float32.
        normal: (NORMAL_SIZE + 1,) float32, the table times 2^-24 (exact), then 0.
    """
    index = x.abs().mul_(float(tables.NORMAL_STEPS)).add_(0.5).clamp_(max=float(tables.NORMAL_SIZE)).to(torch.int64)
    part = exp2_lookup(normal, index).mul_(x)
    return torch.where(x >= 0, x - part, part)


def soft_cap(x: torch.Tensor, cap: float, exp2_unit: torch.Tensor) -> torch.Tensor:
    """Computes c tanh(x / c) as c (1 - E) / (1 + E) with the sign of x, E = exp(-2 |x| / c) from the table.

    Args:
        x: float32, in steps of the table.
        cap: c in natural-logarithm units, binary64.
        exp2_unit: as in `silu`.
    """
    limit, slope = tables.cap_factors(cap)
    e = exp2_lookup(exp2_unit, exp2_index(x.abs().mul_(slope).add_(0.5)))
    size = torch.sub(1.0, e).div_(e.add_(1.0)).mul_(limit)
    return torch.where(x >= 0, size, -size)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> None:
    """Rotates halves, paired as Hugging Face pairs them: (a cos - b sin, b cos + a sin), each operation rounded.

    Args:
        x: (B, T, H, D) float32.
        cos, sin: (T, 1, P) float32, multiples of 2^-14, for P <= D / 2 pairs of i and i + P; values from 2 P on are
            only copied.
        out: (B, T, H, D) float32.
    """
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half : 2 * half]
    torch.sub(a * cos, b * sin, out=out[..., :half])
    torch.add(b * cos, a * sin, out=out[..., half : 2 * half])
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]


class Kernels:
    """The two matrix products, in a form that is exact on a device (docs/numerics.md section 5).

    A self-test with extreme values chooses it, because some builds saturate (oneDNN's int8 path without VNNI) or
    lower the precision of float32 products without the caller's knowledge (oneDNN's and CUDA's fast modes).

    Args:
        device: the device.
        shapes: the shapes (N, K) of the weight matrices; libraries choose their kernels by shape.

    Raises:
        EngineError: no form is exact.
    """

    def __init__(self, device: torch.device, shapes: Iterable[tuple[int, int]] = ()) -> None:
        self.device = device
        self._shapes = sorted({(min(n, 1024), k) for n, k in shapes} | {(64, 520)})
        self._choose()

    def check(self) -> None:
        """Chooses again if somebody has changed torch's precision since; every forward pass calls this."""
        if _precision_settings() != self._settings:
            self._choose()

    def _choose(self) -> None:
        self._settings = _precision_settings()
        device = self.device
        for dtype in (torch.float32, torch.float64):
            if _float_products_exact(device, dtype):
                self.float_dtype = dtype
                break
        else:
            raise EngineError(f"device {device}: neither float32 nor float64 products of integers are exact")
        self.int8_native = all(_int8_product_exact(device, n, k) for n, k in self._shapes)
        self._int8_mm = _mm_int8 if self.int8_native else self._mm_float

    def describe(self) -> str:
        """Describes which forms were chosen, for a verbose report."""
        return f"int8 products: {'native' if self.int8_native else 'float'}, float products: {self.float_dtype}"

    def linear(
        self, x: torch.Tensor, weight_q: torch.Tensor, weight_scale: torch.Tensor, planes: int, gain: float = 1.0
    ) -> torch.Tensor:
        """Computes x @ weight.T with int8 weights and activations of 8 bits, or of 16 bits in two planes.

        Args:
            x: (n, K) float32.
            weight_q: (N, K) int8, |w| <= 127.
            weight_scale: (N,) float32.
            planes: 1 or 2.
            gain: float32 factor of the row scale.

        Returns:
            (n, N) float32 = (sum * (scale * gain)) * weight_scale. |sum| <= 128 * 127 * K < 2^31 for K <= 132,104.
        """
        if planes == 1:
            x_q, scale = quantise(x, ACT_MAX)
            y = self._int8_mm(x_q.to(torch.int8), weight_q).to(torch.float32)
        else:
            x_q, scale = quantise(x, ACT_MAX_2)
            high = torch.floor((x_q + 128.0) * 2.0**-8)
            low = x_q.sub_(high * 256.0)
            y = self._int8_mm(high.to(torch.int8), weight_q).to(torch.float32).mul_(256.0)
            y.add_(self._int8_mm(low.to(torch.int8), weight_q).to(torch.float32))
        if gain != 1.0:
            scale = scale.mul_(gain)
        return y.mul_(scale).mul_(weight_scale)

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Computes a @ b of integer-valued float32 whose sums of magnitudes stay below 2^24: exact in float32."""
        if self.float_dtype is torch.float32:
            return torch.matmul(a, b)
        return torch.matmul(a.to(self.float_dtype), b.to(self.float_dtype)).to(torch.float32)

    def _mm_float(self, a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Computes a @ w.T in int32 from float products of at most _FLOAT_TERMS terms."""
        total = torch.zeros(a.shape[0], w.shape[0], dtype=torch.int32, device=a.device)
        for first in range(0, a.shape[1], _FLOAT_TERMS):
            terms = slice(first, first + _FLOAT_TERMS)
            total += (a[:, terms].to(self.float_dtype) @ w[:, terms].to(self.float_dtype).T).to(torch.int32)
        return total


def _precision_settings() -> tuple[object, ...]:
    """Returns the settings of torch that may lower the precision of float32 products."""
    try:
        legacy: object = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch no longer answers once the newer settings below have been used
        legacy = "mixed"
    newer = [
        getattr(getattr(torch.backends, backend).matmul, "fp32_precision", None)
        for backend in ("cuda", "mkldnn")
        if hasattr(getattr(torch.backends, backend), "matmul")
    ]
    return (
        legacy,
        *newer,
        torch.backends.mkldnn.enabled,  # without oneDNN another int8 product runs
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )


def _mm_int8(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Computes a @ w.T in int32; on CUDA it pads the operands to shapes that `_int_mm` accepts."""
    if not a.is_cuda:
        return torch._int_mm(a, w.T)
    rows, columns = a.shape[0], w.shape[0]
    pad_k = -a.shape[1] % 8
    if pad_k:
        a, w = torch.nn.functional.pad(a, (0, pad_k)), torch.nn.functional.pad(w, (0, pad_k))
    if columns % 8:
        w = torch.nn.functional.pad(w, (0, 0, 0, -columns % 8))
    if rows <= 16 or rows % 8:
        a = torch.nn.functional.pad(a, (0, 0, 0, max(-rows % 8, 24 - rows)))
    return torch._int_mm(a.contiguous(), w.T)[:rows, :columns]


def _int8_product_exact(device: torch.device, columns: int, terms: int) -> bool:
    """Returns whether native products of a shape are exact; rows of all 127 and of all -128 reach the limits."""
    columns = max(columns, 3)  # as many as those rows are
    n = torch.arange((64 + columns) * terms, dtype=torch.int64, device="cpu")
    pattern = (((n * n * 40503 + n * 2654435761) >> 7) % 255 - 127).view(64 + columns, terms)
    a, w = pattern[:64].clone(), pattern[64:].clone()
    a[0], a[1], a[2, ::2] = 127, -128, -128
    w[0], w[1], w[2, ::2] = 127, -127, 127
    expected = (a.to(torch.float64) @ w.to(torch.float64).T).to(torch.int32)
    a8, w8 = a.to(device, torch.int8), w.to(device, torch.int8)
    try:
        return all(torch.equal(_mm_int8(a8[:m], w8).cpu(), expected[:m]) for m in (1, 2, 17, 64))
    except RuntimeError:  # this device has no such kernel
        return False


def _float_products_exact(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether products with sums up to 2^24 - 1 of 12-bit by 8-bit and 17-bit by 8-bit values are exact."""
    n = torch.arange(96 * 64, dtype=torch.int64, device="cpu")
    pattern = ((n * n * 7919 + n * 104729) >> 3) % 4095 - 2047
    q = pattern.view(96, 64)
    q[0], q[1], q[2, ::2] = 2047, -2047, 2047
    k = (pattern.flip(0) % 255 - 127).view(64, 96)
    k[:, 0], k[:, 1] = 127, -127
    p = torch.zeros(3, VALUE_KEYS, dtype=torch.int64, device="cpu")
    p[0], p[1, 7], p[1, 1000:], p[2, -1] = 64, 131055, 1, 132103
    v = ((torch.arange(VALUE_KEYS * 32, device="cpu") * 104729 >> 2) % 255 - 127).view(VALUE_KEYS, 32)
    v[:, 0], v[:, 1] = 127, -127
    for left, right in ((q, k), (p, v)):
        exact = left @ right
        for rows in (1, left.shape[0]):
            product = torch.matmul(left[:rows].to(device, dtype), right.to(device, dtype))
            if not torch.equal(product.cpu().to(torch.int64), exact[:rows]):
                return False
            batched = torch.matmul(
                left[:rows].to(device, dtype).expand(3, -1, -1), right.to(device, dtype).expand(3, -1, -1)
            )
            if not torch.equal(batched[2].cpu().to(torch.int64), exact[:rows]):
                return False
    return True
