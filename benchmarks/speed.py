"""Speed of llmzip here, part by part, beside what the machine can do: `make bench-speed TEXT=FILE MODEL=base`.

Each text is compressed, decompressed and compared. Times of the parts are taken around their functions; the model's are
those of its threads, divided by their number. The roofline: the int8 operations of the model's matrix products against
the best that torch's int8 product reaches here on large matrices. `ratio` is bytes per second over the rounds per
second of a fixed loop, so that machines and days can be compared: --check compares it with the stored one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import llmzip
from llmzip import coder, methods, models, runtime, tokens
from llmzip.codec import compress_stream, decompress_stream
from llmzip.engines import freqs, ops
from llmzip.mixing import mixer
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings

SIZES = (1_000, 100_000, 1_000_000)
_LOSS = 0.8


class Clock:
    """Adds up the time of functions by parts, without that of the functions they call."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stack = threading.local()
        self._lock = threading.Lock()

    def wrap(self, function: Callable[..., Any], part: str, share: float = 1.0) -> Callable[..., Any]:
        """The function with its time added to a part, `share` of it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            stack = self._stack.__dict__.setdefault("inner", [])
            stack.append(0.0)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - started
                inner = stack.pop()
                if stack:
                    stack[-1] += spent
                with self._lock:
                    self.seconds[part] += (spent - inner) * share

        return timed


def _places(engine: Any) -> list[tuple[Any, str, str]]:
    """Where the parts' functions are: object, name, part."""
    places: list[tuple[Any, str, str]] = [
        (freqs.Frequencies, "intervals", "frequencies"),
        (freqs.Frequencies, "group_bounds", "frequencies"),
        (freqs.Frequencies, "symbol_bounds", "frequencies"),
        (coder.Encoder, "encode", "coder"),
        (coder.Decoder, "decode", "coder"),
        (mixer.MixEncoder, "add", "mixer: model's logits"),
        (mixer.MixEncoder, "finish", "mixer"),
        (mixer.MixDecoder, "step", "mixer"),
        (tokens.Tokenizer, "encode", "tokenizer"),
        (methods, "compress_plain", "xz and zstd, to compare"),
    ]
    fused = getattr(engine, "_fused", None)
    if fused is not None:
        library = fused._library
        places += [(library, "forward", "model"), (library, "masses", "head and masses")]
    else:
        places += [(ops.Kernels, "linear", "linear"), (ops.Kernels, "product", "attention products")]
    return places


@contextlib.contextmanager
def profile(engine: Any) -> Iterator[Clock]:
    """Times the parts meanwhile."""
    clock = Clock()
    threads = torch.get_num_threads()
    fused = getattr(engine, "_fused", None)
    before = [(where, name, getattr(where, name)) for where, name, _ in _places(engine)]
    for where, name, part in _places(engine):
        in_threads = fused is not None and where is fused._library
        setattr(where, name, clock.wrap(getattr(where, name), part, 1 / threads if in_threads else 1.0))
    try:
        yield clock
    finally:
        for where, name, function in before:
            setattr(where, name, function)


def round_trip(text: bytes, settings: CompressSettings) -> tuple[int, float, float]:
    """Size of the archive, and seconds of compressing and decompressing."""
    packed, unpacked = io.BytesIO(), io.BytesIO()
    started = time.perf_counter()
    compress_stream(io.BytesIO(text), packed, settings)
    middle = time.perf_counter()
    decompress_stream(io.BytesIO(packed.getvalue()), unpacked, DecompressSettings())
    seconds = time.perf_counter() - middle
    if unpacked.getvalue() != text:
        raise SystemExit("the round trip FAILED")
    return len(packed.getvalue()), middle - started, seconds


def int8_peak() -> float:
    """int8 operations per second, multiplications and additions, of the best of some large products."""
    best = 0.0
    for n, k, m in ((512, 1024, 1024), (1024, 2048, 2048), (2048, 1024, 4096)):
        a = torch.randint(-127, 128, (n, k), dtype=torch.int8)
        b = torch.randint(-127, 128, (m, k), dtype=torch.int8)
        for _ in range(8):
            started = time.perf_counter()
            torch._int_mm(a, b.T)
            best = max(best, 2 * n * k * m / (time.perf_counter() - started))
    return best


def bandwidth() -> float:
    """Bytes per second read and written by a copy of 256 MB, the best of five."""
    source = np.ones(1 << 25, dtype=np.float64)
    sink = np.zeros_like(source)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(sink, source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - started))
    return best


def calibration() -> float:
    """Rounds per second of a fixed loop of small products and look-ups, the best of five."""
    a = torch.arange(128 * 256, dtype=torch.int64).remainder(255).sub(127).to(torch.int8).view(128, 256)
    b = torch.arange(1024 * 256, dtype=torch.int64).remainder(253).sub(126).to(torch.int8).view(1024, 256)
    table = torch.arange(1 << 14, dtype=torch.float32)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(50):
            sums = torch._int_mm(a, b.T)
            table[sums.abs().remainder(1 << 14).view(-1)].mul_(0.5)
        best = max(best, 50 / (time.perf_counter() - started))
    return best


