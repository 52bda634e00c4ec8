"""Measures what transformers in float32 say that texts cost by a model: a bound for its archives.

    python benchmarks/float_bound.py MODEL TEXT... [--context 2048] [--json FILE]

The text is cut into the tokens that llmzip takes. A window of CONTEXT tokens moves by half of itself, so each token but
the first ones is predicted from at least half a context; the first window begins with the start token.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmzip.models.checkpoints import open_tensors
from llmzip.models.convert import default_start_token
from llmzip.models.layout import read_config
from llmzip.models.tokenizer import Tokenizer

_LOGIT_ROWS = 128


class FloatReference:
    """A checkpoint or GGUF file as transformers computes it.

    Args:
        model: the folder or file.
        dtype: of weights and activations.

    Attributes:
        tokenizer: llmzip's.
        start_token: id that texts begin after.
    """

    def __init__(self, model: Path, dtype: torch.dtype = torch.float32) -> None:
        import transformers

        config = dict(read_config(model))
        self.start_token = default_start_token(config, config["vocab_size"])
        self.tokenizer = Tokenizer(model, config["vocab_size"])
        settings = transformers.AutoConfig.for_model(config.pop("model_type"), **config)
        network: Any = transformers.AutoModelForCausalLM.from_config(settings, dtype=dtype)
        tensors = open_tensors(model)
        missing, unexpected = network.load_state_dict({name: tensors[name] for name in tensors}, strict=False)
        if unexpected or set(missing) - {"lm_head.weight"}:
            raise SystemExit(f"transformers knows other tensors than {model}: {[*missing, *unexpected][:3]}")
        network.tie_weights()
        self._network = network.eval()

    @torch.inference_mode()
    def bits(self, inputs: np.ndarray, first: int = 1) -> float:
        """Returns what the tokens from place `first` on cost in bits, all in one context.

        Args:
            inputs: (T,) int64, at most as many as the model takes.
            first: 1 to T - 1.
        """
        ids = torch.from_numpy(inputs)[None]
        hidden = self._network.base_model(ids[:, :-1]).last_hidden_state[0, first - 1 :]
        targets, total = ids[0, first:], 0.0
        for begin in range(0, len(hidden), _LOGIT_ROWS):
            rows = slice(begin, begin + _LOGIT_ROWS)
            logits = self._capped(self._network.lm_head(hidden[rows])).double()
            total -= float(torch.log_softmax(logits, -1).gather(1, targets[rows, None]).sum())
        return total / math.log(2)

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        cap = getattr(self._network.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def text_bits(self, tokens: np.ndarray, context: int) -> Iterator[float]:
        """Yields what each window adds; `context`: inputs of a window, the start token included."""
        inputs = np.concatenate([[self.start_token], tokens])
        stride = max(1, context // 2)
        done = 1
        while done < len(inputs):
            end = min(len(inputs), done + (context if done == 1 else stride))
            begin = max(0, end - 1 - context)
            yield self.bits(inputs[begin:end], done - begin)
            done = end


def main() -> None:
    """Prints bits per byte of each text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--json", type=Path, help="append a line for each text")
    options = parser.parse_args()
    reference = FloatReference(options.model)
    for path in options.text:
        data = path.read_bytes()
        tokens = reference.tokenizer.encode(data)
        bits = math.fsum(reference.text_bits(tokens, options.context))
        print(f"{path.name}: {len(data):,} bytes, {len(tokens):,} tokens, {bits / len(data):.4f} bits/byte", flush=True)
        if options.json is not None:
            row = {"model": options.model.name, "text": path.name, "bytes": len(data), "tokens": len(tokens)}
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"context": options.context, "bits": bits}) + "\n")


if __name__ == "__main__":
    main()
