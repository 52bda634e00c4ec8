"""Checks that weight files are rewritten in the newest version, and hold the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rewrite_weights

from llmzip.models import mappedfile, weightfile
from llmzip.models.embedded import EMBEDDED
from llmzip.models.int8form import load_int8
from llmzip.models.layout import INT8


def test_a_file_of_version_1_becomes_one_of_version_2(tmp_path: Path) -> None:
    model = load_int8(EMBEDDED[-1].folder / INT8)
    arrays = {name: np.asarray(tensor) for name, tensor in model.tensors().items()}
    path = tmp_path / INT8
    path.write_bytes(weightfile.pack(model.config.as_dict(), 1, arrays))
    before, after = rewrite_weights.rewrite(path)
    assert before < after == path.stat().st_size and mappedfile.is_mapped_form(path)
    assert path.read_bytes() == (EMBEDDED[-1].folder / INT8).read_bytes()
    assert load_int8(path).digest() == EMBEDDED[-1].model_digest


def test_files_of_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"not named model\.llmzw"):
        rewrite_weights.rewrite(tmp_path / "weights.bin")
