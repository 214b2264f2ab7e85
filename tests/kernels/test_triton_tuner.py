"""The table of configurations and its tuner: what it compiles, times and writes, on a card of known times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

from fastbound.kernels import _configurations

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT compiled")

from fastbound.kernels import _ahead_of_time, _support  # noqa: E402

if _support.INTERPRETED:
    pytest.skip("TRITON_INTERPRET=1 is set: a process that interprets cannot compile", allow_module_level=True)


CARD = "sm_90"


def test_every_table_covers_every_kernel_precision_and_shape_class() -> None:
    assert CARD in _configurations.cards() and set(_configurations.KERNELS) == set(_ahead_of_time.LAUNCHES)
    for card in _configurations.cards():
        assert list(_configurations.table(card)) == _configurations.row_keys()


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    _configurations.table.cache_clear()
    yield pytest.importorskip("bench.gpu.tune", reason="bench/ is not part of this checkout")
    _configurations.table.cache_clear()  # the tuner launches by what it has found


def test_the_tuner_compiles_its_candidates_without_a_gpu(
    tune: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = _configurations.configuration(CARD, "interval_product", "bf16", 128)
    spilling = replace(shipped, num_warps=4)
    monkeypatch.setattr(tune, "candidates", lambda key: iter([shipped, spilling]))
    assert tune.main(["--dry-run", "--only", "interval_product/bf16/wide"]) == 0
    printed = capsys.readouterr().out
    assert f"{spilling}: registers spill" in printed and "interval_product/bf16/wide: 1 candidates" in printed


def test_the_tuner_leaves_serialised_candidates_out_where_another_is_not(
    tune: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real kernels: of the wide product one is serialised with two stages, of the narrow one all are."""
    free = _configurations.configuration(CARD, "interval_product", "bf16", 128)
    slow = _configurations.configuration(CARD, "interval_product", "bf16", 64)
    monkeypatch.setattr(tune, "candidates", lambda key: iter([free, slow]))
    assert tune.main(["--dry-run", "--only", "interval_product/bf16/wide"]) == 0
    printed = capsys.readouterr().out
    assert f"{slow}: tensor cores are serialised in forward" in printed
    assert "interval_product/bf16/wide: 1 candidates" in printed
    monkeypatch.setattr(tune, "candidates", lambda key: iter([slow, replace(slow, num_stages=2)]))
    assert tune.main(["--dry-run", "--only", "interval_product/bf16/narrow"]) == 0
    printed = capsys.readouterr().out
    assert "every candidate of interval_product/bf16/narrow is serialised: they stay" in printed
    assert "interval_product/bf16/narrow: 2 candidates" in printed


def test_the_tuner_writes_the_table_that_it_read(tune: Any) -> None:
    written = tune._text(CARD, dict(_configurations.table(CARD)))
    assert written == (_configurations.FOLDER / f"{CARD}.json").read_text(encoding="utf-8")
    assert all(len(list(tune.candidates(key))) > 1 for key in _configurations.row_keys())


PRODUCT, GRADIENT = "interval_product/bf16/wide", "interval_weight_gradient/bf16/wide"


