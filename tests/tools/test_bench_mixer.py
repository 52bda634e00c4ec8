"""The benchmark of the mixer's parts: each variant changes a line that the sources still have."""

import importlib.util
from pathlib import Path

import pytest

import llmzip.mixing

_FOLDER = Path(llmzip.mixing.__file__).parent
_BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "mixer.py"
# By its path: the second mixer, in tests/contract/reference, has the same name.
_SPEC = importlib.util.spec_from_file_location("bench_mixer", _BENCHMARK)
assert _SPEC is not None and _SPEC.loader is not None
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
_VARIANTS = _MODULE._variants()


@pytest.mark.parametrize("name", _VARIANTS)
def test_every_variant_finds_what_it_changes(name: str) -> None:
    for file, text, other in _VARIANTS[name]:
        assert text in (_FOLDER / file).read_text(encoding="utf-8")
        assert text != other
