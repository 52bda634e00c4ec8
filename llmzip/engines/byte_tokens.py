"""Tokens that an engine has beyond those of its model: bytes that the vocabulary lacks (format section 4).

Must not know which bytes they are. Their ids follow the model's; the model gives them the mass 0, and where one of them
is an input, it is fed the start token. Nothing here runs for a model that lacks none.
"""

from __future__ import annotations

import numpy as np


def as_inputs(ids: np.ndarray, num_model_tokens: int, start_token: int) -> np.ndarray:
    """Returns ids as the model is fed them: its start token in place of each byte token."""
    return np.where(ids >= num_model_tokens, start_token, ids)
