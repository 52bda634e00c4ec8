"""Checks the Triton kernels without a GPU: their bits in Triton's interpreter, and what compilers make of them."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.engines import selftest
from llmzip.engines.exact import ExactEngine
from llmzip.engines.gpu import devices, forward, support
from llmzip.engines.gpu.frequencies import DeviceFrequencies, frequencies
from llmzip.engines.operands import Operands, RopeTable
from llmzip.engines.torch_arrays import TensorModel
from llmzip.errors import EngineError
from llmzip.models.config import ExactConfig

pytest.importorskip("triton", "3.3", reason="no Triton, or one that is too old: it has no form for this system")

from launches import Recorder, inexact

PLACE = Path(__file__).parent
VERSION = tuple(int(part) for part in importlib.metadata.version("triton").split(".")[:2])


@pytest.mark.skipif(VERSION < (3, 9), reason="the interpreter of Triton before 3.9 fails with newer versions of numpy")
def test_the_kernels_give_the_bits_of_plain_torch_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(PLACE / "interpreted.py")],
        env=os.environ | {"TRITON_INTERPRET": "1", "LLMZIP_KERNELS": "triton"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


# -- what would be launched --------------------------------------------------------------------------------------------


def unfilled_model(sizes: tuple[int, int, int, int, int], **fields: Any) -> TensorModel:
    """A model of one layer without memory: hidden, mlp, heads, kv heads, head size."""
    hidden, mlp, heads, kv_heads, dim = sizes
    config = ExactConfig(
        **{
            "vocab_size": 4096, "hidden_size": hidden, "mlp_size": mlp, "num_layers": 1, "num_heads": heads,
            "num_kv_heads": kv_heads, "head_dim": dim, "rope_theta": 10000.0, "norm_eps": 2.0**-20, "windows": (0,),
            "planes": 1, "context": 2048, "start_token": 0,
        }
        | fields
    )  # fmt: skip

    def vector(size: int) -> torch.Tensor:
        return torch.empty(size, device="meta")

    def matrix(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(rows, columns, dtype=torch.int8, device="meta"), vector(rows)

    width = (heads + 2 * kv_heads) * dim
    layer = SimpleNamespace(input_norm=vector(hidden), post_norm=vector(hidden), qkv_bias=None)
    for name, shape in (
        ("qkv", (width, hidden)), ("out", (hidden, heads * dim)), ("gate_up", (2 * mlp, hidden)),
        ("down", (hidden, mlp)),
    ):  # fmt: skip
        weights, scale = matrix(*shape)
        vars(layer).update({f"{name}_q": weights, f"{name}_scale": scale})
    embedding_q, embedding_scale = matrix(config.vocab_size, hidden)
    return TensorModel(
        config=config, layers=(layer,), device=torch.device("meta"), embedding_q=embedding_q,
        embedding_scale=embedding_scale, head_q=embedding_q, head_scale=embedding_scale, final_norm=vector(hidden),
    )  # fmt: skip


@contextmanager
def recorded(model: TensorModel) -> Iterator[tuple[forward.GpuForward, Recorder]]:
    """The forward pass with kernels that are only recorded, and the record of their launches."""
    from llmzip.engines.gpu import attention, products, rowwise
    from llmzip.engines.gpu.primitives import OPTIONS

    config, recorder = model.config, Recorder()
    heads, dim = config.num_heads + config.num_kv_heads, config.head_dim
    meta = torch.device("meta")
    rope = RopeTable(tuple(range(dim // 2)), config.context, lambda table: torch.from_numpy(table).to(meta)[:, :, None])
    rope.extend(config.context)
    kernels = support.Kernels(*(recorder.module(module) for module in (attention, products, rowwise)), OPTIONS)
    operands = Operands((torch.empty(heads, dim, device=meta),), (rope,))
    own = forward.GpuForward(model, kernels, operands)
    own._processors = 132
    yield own, recorder


def run(own: forward.GpuForward, rows: int, new: int) -> None:
    cache = own.new_cache(rows, [own.config.windows[0] + 63 if own.config.windows[0] else own.config.context])
    own.forward(np.zeros((rows, new), dtype=np.int64), cache)
    own.masses(torch.empty(rows, own.config.hidden_size, device="meta"))


@pytest.mark.parametrize(
    ("capability", "sizes", "fields", "calls"),
    [
        (90, (256, 704, 4, 1, 64), {"windows": (512,)}, [(64, 512), (4096, 1)]),
        (80, (256, 704, 4, 1, 64), {"windows": (512,)}, [(4096, 1)]),
        (90, (576, 1536, 9, 3, 64), {"vocab_size": 49152}, [(1, 1)]),
    ],
)
def test_they_compile_without_a_device_into_exact_instructions(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capability: int,
    sizes: tuple[int, int, int, int, int],
    fields: dict[str, Any],
    calls: list[tuple[int, int]],
) -> None:
    """One rounding per operation, products on the tensor cores' int8, and memory that every such device has."""
    with recorded(unfilled_model(sizes, **fields)) as (own, recorder):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        for rows, new in calls:
            run(own, rows, new)
        names = set()
        for launch in recorder.launches:
            assert dict(launch.options)["enable_fp_fusion"] is False
            program = launch.compile(capability)
            ptx = program.asm["ptx"]
            names.add(launch.kernel.fn.__name__)
            assert not inexact(ptx), launch.name
            assert program.metadata.shared <= (227 if capability == 90 else 163) * 1024, launch.name
            if launch.kernel.fn.__name__ in ("attend", "add_product", "gate_product", "head_product", "heads_product"):
                assert "s32.s8.s8" in ptx, launch.name
        assert {"attend", "add_product", "gate_product", "head_product", "heads_product", "masses"} <= names


