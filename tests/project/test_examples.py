"""The examples: short, plain PyTorch without the trainer, and they run."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert {"crown_ibp", "gloro", "ibp", "short_warmup", "singleprop"} == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_short_plain_loop(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert not re.search(
        r"fastbound\.train (import )?(train|loop|recipes)|fastbound\.train\.(loop|recipes|steps)", text
    )
    for line in ("optimizer.zero_grad()", "loss.backward()", "optimizer.step()", f"python examples/{path.name} "):
        assert line in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--steps", "100"])
    runpy.run_path(str(path), run_name="__main__")
    (line,) = capsys.readouterr().out.splitlines()
    clean, attacked, verified = (float(percent) for percent in re.findall(r"([\d.]+)%", line))
    assert line.startswith("errors after 100 steps: ") and clean <= attacked <= verified <= 100
    assert clean < 75  # of 10 classes: the loop has learned something
