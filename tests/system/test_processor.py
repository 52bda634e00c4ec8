"""Checks what is read of the processor where the system reports much, little or nothing of it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from llmzip.system import processor

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R)  CPU: fast
flags\t\t: fpu avx2 amx_int8
power management:

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41

processor\t: 1
"""


def reports(text: str | None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets the system report this text, or nothing."""
    path = folder / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", str(path))
    monkeypatch.setattr(platform, "processor", lambda: "what Python knows")


def test_only_the_first_processor_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reports(X86, monkeypatch, tmp_path)
    assert processor.name() == "Intel(R) Xeon(R)  CPU: fast"
    assert processor.instructions() == {"fpu", "avx2", "amx_int8"}
    assert processor.facts()["vendor_id"] == "GenuineIntel" and processor.facts()["power management"] == ""


def test_arm_names_its_features_and_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reports(ARM, monkeypatch, tmp_path)
    assert processor.name() == "what Python knows"
    assert processor.instructions() == {"fp", "asimd", "asimddp"}


def test_systems_that_report_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reports(None, monkeypatch, tmp_path)
    assert (processor.facts(), processor.name(), processor.instructions()) == ({}, "what Python knows", set())
