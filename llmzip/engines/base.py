"""What the codec expects of an engine; must not know text, files, frames or the coder."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Engine(Protocol):
    """A causal language model that turns token ids into integer masses, the same bits on every call pattern.

    Attributes:
        vocab_size: V, number of token ids.
        context: most input tokens that one position may see, itself included.
        start_token: the id fed before a row's first token.
        device: where tensors live.
        batch_tokens: tokens that one prefill call should hold.
    """

    vocab_size: int
    context: int
    start_token: int
    device: torch.device
    batch_tokens: int

    def new_cache(self, rows: int, chunk: int = 1) -> Any:
        """An empty KV cache for `rows` rows, fed at most `chunk` tokens at once.

        It has `length`, the positions fed so far, `reset()`, `rows(slice)`, a cache of some rows that shares their
        storage, and `adopt(part)`, which takes over the position counts of such a part.
        """

    def cache_bytes(self, rows: int, chunk: int = 1) -> int:
        """Memory that `new_cache` takes, in bytes."""

    def forward(self, ids: torch.Tensor, cache: Any | None = None) -> torch.Tensor:
        """Final hidden states of new input tokens; appends to the cache when there is one.

        Args:
            ids: (B, T) int64 on `device`, 0 <= id < V. Without a cache, positions start at 0.
            cache: a cache of B rows, or None.

        Returns:
            (B, T, hidden) float32.
        """

    def masses(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unnormalised integer probabilities of the token that follows.

        Args:
            hidden: (n, hidden) float32 from `forward`.

        Returns:
            (n, V) int32, 0 <= mass <= 2^20, each row's largest is 2^20.
        """
