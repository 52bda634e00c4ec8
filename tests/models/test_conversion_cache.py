"""Checks that conversions of checkpoints are kept, told apart and never trusted; and how planes are chosen."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmzip.engines import planes
from llmzip.engines.exact import ExactEngine
from llmzip.errors import ModelUnsupportedError
from llmzip.models import conversion_cache, mappedfile
from llmzip.models.conversion_cache import Conversion
from llmzip.models.convert import convert
from llmzip.models.model import ExactModel
from llmzip.models.weights import load_model

Make = Callable[..., tuple[dict[str, Any], dict[str, torch.Tensor]]]
Write = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept conversions, with every model large enough for it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(conversion_cache, "_MIN_KEPT_BYTES", 0)
    return tmp_path / "cache" / "llmzip" / "models"


@pytest.fixture
def folder(random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "m", *random_checkpoint())


class Chooser:
    """Measures a number of planes and counts how often it was asked."""

    def __init__(self, number: int) -> None:
        self.number, self.calls = number, 0

    def __call__(self, model: ExactModel) -> tuple[int, int]:
        self.calls += 1
        return self.number, min(45, model.config.context)  # as if of a text of 45 tokens


def load(folder: Path, context: int, start_token: int | None, number: int | None, choose: Chooser) -> ExactModel:
    """Loads a conversion with a number of planes, or with the one that was kept or is measured now."""
    conversion = Conversion(folder)
    model = conversion.load(context, start_token, number or 2)
    if number is not None:
        return model
    kept = conversion.measured_planes(model.config)
    if kept is None:
        kept, tokens = choose(model)
        conversion.keep_planes(model, kept, tokens)
    return model.with_settings(kept, model.config.context, model.config.start_token)


@pytest.mark.parametrize("number", [1, 2])
def test_a_conversion_is_made_once(cache: Path, folder: Path, number: int) -> None:
    choose = Chooser(number)
    models = [load(folder, 50, None, None, choose) for _ in range(3)]
    assert choose.calls == 1
    assert {model.digest() for model in models} == {load_model(folder, number, 50).digest()}
    assert sorted(path.suffix for path in cache.iterdir()) == [".digests", ".int8", ".planes"]


def test_an_archives_planes_win(cache: Path, folder: Path) -> None:
    choose = Chooser(2)
    assert load(folder, 50, None, 1, choose).digest() == load_model(folder, 1, 50).digest()
    assert not choose.calls and len(list(cache.iterdir())) == 1
    # The conversion is kept, but an archive's planes are no choice.
    assert load(folder, 50, None, None, choose).config.planes == 2
    assert load(folder, 50, None, 1, choose).digest() == load_model(folder, 1, 50).digest()
    assert load(folder, 50, None, 2, choose).digest() == load_model(folder, 2, 50).digest()
    assert choose.calls == 1


def test_changed_files_are_converted_anew(cache: Path, folder: Path) -> None:
    choose = Chooser(1)
    load(folder, 50, None, None, choose)
    weights = folder / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    os.utime(weights, ns=(stamp + 10**9, stamp + 10**9))
    load(folder, 50, None, None, choose)
    assert choose.calls == 2
    # What was kept before is of no use any more.
    assert sorted(path.suffix for path in cache.iterdir()) == [".int8", ".planes"]


def test_a_file_that_took_the_place_of_another_is_told_apart(
    cache: Path, folder: Path, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    old = load(folder, 50, None, 1, Chooser(1)).digest()
    weights, status = folder / "model.safetensors", (folder / "model.safetensors").stat()
    other = write_checkpoint(tmp_path / "other", *random_checkpoint(seed=7))
    (other / "model.safetensors").replace(weights)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))  # as unpacked from some archives
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert load(folder, 50, None, 1, Chooser(1)).digest() == load_model(folder, 1, 50).digest() != old


def test_links_that_swap_places_are_told_apart(
    cache: Path, folder: Path, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other", *random_checkpoint(seed=7))
    (first := tmp_path / "first").mkdir()
    (second := tmp_path / "second").mkdir()
    for place, before in ((first, "consolidated.safetensors"), (second, "model.safetensors")):
        after = {"consolidated.safetensors": "model.safetensors", "model.safetensors": "old.safetensors"}[before]
        (place / "config.json").symlink_to(folder / "config.json")
        (place / before).symlink_to(folder / "model.safetensors")
        (place / after).symlink_to(other / "model.safetensors")
    digests = {load(place, 50, None, 1, Chooser(1)).digest() for place in (first, second)}
    assert digests == {load_model(place, 1, 50).digest() for place in (folder, other)} and len(digests) == 2


def without_positions(random_checkpoint: Make) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return random_checkpoint()


def with_learned_positions(random_checkpoint: Make) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A small GPT-2."""
    draw = torch.Generator().manual_seed(4)
    shapes = {"wte.weight": (100, 16), "wpe.weight": (96, 16), "ln_f.weight": (16,), "ln_f.bias": (16,)}
    for name in ("h.0.ln_1", "h.0.ln_2"):
        shapes |= {f"{name}.weight": (16,), f"{name}.bias": (16,)}
    for name, size in {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 64)}.items():
        shapes |= {f"h.0.{name}.weight": size, f"h.0.{name}.bias": size[1:]}
    shapes |= {"h.0.mlp.c_proj.weight": (64, 16), "h.0.mlp.c_proj.bias": (16,)}
    config = {"model_type": "gpt2", "vocab_size": 100, "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 96}
    return config | {"bos_token_id": 1}, {name: torch.randn(size, generator=draw) for name, size in shapes.items()}


@pytest.mark.parametrize("make", [without_positions, with_learned_positions])
def test_one_conversion_serves_all_settings(
    make: Callable[[Make], tuple[dict[str, Any], dict[str, torch.Tensor]]],
    cache: Path,
    random_checkpoint: Make,
    write_checkpoint: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, choose = write_checkpoint(tmp_path / "m", *make(random_checkpoint)), Chooser(2)
    settings = [(50, None, None), (50, 1, 2), (1 << 17, None, None), (40, None, 1), (96, 3, 1), (7, 0, 2)]
    expected = [load_model(folder, number or 2, context, start).digest() for context, start, number in settings]
    load(folder, 60, None, None, choose)
    (kept,) = cache.glob("*.int8")
    stamp = kept.stat().st_mtime_ns
    monkeypatch.setattr(conversion_cache, "load_model", lambda *arguments: pytest.fail("converted again"))
    for (context, start, number), digest in zip(settings, expected, strict=True):
        assert load(folder, context, start, number, choose).digest() == digest
    assert choose.calls == 1
    assert [path.stat().st_mtime_ns for path in cache.glob("*.int8")] == [stamp]


def test_planes_are_chosen_again_where_that_takes_other_tokens(cache: Path, folder: Path) -> None:
    choose = Chooser(2)
    for context, start, calls in [
        (60, None, 1), (50, None, 1), (45, None, 1),  # 45 tokens of the text, all that it has
        (40, None, 2), (40, 1, 2), (44, None, 3), (90, None, 3), (50, 3, 4), (60, 3, 4), (40, None, 4),
    ]:  # fmt: skip
        load(folder, context, start, None, choose)
        assert choose.calls == calls, (context, start)


def test_a_choice_whose_text_may_be_longer_serves_no_longer_context(cache: Path, folder: Path) -> None:
    choose = Chooser(1)
    load(folder, 30, None, None, choose)
    load(folder, 60, None, None, choose)
    assert choose.calls == 2


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"{}", b"[3]", b"[[50,1,45]]", b"[[50,1,45,3]]", b"\xff"])
def test_a_damaged_choice_is_made_again(cache: Path, folder: Path, content: bytes) -> None:
    choose = Chooser(2)
    load(folder, 50, None, None, choose)
    (path,) = cache.glob("*.planes")
    path.write_bytes(content)
    assert load(folder, 50, None, None, choose).config.planes == 2 and choose.calls == 2
    load(folder, 50, None, None, choose)
    assert choose.calls == 2


