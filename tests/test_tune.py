"""The tuner of Triton's configurations with a played clock and compiler: what it times, keeps and leaves out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

pytest.importorskip("triton", reason="Triton is not installed: there is nothing to tune")
if not (ROOT / "bench" / "gpu").is_dir():
    pytest.skip("bench/ is not part of this checkout", allow_module_level=True)
sys.path.insert(0, str(ROOT))

from bench.gpu import tune
from fastbound.kernels import _configurations
from fastbound.kernels._configurations import Configuration

KEY, OTHER = "interval_product/bf16/wide", "interval_weight_gradient/bf16/wide"
STEM = "interval_conv2d"


def tile(warps: int, stages: int = 2) -> Configuration:
    return Configuration(64, 64, 64, warps, stages)


class Played:
    """Candidates, what they compile to, how long they take, and a clock that each timing moves on by a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.out = path / "table.json"
        self.now = 0.0
        self.milliseconds: dict[Configuration | None, float] = {None: 2.0}  # None: the library
        self.spilling: set[Configuration] = set()
        self.serialised: set[Configuration] = set()
        self.timed: list[tuple[str, Configuration | None, int]] = []
        self.known: dict[str, list[Configuration]] = {}
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(_configurations, "card_of", lambda device, interpreted: "sm_90")
        monkeypatch.setattr(tune, "candidates", lambda key: iter(self.known[key]))
        monkeypatch.setattr(tune._ahead_of_time, "compiled_as", self.compiled_as)
        monkeypatch.setattr(tune, "_measured", self.measured)
        monkeypatch.setattr(tune.time, "monotonic", lambda: self.now)

    def compiled_as(self, card: str, key: str, launch: str, configuration: Configuration) -> tune.Report:
        numbers = {"registers": 100, "shared": 1000, "tensor_cores": 8, "matrix": 8}
        spills, waits = configuration in self.spilling, 8 if configuration in self.serialised else 1
        return tune.Report(key, launch, spills=int(spills), waits=waits, **numbers)

    def measured(self, key: str, triton: bool, rounds: int) -> dict[str, float]:
        row = _configurations.table("sm_90")[key]
        configuration = Configuration(**row["configuration"]) if triton else None
        self.now += 1
        self.timed.append((key, configuration, rounds))
        return {STEM: self.milliseconds[configuration]}

    def run(self, *options: str) -> tuple[int, dict[str, Any]]:
        before = json.dumps(dict(_configurations.table("sm_90")))
        status = tune.main(["--out", str(self.out), *options])
        assert json.dumps(dict(_configurations.table("sm_90"))) == before, "the table that is read was changed"
        return status, json.loads(self.out.read_text())["rows"]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Played:
    return Played(monkeypatch, tmp_path)


Printed = Callable[[], str]


def test_few_rounds_choose_who_is_timed_properly(played: Played) -> None:
    tiles = [tile(warps, stages) for warps in (4, 8) for stages in (1, 2, 3)]
    played.known[KEY] = tiles
    played.milliseconds |= dict(zip(tiles, (5.0, 1.5, 3.0, 4.0, 1.0, 2.0)))
    status, rows = played.run("--only", KEY)
    assert status == 0 and rows[KEY]["configuration"] == vars(tiles[4])
    assert rows[KEY]["measured"] == {STEM: {"triton_ms": 1.0, "library_ms": 2.0}}
    screened = [(KEY, c, tune.SCREENING) for c in tiles]
    finals = [(KEY, tiles[index], tune.ROUNDS) for index in (4, 1, 5)]
    assert played.timed == [*screened, *finals, (KEY, None, tune.ROUNDS)]
    untouched = dict(_configurations.table("sm_90"))
    assert {key: row for key, row in rows.items() if key != KEY} == {k: r for k, r in untouched.items() if k != KEY}


