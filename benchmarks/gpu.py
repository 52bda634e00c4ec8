"""Checks bits and speed of a CUDA device in a run of at most 8 minutes: `python benchmarks/gpu.py --output gpu.jsonl`.

First it compares the device's bits with the CPU's, stage by stage and for whole models. Then it measures encoding and
decoding, part by part, for the embedded models and for random weights of public shapes. Each result is printed and
written as a line of JSON at once, so a run that is cut off keeps what it measured. torch, numpy and Triton are enough;
parts that need more (the coder, whole archives) are reported and skipped.

To try it without a device: `--device cpu --tiny`, and the same with TRITON_INTERPRET=1 LLMZIP_KERNELS=triton.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
_NEEDED = ("click", "constriction", "safetensors", "tokenizers", "tqdm", "zstandard", "huggingface_hub")
MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    # llmzip/__init__.py needs them and the engines do not: import the engines alone.
    package = types.ModuleType("llmzip")
    package.__path__ = [str(ROOT / "llmzip")]
    sys.modules["llmzip"] = package

from shapes import SHAPES, random_model  # noqa: E402

from llmzip.engines import selftest  # noqa: E402
from llmzip.engines.arrays import Array  # noqa: E402
from llmzip.engines.base import Readout  # noqa: E402
from llmzip.engines.exact import ExactEngine  # noqa: E402
from llmzip.engines.gpu import devices  # noqa: E402
from llmzip.engines.gpu.frequencies import frequencies  # noqa: E402
from llmzip.engines.torch_frequencies import TorchFrequencies  # noqa: E402
from llmzip.models.int8form import load_int8  # noqa: E402
from llmzip.models.layout import INT8  # noqa: E402
from llmzip.models.matrix import Int8Matrix  # noqa: E402
from llmzip.models.model import ExactModel  # noqa: E402
from llmzip.numerics import ops, tables  # noqa: E402
from llmzip.training.machine import seconds_per_call  # noqa: E402

BYTES_PER_TOKEN = {"small": 3.1, "base": 3.1}
"""For English prose and vocabularies of 4,096 tokens. Other models, with about 50,000 or 128,000 tokens: 4.3."""

MASSES_AT_ONCE = 1 << 27

Stage = tuple[str, Array, Array]
"""Name of a stage, and its results on the CPU and on the device."""


class Report:
    """A report that prints and writes each result at once.

    Args:
        output: file for lines of JSON, or None.
        seconds: after which no new part begins.
    """

    def __init__(self, output: Path | None, seconds: float) -> None:
        self._file = output.open("w", encoding="utf-8") if output else None
        self._end, self.failures = time.monotonic() + seconds, 0

    def add(self, part: str, **values: Any) -> None:
        text = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
        print(f"{part}: {text}", flush=True)
        if self._file:
            self._file.write(json.dumps({"part": part, **values}) + "\n")
            self._file.flush()

    def equal(self, part: str, pairs: Iterator[Stage]) -> None:
        """Compares results of the CPU and of the device by their hashes."""
        found, wrong = [], []
        for name, one, other in pairs:
            hashes = [hashlib.sha256(_bytes(array)).hexdigest()[:12] for array in (one, other)]
            found.append(f"{name}={hashes[0]}")
            if hashes[0] != hashes[1]:
                wrong.append(f"{name}: {hashes[0]} here, {hashes[1]} there")
        self.failures += len(wrong)
        self.add(part, equal=not wrong, stages=" ".join(found), wrong=wrong)

    def attempt(self, name: str, part: Callable[[], None]) -> None:
        """Runs a part, unless the time is up; a failure is reported and stops no other part."""
        if time.monotonic() > self._end:
            self.add(name, skipped="out of time")
            return
        try:
            part()
        except Exception as error:  # whatever failed, the next part may work
            self.failures += 1
            self.add(name, error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _bytes(array: np.ndarray | torch.Tensor) -> bytes:
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    return (values + 0 if values.dtype.kind == "f" else values).tobytes()  # -0 becomes 0


# -- bits --------------------------------------------------------------------------------------------------------------


def extreme_rows(n: int, size: int) -> torch.Tensor:
    """Returns rows of random numbers, zeros, one value, a spike, huge, tiny and subnormal numbers, and halves."""
    x = torch.randn(max(n, 7), size, generator=torch.Generator().manual_seed(size))
    x[1], x[2], x[3] = 0.0, -3.0, torch.eye(size)[0] * 2.0**40
    x[4], x[5], x[6] = x[0] * 2.0**-60, 2.0**-140, torch.arange(size) - 63.5
    return x[:n]


def reference_stages(device: torch.device, n: int, size: int) -> Iterator[Stage]:
    """Yields the results of every plain torch operation, on the CPU and on the device."""
    x, cpu = extreme_rows(n, size), torch.device("cpu")
    generator = torch.Generator().manual_seed(n)
    weight = torch.randint(-127, 128, (48, size), generator=generator).to(torch.int8)
    weight[0], weight[1] = 127, -127
    scale = torch.rand(48, generator=generator)
    unit = torch.from_numpy(tables.exp2_table()).to(torch.float32) * 2.0**-20
    pairs = [(kernel, place) for place in (cpu, device) for kernel in (ops.Kernels(place, [(48, size)]),)]

    def both(name: str, call: Callable[[ops.Kernels, torch.device], torch.Tensor]) -> Any:
        return (name, *(call(kernel, place) for kernel, place in pairs))

    for planes in (1, 2):
        yield both(f"linear{planes}", lambda k, d, p=planes: k.linear(x.to(d), weight.to(d), scale.to(d), p))  # type: ignore[misc]
    yield both("norm", lambda k, d: ops.rms_norm(x.to(d), x[0].to(d), 2.0**-20))
    yield both("centred", lambda k, d: ops.centred(x.to(d)))
    yield both("silu", lambda k, d: ops.silu(x.to(d), unit.to(d)))
    yield both("gelu_tanh", lambda k, d: ops.gelu_tanh(x.to(d), unit.to(d)))
    yield both("cap", lambda k, d: ops.soft_cap(x.to(d), 3.0, unit.to(d)))
    yield both("quantise", lambda k, d: ops.quantise(x.to(d), ops.ACT_MAX_2)[0])

    def turned(_: ops.Kernels, place: torch.device) -> torch.Tensor:
        heads = x[:, : size // 8 * 8].reshape(1, n, -1, 8).to(place)
        cos, sin = (
            torch.from_numpy(t).to(place, torch.float32)[:, None] * 2.0**-14
            for t in tables.rope_tables([1 << 61, 1 << 55, 3, 0], n)
        )
        out = torch.empty_like(heads)
        ops.rotate(heads, cos, sin, out)
        return out

    yield both("rope", turned)


def frequency_stages(device: torch.device, vocab: int) -> Iterator[Stage]:
    """Yields frequencies by plain torch on the CPU, and by the device's own code."""
    generator = torch.Generator().manual_seed(vocab)
    masses = torch.randint((1 << 20) + 1, (33, vocab), generator=generator, dtype=torch.int32)
    masses[0], masses[1], masses[:, 5] = 1 << 20, 0, 1 << 20
    tokens = torch.randint(vocab, (33,), generator=generator).numpy()
    one, other = TorchFrequencies(vocab), frequencies(vocab, device)
    there = masses.to(device)
    yield "intervals", one.intervals(masses, tokens), other.intervals(there, tokens)
    yield "around", one.sums(masses, tokens, True), other.sums(there, tokens, True)
    (sums, bounds), own = one.group_bounds(masses), other.group_bounds(there)
    yield "groups", bounds, own[1]
    groups = tokens // one.group_size
    yield "symbols", one.symbol_bounds(masses, sums, bounds, groups), other.symbol_bounds(there, *own, groups)
    yield from zip(("found", "sides"), one.find(masses, tokens * 3), other.find(there, tokens * 3), strict=True)