def test_settings_out_of_range_name_the_model(cache: Path, folder: Path) -> None:
    for context, start in ((1, None), (50, 100), (50, -1)):
        with pytest.raises(ModelUnsupportedError, match=f"^model {folder}: config: "):
            load(folder, context, start, 1, Chooser(1))


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_damaged_conversion_is_made_anew(cache: Path, folder: Path, where: float) -> None:
    choose = Chooser(1)
    digest = load(folder, 50, None, None, choose).digest()
    (kept,) = cache.glob("*.int8")
    right = kept.read_bytes()
    data = bytearray(right)
    data[int(where * len(data))] ^= 0x55
    kept.write_bytes(data)
    assert load(folder, 50, None, None, choose).digest() == digest
    assert kept.read_bytes() == right  # kept again
    assert load(folder, 50, None, None, choose).digest() == digest


@pytest.mark.parametrize("where", [0.3, 0.6, 0.999])
def test_damage_is_found_where_the_digest_is_known(cache: Path, folder: Path, where: float) -> None:
    for _ in range(3):
        digest = load(folder, 50, None, 1, Chooser(1)).digest()
    (kept,), (digests,) = cache.glob("*.int8"), cache.glob("*.digests")
    assert digest.hex() in digests.read_text()
    right = kept.read_bytes()
    data = bytearray(right)
    data[int(where * len(data))] ^= 1
    kept.write_bytes(data)
    assert load(folder, 50, None, 1, Chooser(1)).digest() == digest
    assert kept.read_bytes() == right


