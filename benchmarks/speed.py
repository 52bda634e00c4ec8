"""Measures llmzip's speed part by part, next to what the machine can do: `make bench-speed TEXT=FILE MODEL=base`.

Each text is compressed, decompressed and compared. The CPU time of each part is measured around its functions and added
up over all threads, so two threads may use two seconds per second. The roofline compares the int8 operations of the
model's matrix products with the most that torch's int8 product reaches here on large matrices. `ratio` is bytes per
second divided by the rounds per second of a fixed loop right before and after. benchmarks/speed.json holds ratios by
kind of machine: --check lists speeds that have fallen by more than a fifth and exits with 1, --update stores new ones.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import platform
import statistics
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
import ratios
import torch

import llmzip
from llmzip.bench import machine
from llmzip.codec import methods
from llmzip.codec.reader import decompress_stream
from llmzip.codec.writer import compress_stream
from llmzip.inference import load
from llmzip.mixing import coder, mixer
from llmzip.models import tokenizer
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings
from llmzip.system import threads

SIZES = (1_000, 20_000, 1_000_000)
STORED = Path(__file__).with_name("speed.json")
_SHORT_BYTES, _SHORT_TIMES, _LONG_TIMES = 100_000, 7, 3
_TRIES = 3
"""Runs of a measurement that seems slower: on a busy machine ratios of the same program differ by a fifth."""


_REST, _IDLE = "the rest", "idle"


class Clock:
    """A sum of the CPU time of functions by part, over all threads, without that of the functions they call.

    Args:
        compiled: CPU seconds of the parts in compiled rows, which the forward pass adds up.
    """

    def __init__(self, compiled: dict[str, float]) -> None:
        self._compiled = compiled
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stack = threading.local()
        self._lock = threading.Lock()

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Returns the function wrapped, so that its time is added to a part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            stack = self._stack.__dict__.setdefault("inner", [])
            stack.append(0.0)
            started = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - started
                inner = stack.pop()
                if stack:
                    stack[-1] += spent
                with self._lock:
                    self.seconds[part] += spent - inner

        return timed

    def of(self, work: Callable[[], object]) -> dict[str, float]:
        """Calls a function; returns CPU seconds by part, the rest of them, and the seconds that threads were idle."""
        self.seconds.clear()
        self._compiled.clear()
        started, used = time.perf_counter(), time.process_time()
        work()
        wall, used = time.perf_counter() - started, time.process_time() - used
        for name, seconds in self._compiled.items():
            self.seconds[_COMPILED[name]] += seconds
        parts = dict(self.seconds)
        parts[_REST] = used - sum(parts.values())
        parts[_IDLE] = wall * threads.count() - used
        return parts


_COMPILED = {"layers": "layers", "head": "head, masses", "take": "masses for the coder", "code": "coder or mixer"}
"""Parts of the work in compiled rows, by the names that the forward pass gives them."""


def _places() -> list[tuple[Any, str, str]]:
    """Returns the functions of the parts in Python: object, attribute, part."""
    return [
        (coder.Encoder, "encode", "coder or mixer"),
        (mixer.MixEncoder, "walk", "coder or mixer"),
        (mixer.MixEncoder, "finish", "coder or mixer"),
        (tokenizer.Tokenizer, "encode", "tokenizer"),
        (methods, "compress_plain", "xz and zstd, to compare"),
    ]


@contextlib.contextmanager
def profile(engine: Any) -> Iterator[Clock]:
    """Times the parts while the context is active."""
    clock = Clock(getattr(engine.forward_pass, "seconds", {}))
    before = [(where, name, getattr(where, name)) for where, name, _ in _places()]
    for where, name, part in _places():
        setattr(where, name, clock.wrap(getattr(where, name), part))
    try:
        yield clock
    finally:
        for where, name, function in before:
            setattr(where, name, function)


def compress(text: bytes, packed: io.BytesIO, settings: CompressSettings) -> None:
    compress_stream(io.BytesIO(text), packed, settings)


def decompress(packed: io.BytesIO) -> None:
    decompress_stream(packed, io.BytesIO(), DecompressSettings())


def round_trip(text: bytes, settings: CompressSettings) -> tuple[int, float, float]:
    """Returns the size of the archive, and the seconds of compressing and decompressing."""
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
    """Measures int8 operations per second, multiplications and additions: the best of several large products."""
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
    """Measures bytes per second read and written by a copy of 256 MB: the best of five."""
    source = np.ones(1 << 25, dtype=np.float64)
    sink = np.zeros_like(source)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(sink, source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - started))
    return best


class FixedLoop:
    """A fixed loop that never changes with llmzip: int8 products in all threads, and copies of 32 MB.

    Tried beside one and two other busy programs: times of llmzip vary by 35 to 47 % then, those in rounds of products
    by 11 to 17 %, of copies by 13 to 24 %, of both together by 9 to 16 %; those of numpy in one thread by 14 to 21 %.
    """

    def __init__(self) -> None:
        self._a = torch.arange(512 * 512).remainder(255).sub(127).to(torch.int8).view(512, 512)
        self._b = torch.arange(1024 * 512).remainder(253).sub(126).to(torch.int8).view(1024, 512)
        self._source = np.ones(1 << 22)
        self._sink = np.zeros_like(self._source)
        self.rate()

    def rate(self) -> float:
        """Measures rounds per second: the geometric mean of products and copies."""
        return float(np.sqrt(self._rounds(self._products) * self._rounds(self._copies)))

    def _rounds(self, work: Callable[[], object]) -> float:
        """Measures rounds per second over about 0.1 s."""
        started, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - started) < 0.1:
            work()
            count += 1
        return count / spent

    def _products(self) -> None:
        for _ in range(8):
            torch._int_mm(self._a, self._b.T)

    def _copies(self) -> None:
        np.copyto(self._sink, self._source)


def measure(text: bytes, settings: CompressSettings, loop: FixedLoop) -> dict[str, Any]:
    """Measures a text several times: the best times, and the medians of the ratios to the loop around each time."""
    times, found = [], []
    before = loop.rate()
    for _ in range(_SHORT_TIMES if len(text) <= _SHORT_BYTES else _LONG_TIMES):
        packed, *seconds = round_trip(text, settings)
        after = loop.rate()
        times.append(seconds)
        found.append([len(text) / spent / ((before + after) / 2) for spent in seconds])
        before = after
    encode, decode = (min(column) for column in zip(*times, strict=True))
    ratio = [statistics.median(column) for column in zip(*found, strict=True)]
    return {
        "level": settings.level, "bytes": len(text), "archive_bytes": packed, "encode_seconds": encode,
        "decode_seconds": decode, "encode_ratio": ratio[0], "decode_ratio": ratio[1],
    }  # fmt: skip


def measured(
    text: bytes, settings: CompressSettings, loop: FixedLoop, model: str, stored: ratios.Ratios
) -> tuple[dict[str, Any], ratios.Ratios]:
    """Measures a text, again if it seems slower than stored; returns the result and its ratios by name."""
    names = {direction: ratios.name_of(model, settings.level, text, direction) for direction in ("encode", "decode")}
    row: dict[str, Any] = {}
    for _ in range(_TRIES):
        row = _better(row, measure(text, settings, loop))
        found = {name: row[f"{direction}_ratio"] for direction, name in names.items()}
        if not ratios.compare({"": stored}, "", found)[0]:
            break
    return row, found


def _better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merges two measurements of the same text: the shorter times and the higher ratios."""
    choose = {name: min if name.endswith("_seconds") else max for name in other}
    return {**one, **{name: choose[name](one.get(name, value), value) for name, value in other.items()}}


