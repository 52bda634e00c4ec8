"""Measures each choice of the training recipe by short trainings that differ in one thing; docs/log.md has the results.

    python benchmarks/ablation.py --texts FOLDER --valid FILE... --output FILE.jsonl [--only NAME...]

Every training reads the same number of bytes, in the same order if the vocabulary is the same, and is evaluated on the
same slices of the validation files, each from an empty context. Two seeds of the plain recipe show the noise. Each
training adds a line of JSON, and trainings that have one are skipped, so the program can be stopped at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch

from llmzip.models.tokenizer import Tokenizer
from llmzip.settings import EngineSettings
from llmzip.training import machine, network, prepare, schedule
from llmzip.training.dataset import Dataset
from llmzip.training.settings import TrainSettings
from llmzip.training.trainer import Facts, Trainer

SLICE_BYTES, SLICES = 1024, 64
AVERAGES = (0.98, 0.99, 0.995)
PLAIN: dict[str, Any] = {
    "num_layers": 4, "hidden_size": 192, "num_heads": 3, "num_kv_heads": 1, "mlp_size": 512, "vocab_size": 4096,
    "sequence": 512, "batch_tokens": 4096,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "seed 1": {"seed": 1},
    "vocabulary 2,048": {"vocab_size": 2048},
    "vocabulary 8,192": {"vocab_size": 8192},
    "Muon's rate 0.03": {"matrix_rate": 0.03},
    "Muon's rate 0.013": {"matrix_rate": 0.013},
    "6 layers of 160": {"num_layers": 6, "hidden_size": 160, "mlp_size": 416},
    "3 layers of 224": {"num_layers": 3, "hidden_size": 224, "mlp_size": 592},
    "3 key/value heads, MLP 424": {"num_kv_heads": 3, "mlp_size": 424},
    "batch of 8,192": {"batch_tokens": 8192},
    "batch of 2,048": {"batch_tokens": 2048},
    "Adam's rates doubled": {"embedding_rate": 2.0, "vector_rate": 2.0},
    "Adam's rates halved": {"embedding_rate": 0.5, "vector_rate": 0.5},
    "weight decay 0": {"weight_decay": 0.0},
    "weight decay 0.2": {"weight_decay": 0.2},
    "decay over the last 30 %": {"decay_share": 0.3},
    "decay over the last 90 %": {"decay_share": 0.9},
    "decay to 0": {"final_rate": 0.0},
    "sequences of 256": {"sequence": 256},
    "sequences of 1,024": {"sequence": 1024},
    "sharper attention at the start": {"sharpness": 2.25},
    "softer attention at the start": {"sharpness": 1.0},
    "less prose": {"mix": (0.30, 0.20, 0.20, 0.12, 0.18)},
    "no q/k norms": {"qk_norm": False},
    "2 layers of 272": {"num_layers": 2, "hidden_size": 272, "mlp_size": 720},
    "MLP 768, 3 layers": {"num_layers": 3, "mlp_size": 728},
}
"""Name of each training -> its differences; `embedding_rate` and `vector_rate` are factors."""

_MIX_NAMES = ("prose", "docs", "code", "structured", "langs")
_MIX = (0.45, 0.17, 0.15, 0.08, 0.15)


class Quiet:
    """A listener that prints facts and errors only."""

    def fact(self, text: str) -> None:
        print("   ", text, flush=True)

    def error(self, name: str | None, reason: str, error: BaseException | None = None) -> None:
        self.fact(reason)

    def stopped(self, signal_name: str, what: str) -> None:
        self.fact(what)

    @contextlib.contextmanager
    def progress(self, name: str, total_bytes: int | None) -> Iterator[None]:
        yield None

    @contextlib.contextmanager
    def steps(self, total: int, done: int) -> Iterator[Callable[[str], Any]]:
        yield lambda text: None


def prepared(work: Path, texts: str, vocab_size: int) -> Path:
    """Returns the folder of tokens for a vocabulary, written on first use."""
    folder = work / f"v{vocab_size}"
    if not (folder / "unfinished" / "tokens.json").exists():
        settings = TrainSettings(
            texts=(texts,),
            folder=folder,
            mix={f"*{name}*": share for name, share in zip(_MIX_NAMES, _MIX, strict=True)},
            overrides={"vocab_size": vocab_size, "num_layers": 1, "hidden_size": 64, "num_heads": 1, "sequence": 64},
            steps=1,
            engine=EngineSettings(device="auto"),
            compile=False,
            force=True,
        )
        prepare.prepare(settings, Quiet())
    return folder / "unfinished"


def slices(path: Path, tokenizer: Tokenizer, start_token: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns (R, T + 1) ids, (R, T) whether each of them counts, and the number of bytes they stand for."""
    text = path.read_bytes()
    starts = [n * (len(text) - SLICE_BYTES) // (SLICES - 1) for n in range(SLICES)]
    rows = [tokenizer.encode(text[start : start + SLICE_BYTES]) for start in starts]
    ids = torch.zeros((len(rows), 1 + max(map(len, rows))), dtype=torch.int64)
    ids[:, 0] = start_token
    counts = torch.zeros((len(rows), ids.shape[1] - 1), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, 1 : 1 + len(row)] = torch.from_numpy(row.astype("int64"))
        counts[number, : len(row)] = True
    return ids, counts, SLICE_BYTES * SLICES


def _plan(variant: dict[str, Any], data: Dataset, shape: prepare.Shape, text_bytes: int) -> schedule.Plan:
    """Returns the plan of a training that reads about `text_bytes` of text."""
    bytes_per_token = _bytes_per_token(data)
    batch = max(1, variant["batch_tokens"] // shape.sequence)
    plan = schedule.make_plan(
        round(text_bytes / bytes_per_token / (batch * shape.sequence)),
        batch,
        min(batch, 8192 // shape.sequence),
        sequence=shape.sequence,
        matrix_rate=variant.get("matrix_rate", 0.02),
        weight_decay=variant.get("weight_decay", 0.05),
    )
    changed = {name: variant[name] for name in ("decay_share", "final_rate") if name in variant}
    scaled = {name: variant[name] for name in ("embedding_rate", "vector_rate") if name in variant}
    return dataclasses.replace(plan, **changed, **{name: getattr(plan, name) * part for name, part in scaled.items()})


def _bytes_per_token(data: Dataset) -> float:
    """Returns the bytes of text for each token; shares are of sequences, so of tokens."""
    return sum(part.share * part.num_bytes / part.length for part in data.parts)


def _trainer(
    folder: Path, variant: dict[str, Any], data: Dataset, shape: prepare.Shape, plan: schedule.Plan
) -> Trainer:
    """Returns a trainer with initial weights."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = Facts(
        shape=dataclasses.asdict(shape),
        plan=dataclasses.asdict(plan),
        seed=variant.get("seed", 0),
        dtype=str(machine.choose_dtype(device)).removeprefix("torch."),
        compiled=machine.can_compile(device),
        threads=torch.get_num_threads(),
        device=str(device),
        torch_version=str(torch.__version__),
        start_token=int(Tokenizer(folder, shape.vocab_size).table.single_bytes()[0]),
        tokens_digest=data.digest,
        peak_flops=1,
    )
    trainer = Trainer(folder, facts, data, [])
    trainer.network.initialise(variant.get("seed", 0))
    if "sharpness" in variant:
        for name, parameter in trainer.parameters.items():
            if name.endswith(("q_norm", "k_norm")):
                parameter.data.fill_(variant["sharpness"])
    return trainer


class Judge:
    """Measures weights on validation files.

    Args:
        folder: with the tokenizer.
        shape: of the network.
        facts: of the training.
        valid: the files.
    """

    def __init__(self, folder: Path, shape: prepare.Shape, facts: Facts, valid: list[Path]) -> None:
        tokenizer = Tokenizer(folder, shape.vocab_size)
        self._samples = {path.stem: slices(path, tokenizer, facts.start_token) for path in valid}
        longest = max(ids.shape[1] for ids, _, _ in self._samples.values())
        self._device = torch.device(facts.device)
        dtype = getattr(torch, facts.dtype)
        self._network = network.Network(dataclasses.replace(shape, sequence=longest), dtype).to(self._device)

    def bits_per_byte(self, tensors: list[torch.Tensor]) -> dict[str, float]:
        """Returns the bits per byte of each file by some weights."""
        for parameter, tensor in zip(self._network.parameters(), tensors, strict=True):
            parameter.data.copy_(tensor)
        results = {}
        for name, (ids, counts, num_bytes) in self._samples.items():
            total = 0.0
            for first in range(0, len(ids), 16):
                bits = network.bits(self._network, ids[first : first + 16].to(self._device))
                total += float(bits[counts[first : first + 16].to(self._device)].sum())
            results[name] = total / num_bytes
        return results


def train(folder: Path, variant: dict[str, Any], text_bytes: int, valid: list[Path]) -> dict[str, Any]:
    """Trains once; returns bits per byte of each validation file, and with averaged weights."""
    variant = PLAIN | variant
    data = Dataset(folder)
    if "mix" in variant:
        shares = dict(zip(_MIX_NAMES, variant["mix"], strict=True))
        data.parts = [dataclasses.replace(part, share=shares[part.name.strip("*")]) for part in data.parts]
    names = {field.name for field in dataclasses.fields(prepare.Shape)}
    shape = dataclasses.replace(
        TrainSettings(texts=("",), folder=folder).shape(),
        **{name: value for name, value in variant.items() if name in names},
    )
    plan = _plan(variant, data, shape, text_bytes)
    trainer = _trainer(folder, variant, data, shape, plan)
    weights = [parameter.data for parameter in trainer.parameters.values()]
    averages = {keep: [weight.clone() for weight in weights] for keep in AVERAGES}
    started, seconds = time.monotonic(), []
    for trainer.step in range(plan.steps):
        step_started = time.monotonic()
        trainer.train_step()
        seconds.append(time.monotonic() - step_started)
        for keep, average in averages.items():
            torch._foreach_lerp_(average, weights, 1 - keep)
    judge = Judge(folder, shape, trainer.facts, valid)
    result = judge.bits_per_byte(weights)
    means = {
        str(keep): math.fsum(judge.bits_per_byte(average).values()) / len(valid) for keep, average in averages.items()
    }
    return {
        "steps": plan.steps,
        "batch": plan.batch_tokens,
        "parameters": shape.num_parameters,
        "bytes_per_token": _bytes_per_token(data),
        "seconds": time.monotonic() - started,
        "tokens_per_second": plan.batch_tokens / sorted(seconds)[len(seconds) // 2],
        "bits": result,
        "mean": math.fsum(result.values()) / len(result),
        "averages": means,
    }


@click.command()
@click.option("--texts", required=True, type=click.Path(exists=True), help="Folder of texts, named by their kind.")
@click.option("--valid", required=True, multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for tokens.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="JSON lines.")
@click.option("--bytes", "text_bytes", default=8_000_000, show_default=True, help="Text that each training reads.")
@click.option("--only", multiple=True, help="Variants; all without it.")
def main(texts: str, valid: tuple[Path, ...], work: Path, output: Path, text_bytes: int, only: tuple[str, ...]) -> None:
    done = set()
    if output.exists():
        done = {json.loads(line)["name"] for line in output.read_text().splitlines()}
    for name in only or VARIANTS:
        if name in done:
            continue
        variant = VARIANTS[name]
        folder = prepared(work, texts, (PLAIN | variant)["vocab_size"])
        result = {"name": name, **train(folder, variant, text_bytes, list(valid))}
        with open(output, "a") as file:
            file.write(json.dumps(result) + "\n")
        kinds = " ".join(f"{kind} {bits:.4f}" for kind, bits in result["bits"].items())
        print(f"{name}: {result['mean']:.4f} ({kinds}) averages {result['averages']} "
              f"{result['tokens_per_second']:,.0f} tokens/s, {result['seconds']:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
