"""Checks what is left out of torch in a process of our own, that the rest works, and that it can be brought in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmzip

_START = "from llmzip.system import torchparts; torchparts.defer(); import torch, sys\n"


def python(code: str) -> str:
    """The output of a fresh interpreter."""
    path = os.pathsep.join(filter(None, [str(Path(llmzip.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    return done.stdout


def test_torch_comes_without_its_forms_for_tensors_without_data() -> None:
    code = (
        "print('torch._prims' in sys.modules, 'torch._meta_registrations' in sys.modules, torch.ones(2).sum().item())"
    )
    assert python(_START + code) == "False True 2.0\n"


def test_what_was_left_out_comes_when_it_is_wanted() -> None:
    code = "torchparts.complete(); print(torch.linalg.qr(torch.empty(3, 4, device='meta'))[0].shape)"
    assert python(_START + code) == "torch.Size([3, 3])\n"


def test_nothing_is_left_out_once_torch_is_there() -> None:
    code = "import torch; from llmzip.system import torchparts; torchparts.defer(); torchparts.complete()\n"
    code += "print(torch.linalg.qr(torch.empty(3, 4, device='meta'))[0].shape)"
    assert python(code) == "torch.Size([3, 3])\n"


def test_the_library_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", "none")  # so that torch is needed
    code = "import llmzip, io; llmzip.compress(b'a short text ' * 9); import sys; print('torch._prims' in sys.modules)"
    assert python(code) == "True\n"