def model_stages(device: torch.device, model: ExactModel, rows: int, length: int, kernels: bool) -> Iterator[Stage]:
    """Yields prefill, steps and pieces, and masses: the CPU, and the device with or without its kernels."""
    one, other = ExactEngine(model, "cpu"), ExactEngine(model, device, compiled=kernels)
    here, there = one.readout(), other.readout()
    ids = np.random.default_rng(length).integers(model.config.vocab_size, size=(rows, length))
    states = one.forward(ids), other.forward(ids)
    expected = here.fetch(states[0])
    yield f"prefill({other.kernels_text})", expected, there.fetch(states[1])
    cache = other.new_cache(rows, 16, length)
    cuts = [*range(1, min(6, length - 1) + 1), *range(min(6, length - 1) + 16, length, 16)]
    parts = [there.fetch(other.forward(part, cache)).copy() for part in np.split(ids, cuts, 1)]
    yield "steps", expected, np.concatenate(parts, 1)
    some = [state.reshape(rows * length, -1)[:300] for state in states]
    yield "masses", here.fetch(one.masses(some[0])), there.fetch(other.masses(some[1]))


def check_bits(report: Report, device: torch.device, tiny: bool) -> None:
    """Compares reference operations, frequencies and models."""

    def transcript() -> None:
        start = time.perf_counter()
        found = selftest.transcript(device)
        report.failures += found != selftest.TRANSCRIPT
        report.add(
            "bits, transcript", equal=found == selftest.TRANSCRIPT, sha256=found, seconds=time.perf_counter() - start
        )

    report.attempt("bits, transcript", transcript)
    for n, size in ((1, 16), (9, 40)) if tiny else ((1, 16), (7, 576), (200, 2048), (33, 8192)):
        report.attempt("bits", lambda n=n, size=size: report.equal(f"bits, operations {n} x {size}", reference_stages(device, n, size)))  # type: ignore[misc] # fmt: skip # noqa: E501
    for vocab in (50,) if tiny else (16, 50, 4096, 50257, 128256):
        report.attempt("bits", lambda v=vocab: report.equal(f"bits, frequencies of {v}", frequency_stages(device, v)))  # type: ignore[misc]
    forms: list[dict[str, Any]] = [
        {}, {"heads": 3, "kv_heads": 1, "dim": 64}, {"heads": 6, "kv_heads": 2, "dim": 128, "hidden": 256, "mlp": 304},
        {"windows": (1, 16)}, {"heads": 5, "kv_heads": 5, "dim": 256, "hidden": 16, "mlp": 16, "unrotated": (0,)},
    ]  # fmt: skip
    for form in forms[:1] if tiny else forms:
        for rows, length in ((2, 5),) if tiny else ((1, 128), (70, 20), (3, 90)):
            for kernels in (True, False):
                model = selftest.compiled_model(**form)
                report.attempt("bits", lambda m=model, f=form, r=rows, t=length, k=kernels: report.equal(  # type: ignore[misc]
                    f"bits, model {f} {r} x {t}", model_stages(device, m, r, t, k)))  # fmt: skip
    if not tiny:
        for name in ("small", "base"):
            report.attempt("bits", lambda n=name: report.equal(  # type: ignore[misc]
                f"bits, {n} 64 x 700", model_stages(device, embedded(n), 64, 700, True)))  # fmt: skip


