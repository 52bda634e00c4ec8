"""Measures the speed of `llmzip train`: tokens per second and share of the device's peak; `make bench-train`.

Trains presets for a few steps on the texts under corpora/, with and without torch.compile, and keeps nothing. The
peak is measured in the same run, as the best of large square matrix products, so that other load affects both.
Prints a Markdown table; --output DIR also writes train.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from llmzip.engines import devices
from llmzip.models.tokenizer import Tokenizer
from llmzip.training import bpe, dataset, machine, schedule, shapes, texts
from llmzip.training.trainer import Facts, Trainer

_CORPORA = Path(__file__).resolve().parents[1] / "corpora"


def main() -> None:
    """Measures the presets given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", choices=list(shapes.PRESETS), help="default: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, help="tokens of a step; default 8,192 on a CPU, 131,072 on a GPU")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="only without torch.compile")
    parser.add_argument("--output", type=Path, help="folder for train.json")
    args = parser.parse_args()
    device = torch.device(devices.find(args.device))
    rows = []
    for preset in args.preset or shapes.PRESETS:
        for compiled in (False,) if args.eager else (False, True):
            rows.append(measure(preset, device, compiled, args.batch, args.runs))
            print_row(rows[-1], first=len(rows) == 1)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / "train.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(preset: str, device: torch.device, compiled: bool, batch_tokens: int | None, runs: int) -> dict[str, Any]:
    """Measures a few steps of one preset."""
    cuda = device.type == "cuda"
    dtype = machine.choose_dtype(device)
    shape = shapes.PRESETS[preset]
    batch = max(1, (batch_tokens or (131072 if cuda else 8192)) // shape.sequence)
    micro = min(batch, (65536 if cuda else 8192) // shape.sequence)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = dataset.survey(texts.find([_CORPORA]), {}, 0)
        description, found = bpe.train(dataset.samples(sources), shape.vocab_size)
        bpe.write(description, folder)
        shape = dataclasses.replace(shape, vocab_size=max(found, shape.vocab_size))
        dataset.write(folder, sources, [""], tokenizer=Tokenizer(folder, shape.vocab_size), hold_out=False)
        data = dataset.Dataset(folder)
        peak = machine.matrix_flops(device, dtype)
        facts = Facts(
            shape=shapes.as_dict(shape),
            plan=dataclasses.asdict(schedule.make_plan(100, batch, micro, sequence=shape.sequence)),
            seed=0,
            dtype=str(dtype).removeprefix("torch."),
            compiled=compiled,
            threads=torch.get_num_threads(),
            device=str(device),
            torch_version=str(torch.__version__),
            start_token=0,
            tokens_digest=data.digest,
            peak_flops=peak,
        )
        trainer = Trainer(folder, facts, data, [])
        trainer.network.initialise(0)
        trainer.train_step()
        seconds = machine.seconds_per_call(device, trainer.train_step, runs)
        update = machine.seconds_per_call(device, lambda: trainer.optimizer.step(0), runs)
    tokens = trainer.plan.batch_tokens
    peak = max(peak, machine.matrix_flops(device, dtype))
    return {
        "preset": preset,
        "parameters": shape.num_parameters,
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": facts.dtype,
        "compiled": compiled,
        "batch_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "update_share": update / seconds,
        "flops_per_token": shape.flops_per_token,
        "peak_flops": peak,
        "peak_share": tokens / seconds * shape.flops_per_token / peak,
        "torch": str(torch.__version__),
    }


def print_row(row: dict[str, Any], first: bool) -> None:
    """Prints one line of the table, after its head if it is the first."""
    if first:
        print("| preset | parameters | compiled | tokens/s | update | MFLOP/token | peak, TFLOP/s | share of peak |")
        print("|---|---:|---|---:|---:|---:|---:|---:|")
    print(
        f"| {row['preset']} | {row['parameters'] / 1e6:.1f} M | {'yes' if row['compiled'] else 'no'} "
        f"| {row['tokens_per_second']:,.0f} | {100 * row['update_share']:.0f} % | {row['flops_per_token'] / 1e6:.1f} "
        f"| {row['peak_flops'] / 1e12:.2f} | {100 * row['peak_share']:.0f} % |",
        flush=True,
    )


if __name__ == "__main__":
    main()
