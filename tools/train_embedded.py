"""Trains the embedded models: `python tools/train_embedded.py TEXTS VALID OUTPUT --budget gpu --minutes 9`.

TEXTS and VALID are folders whose files are named by their kind (prose, docs, code, structured, langs). Each call
continues where the last one stopped, so a machine that is available for a few minutes at a time is enough. The exit
status is 0 when all models are finished, and 3 before. Then `make embedded MODEL=OUTPUT/base NAME=base` puts a model
into the package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

MIX = {"prose": 0.45, "docs": 0.17, "code": 0.15, "structured": 0.08, "langs": 0.15}
RECIPES = {
    # One H200-class GPU, about 20 minutes of steps.
    "gpu": {
        "base": ["--preset=large", "--time=15m"],
        "small": ["--preset=medium", "--sequence=1024", "--time=5m"],
    },
    # Two CPU cores with bfloat16 products, about 4 hours.
    "cpu": {
        "small": ["--preset=small", "--time=40m"],
        "base": ["--preset=base", "--time=3h"],
    },
}
UNFINISHED = 3  # exit status


def main() -> int:
    """Continues the first unfinished model, then the next; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--budget", required=True, choices=RECIPES)
    parser.add_argument("--minutes", type=float, help="stop with a checkpoint after this time")
    parser.add_argument("--short", action="store_true", help="train each model for a few steps, as a trial")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    for name, recipe in RECIPES[args.budget].items():
        folder = args.output / name
        if (folder / "model.llmzw").exists():
            continue
        if (folder / "unfinished" / "tokens.json").exists() and any(folder.glob("unfinished/step-*")):
            options = ["--resume"]
        else:
            options = [str(path) for path in sorted(args.texts.iterdir()) if any(kind in path.name for kind in MIX)]
            options += [f"--valid={path}" for path in sorted(args.valid.iterdir())]
            options += [f"--mix=*{kind}*={share}" for kind, share in MIX.items()]
            options += [*recipe, "--save-every=2m", "--force"]
            if args.short:
                options = [option for option in options if not option.startswith("--time")] + ["--steps=20"]
        command = [sys.executable, "-m", "llmzip", "train", *options, "-o", str(folder)]
        print(" ".join(command), flush=True)
        process = subprocess.Popen(command)
        try:
            code = process.wait(None if end is None else max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            return UNFINISHED
        if code:
            return UNFINISHED
    print("all models are finished")
    return 0


if __name__ == "__main__":
    sys.exit(main())
