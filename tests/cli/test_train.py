"""`llmzip train`: whole trainings, interrupted ones, and one line for whatever can be wrong.

Models here are of 15,000 weights and learn for a second. What a training costs is the start of its process, so tests
that need no process of their own call the program in this one.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import lzma
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from model_samples import take_bytes_away
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from llmzip.api.oneshot import compress, decompress
from llmzip.cli import main
from llmzip.cli.commands import train
from llmzip.models import embedded
from llmzip.models.reference import ModelRef
from llmzip.models.weights import load_model
from llmzip.training.machine import can_compile

from .conftest import COMMAND, environment
from .test_bad_input import only_line
from .test_signals import wait_until
from .test_streams import Terminal

SHAPE = {"layers": 1, "hidden": 32, "heads": 1, "kv-heads": 1, "head-size": 32, "mlp": 64, "vocab": 300, "sequence": 32}
TINY = [*(f"--{name}={value}" for name, value in SHAPE.items()), "--batch=256", "--no-compile", "--device=cpu"]
STEPS = 40
OPTIONS = [*TINY, f"--steps={STEPS}"]
EMBEDDED = embedded.EMBEDDED[-1]
FORMS = ["config.json", "model.llmzw", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
FILES = ["README.md", *FORMS]

_STEP = re.compile(r"^step (\d+) of (\d+): ([\d.]+) bits/token; validation (.+) bits/byte; ", re.MULTILINE)
_WORDS = ["the", "ferry", "was", "late", "again", "and", "wind", "came", "over", "harbour", "wall", "snow"]


def words(size: int, seed: int) -> bytes:
    """Lines of some words and numbers."""
    chance = random.Random(seed)
    lines: list[str] = []
    while sum(map(len, lines)) < size:
        lines.append(" ".join(chance.choices(_WORDS, k=9)) + f" {chance.randrange(1000)}.\n")
    return "".join(lines).encode()


DOCUMENTS = [words(16_000, seed) for seed in range(4)]


def llmzip(
    folder: Path, *arguments: str | Path, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Runs the program in a folder, as a process."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**(env or {})),
        capture_output=True,
        timeout=120,
        check=False,
        **({"stdin": subprocess.DEVNULL} if "input" not in options else {}),
        **options,
    )


def start(folder: Path, *arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Begins to run the program in a folder."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # Whoever runs the tests may ignore them, and then they would stay so.
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGINT, signal.SIGHUP)],  # noqa: PLW1509
    )


Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the program in the test's folder and in this process: the exit code, and what it said."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LLMZIP_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> tuple[int, str]:
        code = main.main([os.fspath(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file to train on."""
    path = tmp_path / "text.txt"
    path.write_bytes(b"\0".join(DOCUMENTS))
    return path


@dataclass(frozen=True)
class Trained:
    """A training that nothing disturbed.

    Attributes:
        model: its folder.
        err: what it said.
    """

    model: Path
    err: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The training that others are compared with."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_bytes(b"\0".join(DOCUMENTS))
    done = llmzip(folder, "train", "text.txt", "-o", "model", *OPTIONS, "-T", "2", umask=0o027)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
    return Trained(folder / "model", done.stderr.decode())


