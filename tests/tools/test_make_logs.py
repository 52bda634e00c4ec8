"""Tests corpora/make_logs.py, the logs of a made-up shop; must not import llmzip."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

CORPORA = Path(__file__).resolve().parents[2] / "corpora"
SIZE, DAYS = 600_000, 5
# Of every file's name and bytes, in order. Changes with the words and the chances, never with Python or the machine.
DIGEST = "fdef2486fa81daeb803331d69b774ab1f6065cf532b5831f2fdfddcb9754aa00"
STAMPS = {
    "gateway": r"\S+ - \S+ \[([^]]+) \+0000\] ",
    "storefront": r'\{"ts":"([^"]+)Z"',
    "orders": r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ",
    "worker": r"time=(\S+)Z ",
    "dispatch": r"time=(\S+)Z ",
    "database": r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC ",
    "host": r"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) ",
}
FORMATS = {"gateway": "%d/%b/%Y:%H:%M:%S", "host": "%Y %b %d %H:%M:%S"}


def load() -> ModuleType:
    """Imports the script as Python does when it is run: its folder comes first in the path."""
    sys.path.insert(0, str(CORPORA))
    try:
        return importlib.import_module("make_logs")
    finally:
        sys.path.remove(str(CORPORA))


main: Callable[[list[str]], int] = load().main


def write(folder: Path, *more: str) -> dict[str, bytes]:
    assert main([str(folder), "--bytes", str(SIZE), "--days", str(DAYS), *more]) == 0
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write(tmp_path_factory.mktemp("logs"))


def parts(name: str) -> tuple[str, str]:
    """Returns the day and the service of a file."""
    return name[:10], name[11:].removesuffix(".log")


def stamps(name: str, data: bytes) -> list[datetime]:
    """Returns the times of the lines that have one: others go on with the line before."""
    day, service = parts(name)
    found = re.findall("^" + STAMPS[service], data.decode(), re.MULTILINE)
    if service == "host":
        found = [f"{day[:4]} {stamp}" for stamp in found]
    if service in FORMATS:
        return [datetime.strptime(stamp, FORMATS[service]) for stamp in found]
    return [datetime.fromisoformat(stamp.replace(",", ".")) for stamp in found]


def joined(logs: dict[str, bytes], service: str) -> str:
    return b"".join(data for name, data in logs.items() if parts(name)[1] == service).decode()


def test_bytes_are_the_same_everywhere(logs: dict[str, bytes]) -> None:
    digest = hashlib.sha256()
    for name, data in logs.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    assert digest.hexdigest() == DIGEST


def test_another_seed_is_another_log(logs: dict[str, bytes], tmp_path: Path) -> None:
    other = write(tmp_path / "new" / "folder", "--seed", "2", "--start", "2027-02-26")
    assert min(other)[:10] == "2027-02-26"
    assert max(other)[:10] == "2027-03-02"
    assert set(other.values()).isdisjoint(logs.values())


def test_size_is_near_what_was_asked(logs: dict[str, bytes]) -> None:
    assert abs(sum(map(len, logs.values())) - SIZE) < SIZE / 8


def test_every_day_has_every_service(logs: dict[str, bytes]) -> None:
    days = sorted({parts(name)[0] for name in logs})
    assert days == [f"2026-03-{day:02d}" for day in range(2, 2 + DAYS)]
    assert {parts(name)[1] for name in logs} == set(STAMPS)
    for service in ("gateway", "storefront", "orders", "host"):
        assert [parts(name)[0] for name in logs if parts(name)[1] == service] == days


def test_text_is_whole_lines_with_every_slot_filled(logs: dict[str, bytes]) -> None:
    for name, data in logs.items():
        assert data.endswith(b"\n"), name
        assert not re.search(r"[\r\0~]|\{\w*\}|None", data.decode()), name


def test_times_rise_within_the_day(logs: dict[str, bytes]) -> None:
    for name, data in logs.items():
        times = stamps(name, data)
        assert times == sorted(times), name
        assert {str(time.date()) for time in times} == {parts(name)[0]}, name


def test_only_stacks_and_statements_go_on_over_lines(logs: dict[str, bytes]) -> None:
    for name, data in logs.items():
        text, service = data.decode(), parts(name)[1]
        if service not in ("orders", "database"):
            assert len(stamps(name, data)) == text.count("\n"), name
    assert re.search(r"^\tat .+\(\w+\.java:\d+\)$", joined(logs, "orders"), re.MULTILINE)
    assert re.search(r"^\tFROM ", joined(logs, "database"), re.MULTILINE)


def test_storefront_lines_are_json(logs: dict[str, bytes]) -> None:
    records = [json.loads(line) for line in joined(logs, "storefront").splitlines()]
    assert all(record["service"] == "storefront" for record in records)
    assert {"debug", "info", "warn"} <= {record["level"] for record in records}
    assert any(record.get("user") for record in records)


def test_traces_lead_through_the_services(logs: dict[str, bytes]) -> None:
    seen = {name: set(re.findall(r"\b[0-9a-f]{16}\b", joined(logs, name))) for name in STAMPS}
    assert seen["storefront"] & seen["gateway"] & seen["orders"]
    assert seen["orders"] & (seen["worker"] | seen["dispatch"])


def test_days_differ(logs: dict[str, bytes]) -> None:
    services = {day: {parts(name)[1] for name in logs if name.startswith(day)} for day in ("2026-03-02", "2026-03-06")}
    assert "dispatch" not in services["2026-03-02"]
    assert "worker" not in services["2026-03-06"]
    first, last = logs["2026-03-02-storefront.log"], logs["2026-03-06-storefront.log"]
    assert b'"region"' in last
    assert b'"region"' not in first
    assert "/api/v3/" not in "".join(data.decode() for name, data in logs.items() if parts(name)[0] < "2026-03-06")
    assert "/api/v3/" in joined(logs, "gateway")


@pytest.mark.parametrize("bad", [["--days", "0"], ["--bytes", "0"], ["--seed", "-1"], ["--start", "yesterday"]])
def test_bad_arguments(bad: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path), *bad])
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