def test_a_screening_that_misled_does_not_decide(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three that are timed properly are compared by what they then take."""
    first, second = tile(4), tile(8)
    played.known[KEY] = [first, second]
    plain = played.measured

    def measured(key: str, triton: bool, rounds: int) -> dict[str, float]:
        found = plain(key, triton, rounds)
        lucky = played.timed[-1][1] == first and rounds == tune.SCREENING
        return {STEM: 0.1} if lucky else found

    monkeypatch.setattr(tune, "_measured", measured)
    played.milliseconds |= {first: 3.0, second: 1.0}
    _, rows = played.run("--only", KEY)
    assert rows[KEY]["configuration"] == vars(second)


def test_what_the_time_does_not_suffice_for_stays_and_is_named(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.known = {KEY: [tile(4), tile(8)], OTHER: [tile(4), tile(8)]}
    played.milliseconds |= {tile(4): 2.0, tile(8): 1.0}
    before = _configurations.table("sm_90")[OTHER]
    # Five timings of the first row fit, and one of the second.
    status, rows = played.run("--only", KEY, "--only", OTHER, "--seconds", "5.5")
    assert status == 1 and rows[KEY]["measured"] and rows[OTHER] == before
    printed = capsys.readouterr().out
    assert f"{OTHER}: LEFT OUT, no time; its row stays as it was" in printed and f"{KEY}: Configuration" in printed
    assert [key for key, *_ in played.timed] == [KEY] * 5 + [OTHER]
    for seconds in range(5):
        status, rows = played.run("--only", KEY, "--seconds", str(seconds))
        assert status == 1 and rows[KEY] == _configurations.table("sm_90")[KEY], "a row of half a measurement"


def test_unusable_and_serialised_candidates_are_not_timed(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    free, slow, spilling = tile(4), tile(8), tile(8, 3)
    played.known[KEY] = [slow, free, spilling]
    played.serialised, played.spilling = {slow}, {spilling}
    played.milliseconds |= {free: 3.0, slow: 1.0}
    _, rows = played.run("--only", KEY)
    assert {c for _, c, _ in played.timed} == {free, None} and "serialised" not in rows[KEY]
    printed = capsys.readouterr().out
    assert f"{spilling}: registers spill" in printed and f"{slow}: tensor cores are serialised" in printed


def test_where_all_are_serialised_they_stay_and_are_marked(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    played.known[KEY] = [tile(4), tile(8)]
    played.serialised = {tile(4), tile(8)}
    played.milliseconds |= {tile(4): 3.0, tile(8): 1.0}
    _, rows = played.run("--only", KEY)
    assert "the tensor cores of every candidate are serialised" in capsys.readouterr().out
    launches = tune._ahead_of_time.LAUNCHES["interval_product"]
    assert rows[KEY]["configuration"] == vars(tile(8))
    assert rows[KEY]["serialised"] == {launch: [tune.SERIES] for launch in launches}


def test_a_table_written_elsewhere_is_a_table(played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = (_configurations.FOLDER / "sm_90.json").read_text()
    played.known[KEY] = [tile(4)]
    played.milliseconds[tile(4)] = 1.0
    played.run("--only", KEY)
    assert (_configurations.FOLDER / "sm_90.json").read_text() == shipped
    played.out.rename(tmp_path / "sm_99.json")
    monkeypatch.setattr(_configurations, "FOLDER", tmp_path)
    assert _configurations.configuration("sm_99", "interval_product", "bf16", 128) == tile(4)
    _configurations.table.cache_clear()


def test_a_row_that_no_candidate_can_serve_is_named_and_the_others_go_on(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    played.known = {KEY: [tile(4)], OTHER: [tile(8)]}
    played.spilling = {tile(4)}
    played.milliseconds[tile(8)] = 1.0
    status, rows = played.run("--only", KEY, "--only", OTHER)
    assert status == 1 and rows[KEY] == _configurations.table("sm_90")[KEY] and rows[OTHER]["measured"]
    assert f"{KEY}: LEFT OUT, no candidate is usable" in capsys.readouterr().out


def test_every_text_of_only_must_name_a_row(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tune.main(["--dry-run", "--only", KEY, "--only", "int3"])
    assert "no row contains 'int3'" in capsys.readouterr().err
