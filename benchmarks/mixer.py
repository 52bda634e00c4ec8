"""Measures each part of the mixer by payload bytes and time without it; `make bench-mixer CORPUS=DIR`.

Takes ten pieces of 30,000 bytes of every .txt file under DIR (at most 3 of them with --quick), asks the model once, and
then encodes all of them with copies of the package in which one thing was changed. One row, so that only the mixer
counts. The mixer of each copy is built anew, which needs a C++ compiler; results go to OUTPUT/mixer.jsonl as they come,
and a run that was stopped resumes where it was. At the end: OUTPUT/mixer.md and, with matplotlib, OUTPUT/mixer.svg.
`mixer.py --redraw docs/log.md` draws docs/mixer.svg from the table there, and measures nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_PACKAGE = Path(__file__).resolve().parents[1] / "llmzip"
_PREDICTOR = "native/predictor.h"
_WALK = "native/walk.h"
_PIECE_BYTES = 30_000
_RUNS = 3
_COUNTS = (6, 12, 18, 24, 30)

_CONTEXTS = (
    "order 0",
    "word",
    "shape",
    "last 2 tokens",
    "the model's guess",
    "word and word before",
    "what followed the last token",
    "bytes above and column",
    "last 6 bytes",
    "line's beginning and field",
    "last 2 bytes",
    "same field above",
    "tokens 2 and 3 back",
    "last byte",
    "what a match expects",
    "what a match expects and the guess",
    "field and its content",
    "field's content and the one before",
    "last 3 bytes",
    "word and the two before",
    "word and the second before",
    "bytes above and last byte",
    "bytes in the two lines above",
    "line's first word and word",
    "key and word",
    "last 6 tokens",
    "marks and word",
    "last 4 bytes",
    "last 5 bytes",
    "what followed the last 2 tokens",
    "bytes 3, 5 and 6 back",
    "same field above and content",
    "field and word",
    "field, place and last 2 bytes",
    "content before, word and field",
    "shape and field",
)

_GROUPS = (
    ("node", "place.chosen[0] = node;", "place.chosen[0] = 0;"),
    ("guess", "place.chosen[1] = nodes + BY_GUESS + by_guess;", "place.chosen[1] = nodes + BY_GUESS;"),
    ("token", "place.chosen[2] = nodes + sets.token;", "place.chosen[2] = nodes + BY_TOKEN;"),
    ("bracket and class", "place.chosen[3] = nodes + sets.bracket;", "place.chosen[3] = nodes + BY_BRACKET;"),
    ("class and shape", "place.chosen[4] = nodes + sets.shape;", "place.chosen[4] = nodes + BY_SHAPE;"),
    ("place in the field", "nodes + sets.place_from + (depth >= 4);", "nodes + BY_PLACE;"),
    ("field", "place.chosen[6] = nodes + sets.field;", "place.chosen[6] = nodes + BY_FIELD;"),
    ("column and match", "nodes + sets.column_from + longest;", "nodes + BY_COLUMN;"),
)
"""Groups of weight sets: what chooses the set, and how it is left to itself."""

Change = tuple[str, str, str]
Point = tuple[int, int, float]
"""Number of contexts, bytes of all pieces, microseconds per token."""


def _variants() -> dict[str, list[Change]]:
    """Name -> (file, text, text in its place)."""
    off = "inputs[context] = state ? logit : 0;"
    variants: dict[str, list[Change]] = {"all": []}
    for number, name in enumerate(_CONTEXTS):
        changed = f"inputs[context] = state && context != {number} ? logit : 0;"
        variants[f"without context {number}, {name}"] = [(_PREDICTOR, off, changed)]
    for count in _COUNTS:
        # As many bytes of the hashes' blocks are read and learnt as there are contexts.
        variants[f"first {count} contexts"] = [(_PREDICTOR, "context < CONTEXTS;", f"context < {count};")]
    for name, chosen, fixed in _GROUPS:
        variants[f"one weight set instead of those by {name}"] = [(_PREDICTOR, chosen, fixed)]
    variants["without the language model"] = [(_PREDICTOR, "inputs[MODEL] = model;", "inputs[MODEL] = 0;")]
    for match in range(3):
        entry = "    const int entry = (int)(smaller(length, 16)"
        variants[f"without match model {match}"] = [
            (_PREDICTOR, entry, f"    if (match == {match}) length = 0;\n{entry}")
        ]
    for place, name in enumerate(("node", "match")):
        read = f"inputs[MODEL_MAPS{' + 1' * place}] = learned.stretch[value_of(place.model_by_{name}) >> 4];"
        variants[f"without the model's {name} map"] = [(_PREDICTOR, read, f"inputs[MODEL_MAPS{' + 1' * place}] = 0;")]
    both = "2 * learned.squash[logit + MAX_LOGIT] + value_of(place.by_node) + value_of(place.by_pair)"
    squashed = "learned.squash[logit + MAX_LOGIT]"
    variants["without final maps"] = [(_PREDICTOR, both, f"4 * {squashed}")]
    variants["without the pair map"] = [(_PREDICTOR, both, f"2 * {squashed} + 2 * value_of(place.by_node)")]
    variants["without the node map"] = [(_PREDICTOR, both, f"2 * {squashed} + 2 * value_of(place.by_pair)")]
    variants["without the network"] = [
        (_WALK, "correct(m, group.place[at]);", "memset(group.place[at].unit, 0, sizeof group.place[at].unit);")
    ]
    fixed = "if (m.with_model) train(learned.output_weight"
    variants["network that learns nothing more"] = [(_PREDICTOR, fixed, fixed.replace("m.with_model", "false"))]
    learnt = "first_weights(level) if with_model else plain_weights(len(level))"
    variants["plain weights at first"] = [("state.py", learnt, "plain_weights(len(level))")]
    for least, span, fall in ((24, 1248, 1000), (96, 1248, 1000), (48, 624, 1000), (48, 1248, 250), (48, 1248, 4000)):
        variants[f"rate {least} + {span} falling by {fall}"] = [
            (_PREDICTOR, "48 + (int32_t)(1248000u / (uint32_t)(1000 + *updates))",
             f"{least} + (int32_t)({span * fall}u / (uint32_t)({fall} + *updates))"),
        ]  # fmt: skip
    for name, file, text, value, others in (
        ("updates of states", _PREDICTOR, "learnt(*entry, bit, {}, learned.rate)", 255, (60, 1000)),
        ("rate of final weights", _PREDICTOR, "place.logit, SETS, error, {})", 128, (32, 512)),
        ("rate of output weights", _PREDICTOR, "target - place.probability, {})", 128, (32, 512)),
        ("shift of maps", _PREDICTOR, ") >> {};", 12, (11, 13)),
        ("updates at first", "weights.py", "FIRST_UPDATES = {}\n", 32, (0, 200)),
        ("blocks a token", "mixer.py", "({} * num_tokens - 1)", 64, (32, 128)),
    ):
        for other in others:
            variants[f"{name} {other} instead of {value}"] = [(file, text.format(value), text.format(other))]
    return variants


def _prepare(folder: Path, cache: Path, quick: bool) -> None:
    """Runs the model over every piece and stores its answers."""
    from llmzip.format.plan import RowPlan
    from llmzip.inference import load, passes
    from llmzip.mixing.mixer import MixEncoder
    from llmzip.models.choice import choose_model
    from llmzip.settings import EngineSettings

    model = load.load(choose_model("default"), EngineSettings())
    readout = model.engine.readout()
    for file in sorted(folder.rglob("*.txt")):
        data = file.read_bytes()
        if len(data) < _PIECE_BYTES:
            continue
        for piece in (0, 4, 8) if quick else range(10):
            target = cache / f"{file.stem}-{piece}.npz"
            if target.exists():
                continue
            start = piece * (len(data) - _PIECE_BYTES) // 9
            tokens = model.tokenizer.encode(data[start : start + _PIECE_BYTES])
            encoder = MixEncoder(model.vocabulary, tokens, 1, with_model=True)
            plan = RowPlan(len(tokens), 1, min(512, model.engine.context - 1))
            for places, masses in passes.token_masses(model.engine, tokens, plan):
                encoder.add(places, readout.fetch(masses))
            known = encoder._known
            np.savez(target, tokens=tokens, logit=known.logit, guess=known.guess)


def _encode_all(cache: Path) -> None:
    """Prints bytes and time of all pieces as JSON; runs in a copy of the package."""
    import time

    from llmzip.inference import load
    from llmzip.mixing.mixer import MixEncoder
    from llmzip.models.choice import choose_model
    from llmzip.settings import EngineSettings

    vocabulary = load.load(choose_model("default"), EngineSettings()).vocabulary
    sizes, best, count = {}, 0.0, 0
    for run in range(_RUNS + 1):  # the first one warms up
        begin = 0.0
        for file in sorted(cache.glob("*.npz")):
            piece = np.load(file)
            encoder = MixEncoder(vocabulary, piece["tokens"], 1, with_model=True)
            encoder._known.logit[:] = piece["logit"]
            encoder._known.guess[:] = piece["guess"]
            started = time.perf_counter()
            payload, _ = encoder.finish()
            begin += time.perf_counter() - started
            sizes[file.stem] = len(payload)
            count += len(piece["tokens"]) if run == 0 else 0
        if run:
            best = min(best or begin, begin)
    print(json.dumps({"sizes": sizes, "us_per_token": best / count * 1e6}))


def _run(name: str, changes: list[Change], cache: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(_PACKAGE, Path(place) / "llmzip", ignore=shutil.ignore_patterns("__pycache__"))
        for file, text, other in changes:
            path = Path(place) / "llmzip" / "mixing" / file
            source = path.read_text()
            if text not in source:
                raise SystemExit(f"{name}: {file} has no {text!r}")
            path.write_text(source.replace(text, other))
        for name_in_root in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "tools"):
            (Path(place) / name_in_root).symlink_to(_PACKAGE.parent / name_in_root)
        for command in (["setup.py", "-q", "build_ext", "--inplace"], [__file__, "--child", str(cache.resolve())]):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=place, env=os.environ | {"PYTHONPATH": place}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                break
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return {"name": name, **json.loads(done.stdout)}


def _write(results: list[dict], output: Path) -> None:
    base = sum(results[0]["sizes"].values())
    kinds = sorted({piece.rpartition("-")[0] for piece in results[0]["sizes"]})
    lines = [f"| variant | bytes | change | {' | '.join(kinds)} | us/token |", "|---|" + "---:|" * (len(kinds) + 3)]
    for result in results:
        total = sum(result["sizes"].values())
        parts = [sum(size for piece, size in result["sizes"].items() if piece.startswith(f"{kind}-")) for kind in kinds]
        cells = " | ".join(f"{part:,}" for part in parts)
        change = f"{100 * (total / base - 1):+.2f} %"
        lines.append(f"| {result['name']} | {total:,} | {change} | {cells} | {result['us_per_token']:.1f} |")
    (output / "mixer.md").write_text("\n".join(lines) + "\n")
    chosen = [result for result in results if result["name"].startswith("first ") or result["name"] == "all"]
    points = [
        (len(_CONTEXTS) if result["name"] == "all" else int(result["name"].split()[1]),
         sum(result["sizes"].values()), result["us_per_token"])
        for result in chosen
    ]  # fmt: skip
    with contextlib.suppress(ImportError):
        draw(points, output / "mixer.svg")


def recorded(document: Path) -> list[Point]:
    """Reads the rows of the table in docs/log.md."""
    text = document.read_text(encoding="utf-8")
    cells = r" \| ([\d,]+) \| [-+\d.]+ % \|(?: [\d,]+ \|)+ ([\d.]+) \|$"
    found = re.findall(rf"^\| (?:first (\d+) contexts|all){cells}", text, re.MULTILINE)
    # The table says itself how many contexts the mixer had that it measured.
    every = len(re.findall(r"^\| without context \d+", text, re.MULTILINE))
    return [(int(count or every), int(size.replace(",", "")), float(time)) for count, size, time in found]


def draw(points: list[Point], file: Path) -> None:
    """Draws size and time against the number of contexts, as SVG for light and dark screens."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator

    from llmzip.bench import chart

    points = sorted(points)
    counts, smallest = [count for count, _, _ in points], points[-1][1]
    sizes = [(count, size / 1000) for count, size, _ in points]
    times = [(count, time) for count, _, time in points]
    texts = [
        f"{100 * (size / smallest - 1):+.1f} %" if size != smallest else f"{size:,} bytes" for _, size, _ in points
    ]
    with matplotlib.rc_context(chart.STYLE):
        figure = Figure(figsize=(9.0, 3.8), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2)
        jobs = []
        for axes, places, names, title, colour in (
            (panels[0], sizes, texts, "all pieces, KB", "#1d4ed8"),
            (panels[1], times, [f"{time:.1f}" for _, time in times], "time of the mixer, us per token", "#c2410c"),
        ):
            chart.bare(axes)
            axes.plot(*zip(*places, strict=True), color=colour, linewidth=1, alpha=0.5)
            axes.plot(*zip(*places, strict=True), color=colour, marker="D", markersize=6, linestyle="none")
            axes.set_xlim(0, max(counts) + 3)
            axes.xaxis.set_major_locator(FixedLocator(counts))
            axes.set_xlabel("contexts, the first ones of the list")
            axes.set_title(title, loc="left")
            axes.margins(y=0.15)
            labels = [chart.Label(place, name, colour) for place, name in zip(places, names, strict=True)]
            jobs.append((axes, labels, [places]))
        panels[1].set_ylim(0, None)
        figure.suptitle("What more contexts of the mixer save, and what they cost", fontsize=12)
        chart.write_svg(figure, jobs, file)


def main() -> None:
    """Measures what the command line asks for, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, default=Path("bench-results"))
    parser.add_argument("--quick", action="store_true", help="three pieces of each file instead of ten")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--redraw", metavar="FILE", type=Path, help="draw mixer.svg beside FILE from its table")
    options = parser.parse_args()
    if options.redraw is not None:
        return draw(recorded(options.redraw), options.redraw.with_name("mixer.svg"))
    if options.child is not None:
        return _encode_all(options.child)
    if options.folder is None:
        parser.error("which folder?")
    cache = options.output / "logits"
    cache.mkdir(parents=True, exist_ok=True)
    _prepare(options.folder, cache, options.quick)
    log = options.output / "mixer.jsonl"
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {result["name"] for result in results}
    for name, changes in _variants().items():
        if name not in done:
            results.append(_run(name, changes, cache))
            with log.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            print(f"{name}: {sum(results[-1]['sizes'].values()):,} bytes, {results[-1]['us_per_token']:.1f} us/token")
    _write(results, options.output)
    return None


if __name__ == "__main__":
    main()