def test_a_known_digest_reads_the_weights_once(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = ExactModel._digest.func

    def counted(model: ExactModel) -> bytes:
        computed.append(1)
        return compute(model)

    expected = [load(folder, 50, None, number, Chooser(1)).digest() for number in (1, 2)]
    monkeypatch.setattr(ExactModel._digest, "func", counted)
    for calls in (2, 1):  # those of the kept settings, and of the wanted ones
        computed.clear()
        assert load(folder, 50, None, 1, Chooser(1)).digest() == expected[0]
        assert len(computed) == calls


def test_the_measured_planes_are_loaded_at_once(cache: Path, folder: Path) -> None:
    assert load(folder, 50, None, None, Chooser(1)).config.planes == 1
    assert Conversion(folder).load(50, None).config.planes == 1
    assert Conversion(folder).load(50, 3).config.planes == 2  # not measured
    assert Conversion(folder).load(50, None, 2).config.planes == 2


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"3", b"\xff", b"[" * 100_000, b'{"a":3}' + b" " * 100_000, b'{"a": {"b": []}}']
)
def test_damaged_digests_are_made_anew(cache: Path, folder: Path, content: bytes) -> None:
    for _ in range(2):
        digest = load(folder, 50, None, 1, Chooser(1)).digest()
    (digests,) = cache.glob("*.digests")
    right = digests.read_bytes()
    for wrong in (content, right.replace(digest.hex().encode(), b"00" * 32), right.replace(b'": "', b'": ["')):
        digests.write_bytes(wrong)
        assert load(folder, 50, None, 1, Chooser(1)).digest() == digest
        assert json.loads(digests.read_bytes()).items() >= json.loads(right).items()


def test_digests_are_not_collected_for_ever(cache: Path, folder: Path) -> None:
    for context in range(2, 60):
        load(folder, context, None, 1, Chooser(1))
    (digests,) = cache.glob("*.digests")
    assert len(json.loads(digests.read_bytes())) == 32


def test_a_loaded_conversion_survives_that_its_file_is_replaced(cache: Path, folder: Path) -> None:
    load(folder, 50, None, 1, Chooser(1))
    model = load(folder, 50, None, 1, Chooser(1))
    before = {name: np.array(tensor) for name, tensor in model.tensors().items()}
    (kept,) = cache.glob("*.int8")
    data = bytearray(kept.read_bytes())
    data[-1000:] = bytes(1000)
    conversion_cache.cache.replace(kept, lambda name: Path(name).write_bytes(data))
    assert all(np.array_equal(tensor, before[name]) for name, tensor in model.tensors().items())