# -- speed -------------------------------------------------------------------------------------------------------------


def embedded(name: str) -> ExactModel:
    return load_int8(ROOT / "llmzip" / "embedded" / name / INT8)


def ceilings(report: Report, device: torch.device, tiny: bool) -> dict[str, float]:
    """Measures bytes per second of copies, and int8 operations per second of torch's product of large matrices."""
    size = 256 if tiny else 8192
    a = torch.randint(-100, 100, (size, size), dtype=torch.int8, device=device)
    peak = 2 * size**3 / seconds_per_call(device, lambda: torch._int_mm(a, a.T))
    source = torch.empty(1 << (20 if tiny else 32), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / seconds_per_call(device, lambda: target.copy_(source))
    host = torch.empty(1 << (16 if tiny else 26), dtype=torch.uint8, pin_memory=device.type == "cuda")
    back = host.numel() / seconds_per_call(device, lambda: host.copy_(source[: host.numel()], non_blocking=True))
    found = {"int8_ops_per_second": peak, "copy_bytes_per_second": copy, "to_host_bytes_per_second": back}
    report.add("ceilings", **found)
    return found


def measure(report: Report, name: str, model: ExactModel, device: torch.device, limits: dict[str, float], tiny: bool) -> None:  # fmt: skip # noqa: E501
    """Measures the work of encoding and decoding on the device, and the coder's on the CPU."""
    config = model.config
    start = time.perf_counter()
    engine = ExactEngine(model, device)
    reader = engine.readout()
    split = reader.frequencies
    matrices = [t for name, t in model.tensors().items() if isinstance(t, Int8Matrix) and name != "embedding_q"]
    products = sum(matrix.size for matrix in matrices) + (model.head_q.size if model.is_tied else 0)
    text = BYTES_PER_TOKEN.get(name, 4.3)
    report.add(
        f"{name}, start", kernels=engine.kernels_text, seconds=time.perf_counter() - start,
        frequencies=type(split).__name__, batch_tokens=engine.batch_tokens, weights_bytes=engine.weights_bytes,
        products=products,
    )  # fmt: skip

    length = 8 if tiny else 512
    rows = 2 if tiny else max(1, engine.batch_tokens // length)
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(rows, length))
    n = ids.size
    part = max(1, min(n, MASSES_AT_ONCE // config.vocab_size))
    hidden = engine.forward(ids).reshape(n, -1)[:part]
    tokens = ids.reshape(-1)[:part]
    masses = engine.masses(hidden)
    times = {
        "layers": seconds_per_call(device, lambda: engine.forward(ids)),
        "head_and_masses": seconds_per_call(device, lambda: engine.masses(hidden)) * n / part,
        "intervals": seconds_per_call(device, lambda: split.intervals(masses, tokens)) * n / part,
    }
    _speed(report, f"{name}, encode {rows} x {length}", n, times, text, products, limits, {})

    positions, filled = (16, 8) if tiny else (min(512, config.context), min(256, config.context // 2))
    for rows in (3,) if tiny else (256, 2048, 8192):
        if rows > devices.most_rows(engine, 64, positions):
            report.add(f"{name}, decode {rows}", skipped="too little memory")
            continue
        times, cached = _step(engine, device, reader, rows, positions, filled)
        _speed(report, f"{name}, decode {rows} rows", rows, times, text, products, limits, {"cache": cached})


def _step(
    engine: ExactEngine, device: torch.device, reader: Readout, rows: int, positions: int, filled: int
) -> tuple[dict[str, float], float]:
    """Returns the seconds of each part of one step of all rows, and the bytes of the cache that the step reads."""
    config, split = engine.model.config, reader.frequencies
    cache = engine.new_cache(rows, 64, positions)
    if hasattr(cache.layers[0], "keys") and device.type == "cuda":
        for layer in cache.layers:  # the content does not change the time
            layer.keys.random_(-127, 128)
            layer.values.random_(-127, 128)
            for scales in (layer.key_scale, layer.value_scale, layer.value_peak):
                scales.fill_(2.0**-7)
        cache.length = filled
    else:
        engine.forward(np.zeros((rows, filled), dtype=np.int64), cache)
    random = np.random.default_rng(0)
    column = random.integers(config.vocab_size, size=(rows, 1))
    hidden = engine.forward(column, cache)[:, 0]

    def forward() -> None:
        cache.length = filled
        engine.forward(column, cache)

    masses = engine.masses(hidden)
    sums, bounds = split.group_bounds(masses)
    groups = random.integers(split.num_groups, size=rows)
    inner = split.symbol_bounds(masses, sums, bounds, groups)
    forward()  # the graph is recorded at the second step
    times = {
        "layers": seconds_per_call(device, forward, 5),
        "head_and_masses": seconds_per_call(device, lambda: engine.masses(hidden), 5),
        "groups": seconds_per_call(device, lambda: split.group_bounds(masses)),
        "symbols": seconds_per_call(device, lambda: split.symbol_bounds(masses, sums, bounds, groups)),
        "copies": seconds_per_call(device, lambda: (reader.fetch(bounds), reader.fetch(inner))),
    }  # fmt: skip
    if "constriction" not in MISSING:
        from llmzip.mixing.coder import Decoder

        tables_ = [np.array(reader.fetch(table)) for table in (bounds, inner)]
        payload = random.bytes(64 * rows + 64)

        def decode() -> None:
            decoder = Decoder(payload)
            for table in tables_:
                decoder.decode(table)

        times["coder"] = seconds_per_call(torch.device("cpu"), decode)
    shape = config
    seen = sum(min(window or filled + 1, filled + 1) for window in shape.windows)
    return times, rows * seen * shape.num_kv_heads * (2.0 * shape.head_dim + 8)


def _speed(report: Report, part: str, tokens: int, times: dict[str, float], text: float, products: int, limits: dict[str, float], read: dict[str, float]) -> None:  # fmt: skip # noqa: E501
    whole = sum(times.values())
    own = sum(seconds for name, seconds in times.items() if name != "coder")
    roofline = max(2 * products * tokens / limits["int8_ops_per_second"], sum(read.values()) / limits["copy_bytes_per_second"])  # fmt: skip # noqa: E501
    report.add(
        part, tokens_per_second=tokens / whole, megabytes_per_second=tokens * text / whole / 1e6,
        megabytes_per_second_with_the_coder_beside_it=tokens * text / max(own, times.get("coder", 0.0)) / 1e6,
        share_of_int8_peak=2 * products * tokens / own / limits["int8_ops_per_second"],
        share_of_bandwidth=sum(read.values()) / own / limits["copy_bytes_per_second"],
        roofline_share=roofline / own, milliseconds={name: round(1e3 * s, 4) for name, s in times.items()},
    )  # fmt: skip


def archives(report: Report, device: str, tiny: bool) -> None:
    """Compresses and decompresses whole texts, and compares them."""
    if MISSING:
        report.add("archives", skipped=f"not installed: {', '.join(MISSING)}")
        return
    import llmzip

    prose = (ROOT / "corpora" / "prose-en.txt").read_bytes()
    for name in ("small", "base"):
        data = (
            prose[:300]
            if tiny
            else (prose * (1 + 20_000_000 // len(prose)))[: 20_000_000 if name == "small" else 8_000_000]
        )
        llmzip.decompress(llmzip.compress(data[:5000], level=1, model=name, device=device), device=device)  # loads
        start = time.perf_counter()
        archive = llmzip.compress(data, level=1, model=name, device=device)
        middle = time.perf_counter()
        right = llmzip.decompress(archive, device=device) == data
        end = time.perf_counter()
        report.failures += not right
        report.add(
            f"archive, {name} -1", equal=right, bytes=len(data), compressed=len(archive),
            encode_megabytes_per_second=len(data) / (middle - start) / 1e6,
            decode_megabytes_per_second=len(data) / (end - middle) / 1e6,
        )  # fmt: skip


def main() -> int:
    """Runs all parts; returns exit status 1 if bits differ or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, to try the whole script")
    parser.add_argument("--seconds", type=float, default=420.0, help="no part begins after so many")
    parser.add_argument("--only", choices=["bits", "speed", "archives"], action="append", help="default: all")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    report, device = Report(args.output, args.seconds), torch.device(args.device)
    parts = args.only or ["bits", "speed", "archives"]
    facts: dict[str, Any] = {"torch": torch.__version__, "missing": MISSING, "tiny": args.tiny}
    if importlib.util.find_spec("triton"):
        facts["triton"] = importlib.metadata.version("triton")
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts |= {
            "device": found.name, "capability": f"{found.major}.{found.minor}", "cuda": torch.version.cuda,
            "processors": found.multi_processor_count, "memory_bytes": found.total_memory,
            "devices": len(devices.devices("cuda")),
        }  # fmt: skip
    report.add("machine", **facts)
    if "bits" in parts:
        check_bits(report, device, args.tiny)
    if "speed" in parts:
        limits = {"int8_ops_per_second": 1e15, "copy_bytes_per_second": 4e12}
        report.attempt("ceilings", lambda: limits.update(ceilings(report, device, args.tiny)))
        for name in ("base", "small", "smollm2-135m", "llama-3.2-1b", "smollm2-360m"):

            def run(name: str = name) -> None:
                if args.tiny:
                    model = selftest.compiled_model(hidden=16, mlp=16, heads=2, kv_heads=1)
                elif name in SHAPES:
                    model = random_model(SHAPES[name], 1024, 1)
                else:
                    model = embedded(name)
                measure(report, name, model, device, limits, args.tiny)

            report.attempt(f"{name}, speed", run)
    if "archives" in parts:
        report.attempt("archives", lambda: archives(report, args.device, args.tiny))
    report.add("end", failures=report.failures)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
