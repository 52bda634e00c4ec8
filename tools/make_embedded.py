"""Puts a model that `llmzip train` made into the package: `make embedded MODEL=DIR NAME=base`.

Copies model.llmzw and tokenizer.json, and prints what models/embedded.py and docs/format.md section 7 say of the model.
MODEL_CARD.md beside them is written by hand, from DIR/README.md and from archives of the finished program.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from llmzip.models.layout import INT8
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.weights import load_model

_TARGET = Path(__file__).parent.parent / "llmzip" / "embedded"


def main() -> None:
    """Copies the files and checks that they load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder that llmzip train wrote")
    parser.add_argument("--name", required=True, help="the embedded model's name")
    args = parser.parse_args()
    folder = _TARGET / args.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in (INT8, "tokenizer.json"):
        shutil.copyfile(args.model / name, folder / name)
    model = load_model(folder)
    tokens = Tokenizer(folder, model.config.vocab_size).tokens
    print(f"model digest     {model.digest().hex()}\ntokenizer digest {tokens.digest().hex()}")
    print({name: value for name, value in model.config.as_dict().items() if name != "windows"})
    print(f"windows {sorted(set(model.config.windows))}")


if __name__ == "__main__":
    main()