@pytest.mark.parametrize("floor_bits", [0, 8])
@pytest.mark.parametrize("vocab", [50, 50257])
def test_frequencies_compile_without_a_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vocab: int, floor_bits: int
) -> None:
    from llmzip.engines.gpu import counts

    recorder, split = Recorder(), DeviceFrequencies(vocab, floor_bits=floor_bits)
    monkeypatch.setattr("llmzip.engines.gpu.frequencies._kernels", lambda: recorder.module(counts))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    masses = torch.empty(40, vocab, dtype=torch.int32, device="meta")
    tokens = torch.empty(40, dtype=torch.int64, device="meta")
    sums, bounds = split.group_bounds(masses)
    groups = np.zeros(40, dtype=np.int64)
    split.symbol_bounds(masses, sums, bounds, groups)
    split.inner_bounds(masses, sums, groups)
    split._sums_around(masses, tokens, ranks=True)
    assert len(recorder.launches) == 5
    for launch in recorder.launches:
        assert not inexact(launch.compile(90).asm["ptx"])


def test_inexact_instructions_are_found() -> None:
    ptx = "fma.rn.f32 a; div.full.f32 b; ex2.approx.ftz.f32 c; mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 d;"
    assert len(inexact(ptx)) >= 4
    assert not inexact("div.rn.f32 a; sqrt.rn.f32 b; mad.lo.s32 c; wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 d;")


@pytest.mark.parametrize(("rows", "new"), [(1, 1), (3, 1), (1, 2048), (20000, 1), (300, 64)])
@pytest.mark.parametrize("sizes", [(2048, 8192, 32, 8, 64), (1152, 6912, 4, 1, 256), (48, 80, 6, 2, 32)])
def test_launches_of_any_shape_are_within_limits(
    monkeypatch: pytest.MonkeyPatch, rows: int, new: int, sizes: tuple[int, int, int, int, int]
) -> None:
    """Grids have at most 2^31 - 1 and 65,535 programs, pieces at most 2^20 values: Triton's limit."""
    with recorded(unfilled_model(sizes)) as (own, recorder):
        run(own, rows, new)
        assert len(recorder.launches) >= 9
        for launch in recorder.launches:
            constants = dict(launch.constants)
            assert constants.get("ROWS", 1) * constants.get("BLOCK", 1) <= 1 << 20
            assert 1 <= dict(launch.options).get("num_warps", 4) <= 16


# -- where they cannot be used -----------------------------------------------------------------------------------------


def test_what_a_device_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setenv("LLMZIP_KERNELS", "none")
    assert support.unavailable(cuda) == "LLMZIP_KERNELS=none"
    monkeypatch.delenv("LLMZIP_KERNELS")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert support.unavailable(cuda) == "they are for NVIDIA devices only"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert support.unavailable(cuda) == "compute capability 7.5 is below 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert support.unavailable(cuda) == ""


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        ("None", "Triton cannot be imported: "),
        ("types.SimpleNamespace(__version__='3.0.0')", "Triton 3.0.0 is older than 3.3"),
    ],
)
def test_without_triton_the_reason_is_said(stand_in: str, reason: str) -> None:
    code = (
        "import sys, types, torch, llmzip.inference.load\n"
        "from llmzip.engines.gpu import support\n"
        f"sys.modules['triton'] = {stand_in}\n"
        "print(support.unavailable(torch.device('cpu')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(reason)
    assert done.stdout.count("\n") == 1


def test_processors_keep_their_own_kernels() -> None:
    assert not support.interpreted()
    assert not isinstance(frequencies(50, torch.device("cpu")), DeviceFrequencies)
    assert not isinstance(ExactEngine(selftest.compiled_model()).forward_pass, forward.GpuForward)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_refused_with_its_reason() -> None:
    from llmzip.engines.devices import all_of, find

    with pytest.raises(
        EngineError, match=r"^device cuda: torch finds no CUDA device here \([^\n.]+\); use --device cpu"
    ):
        find("cuda")
    assert all_of("cpu") == ["cpu"]


def test_rows_that_fit(monkeypatch: pytest.MonkeyPatch, make_engine: Any) -> None:
    engine = make_engine("grouped")
    one = engine.step_bytes(1, 16, 96)
    monkeypatch.setattr(devices, "free_bytes", lambda device: 1000 * one)
    assert devices.most_rows(engine, 16, 96) == 800
    monkeypatch.setattr(devices, "free_bytes", lambda device: 0)
    assert devices.most_rows(engine, 16, 96) == 1
    monkeypatch.setattr(devices, "free_bytes", lambda device: None)
    assert devices.most_rows(engine, 16, 96) == 1 << 20
    assert devices.HostCopies().fetch(torch.arange(3)).tolist() == [0, 1, 2]