def rows(card: str) -> dict[str, list[str]]:
    """First cell -> the other cells, of all tables of a card."""
    cells = [[cell.strip() for cell in line[1:-1].split(" | ")] for line in card.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def card(model: Path) -> str:
    """The model card without the only thing that differs between equal trainings: how long it took."""
    found, count = re.subn(r"(?m)^\| time \| [\d.]+ min", "| time | ", (model / "README.md").read_text("utf-8"))
    assert count == 1
    return found


def assert_same(model: Path, trained: Trained) -> None:
    """A model's folder holds the same bits as the undisturbed one, and nothing else."""
    assert sorted(os.listdir(model)) == FILES
    for name in FORMS:
        assert (model / name).read_bytes() == (trained.model / name).read_bytes(), name
    assert card(model) == card(trained.model)


def losses(err: str) -> list[float]:
    """Validation bits per byte, where there is one text."""
    return [float(found.rsplit(" ", 1)[1]) for _, _, _, found in _STEP.findall(err)]


def newest(model: Path) -> int:
    """Step of the newest checkpoint, -1 if there is none."""
    return max((int(path.stem[5:]) for path in model.glob("unfinished/step-*.safetensors")), default=-1)


# -- a whole training ------------------------------------------------------------------------------------------------


def test_what_is_left(trained: Trained) -> None:
    assert sorted(os.listdir(trained.model)) == FILES
    assert {path.name: path.stat().st_mode & 0o777 for path in trained.model.iterdir()} == dict.fromkeys(FILES, 0o640)
    assert trained.model.stat().st_mode & 0o777 == 0o750


def test_what_is_told(trained: Trained) -> None:
    lines = trained.err.splitlines()
    assert lines[0] == f"text: 1 files, {sum(map(len, DOCUMENTS)):,} bytes"
    assert [line.partition(":")[0] for line in lines[1:4]] == ["tokens", "model", "plan"]
    assert "vocabulary 300, sequence 32" in lines[2]
    assert f"{STEPS} steps of 256 tokens" in lines[3]
    told = [(int(step), int(steps)) for step, steps, _, _ in _STEP.findall(trained.err)]
    assert told == [(step, STEPS) for step in range(2, STEPS + 1, 2)]
    assert losses(trained.err)[-1] < losses(trained.err)[0]
    weights = (trained.model / "model.llmzw").stat().st_size
    assert lines[-2] == f"model: {weights:,} bytes of weights; compress with: llmzip --model model FILE"
    assert re.fullmatch("stored as [0-9a-f]{12}: its archives decompress without --model on this machine", lines[-1])
    assert "\r" not in trained.err  # no bar where there is no terminal


def test_a_trained_models_archives_decompress_without_its_folder(
    call: Call, trained: Trained, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = compress(DOCUMENTS[0][:500], model=trained.model, level=1)
    assert decompress(archive) == DOCUMENTS[0][:500]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    code, err = call("train", text, "-o", "model", *TINY, "--steps=1", "--no-store")
    assert code == 0 and "stored as" not in err and not (tmp_path / "data").exists()
    (tmp_path / "data").write_bytes(b"")
    code, err = call("train", text, "-o", "other", *TINY, "--steps=1")
    assert code == 0 and "other: " in err
    last = err.splitlines()[-1]
    assert "cannot be stored" in last and last.endswith("archives of this model decompress with --model other")


def test_card(trained: Trained) -> None:
    text = (trained.model / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: transformers\n")
    found = rows(text)
    assert found["model digest"] == [f"`{load_model(trained.model).digest().hex()}`"]
    assert found["seed"] == ["0"]
    assert "2 threads" in found["time"][0]
    size, float_bits, exact_bits, *archives = (float(cell.replace(",", "")) for cell in found["text.txt"])
    assert size > 100
    assert exact_bits == pytest.approx(float_bits, rel=0.005)
    assert f"{float_bits:.3f}" == f"{losses(trained.err)[-1]:.3f}"
    assert all(0 < bits < 8 for bits in archives)
    assert len(archives) == 3
    for line in text.splitlines():
        if line.startswith(("| text ", "| text.txt")):
            assert line in trained.err
    assert found[f"{STEPS}"][1] == f"text.txt {losses(trained.err)[-1]:.3f}"


def test_round_trip(trained: Trained, tmp_path: Path) -> None:
    data = DOCUMENTS[0][:900] + bytes(range(120, 140)) + "Ça où 東京\r\n\0".encode()
    (tmp_path / "f").write_bytes(data)
    done = llmzip(tmp_path, "-1", "--model", trained.model, "f")  # above -1 so small a model is no use
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "f.llmz").stat().st_size < 0.7 * len(data)
    [listed] = json.loads(llmzip(tmp_path, "info", "--json", "f.llmz").stdout)["archives"]
    assert {frame["method"] for frame in listed["frames"]} == {"lm"}
    assert f"`{listed['model_digest']}" in card(trained.model)
    sent = tmp_path / "sent"
    sent.mkdir()
    for name in ("model.llmzw", "tokenizer.json"):
        shutil.copy(trained.model / name, sent)
    done = llmzip(tmp_path, "-d", "--model", "sent", "f.llmz", "-o", "back")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "back").read_bytes() == data


def test_transformers_load_the_checkpoint(trained: Trained) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(trained.model, local_files_only=True)
    assert (config.model_type, config.sliding_window, config.layer_types) == ("qwen3", 32, ["sliding_attention"])
    model = transformers.AutoModelForCausalLM.from_pretrained(trained.model, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.model, local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) == config.vocab_size == 300
    data = DOCUMENTS[3].decode()
    ids = torch.tensor(tokenizer(data)["input_ids"])
    assert tokenizer.decode(ids) == data
    rows = ids[: len(ids) // 32 * 32].view(-1, 32)[:64]
    begin = torch.full((len(rows), 1), load_model(trained.model).config.start_token)
    with torch.no_grad():
        logits = model.float()(torch.cat([begin, rows[:, :-1]], 1)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows.flatten()).item() / torch.log(torch.tensor(2.0))
    told = float(_STEP.findall(trained.err)[-1][2])
    assert float(loss) == pytest.approx(told, rel=0.05)
    assert float(loss) < 7.5  # a model that knows nothing: log2(300) = 8.2


# -- what the text may be --------------------------------------------------------------------------------------------


def test_directory_of_all_kinds_is_the_same_text(call: Call, trained: Trained, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    (texts / "b" / "c").mkdir(parents=True)
    (texts / "a.txt").write_bytes(DOCUMENTS[0])
    (texts / "b" / "1.gz").write_bytes(gzip.compress(DOCUMENTS[1]))
    half = len(DOCUMENTS[2]) // 2
    (texts / "b" / "2.zst").write_bytes(
        zstandard.compress(DOCUMENTS[2][:half]) + zstandard.compress(DOCUMENTS[2][half:])
    )
    (texts / "b" / "c" / "d.xz").write_bytes(lzma.compress(DOCUMENTS[3]))
    (texts / "b" / "program").write_bytes(random.Random(3).randbytes(5000))
    (texts / "a.txt.llmz").write_bytes(words(500, 9))
    (texts / ".hidden").write_bytes(words(500, 9))
    (texts / "empty").touch()
    # The folder of the model is left out, wherever it is.
    code, err = call("train", "texts", "-o", "texts/model", *OPTIONS, "-T", "2")
    assert code == 0, err
    assert err.startswith("text: 4 files, ")
    for name in FORMS:
        assert (texts / "model" / name).read_bytes() == (trained.model / name).read_bytes(), name


def test_another_seed_is_another_model(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    assert call("train", text, "-o", "model", *OPTIONS, "-T", "2", "--seed", "1", "-q") == (0, "")
    ours, theirs = (load_file(model / "model.safetensors") for model in (tmp_path / "model", trained.model))
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in theirs.items()}
    name = "model.layers.0.mlp.gate_proj.weight"
    assert not torch.equal(ours[name], theirs[name])
    assert rows(card(tmp_path / "model"))["seed"] == ["1"]


def test_mix_and_valid(call: Call, tmp_path: Path) -> None:
    for number, name in enumerate(("a.log", "b.log", "c.txt", "valid.txt")):
        (tmp_path / name).write_bytes(DOCUMENTS[number])
    (tmp_path / "more").mkdir()
    for number in range(2):
        (tmp_path / "more" / f"{number}.txt").write_bytes(words(2000, 20 + number))
    code, err = call(
        "train", "a.log", "b.log", "c.txt", "-o", "model", *TINY, "--steps", "3", "--mix", "*.log=0.25",
        "--valid", "valid.txt", "--valid", "more",
    )  # fmt: skip
    assert code == 0, err
    [*_, (_, _, _, validated)] = _STEP.findall(err)
    assert re.fullmatch(r"valid\.txt [\d.]+, more [\d.]+", validated)
    found = rows(card(tmp_path / "model"))
    logs, rest = len(DOCUMENTS[0]) + len(DOCUMENTS[1]), len(DOCUMENTS[2])  # all of it: nothing is kept back
    assert found["data"][0].endswith(
        f"`*.log` {logs:,} bytes, 25 % of the sequences; the rest {rest:,} bytes, 75 % of the sequences"
    )
    assert found["valid.txt"][0] == f"{len(DOCUMENTS[3]):,}"
    assert found["more"][0] == f"{sum(path.stat().st_size for path in (tmp_path / 'more').iterdir()) + 1:,}"


def test_short_text_is_validated_too(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(words(20_500, 1))
    code, err = call("train", "text.txt", "-o", "model", *TINY, "--steps", "2")
    assert code == 0, err
    assert "validation text.txt " in err
    assert "text.txt" in rows(card(tmp_path / "model"))


def test_name_that_is_no_utf8(call: Call, tmp_path: Path, text: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    text.rename(tmp_path / name)
    code, err = call("train", name, "-o", "model", *TINY, "--steps", "2")
    assert code == 0, err
    assert sorted(os.listdir(tmp_path / "model")) == FILES


# -- from another model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [["config.json", "model.safetensors", "tokenizer.json"], ["model.llmzw", "tokenizer.json"]],
    ids=["checkpoint", "int8"],
)
def test_from_folder(call: Call, trained: Trained, tmp_path: Path, text: Path, files: list[str]) -> None:
    (tmp_path / "base").mkdir()
    for name in files:
        shutil.copy(trained.model / name, tmp_path / "base")
    code, err = call(
        "train", text, "-o", "model", "--from", "base", "--steps", "6", "--batch", "256", "--no-compile",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    told = losses(err)
    assert told[-1] < told[0] < losses(trained.err)[STEPS // 4]  # it begins with what the other had learnt
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (trained.model / "tokenizer.json").read_bytes()
    ours, theirs = (json.loads((model / "config.json").read_text()) for model in (tmp_path / "model", trained.model))
    assert ours.pop("rms_norm_eps") == pytest.approx(theirs.pop("rms_norm_eps"), rel=1e-6)  # of float32 in an int8 form
    assert ours == theirs
    assert "continued from `base`" in rows(card(tmp_path / "model"))["training"][0]


def test_from_a_model_whose_tokenizer_lacks_bytes(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    """What it lacks, such as the NUL between documents, is trained as engines feed it: as the start token."""
    base = shutil.copytree(trained.model, tmp_path / "base", ignore=lambda *_: {"model.llmzw"})
    take_bytes_away(base / "tokenizer.json", b"\0\xff")
    text.write_bytes(text.read_bytes().replace(b" ", b" \0"))  # in every sequence
    options = ["--valid", text, "--steps", "2", "--batch", "256", "--no-compile", "--device", "cpu"]
    code, err = call("train", text, "-o", "model", "--from", base, *options)
    assert code == 0, err
    data = text.read_bytes()[:200] + b"\0\xff\0"
    archive = compress(data, model=tmp_path / "model")
    assert decompress(archive, model=tmp_path / "model") == data


def test_from_checkpoint_keeps_the_start_token(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base", ignore=lambda *_: {"model.llmzw"})
    code, err = call(
        "train", text, "-o", "model", "--from", base, "--steps", "1", "--batch", "256", "--no-compile",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert load_model(tmp_path / "model").config.start_token == load_model(trained.model).config.start_token


def test_from_a_model_of_the_hub(
    call: Call, trained: Trained, tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(ref: ModelRef, *_: object) -> ModelRef:
        asked.append(ref.text)
        return dataclasses.replace(ref, text="org/name@0123", folder=trained.model)

    monkeypatch.setattr(train, "fetch_model", fetch)
    options = ["--steps=1", "--batch=256", "--no-compile", "--device=cpu"]
    code, err = call("train", text, "-o", "model", "--from", "org/name", *options)
    assert code == 0, err
    assert asked == ["org/name"]
    assert "continued from `org/name@0123`" in rows(card(tmp_path / "model"))["training"][0]


def test_from_a_model_with_the_files_of_gpt2s_tokenizer(
    call: Call, trained: Trained, tmp_path: Path, text: Path
) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base", ignore=lambda *_: {"model.llmzw", "tokenizer.json"})
    model = json.loads((trained.model / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (base / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (base / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    code, err = call("train", text, "-o", "model", "--from", base, "--steps=1", "--batch=256", "--no-compile")
    assert code == 0, err
    found = json.loads((tmp_path / "model" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert found["vocab"] == model["vocab"] and found["merges"] == merges


def test_from_what_is_no_model(call: Call, text: Path) -> None:
    code, err = call("train", text, "-o", "model", "--from", "nosuch", "-q")
    assert code == 3 and only_line(err.encode()).startswith("model 'nosuch' is neither a folder nor an embedded model")


def test_what_a_model_knows_before_the_first_step_is_told(from_embedded: Trained) -> None:
    lines = from_embedded.err.splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("before the first step: validation text.txt ")]
    assert lines[place - 1].startswith("plan: ") and lines[place + 1].startswith("step 1 of 3: ")
    assert re.search(r"; a step takes [\d.e-]+ s and \d+\.\d GB of memory; ", lines[place - 1])


@pytest.fixture(scope="module")
def from_embedded(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The embedded model after some steps on other text."""
    folder = tmp_path_factory.mktemp("from-embedded")
    (folder / "text.txt").write_bytes(b"\0".join(DOCUMENTS))
    options = ["--steps=3", "--batch=512", "--sequence=32", "--no-compile", "--device=cpu"]
    done = llmzip(folder, "train", "text.txt", "-o", "model", f"--from={EMBEDDED.name}", *options)
    assert done.returncode == 0, done.stderr.decode()
    return Trained(folder / "model", done.stderr.decode())


def test_from_embedded_model(from_embedded: Trained) -> None:
    told = losses(from_embedded.err)
    assert told[-1] < told[0] < 3
    base = EMBEDDED.folder
    assert (from_embedded.model / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    ours, theirs = (load_model(model).config for model in (from_embedded.model, base))
    for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_size"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.start_token == theirs.start_token
    assert set(ours.windows) == {32}
    assert json.loads((from_embedded.model / "config.json").read_text())["sliding_window"] == 32


def test_transformers_cut_the_same_tokens_after_from(from_embedded: Trained) -> None:
    import tokenizers
    import transformers

    assert sorted(os.listdir(from_embedded.model)) == FILES
    sample = "the wind  12345 x1234\n\n   don't (again)\n\ty"
    theirs = transformers.AutoTokenizer.from_pretrained(from_embedded.model, local_files_only=True)
    ours = tokenizers.Tokenizer.from_file(str(from_embedded.model / "tokenizer.json"))
    assert theirs(sample)["input_ids"] == ours.encode(sample).ids


def test_layers_that_are_added_do_nothing_at_first(from_embedded: Trained, tmp_path: Path, call: Call) -> None:
    options = ["--steps=1", "--batch=512", "--sequence=32", "--rate=1e-9", "--no-compile", "--device=cpu"]
    (tmp_path / "text.txt").write_bytes(b"\0".join(DOCUMENTS))
    found = []
    own = load_model(EMBEDDED.folder).config.num_layers
    for layers in (own, own + 2):
        code, err = call(
            "train", "text.txt", "-o", f"m{layers}", f"--from={EMBEDDED.name}", f"--layers={layers}", *options
        )
        assert code == 0, err
        assert load_model(tmp_path / f"m{layers}").config.num_layers == layers
        found.append(losses(err)[0])
    assert found[0] == pytest.approx(found[1], abs=2e-3)
    code, err = call("train", "text.txt", "-o", "fewer", f"--from={EMBEDDED.name}", f"--layers={own - 1}", *options)
    assert code == 2 and "--from can only add some" in err


def test_resume_with_another_number_of_steps(tmp_path: Path, text: Path, call: Call) -> None:
    process = start(tmp_path, "train", text.name, "-o", "model", *OPTIONS, "--save-every", "0s")
    wait_until(lambda: newest(tmp_path / "model") >= 4)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    done = newest(tmp_path / "model")
    code, err = call("train", "--resume", "-o", "model", "--steps", str(done))
    assert code == 2 and f"{done:,} steps are done already" in err
    code, err = call("train", "--resume", "-o", "model", "--steps", str(done + 3))
    assert code == 0 and f"continuing after step {done} of {done + 3}" in err, err
    assert f"; {done + 3} steps of" in card(tmp_path / "model")


@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="no C++ compiler")
def test_resume_a_compiled_training_whose_cache_is_half_written(tmp_path: Path, text: Path) -> None:
    tiny = [option for option in TINY if option != "--no-compile"]
    process = start(tmp_path, "train", text.name, "-o", "model", *tiny, "--compile", "--steps=4000", "--save-every=0s")
    wait_until(lambda: newest(tmp_path / "model") >= 2 or process.poll() is not None, seconds=300)
    process.kill()
    process.communicate(timeout=60)
    made = [
        path for path in (tmp_path / "model" / "unfinished" / "compiled").rglob("*") if path.suffix in (".py", ".so")
    ]
    assert made
    for path in made:
        os.truncate(path, path.stat().st_size // 2)
    done = llmzip(tmp_path, "train", "--resume", "-o", "model", "--steps", str(newest(tmp_path / "model") + 1))
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(os.listdir(tmp_path / "model")) == FILES


# -- killed ----------------------------------------------------------------------------------------------------------

DIES = '''
"""Kills the process before it changes a file: DIE_BEFORE is an event, a blank, and how the file's name ends."""
import os, signal, sys

EVENT, NAME = os.environ["DIE_BEFORE"].split(" ", 1)

def hook(event, arguments):
    if event == EVENT and not isinstance(arguments[0], int) and os.fsdecode(arguments[0]).endswith(NAME):
        os.kill(os.getpid(), signal.SIGKILL)

class Listed(list):
    def __enter__(self): return self
    def __exit__(self, *error): pass

# What is removed first must not depend on the file system.
scan = os.scandir
os.scandir = lambda *arguments: Listed(sorted(scan(*arguments), key=lambda entry: entry.name, reverse=True))
sys.addaudithook(hook)
'''


def dying(folder: Path, point: str) -> dict[str, str]:
    """The environment of a process that dies there."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(DIES, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(site), environment()["PYTHONPATH"]]), "DIE_BEFORE": point}


def test_killed_again_and_again(trained: Trained, tmp_path: Path, text: Path) -> None:
    chance = random.Random(4)
    model = tmp_path / "model"
    command: list[str | Path] = ["text.txt", "-o", "model", *OPTIONS, "-T", "2"]
    folder, env, kills = tmp_path, {}, 0
    while True:
        goal = min(newest(model) + chance.randrange(6, 20), STEPS) if kills < 3 else STEPS + 1
        process = start(folder, "train", *command, "--save-every", "0s", env=env)
        wait_until(lambda goal=goal, process=process: newest(model) >= goal or process.poll() is not None)
        time.sleep(chance.random() * 0.02)
        process.kill()
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err.decode()
        kills += 1
        # Everything that is needed is in the folder.
        text.unlink(missing_ok=True)
        folder, command, env = Path("/"), ["--resume", "-o", model], {"LLMZIP_THREADS": "1"}
    assert kills
    assert_same(model, trained)  # the card tells the number of threads


def test_killed_while_preparing(trained: Trained, tmp_path: Path, text: Path, call: Call) -> None:
    command = ["train", text.name, "-o", "model", *OPTIONS, "-T", "2"]
    done = llmzip(tmp_path, *command, env=dying(tmp_path, "open unfinished/tokens.json"))
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "model" / "unfinished" / "tokens.bin").exists()
    assert call("train", "--resume", "-o", "model") == (1, "llmzip: model: no unfinished training here\n")
    code, err = call(*command)
    assert code == 0, err
    assert_same(tmp_path / "model", trained)


@pytest.mark.parametrize(
    "point",
    [
        "os.rename unfinished/model/model.llmzw",
        f"os.remove step-000000{STEPS}.safetensors",
    ],
    ids=["moving", "removing"],
)
def test_killed_while_finishing(trained: Trained, tmp_path: Path, text: Path, call: Call, point: str) -> None:
    command = ["train", text.name, "-o", "model", *OPTIONS, "-T", "2"]
    done = llmzip(tmp_path, *command, env=dying(tmp_path, point))
    assert done.returncode == -signal.SIGKILL
    assert newest(tmp_path / "model") == STEPS
    code, err = call(*command)
    assert (code, only_line(err.encode())) == (
        1, "model: holds an unfinished training: continue it with --resume, or replace it with --force",
    )  # fmt: skip
    code, err = call("train", "--resume", "-o", "model")
    assert code == 0, err
    assert_same(tmp_path / "model", trained)


# -- asked to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("SIGINT", "model"),
        ("SIGTERM", "deep/model"),
        ("SIGHUP", "my model"),
    ],
)
def test_signal_stops_behind_a_step(
    call: Call, trained: Trained, tmp_path: Path, text: Path, name: str, model: str
) -> None:
    process = start(tmp_path, "train", text.name, "-o", model, *OPTIONS, "-T", "2")
    assert process.stderr is not None
    said = b""
    while not said.endswith(b"\n") or b"\nstep 2 of" not in said:
        said += process.stderr.readline()
        assert process.poll() is None, said.decode()
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == -getattr(signal, name)
    assert b"Traceback" not in err
    last = err.decode().splitlines()[-1]
    found = re.fullmatch(rf"llmzip: stopped by {name} after step (\d+) of {STEPS}; to continue: llmzip (.+)", last)
    assert found is not None, last
    assert 2 <= int(found.group(1)) == newest(tmp_path / model)
    code, told = call(*shlex.split(found.group(2)))
    assert code == 0, told
    assert told.startswith(f"continuing after step {found.group(1)} of {STEPS}\n")
    for form in FORMS:
        assert (tmp_path / model / form).read_bytes() == (trained.model / form).read_bytes(), form


@pytest.mark.parametrize("place", ["tokens.json", "model"], ids=["preparing", "finishing"])
def test_signal_outside_of_the_steps(tmp_path: Path, text: Path, place: str) -> None:
    process = start(tmp_path, "train", text.name, "-o", "model", *TINY, "--steps", "2")
    wait_until(lambda: (tmp_path / "model" / "unfinished" / place).exists() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert b"Traceback" not in err
    last = err.decode().splitlines()[-1]
    assert "stopped by SIGTERM" in last
    # It must not tell that something is removed which is there, and tell how to finish what can be finished.
    assert not (tmp_path / "model" / "unfinished").exists() or "removed" not in last
    assert newest(tmp_path / "model") == -1 or "llmzip train --resume -o model" in last


def test_second_signal_ends_at_once(tmp_path: Path, text: Path) -> None:
    # One step takes half a minute.
    process = start(tmp_path, "train", text.name, "-o", "model", *TINY, "--steps", "2", "--batch", str(1 << 22))
    try:
        wait_until(lambda: newest(tmp_path / "model") == 0)
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        time.sleep(0.7)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=8)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in err
    assert newest(tmp_path / "model") == 0


# -- a terminal, and a time ------------------------------------------------------------------------------------------


def test_bar_and_time(tmp_path: Path, text: Path) -> None:
    terminal = Terminal(tmp_path, "train", text.name, "-o", "model", *TINY, "--time", "1s", streams="stderr")
    code, shown = terminal.finish()
    assert code == 0, shown
    assert "training:" in shown
    assert "bits/token, " in shown
    found = re.search(r"plan: ([\d,]+) steps of 256 tokens", shown)
    assert found is not None
    steps = int(found.group(1).replace(",", ""))
    assert 5 < steps < 20_000
    assert f"step {steps:,} of {steps:,}: " in shown
    assert f"; {steps:,} steps of 256 tokens" in rows(card(tmp_path / "model"))["training"][0]


# -- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("text.txt", "--output"),
        ("-o model", "no text to train on"),
        ("text.txt -o model --steps 3 --time 5s", "exclude"),
        ("text.txt -o model --time 0", "the time must be 1 to "),
        ("text.txt -o model --time 0.5s", "the time must be 1 to "),
        ("text.txt -o model --time 5y", "5y"),
        ("text.txt -o model --time -5", "-5"),
        ("text.txt -o model --save-every soon", "soon"),
        ("text.txt -o model --steps 0", "must be 1 to"),
        ("text.txt -o model --steps 1.5", "1.5"),
        ("text.txt -o model --preset huge", "huge"),
        ("text.txt -o model --heads 3 --kv-heads 2", "3 heads are not a multiple of 2"),
        ("text.txt -o model --head-size 33", "even"),
        ("text.txt -o model --vocab 255", "vocab size must be 256"),
        ("text.txt -o model --layers 0", "num layers"),
        ("text.txt -o model --hidden 4", "hidden size"),
        ("text.txt -o model --sequence 8", "sequence"),
        ("text.txt -o model --mlp 0", "mlp size"),
        ("text.txt -o model --batch 8", "batch"),
        ("text.txt -o model --rate 0", "learning rate"),
        ("text.txt -o model --rate nan", "learning rate"),
        ("text.txt -o model --decay -1", "decay"),
        ("text.txt -o model --mix *.txt", "PATTERN=SHARE"),
        ("text.txt -o model --mix *.txt=much", "much"),
        ("text.txt -o model --mix *.txt=1.5", "--mix *.txt"),
        ("text.txt -o model --mix *.txt=0", "--mix *.txt"),
        ("text.txt -o model --from default --vocab 400", "--from"),
        ("text.txt -o model --from default --layers 1", "--from"),
        ("text.txt -o model --device tpu", "tpu"),
        ("text.txt -o model -T -1", "threads"),
        ("text.txt -o model --nope", "--nope"),
        ("text.txt -o model --resume", "no TEXT"),
        ("-o model --resume --rate 0.01", "takes no --rate"),
        ("-o model --resume --layers 3", "takes no --layers"),
        ("-o model --resume -f", "takes no --force"),
        ("-o model --resume --steps 9 --time 5m", "exclude each other"),
        ("text.txt -o text.txt", "text.txt: exists and is not a directory"),
    ],
)
def test_usage_errors(call: Call, tmp_path: Path, text: Path, arguments: str, words: str) -> None:
    code, err = call("train", *arguments.split())
    first, last = err.splitlines()
    assert code == 2
    assert first.startswith("llmzip: ")
    assert words in first
    assert last.startswith("llmzip: for help: llmzip ")
    assert sorted(os.listdir(tmp_path)) == ["text.txt"]
    assert text.read_bytes() == b"\0".join(DOCUMENTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sequence", "65536"], "choose a shorter --sequence"),
        (["--mix", "*.log=0.5"], "--mix *.log: no file matches"),
        (["more.txt", "--mix", "text*=1"], "leave nothing for more.txt"),
        (["--seed", "99999999999999999999"], "seed"),
    ],
    ids=["sequence", "no-file", "nothing-left", "seed"],
)
def test_usage_errors_behind_the_texts(
    call: Call, tmp_path: Path, text: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "more.txt").write_bytes(DOCUMENTS[0])
    code, err = call("train", text.name, "-o", "model", *TINY, "--steps", "2", "-q", *arguments)
    assert (code, words in err.splitlines()[0]) == (2, True), err
    assert not any((tmp_path / "model" / name).exists() for name in FILES)


# -- texts and models that cannot be used ----------------------------------------------------------------------------


def damaged_gzip() -> bytes:
    """A block of a kind that there is not."""
    data = bytearray(gzip.compress(DOCUMENTS[0]))
    data[10] |= 7
    with pytest.raises(zlib.error):
        gzip.decompress(data)
    return bytes(data)


def damaged_xz() -> bytes:
    """Some bytes in the middle replaced."""
    data = bytearray(lzma.compress(DOCUMENTS[0]))
    data[len(data) // 2 : len(data) // 2 + 4] = b"\0\1\2\3"
    return bytes(data)


def damaged_zstd() -> bytes:
    """The second frame is none."""
    return zstandard.compress(DOCUMENTS[0]) + b"\0\1\2\3\4\5\6\7"


BROKEN = {"a.gz": damaged_gzip, "b.xz": damaged_xz, "c.zst": damaged_zstd}


def no_text(call: Call, *arguments: str) -> str:
    """The line about texts that cannot be trained on."""
    code, err = call("train", "-q", "-o", "model", *TINY, "--steps", "2", *arguments)
    assert code == 1
    line = only_line(err.encode())
    assert "internal error" not in line
    return line


def test_missing_and_short_texts(call: Call, tmp_path: Path, text: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_bytes(DOCUMENTS[0][:10_000])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "program").write_bytes(random.Random(3).randbytes(5000))
    assert no_text(call, "text.txt", "missing.txt") == "missing.txt: no such file or directory"
    assert no_text(call, "text.txt", "--valid", "missing.txt") == "missing.txt: no such file or directory"
    assert no_text(call, "folder") == "folder: no text in this directory"
    assert "Traceback" in call("train", "folder", "-o", "model", "--debug")[1]
    assert no_text(call, "empty.txt").startswith("the text has 0 bytes; at least 20,000 ")
    assert no_text(call, "short.txt").startswith("the text has 10,000 bytes; at least 20,000 ")
    assert not any((tmp_path / "model" / name).exists() for name in FILES)


def test_nothing_is_made_without_text(call: Call, tmp_path: Path) -> None:
    no_text(call, "missing.txt")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        "a.gz",
        "b.xz",
        "c.zst",
    ],
)
def test_damaged_text(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BROKEN[name]())
    assert no_text(call, name).startswith(f"{name}: cannot be read: ")


@pytest.mark.parametrize(
    "name",
    [
        "a.gz",
        "b.xz",
        "c.zst",
    ],
)
def test_damaged_text_in_a_directory(call: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / name).write_bytes(BROKEN[name]())
    line = no_text(call, "texts")
    assert line.startswith(f"texts/{name}: cannot be read: ") or line == "texts: no text in this directory"


def test_pipe(tmp_path: Path) -> None:
    done = llmzip(tmp_path, "train", "-q", "/dev/stdin", "-o", "model", *TINY, "--steps", "2", input=DOCUMENTS[0] * 2)
    assert done.returncode in (0, 1, 2)
    if done.returncode:
        assert "/dev/stdin" in done.stderr.decode()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, "'theirs' is neither a folder nor an embedded model ("),
        ([], "theirs: no config.json"),
        (["model.llmzw"], "theirs: no tokenizer.json"),
        (["config.json", "tokenizer.json"], "theirs: no .safetensors file"),
    ],
    ids=["missing", "empty", "no-tokenizer", "no-weights"],
)
def test_models_that_cannot_be_continued(
    call: Call, trained: Trained, tmp_path: Path, text: Path, files: list[str] | None, words: str
) -> None:
    if files is not None:
        (tmp_path / "theirs").mkdir()
        for name in files:
            shutil.copy(trained.model / name, tmp_path / "theirs")
    code, err = call("train", text.name, "-o", "model", "--steps", "2", "--from", "theirs", "-q")
    assert code == 3
    assert words in only_line(err.encode())


def test_model_of_a_family_that_cannot_be_trained(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    base = shutil.copytree(trained.model, tmp_path / "base", ignore=lambda *_: {"model.llmzw"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    code, err = call("train", text.name, "-o", "model", "--steps", "2", "--from", "base", "-q")
    assert code == 3
    assert "gpt2" in only_line(err.encode())


# -- what is there already -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that died after its second step; to be copied."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "text.txt").write_bytes(b"\0".join(DOCUMENTS))
    done = llmzip(
        folder, "train", "text.txt", "-o", "model", *OPTIONS, "-T", "2", "--save-every", "0s",
        env=dying(folder, "os.rename step-00000003.tmp"),
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert newest(folder / "model") == 2
    return folder / "model"


@pytest.fixture
def unfinished(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(killed, tmp_path / "model")


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_model_is_not_replaced_without_force(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    model = shutil.copytree(trained.model, tmp_path / "model")
    before = contents(model)
    code, err = call("train", text.name, "-o", "model", *TINY, "--steps", "2")
    assert (code, only_line(err.encode())) == (1, "model: holds a model (config.json): use --force to replace it")
    assert contents(model) == before
    assert call("train", "--resume", "-o", "model") == (1, "llmzip: model: no unfinished training here\n")


@pytest.mark.parametrize("name", ["README.md", "model.llmzw", "tokenizer_config.json"])
def test_no_file_is_replaced_without_force(call: Call, tmp_path: Path, text: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_text("precious")
    code, err = call("train", text.name, "-o", "model", *TINY, "--steps", "1", "-q")
    assert (tmp_path / "model" / name).read_text() == "precious"
    assert code == 1
    assert name in only_line(err.encode())


def test_force_replaces_a_model_even_by_its_own_child(call: Call, trained: Trained, tmp_path: Path, text: Path) -> None:
    model = shutil.copytree(trained.model, tmp_path / "model")
    (model / "figures").mkdir()
    (model / "figures" / "notes.txt").write_text("precious")
    (model / "LICENSE").write_text("precious")
    code, err = call("train", text.name, "-o", "model", "-f", "--from", "model", "--steps", "2", "--device", "cpu")
    assert code == 0, err
    assert sorted(os.listdir(model)) == sorted([*FILES, "LICENSE", "figures"])
    assert (model / "figures" / "notes.txt").read_text() == (model / "LICENSE").read_text() == "precious"
    for name in ("model.llmzw", "model.safetensors", "README.md"):
        assert (model / name).read_bytes() != (trained.model / name).read_bytes()


def test_unfinished_training_is_not_replaced_without_force(call: Call, unfinished: Path, text: Path) -> None:
    before = contents(unfinished)
    code, err = call("train", text.name, "-o", "model", *TINY, "--steps", "2")
    assert code == 1
    assert "--resume" in only_line(err.encode())
    assert "--force" in only_line(err.encode())
    assert contents(unfinished) == before
    code, err = call("train", text.name, "-o", "model", *TINY, "--steps", "2", "-f")
    assert code == 0, err
    assert sorted(os.listdir(unfinished)) == FILES
    assert rows(card(unfinished))["training"][0].startswith("from scratch; 2 steps ")


def test_force_keeps_what_is_there_if_the_text_is_missing(call: Call, unfinished: Path) -> None:
    before = contents(unfinished)
    no_text(call, "missing.txt", "-f")
    assert contents(unfinished) == before


def test_folder_that_cannot_be_made(call: Call, text: Path) -> None:
    code, err = call("train", text.name, "-o", "text.txt/model", *TINY, "--steps", "2", "-q")
    assert (code, only_line(err.encode())) == (1, "text.txt/model/unfinished: cannot be created: Not a directory")


def test_resume_without_a_training(call: Call, tmp_path: Path) -> None:
    assert call("train", "--resume", "-o", "model") == (1, "llmzip: model: no unfinished training here\n")
    assert os.listdir(tmp_path) == []


# -- checkpoints that do not fit ---------------------------------------------------------------------------------------

CHECKPOINT = "step-00000002.safetensors"


def facts(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Other facts in the checkpoint."""

    def rewrite(folder: Path) -> None:
        with safe_open(folder / CHECKPOINT, framework="pt") as reader:
            found = json.loads(reader.metadata()["llmzip"])
        save_file(load_file(folder / CHECKPOINT), folder / CHECKPOINT, {"llmzip": json.dumps(change(found))})

    return rewrite


def inside(name: str, **values: Any) -> Callable[[Path], None]:
    """Other values in one of the facts."""
    return facts(lambda found: found | {name: found[name] | values})


def cut(name: str, size: int) -> Callable[[Path], None]:
    """A file that was cut."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut(CHECKPOINT, -100), f"{CHECKPOINT}: this checkpoint cannot be read"),
    "empty": (cut(CHECKPOINT, 0), f"{CHECKPOINT}: this checkpoint cannot be read"),
    "noise": (
        lambda folder: (folder / CHECKPOINT).write_bytes(random.Random(1).randbytes(5000)),
        f"{CHECKPOINT}: this checkpoint cannot be read",
    ),
    "foreign": (
        lambda folder: save_file({"a": torch.zeros(3)}, folder / CHECKPOINT),
        f"{CHECKPOINT}: this checkpoint cannot be read",
    ),
    "version": (facts(lambda found: found | {"version": 99}), "a checkpoint of version 99"),
    "wider": (inside("shape", hidden_size=64), "a model of another shape"),
    "deeper": (inside("shape", num_layers=2), "a model of another shape"),
    "no seed": (facts(lambda found: {name: found[name] for name in found if name != "seed"}), "lacks or misstates"),
    "odd plan": (inside("plan", colour=3), "lacks or misstates"),
    "list": (facts(lambda found: [found]), f"{CHECKPOINT}: this checkpoint cannot be read"),
    "number": (facts(lambda found: 3), f"{CHECKPOINT}: this checkpoint cannot be read"),
    "number format": (facts(lambda found: found | {"dtype": "float33"}), "lacks or misstates"),
    "other tokens": (facts(lambda found: found | {"tokens_digest": "00"}), "the tokens are not those"),
    "tokens cut": (cut("tokens.bin", -2), "the tokens are not those"),
    "no tokens": (lambda folder: (folder / "tokens.bin").unlink(), "the tokens cannot be read"),
    "index": (cut("tokens.json", 20), "the tokens cannot be read"),
    "validation": (cut("valid.json", 3), "the validation texts cannot be read"),
    "no validation": (lambda folder: shutil.rmtree(folder / "valid"), "the validation texts cannot be read"),
    "tokenizer": (cut("tokenizer.json", 50), "tokenizer.json"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_training(call: Call, unfinished: Path, kind: str) -> None:
    damage, words = DAMAGES[kind]
    damage(unfinished / "unfinished")
    before = contents(unfinished)
    code, err = call("train", "--resume", "-o", "model", "-q")
    line = only_line(err.encode())
    assert words in line
    assert "internal error" not in line
    assert code == (3 if kind == "tokenizer" else 1)
    assert contents(unfinished) == before


# -- a disk that is full ---------------------------------------------------------------------------------------------


def limit(size: int) -> Callable[[], None]:
    """Lets a process write no file of more bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_disk_full_while_preparing(tmp_path: Path, text: Path) -> None:
    done = llmzip(tmp_path, "train", "-q", text.name, "-o", "model", *OPTIONS, preexec_fn=limit(20_000))
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert line.startswith("model")
    assert line.endswith("File too large")
    assert newest(tmp_path / "model") == -1


def test_disk_full_while_training(call: Call, trained: Trained, unfinished: Path) -> None:
    before = contents(unfinished)
    folder = unfinished.parent
    done = llmzip(folder, "train", "-q", "--resume", "-o", "model", "--save-every", "0s", preexec_fn=limit(100_000))
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert line.startswith("model/unfinished: the checkpoint of step 3 cannot be written: ")
    assert "that of step 2 is kept" in line
    assert {name: data for name, data in before.items() if not name.endswith(".tmp")} == contents(unfinished)
    code, err = call(*line.rpartition("; to continue: llmzip ")[2].split())
    assert code == 0, err
    assert_same(unfinished, trained)


def test_model_that_cannot_be_moved_to_its_place(trained: Trained, unfinished: Path, call: Call) -> None:
    (unfinished / "model.llmzw").mkdir()
    code, err = call("train", "-q", "--resume", "-o", "model")
    assert code == 1
    assert only_line(err.encode()) == (
        "model: the model cannot be written: Is a directory; the training is kept, --resume finishes it"
    )
    assert newest(unfinished) == STEPS
    (unfinished / "model.llmzw").rmdir()
    code, err = call("train", "--resume", "-o", "model")
    assert code == 0
    assert err.startswith(f"continuing after step {STEPS} of {STEPS}\n")
    assert_same(unfinished, trained)
