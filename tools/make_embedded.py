"""Converts a Hugging Face checkpoint into an embedded model's int8 form: `make embedded CHECKPOINT=DIR NAME=seed`.

Prints the two digests for llmzip/models.py and docs/format.md section 7.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from llmzip.engines.weights import load_model, save_int8
from llmzip.tokens import Tokenizer

_TARGET = Path(__file__).parent.parent / "llmzip" / "embedded"


def main() -> None:
    """Writes config.json, model.safetensors and a tokenizer.json without line breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--context", type=int, default=16384, help="positions before a row's context begins anew")
    parser.add_argument("--window", type=int, default=512, help="positions a token sees, in every layer")
    parser.add_argument("--planes", type=int, default=1)
    args = parser.parse_args()
    vocab_size = json.loads((args.checkpoint / "config.json").read_text())["vocab_size"]
    tokens = Tokenizer(args.checkpoint, vocab_size).tokens
    start_token = int(tokens.single_bytes()[0])
    model = load_model(args.checkpoint, args.planes, start_token=start_token)
    # With a window in every layer only differences of positions matter, so positions may pass the trained length.
    windows = (args.window,) * model.config.num_layers
    config = dataclasses.replace(model.config, context=args.context, windows=windows)
    model = dataclasses.replace(model, config=config)
    folder = _TARGET / args.name
    folder.mkdir(parents=True, exist_ok=True)
    save_int8(model, folder)
    tokenizer = json.loads((args.checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    print(f"model digest     {model.digest().hex()}\ntokenizer digest {tokens.digest().hex()}")


if __name__ == "__main__":
    main()