def start_up(model: str) -> dict[str, float]:
    """Measures the seconds of whole processes with a text of 1 KB: the best of three."""
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
    parser.add_argument("--stored", type=Path, default=STORED, help="the file of the stored ratios")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is a fifth below the stored one")
    parser.add_argument("--update", action="store_true", help="store the ratios")
    return parser.parse_args()


def main() -> int:
    """Prints the tables; returns 1 if a speed has fallen."""
    args = _arguments()
    stored = ratios.read(args.stored)  # before the work, should it be damaged
    model = load.load(choose_model(args.model), EngineSettings())
    engine = model.engine
    text = args.text.read_bytes()
    round_trip(text[:3000], CompressSettings(level=6, model=args.model))  # compiles, fills caches
    peak, copied, loop = int8_peak(), bandwidth(), FixedLoop()
    config = engine.model.config  # type: ignore[union-attr]
    operations = config.flops_per_token(1) - 4 * config.num_heads * config.head_dim * config.num_layers
    print(
        f"llmzip {llmzip.__version__}, {model.name}, {threads.count()} threads, kernels: "
        f"{getattr(engine, 'kernels_text', 'torch')}\nint8 products: at best {peak / 1e12:.2f} T operations/s; "
        f"copying: {copied / 1e9:.1f} GB/s; the model needs {operations / 1e6:.1f} M operations a token\n"
    )
    print("| level | bytes | bits/byte | encode KB/s | decode KB/s | roofline encode | decode |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    rows: list[dict[str, Any]] = []
    parts: list[str] = []
    instructions = getattr(engine, "kernels_text", "torch")
    kind = ratios.machine_kind(machine.facts()["processor"], instructions, threads.count())
    found: ratios.Ratios = {}
    sizes = sorted({min(size, len(text)) for size in args.sizes})
    for level in args.levels:
        for size in sizes:
            part = text[:size]
            settings = CompressSettings(level=level, model=args.model)
            count = len(model.tokenizer.encode(part))
            row, own = measured(part, settings, loop, model.name, stored.get(kind, {}) if args.check else {})
            row["tokens"] = count
            found |= own
            encode, decode, packed = row["encode_seconds"], row["decode_seconds"], row["archive_bytes"]
            share = [operations * count / seconds / peak for seconds in (encode, decode)]
            row |= {"encode_roofline": share[0], "decode_roofline": share[1]}
            rows.append(row)
            print(
                f"| -{level} | {size:,} | {8 * packed / size:.3f} | {size / encode / 1e3:.1f} | "
                f"{size / decode / 1e3:.1f} | {100 * share[0]:.1f} % | {100 * share[1]:.1f} % |",
                flush=True,
            )
            if size == sizes[-1]:
                with profile(engine) as clock:
                    packed_file = io.BytesIO()
                    times = {"encode": clock.of(functools.partial(compress, part, packed_file, settings))}
                    packed_file.seek(0)
                    times["decode"] = clock.of(functools.partial(decompress, packed_file))
                row["parts"] = times
                parts.append(_parts_text(level, size, count, times))
    print("\n" + "\n".join(parts))
    begin = start_up(args.model)
    print("start-up, 1 KB: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in begin.items()))
    args.output.mkdir(parents=True, exist_ok=True)
    facts = {
        "llmzip": llmzip.__version__, "model": model.name, "platform": platform.platform(), "torch": torch.__version__,
        "threads": threads.count(), "int8_peak": peak, "bandwidth": copied, "fixed_loop": loop.rate(),
        "rows": rows, "start_up_seconds": begin,
    }  # fmt: skip
    (args.output / f"speed-{model.name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    return _stored(args, stored, kind, found)


def _parts_text(level: int, size: int, count: int, times: dict[str, dict[str, float]]) -> str:
    names = {name for found in times.values() for name in found} - {_REST, _IDLE}
    lines = [
        f"-{level}, {size:,} bytes, processor microseconds a token:", "| part | encode | decode |", "|---|---:|---:|",
    ]  # fmt: skip
    for name in [*sorted(names, key=lambda name: -times["decode"].get(name, 0)), _REST, _IDLE]:
        cells = [f"{1e6 * found.get(name, 0) / count:.1f}" for found in times.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _stored(args: argparse.Namespace, stored: dict[str, ratios.Ratios], kind: str, found: ratios.Ratios) -> int:
    """Compares and stores the ratios, as the options ask."""
    slower: list[str] = []
    if args.check:
        slower, unknown = ratios.compare(stored, kind, found)
        for line in [*unknown, *slower]:
            print(line)
        if kind in stored and not slower:
            print("no regression")
    if args.update:
        ratios.write(args.stored, ratios.updated(stored, kind, found))
        print(f"stored for {kind}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
