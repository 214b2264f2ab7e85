"""The Triton kernels without a GPU and without the interpreter: compiled ahead of time, and who is served by them.

Every kernel in every configuration of `kernels/sm_90.json` compiles for that card; the suite prints registers, spills,
shared memory, tensor-core instructions and the waits behind them, and fails on a spill, on shared memory that the card
has not, on a product in bf16, fp16 or TF32 that does not use the tensor cores, and on tensor cores that wait for every
product, unless the table marks the row as such; a mark that no longer holds fails too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fastbound as fb
from fastbound import backends
from fastbound.certify.modes import ieee_float32
from fastbound.errors import BackendError
from fastbound.kernels import _configurations, _measurements, three_pass_tf32
from fastbound.kernels._precision import product_precision

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels were NOT compiled")

from fastbound.kernels import _ahead_of_time, _support  # noqa: E402

if _support.INTERPRETED:
    pytest.skip("TRITON_INTERPRET=1 is set: a process that interprets cannot compile", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[1]
CARD = "sm_90"
SHIPPED = list(_ahead_of_time.shipped(CARD))


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[tuple[str, str], _ahead_of_time.Report]]:
    """All kernels, compiled by as many processes as there are processors."""
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {kernel: pool.submit(_ahead_of_time.compiled, CARD, *kernel) for kernel in SHIPPED}
        yield {kernel: job.result() for kernel, job in jobs.items()}


@pytest.mark.parametrize("key, launch", SHIPPED)
def test_kernel_compiles_for_the_card(
    reports: dict[tuple[str, str], _ahead_of_time.Report], key: str, launch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = reports[key, launch]
    with capsys.disabled():
        print(f"\n{report}", end="")
    assert_usable(report)


def assert_usable(report: _ahead_of_time.Report) -> None:
    assert report.objection(CARD) is None, f"{report.objection(CARD)}: {report}"


def test_a_tile_that_is_too_large_is_noticed() -> None:
    shipped = _configurations.configuration(CARD, "interval_product", "bf16", 128)
    tile = replace(shipped, num_warps=4)
    with pytest.raises(AssertionError, match="registers spill"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "interval_product/bf16/wide", "forward", tile))


def test_a_product_without_tensor_cores_is_noticed() -> None:
    """A tile of 32 rows is smaller than the instruction of a warp group."""
    tile = _configurations.Configuration(block_m=32, block_p=64, block_k=32, num_warps=4, num_stages=2)
    with pytest.raises(AssertionError, match="no tensor-core instruction"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "rows_product/bf16/narrow", "forward", tile))


def test_an_ieee_product_on_tensor_cores_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = _configurations.configuration(CARD, "rows_product", "ieee", 128)
    monkeypatch.setattr(_ahead_of_time, "dot_precision", lambda precision: "tf32")
    with pytest.raises(AssertionError, match="IEEE float32 on tensor cores"):
        assert_usable(_ahead_of_time.compiled_as(CARD, "rows_product/ieee/wide", "forward", tile))


def test_what_is_compiled_ahead_is_what_a_launch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher, asked for the card on a layer with aligned channels, makes kernels that have been read alone."""
    monkeypatch.syspath_prepend(str(ROOT))
    absent_card = pytest.importorskip("bench.gpu.absent_card", reason="bench/ is not part of this checkout")
    read, ahead = _ahead_of_time._read, set()
    monkeypatch.setattr(_ahead_of_time, "_read", lambda key, launch, b: ahead.add(b.hash) or read(key, launch, b))
    for name in ("interval_product", "interval_weight_gradient"):
        for launch in _ahead_of_time.LAUNCHES[name]:
            _ahead_of_time.compiled(CARD, f"{name}/bf16/wide", launch)
    stack, radius = torch.zeros(2, 3, 80, 4, 4).bfloat16(), torch.zeros(3, 80, 4, 4).bfloat16()
    weight, bias = torch.zeros(96, 80, 3, 3).bfloat16(), torch.zeros(96).bfloat16()
    with absent_card.compiling_for(CARD) as launched, fb.use_backend("triton"):
        outputs = fb.ops.interval_conv2d(stack.requires_grad_(), radius, weight.requires_grad_(), bias)
        sum(map(torch.sum, outputs)).backward()
    assert launched <= ahead and len(launched) == 3, "forward, input gradient and weight gradient were read"


# ---- serialised tensor cores -----------------------------------------------------------------------------------------