class Card:
    """A card with known times: every timing takes a second, and ``best`` is the fastest.

    ``calls``: the timings in order, by key, configuration (None: the library) and rounds. ``broken``: those that fail.
    """

    def __init__(self, tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls, self.compiled, self.serialised, self.broken = 0.0, [], [], set(), set()
        self.best = replace(self.shipped(PRODUCT), block_p=128, num_stages=2)
        card, shipped = self, self.shipped(PRODUCT)
        second = replace(shipped, num_stages=2)

        class Stopwatch:
            def __init__(self, key: str) -> None:
                self.key, self.calls = key, [] if key.startswith("rows_product") and key.endswith("narrow") else [None]

            def times(self, triton: bool, rounds: int) -> dict[str, float]:
                row = _configurations.table(CARD)[self.key]
                chosen = _configurations.Configuration(**row["configuration"]) if triton else None
                card.calls.append((self.key, chosen, rounds))
                card.now += 1
                if (self.key, chosen) in card.broken:
                    raise RuntimeError("out of resource: shared memory")
                milliseconds = 2.0 if chosen is None else 1.0 if chosen == card.best else 1.01
                if rounds < tune.ROUNDS:  # in which the best one seems to be the third
                    milliseconds = {card.best: 1.005, shipped: 1.003, second: 1.004}.get(chosen, milliseconds)
                return {"interval_conv2d": milliseconds, "interval_linear": milliseconds / 2}

        def compiled(card_name: str, key: str, wanted: list[Any], over: Callable[[], bool]) -> Iterator[Any]:
            self.compiled.append(key)
            for configuration in wanted:
                counts = (4, 4) if configuration in self.serialised else (4, 0)
                launches = _ahead_of_time.LAUNCHES[key.split("/")[0]]
                made = [_ahead_of_time.KernelReport(key, launch, 99, 0, 99, *counts, 4) for launch in launches]
                yield configuration, None if over() else made

        monkeypatch.setattr(tune, "Stopwatch", Stopwatch)
        monkeypatch.setattr(tune, "compiled", compiled)
        monkeypatch.setattr(tune, "clock", lambda: self.now)
        monkeypatch.setattr(tune.torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(tune._configurations, "card_of", lambda device, interpreted: CARD)
        self.count = len(list(tune.candidates(PRODUCT)))

    @staticmethod
    def shipped(key: str) -> _configurations.Configuration:
        return _configurations.Configuration(**_configurations.table(CARD)[key]["configuration"])

    def timed(self, key: str, rounds: int) -> list[Any]:
        return [c for k, c, n in self.calls if k == key and n == rounds and c is not None]


@pytest.fixture
def card(tune: Any, monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(tune, monkeypatch)


@pytest.fixture
def written(tune: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``written(status, *arguments)``: the rows of the table that the tuner leaves, read as a card's table is read."""

    def run(status: int, *arguments: str) -> dict[str, Any]:
        source = (_configurations.FOLDER / f"{CARD}.json").read_bytes()
        assert tune.main(["--out", str(tmp_path / f"{CARD}.json"), *arguments]) == status
        assert (_configurations.FOLDER / f"{CARD}.json").read_bytes() == source, "the source tree was written to"
        with monkeypatch.context() as there:
            there.setattr(_configurations, "FOLDER", tmp_path)
            _configurations.table.cache_clear()
            rows = dict(_configurations.table(CARD))
            for key in rows:
                name, precision, shape = key.split("/")
                found = _configurations.configuration(CARD, name, precision, 128 if shape == "wide" else 64)
                assert isinstance(found, _configurations.Configuration)
        _configurations.table.cache_clear()
        return rows

    return run


def test_the_tuner_screens_all_and_times_the_best_three(
    tune: Any, card: Card, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(_configurations.table(CARD))
    rows = written(0, "--only", PRODUCT, "--only", GRADIENT)
    for key in (PRODUCT, GRADIENT):
        assert card.timed(key, tune.SCREENING_ROUNDS)[0] == card.shipped(key)
        assert len(set(card.timed(key, tune.SCREENING_ROUNDS))) == card.count
        assert len(card.timed(key, tune.ROUNDS)) == tune.FINALISTS == 3
        assert card.calls.count((key, None, tune.ROUNDS)) == 1
    pairs = {"interval_conv2d": (1.0, 2.0), "interval_linear": (0.5, 1.0)}
    assert len(card.calls) == 2 * (card.count + 3 + 1)
    assert rows[PRODUCT] == {
        "configuration": tune.asdict(card.best),
        "measured": {stem: {"triton_ms": ours, "library_ms": theirs} for stem, (ours, theirs) in pairs.items()},
    }
    assert {key for key in rows if rows[key] != before[key]} == {PRODUCT, GRADIENT}
    printed = capsys.readouterr().out
    assert f"{PRODUCT}: 128 x 128 x 64, 8 warps, 2 stages; interval_conv2d 1.000 ms, library 2.000 ms" in printed
    assert "wrote 2 of 2 rows to" in printed and "LEFT OUT" not in printed


def test_the_tuner_begins_nothing_after_its_seconds(
    tune: Any, card: Card, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five candidates of the first row have time, and it is written, no worse than it was; the second is as it was."""
    before = dict(_configurations.table(CARD))
    rows = written(1, "--only", PRODUCT, "--only", GRADIENT, "--seconds", "5")
    assert len(card.timed(PRODUCT, tune.SCREENING_ROUNDS)) == 5 and not card.timed(GRADIENT, tune.SCREENING_ROUNDS)
    assert card.compiled == [PRODUCT] and card.shipped(PRODUCT) in card.timed(PRODUCT, tune.SCREENING_ROUNDS)
    assert rows[PRODUCT]["left_out"] == card.count - 5 and rows[PRODUCT]["measured"]
    assert rows[GRADIENT] == before[GRADIENT]
    printed = capsys.readouterr().out
    assert printed.count("LEFT OUT, no time\n") == card.count - 5, "each candidate is named"
    assert f"candidates timed: 5, LEFT OUT, no time: {card.count - 5}" in printed
    assert f"LEFT OUT, no time: {GRADIENT}" in printed and "wrote 1 of 2 rows to" in printed


def test_a_table_that_was_begun_is_gone_on_with(tune: Any, card: Card, written: Any) -> None:
    first = written(0, "--only", PRODUCT)
    second = written(0, "--only", GRADIENT)
    assert second[PRODUCT] == first[PRODUCT] and second[GRADIENT]["measured"]


def test_without_any_time_the_table_is_as_it_was(
    tune: Any, card: Card, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "table.json"
    assert tune.main(["--out", str(out), "--only", PRODUCT, "--seconds", "0"]) == 1
    assert not card.calls and not out.exists()
    assert f"LEFT OUT, no time: {PRODUCT}" in capsys.readouterr().out


def test_a_candidate_or_a_row_that_fails_stops_nothing(
    tune: Any, card: Card, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before, shipped = dict(_configurations.table(CARD)), card.shipped(PRODUCT)
    card.broken = {(PRODUCT, card.best), (PRODUCT, shipped), (GRADIENT, None)}
    rows = written(1, "--only", GRADIENT, "--only", PRODUCT, "--only", "rows_weight_gradient/bf16/wide")
    assert len(set(card.timed(PRODUCT, tune.SCREENING_ROUNDS))) == card.count
    assert _configurations.Configuration(**rows[PRODUCT]["configuration"]) not in (card.best, shipped)
    assert rows[GRADIENT] == before[GRADIENT], "its library failed"
    assert rows["rows_weight_gradient/bf16/wide"]["measured"]
    printed = capsys.readouterr().out
    assert f"{card.best}: RuntimeError: out of resource" in printed
    assert f"LEFT OUT, RuntimeError: out of resource: shared memory: {GRADIENT}" in printed


def test_serialised_candidates_are_timed_where_they_are_shipped_or_all(
    tune: Any, card: Card, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = card.shipped(PRODUCT)
    card.serialised = {shipped, card.best}
    rows = written(0, "--only", PRODUCT)
    timed = card.timed(PRODUCT, tune.SCREENING_ROUNDS)
    assert shipped in timed and card.best not in timed and len(timed) == card.count - 1
    printed = capsys.readouterr().out
    assert f"{card.best}: tensor cores are serialised in forward; forward, center only; input" in printed
    assert "but shipped: timed with the others" in printed
    card.calls.clear()
    card.serialised = set(tune.candidates(PRODUCT))
    rows = written(0, "--only", PRODUCT)
    assert len(set(card.timed(PRODUCT, tune.SCREENING_ROUNDS))) == card.count
    marks = {launch: [_ahead_of_time.SERIES] for launch in _ahead_of_time.LAUNCHES["interval_product"]}
    assert rows[PRODUCT]["configuration"] == tune.asdict(card.best) and rows[PRODUCT]["serialised"] == marks


def test_a_row_that_no_call_is_of_is_as_it_was(tune: Any, card: Card, written: Any, capsys: Any) -> None:
    rows = written(0, "--only", "rows_product/bf16")
    assert {key for key in rows if rows[key] != _configurations.table(CARD)[key]} == {"rows_product/bf16/wide"}
    assert "rows_product/bf16/narrow" not in card.compiled
    assert "LEFT OUT, no call of the suite is of its class: rows_product/bf16/narrow" in capsys.readouterr().out


def test_the_stopwatch_calls_what_a_row_is_of(tune: Any, allow_tf32: Callable[..., None]) -> None:
    """The calls that each row times, made once on the CPU; those of the kernels are timed only on a card."""
    from bench.gpu.case import Sizes

    sizes = Sizes(elements=1 << 12, batches=(2,), width=64, side=8, features=80)
    intervals, rows = {"interval_linear", "interval_conv2d"}, {"crown_linear", "crown_conv2d"}
    wanted = {
        "interval_product/ieee/narrow": {"interval_conv2d"},
        "interval_product/tf32x3/wide": intervals,
        "interval_weight_gradient/ieee/wide": intervals,
        "rows_product/ieee/wide": rows,
        "rows_product/ieee/narrow": set(),
        "rows_weight_gradient/tf32/wide": rows,
        "power_linear/ieee/narrow": {"lipschitz_power"},
        "power_conv2d/ieee/wide": {"lipschitz_power"},
    }
    for key, stems in wanted.items():
        stopwatch = tune.Stopwatch(key, "cpu", sizes)
        part = "backward" if "weight_gradient" in key else "forward"
        assert {case.stem for case, _ in stopwatch.calls} == stems
        assert all(case.name.startswith(part) for case, _ in stopwatch.calls)
        times = stopwatch.times(False, 1)
        assert set(times) == stems and all(time > 0 for time in times.values())


def test_marks_of_other_versions_stay_with_their_configuration(tune: Any) -> None:
    shipped = Card.shipped(GRADIENT)
    before = {"configuration": tune.asdict(shipped), "serialised": {"weight gradient": ["3.5", _ahead_of_time.SERIES]}}
    reports = [_ahead_of_time.KernelReport(GRADIENT, "weight gradient", 99, 0, 99, 4, 0, 4)]
    assert tune._marks(reports, before, shipped) == {"weight gradient": ["3.5"]}
    assert tune._marks(reports, before, replace(shipped, num_stages=2)) == {}
    assert tune._marks([replace(reports[0], waits=4)], None, shipped) == {"weight gradient": [_ahead_of_time.SERIES]}


def test_a_file_that_is_no_table_is_refused(tune: Any, card: Card, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "table.json").write_text('{"card": "sm_75", "rows": {}}')
    with pytest.raises(SystemExit):
        tune.main(["--out", str(tmp_path / "table.json")])
    assert "exists and is no table of sm_90" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to tune for")
def test_the_tuner_says_what_it_needs(tune: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (([], "no CUDA device"), (["--dry-run", "--only", "int3"], "no row contains 'int3'")):
        with pytest.raises(SystemExit):
            tune.main(arguments)
        assert message in capsys.readouterr().err