def start_up(model: str) -> dict[str, float]:
    """Seconds of whole processes with a text of 1 KB, the best of three."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        text, archive = Path(folder, "text"), Path(folder, "text.llmz")
        text.write_bytes(b"The tide comes in, and the harbour master writes it down. " * 18)
        for name, arguments in {
            "--version": ["--version"],
            "compress": ["-f", "-m", model, str(text)],
            "decompress": ["-dfo", str(Path(folder, "out")), str(archive)],
        }.items():
            times = []
            for _ in range(3):
                started = time.perf_counter()
                subprocess.run([sys.executable, "-m", "llmzip", *arguments], check=True, capture_output=True)
                times.append(time.perf_counter() - started)
            found[name] = min(times)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    parser.add_argument("--check", type=Path, help="a results file of an earlier run: exit with 1 if the ratio fell")
    return parser.parse_args()


def main() -> int:
    """Prints the tables; 1 if a ratio is below 80 % of the stored one."""
    args = _arguments()
    model = runtime.load(models.choose(args.model), EngineSettings())
    engine = model.engine
    text = args.text.read_bytes()
    round_trip(text[:3000], CompressSettings(level=6, model=args.model))  # compiles, fills caches
    peak, copied, rounds = int8_peak(), bandwidth(), calibration()
    config = engine.model.config  # type: ignore[union-attr]
    operations = config.flops_per_token(1) - 4 * config.num_heads * config.head_dim * config.num_layers
    print(
        f"llmzip {llmzip.__version__}, {model.name}, {torch.get_num_threads()} threads, kernels: "
        f"{getattr(engine, 'kernels_text', 'torch')}\nint8 products: at best {peak / 1e12:.2f} T operations/s; "
        f"copying: {copied / 1e9:.1f} GB/s; the model needs {operations / 1e6:.1f} M operations a token\n"
    )
    print("| level | bytes | bits/byte | encode KB/s | decode KB/s | roofline encode | decode |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    rows: list[dict[str, Any]] = []
    parts: list[str] = []
    for level in args.levels:
        for size in args.sizes:
            part = text[:size]
            if len(part) < size:
                continue
            settings = CompressSettings(level=level, model=args.model)
            count = len(model.tokenizer.encode(part))
            packed, encode, decode = min(
                (round_trip(part, settings) for _ in range(3 if size <= 100_000 else 1)),
                key=lambda row: row[1] + row[2],
            )
            share = [operations * count / seconds / peak for seconds in (encode, decode)]
            row = {
                "level": level, "bytes": size, "tokens": count, "archive_bytes": packed, "encode_seconds": encode,
                "decode_seconds": decode, "encode_ratio": size / encode / rounds,
                "decode_ratio": size / decode / rounds,
                "encode_roofline": share[0], "decode_roofline": share[1],
            }  # fmt: skip
            rows.append(row)
            print(
                f"| -{level} | {size:,} | {8 * packed / size:.3f} | {size / encode / 1e3:.1f} | "
                f"{size / decode / 1e3:.1f} | {100 * share[0]:.1f} % | {100 * share[1]:.1f} % |",
                flush=True,
            )
            if size == max(size for size in args.sizes if size <= len(text)):
                with profile(engine) as clock:
                    packed_file = io.BytesIO()
                    started = time.perf_counter()
                    compress_stream(io.BytesIO(part), packed_file, settings)
                    times = {"encode": (time.perf_counter() - started, dict(clock.seconds))}
                    clock.seconds.clear()
                    started = time.perf_counter()
                    decompress_stream(io.BytesIO(packed_file.getvalue()), io.BytesIO(), DecompressSettings())
                    times["decode"] = (time.perf_counter() - started, dict(clock.seconds))
                row["parts"] = times
                parts.append(_parts_text(level, size, count, times))
    print("\n" + "\n".join(parts))
    begin = start_up(args.model)
    print("start-up, 1 KB: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in begin.items()))
    args.output.mkdir(parents=True, exist_ok=True)
    facts = {
        "llmzip": llmzip.__version__, "model": model.name, "platform": platform.platform(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "int8_peak": peak, "bandwidth": copied, "calibration": rounds, "rows": rows,
        "start_up_seconds": begin,
    }  # fmt: skip
    (args.output / f"speed-{model.name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    return _compared(rows, args.check) if args.check else 0


def _parts_text(level: int, size: int, count: int, times: dict[str, tuple[float, dict[str, float]]]) -> str:
    names = sorted(
        {name for _, found in times.values() for name in found}, key=lambda name: -times["decode"][1].get(name, 0)
    )
    lines = [f"-{level}, {size:,} bytes, microseconds a token:", "| part | encode | decode |", "|---|---:|---:|"]
    for name in names:
        cells = [f"{1e6 * found.get(name, 0) / count:.1f}" for _, found in times.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    rest = [1e6 * (whole - sum(found.values())) / count for whole, found in times.values()]
    lines.append(f"| the rest | {rest[0]:.1f} | {rest[1]:.1f} |")
    lines.append(f"| all | {' | '.join(f'{1e6 * whole / count:.1f}' for whole, _ in times.values())} |\n")
    return "\n".join(lines)


def _compared(rows: list[dict[str, Any]], stored: Path) -> int:
    known = {(row["level"], row["bytes"]): row for row in json.loads(stored.read_text())["rows"]}
    code = 0
    for row in rows:
        before = known.get((row["level"], row["bytes"]))
        for name in ("encode_ratio", "decode_ratio") if before else ():
            if row[name] < _LOSS * before[name]:
                print(
                    f"-{row['level']}, {row['bytes']:,} bytes: {name} fell from {before[name]:.1f} to {row[name]:.1f}"
                )
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
