"""Tokens that an engine has beyond those of its model: bytes that the vocabulary lacks (format section 4).

Must not know which bytes they are. Their ids follow the model's; the model gives them the mass 0, and where one of them
is an input, it is fed the start token. Nothing here runs for a model that lacks none.
"""

from __future__ import annotations

import torch


def as_inputs(ids: torch.Tensor, num_model_tokens: int, start_token: int) -> torch.Tensor:
    """Returns ids as the model is fed them: its start token in place of each byte token."""
    return ids.masked_fill(ids >= num_model_tokens, start_token)


def with_byte_tokens(masses: torch.Tensor, count: int) -> torch.Tensor:
    """Appends columns of zeros for `count` byte tokens, if there are any, to a model's masses, (n, V) int32."""
    return torch.nn.functional.pad(masses, (0, count)) if count else masses
