"""The pretrained models of `make test-real`; without LLMZIP_REAL_MODELS, the folder of their files, nothing runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_models
from real_samples import RealModel

VARIABLE = "LLMZIP_REAL_MODELS"

collect_ignore_glob = [] if os.environ.get(VARIABLE) else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def kept_conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps conversions in a folder of this run: the first test of each model makes its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session", params=sorted(real_models.MODELS))
def model(request: pytest.FixtureRequest) -> RealModel:
    """Each model, its digest checked."""
    known = real_models.MODELS[request.param]
    path = Path(os.environ[VARIABLE]) / known.file
    assert real_models.sha256(path) == known.sha256, f"{path} is not the file that PyPI has"
    return RealModel(request.param, path)