def test_settings_out_of_range_are_not_blamed_on_a_kept_conversion(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(folder, 50, None, 1, Chooser(1)).digest()
    (kept,) = cache.glob("*.int8")
    right = kept.read_bytes()
    data = bytearray(right)
    data[-1] ^= 1
    kept.write_bytes(data)
    for _ in range(2):
        with pytest.raises(ModelUnsupportedError, match="start_token"):
            Conversion(folder).load(50, 100, 1)
        assert kept.read_bytes() == right
        monkeypatch.setattr(conversion_cache, "load_model", lambda *arguments: pytest.fail("converted again"))
    assert load(folder, 50, None, 1, Chooser(1)).digest() == digest


def write(path: Path, config: dict[str, Any], digest: bytes, tensors: dict[str, Any]) -> None:
    """Replaces a kept conversion."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        mappedfile.write(file, config, 1, digest, tensors, {})
    temporary.replace(path)


def resized(tensors: dict[str, np.ndarray]) -> None:
    tensors["embedding_q"] = tensors["embedding_q"][:-1]


def infinite(tensors: dict[str, np.ndarray]) -> None:
    tensors["final_norm"][0] = float("inf")


def far(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.gate_up_scale"][:] = 1e30


def negative(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.0.down_q"][0, 0] = -128


def typed(tensors: dict[str, np.ndarray]) -> None:
    tensors["embedding_q"] = tensors["embedding_q"].astype(np.float32)


@pytest.mark.parametrize("change", [resized, infinite, far, negative, typed])
def test_a_hostile_conversion_with_the_right_digest_is_refused(
    cache: Path, folder: Path, change: Callable[[dict[str, np.ndarray]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = load(folder, 50, None, 1, Chooser(1)).digest()
    (kept,) = cache.glob("*.int8")
    header, arrays = mappedfile.read(kept)
    tensors = {name: np.array(tensor) for name, tensor in arrays.items()}
    change(tensors)
    write(kept, header.config, header.digest, tensors)
    monkeypatch.setattr(conversion_cache, "_is_intact", lambda *arguments: True)  # as if the digests were made to fit
    assert load(folder, 50, None, 1, Chooser(1)).digest() == digest


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 100])
def test_rubbish_in_the_cache_is_replaced(cache: Path, folder: Path, content: bytes) -> None:
    choose = Chooser(1)
    digest = load(folder, 50, None, None, choose).digest()
    (kept,) = cache.glob("*.int8")
    right = kept.read_bytes()
    kept.write_bytes(content)
    assert load(folder, 50, None, None, choose).digest() == digest and kept.read_bytes() == right


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(config={}),
        lambda about: about.update(digest=bytes(32)),
        lambda about: about["config"].update(windows=3),
        lambda about: about["config"].update(context=95),
    ],
)
def test_odd_metadata_count_as_damaged(cache: Path, folder: Path, change: Callable[[Any], object]) -> None:
    digest = load(folder, 50, None, 1, Chooser(1)).digest()
    (kept,) = cache.glob("*.int8")
    right = kept.read_bytes()
    header, tensors = mappedfile.read(kept)
    about = {"config": header.config, "digest": header.digest}
    change(about)
    write(kept, about["config"], about["digest"], dict(tensors))
    assert load(folder, 50, None, 1, Chooser(1)).digest() == digest
    assert kept.read_bytes() == right


def test_without_a_place_for_it_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(conversion_cache, "_MIN_KEPT_BYTES", 0)
    choose = Chooser(2)
    for _ in range(2):
        assert load(folder, 50, None, None, choose).digest() == load_model(folder, 2, 50).digest()
    assert choose.calls == 2


def test_small_models_are_not_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load(folder, 50, None, None, Chooser(1))
    assert not (tmp_path / "cache").exists()


def test_outliers_ask_for_a_second_plane(random_checkpoint: Make) -> None:
    config, tensors = random_checkpoint()
    rows = [np.random.default_rng(3).integers(100, size=40)]
    plain = convert(config, tensors, 2, 50)
    # One input of the norms is a hundred times the others, and the matrices behind them hardly look at it.
    spiky = dict(tensors)
    for name, tensor in tensors.items():
        if "layernorm" in name:
            spiky[name] = tensor.clone()
            spiky[name][5] *= 300
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            spiky[name] = tensor.clone()
            spiky[name][:, 5] /= 300
    outliers = convert(config, spiky, 1, 50)

    def with_planes(model: ExactModel, number: int) -> float:
        return planes.code_bits(ExactEngine(model.with_settings(number, 50, 1)), rows[0])

    models = {"plain": plain, "outliers": outliers}
    bits = {name: [with_planes(model, number) for number in (1, 2)] for name, model in models.items()}
    for name, model in models.items():
        expected = 2 if bits[name][0] > 1.002 * bits[name][1] else 1
        assert planes.choose(model, rows, "cpu").config.planes == expected, bits
    assert abs(bits["outliers"][0] - bits["outliers"][1]) > 3 * abs(bits["plain"][0] - bits["plain"][1])
    assert planes.choose(plain, [], "cpu").config.planes == 1


@pytest.mark.parametrize("kernels", ["", "none"])
def test_one_engine_at_a_time_measures(random_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    alive: list[weakref.ref[ExactEngine]] = []
    placed: list[Any] = []

    class Engine(ExactEngine):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            assert not any(engine() for engine in alive)
            super().__init__(*arguments, **named)
            alive.append(weakref.ref(self))
            placed.append(self.model)
            assert (self.forward_pass.name == "torch") == (kernels == "none")

    monkeypatch.setenv("LLMZIP_KERNELS", kernels)
    monkeypatch.setattr(planes, "ExactEngine", Engine)
    model = convert(*random_checkpoint(), 2, 50)
    planes.choose(model, [np.arange(20)], "cpu")
    assert [one.config.planes for one in placed] == [1, 2]
    assert ["planes of activations" in " ".join(f.value for f in one.features()) for one in placed] == [False, True]
    # The weights are brought to where they are read once for both engines.
    first, second = placed
    assert first.embedding_q is second.embedding_q and first.layers[0].qkv_q is second.layers[0].qkv_q
    assert (first.embedding_q is model.embedding_q) == (kernels == "")
