"""Puts a model that `llmzip train` made into the package: `make embedded MODEL=DIR NAME=seed`.

Copies model.llmzw, tokenizer.json and the card, and prints the two digests for llmzip/models.py and docs/format.md
section 7.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from llmzip.engines.model import INT8_NAME
from llmzip.engines.weights import load_model
from llmzip.tokens import Tokenizer

_TARGET = Path(__file__).parent.parent / "llmzip" / "embedded"


def main() -> None:
    """Copies the files and checks that they load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the folder")
    parser.add_argument("--name", required=True)
    args = parser.parse_args()
    folder = _TARGET / args.name
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((INT8_NAME, INT8_NAME), ("tokenizer.json", "tokenizer.json"), ("README.md", "MODEL_CARD.md")):
        shutil.copyfile(args.model / source, folder / name)
    model = load_model(folder)
    tokens = Tokenizer(folder, model.config.vocab_size).tokens
    print(f"model digest     {model.digest().hex()}\ntokenizer digest {tokens.digest().hex()}")


if __name__ == "__main__":
    main()