SERIALISED, FREE = ("interval_product/bf16/narrow", "forward"), ("interval_product/bf16/wide", "forward")


@pytest.mark.parametrize("kernel, serialised", [(SERIALISED, True), (FREE, False)], ids=["serialised", "free"])
def test_what_the_binary_shows_is_what_ptxas_says(
    kernel: tuple[str, str], serialised: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """C7515 is how ptxas announces it; Triton throws its warnings away."""
    from triton.backends.nvidia.compiler import get_ptxas

    read, binaries = _ahead_of_time._read, []
    monkeypatch.setattr(_ahead_of_time, "_read", lambda key, launch, b: binaries.append(b) or read(key, launch, b))
    report = _ahead_of_time.compiled(CARD, *kernel)
    (tmp_path / "kernel.ptx").write_text(binaries[0].asm["ptx"])
    command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert ("C7515" in said) == report.serialised == serialised, f"{report}\n{said}"
    assert f"{report.waits} full waits" in str(report) and ("SERIALISED" in str(report)) == serialised


def test_the_wait_behind_a_loop_is_no_wait_for_a_product() -> None:
    """One product a step of the loop, which the next step overlaps, and one full wait at the end of all."""
    tile = _configurations.Configuration(block_m=64, block_p=64, block_k=16, num_warps=4, num_stages=3)
    report = _ahead_of_time.compiled_as(CARD, "rows_product/bf16/narrow", "forward", tile)
    assert (report.tensor_cores, report.waits) == (1, 0) and report.objection(CARD) is None


def test_a_disassembler_that_writes_waits_differently_is_noticed() -> None:
    wgmma, wait = "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24, gsb0 ;\n", "WARPGROUP.DEPBAR.LE gsb0, 0x0 ;\n"
    assert _ahead_of_time._waits(2 * (wgmma + wait)) == 2 and _ahead_of_time._waits(2 * wgmma + wait) == 1
    with pytest.raises(RuntimeError, match="no wait for them"):
        _ahead_of_time._waits(2 * (wgmma + wait.replace("DEPBAR", "WAIT")))


def marked(monkeypatch: pytest.MonkeyPatch, kernel: tuple[str, str], series: list[str]) -> None:
    """The table as if it marked one launch for these series of Triton alone."""
    key, launch = kernel
    rows = dict(_configurations.table(CARD))
    rows[key] = {**rows[key], "serialised": {launch: series}}
    monkeypatch.setattr(_ahead_of_time, "table", lambda card: rows)


def test_a_serialised_row_without_a_mark_is_caught(
    reports: dict[tuple[str, str], _ahead_of_time.Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = reports[SERIALISED]
    assert_usable(report)
    marked(monkeypatch, SERIALISED, ["3.5"])  # the mark of another compiler is none
    wanted = rf"{report.tensor_cores} full waits after {report.tensor_cores} wgmma, and sm_90.json has no mark"
    with pytest.raises(AssertionError, match=wanted):
        assert_usable(report)


def test_a_mark_that_no_longer_holds_is_caught(
    reports: dict[tuple[str, str], _ahead_of_time.Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = reports[FREE]
    assert_usable(report)
    marked(monkeypatch, FREE, [_ahead_of_time.SERIES])
    with pytest.raises(AssertionError, match=rf"no longer serialised, {report.waits} full waits after"):
        assert_usable(report)


def test_marks_name_launches_and_trusted_versions() -> None:
    first, last = _support.TESTED
    series = {f"3.{minor}" for minor in range(first[1], last[1] + 1) if (3, minor) not in _support.SPILLING}
    for key, row in _configurations.table(CARD).items():
        for launch, versions in row.get("serialised", {}).items():
            assert launch in _ahead_of_time.LAUNCHES[key.split("/")[0]] and set(versions) <= series, (key, launch)
            assert versions, f"{key}, {launch}: a mark without a version"


# ---- the table and its tuner -----------------------------------------------------------------------------------------


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
    """A card of which the times are known: to time anything takes a second, and ``best`` is the fastest.

    ``calls``: what was timed, in order, by key, configuration (None: the library) and rounds. ``broken``: what fails.
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
                made = [_ahead_of_time.Report(key, launch, 99, 0, 99, *counts, 4) for launch in launches]
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
    """The calls behind each row, made once on the CPU; the kernels' own are timed on a card alone."""
    from bench.gpu.cases import Sizes

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
    reports = [_ahead_of_time.Report(GRADIENT, "weight gradient", 99, 0, 99, 4, 0, 4)]
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


# ---- who is served ---------------------------------------------------------------------------------------------------


def test_a_cpu_tensor_is_refused_outside_the_interpreter() -> None:
    x = torch.zeros(2, 3, 4)
    with fb.use_backend("triton"), pytest.raises(BackendError, match="TRITON_INTERPRET=1"):
        fb.ops.interval_linear(x, x[0].abs(), torch.zeros(5, 4))


def test_float64_is_refused() -> None:
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    with fb.use_backend("triton"), pytest.raises(BackendError, match="float64 is not supported; use float32"):
        fb.ops.interval_linear(x, x[0].abs(), torch.zeros(5, 4, dtype=torch.float64))


def test_the_version_that_lets_registers_spill_is_refused() -> None:
    assert "Triton 3.8.1 lets registers of the kernels spill" in _support.untested("3.8.1", "2.3.5")


@pytest.mark.parametrize("version, trusted", [("3.5.1", False), ("3.6.0", True), ("3.9.0", True), ("3.10.0", False)])
def test_untested_versions_are_refused(version: str, trusted: bool) -> None:
    reason = _support.untested(version, "2.3.5")
    assert reason is None if trusted else f"Triton {version} is untested; wanted a version from 3.6 to 3.9" in reason


def test_the_old_interpreter_with_a_new_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _support.untested("3.6.0", "2.4.6") is None
    monkeypatch.setattr(_support, "INTERPRETED", True)
    assert "numpy<2.4" in _support.untested("3.6.0", "2.4.6")
    assert _support.untested("3.7.1", "2.4.6") is None


def test_absent_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr(backends.importlib, "import_module", absent)
    assert backends._load("triton", "interval_linear", "cuda", torch.float32) == (
        None,
        "triton is not installed or not written",
    )


def test_a_card_without_a_table() -> None:
    with pytest.raises(BackendError, match=r"no configuration for rows_product/bf16/wide on sm_80 .*bench.gpu.tune"):
        _configurations.configuration("sm_80", "rows_product", "bf16", 128)


# ---- the automatic choice --------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``planted({key: {stem: (triton_ms, library_ms)}})``: a card on which these rows have been measured."""

    def plant(measured: dict[str, dict[str, tuple[float, float]]]) -> None:
        rows = json.loads(json.dumps(dict(_configurations.table(CARD))))
        for key, times in measured.items():
            rows[key]["measured"] = {s: {"triton_ms": t[0], "library_ms": t[1]} for s, t in times.items()}
        (tmp_path / "sm_99.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
        monkeypatch.setattr(_configurations, "FOLDER", tmp_path)
        _configurations.table.cache_clear()

    yield plant
    _configurations.table.cache_clear()


def convolutions(product: Any, weight_gradient: Any) -> dict[str, Any]:
    """Times of wide TF32 convolutions."""
    times = {"interval_product": product, "interval_weight_gradient": weight_gradient}
    return {f"{name}/tf32/wide": {"interval_conv2d": t} for name, t in times.items() if t is not None}


def test_nothing_is_chosen_without_a_measurement() -> None:
    for card in _configurations.cards():
        for stem in _measurements.STEMS:
            for key, row in _configurations.table(card).items():
                if row["measured"] is None:
                    _, precision, shape = key.split("/")
                    weights = [(128 if shape == "wide" else 64, *(3,) * dims) for dims in (1, 2, 3)]
                    assert not any(_measurements.measured_faster(stem, card, precision, w) for w in weights)


@pytest.mark.parametrize(
    "product, weight_gradient, faster",
    [((1.0, 2.0), (1.0, 1.5), True), ((1.0, 2.0), (3.0, 1.0), False), ((1.0, 2.0), None, False)],
)
def test_the_measured_side_is_chosen(planted: Any, product: Any, weight_gradient: Any, faster: bool) -> None:
    planted(convolutions(product, weight_gradient))
    assert _measurements.measured_faster("interval_conv2d", "sm_99", "tf32", (128, 4, 3, 3)) is faster
    assert not _measurements.measured_faster("interval_conv2d", "sm_99", "tf32", (64, 4, 3, 3))
    assert not _measurements.measured_faster("interval_conv2d", "sm_99", "ieee", (128, 4, 3, 3))
    assert not _measurements.measured_faster("interval_linear", "sm_99", "tf32", (128, 4))


def test_the_rule_reads_shape_and_precision_of_the_call(
    planted: Any, monkeypatch: pytest.MonkeyPatch, allow_tf32: Callable[..., None]
) -> None:
    planted(convolutions((1.0, 2.0), (1.0, 2.0)))
    monkeypatch.setattr(_measurements, "card_of", lambda device, interpreted: "sm_99")
    stack, radius, weight = torch.zeros(2, 1, 4, 5, 5), torch.zeros(1, 4, 5, 5), torch.zeros(128, 4, 3, 3)
    allow_tf32(convolutions=True, products=False)
    assert backends.measured_faster("interval_conv2d", radius, stack, weight, None)
    assert not backends.measured_faster("interval_conv2d", radius, stack, weight[:64], None)
    assert not backends.measured_faster("interval_conv2d", radius.double(), stack, weight, None)
    assert not backends.measured_faster("interval_norm_relu", radius, stack)
    allow_tf32(convolutions=False, products=True)
    assert not backends.measured_faster("interval_conv2d", radius, stack, weight, None)


def test_power_iterations_are_chosen_by_the_kind_of_layer(
    planted: Any, monkeypatch: pytest.MonkeyPatch, allow_tf32: Callable[..., None]
) -> None:
    """Convolutions have measured faster than the library's in IEEE float32, linear layers slower."""
    times = {"power_conv2d": (1.0, 2.0), "power_linear": (2.0, 1.0)}
    planted({f"{name}/ieee/narrow": {"lipschitz_power": pair} for name, pair in times.items()})
    monkeypatch.setattr(_measurements, "card_of", lambda device, interpreted: "sm_99")

    def faster(*shape: int) -> bool:
        return backends.measured_faster("lipschitz_power", torch.zeros(1, 4), torch.zeros(shape))

    allow_tf32(convolutions=False, products=False)
    assert faster(8, 4, 3, 3) and faster(8, 4, 3)
    assert not faster(8, 4) and not faster(8, 4, 3, 3, 3) and not faster(128, 4, 3, 3)
    allow_tf32(convolutions=True, products=False)
    assert not faster(8, 4, 3, 3), "the library's products would be TF32, beside which nobody has measured"


# ---- precision -------------------------------------------------------------------------------------------------------


def test_precision_follows_the_flags_of_torch_and_the_dtype(allow_tf32: Callable[..., None]) -> None:
    allow_tf32(convolutions=True, products=False)
    assert product_precision(torch.float32, convolution=True) == "tf32"
    assert product_precision(torch.float32, convolution=False) == "ieee"
    allow_tf32(convolutions=False, products=True)
    assert product_precision(torch.float32, convolution=True) == "ieee"
    assert product_precision(torch.float32, convolution=False) == "tf32"
    assert product_precision(torch.bfloat16, convolution=True) == "bf16"
    assert product_precision(torch.float16, convolution=False) == "fp16"


def test_three_passes_replace_tf32_and_nothing_else(allow_tf32: Callable[..., None]) -> None:
    allow_tf32(convolutions=True, products=False)
    with three_pass_tf32():
        assert product_precision(torch.float32, convolution=True) == "tf32x3"
        assert product_precision(torch.float32, convolution=False) == "ieee"
        assert product_precision(torch.bfloat16, convolution=False) == "bf16"
    assert product_precision(torch.float32, convolution=True) == "tf32"


def test_certification_lifts_every_flag(allow_tf32: Callable[..., None]) -> None:
    torch.backends.fp32_precision = "tf32"
    allow_tf32(convolutions=True, products=True)
    with three_pass_tf32(), ieee_float32():
        assert product_precision(torch.float32, convolution=True) == "ieee"
        assert product_precision(torch.float32, convolution=False) == "ieee"
    assert product_precision(torch.float32, convolution=True) == "tf32"


# ---- a request for some primitives -----------------------------------------------------------------------------------


def test_a_request_may_name_the_primitives() -> None:
    x = torch.zeros(1)
    with fb.use_backend("reference"), fb.use_backend("native", only=["interval_linear"]):
        assert backends.find("interval_linear", x).__name__ == "fastbound.native.interval_linear"
        assert backends.find("interval_conv2d", x).__name__ == "fastbound.reference.interval_conv2d"
    with pytest.raises(ValueError, match=r"only: there is no primitive 'interval_linaer'; known: .*interval_linear"):
        fb.use_backend("native", only=["interval_linaer"]).__enter__()
    with pytest.raises(ValueError, match=r"only: wanted a list of primitives, got the string 'interval_linear'"):
        fb.use_backend("native", only="interval_linear").__enter__()
