"""A lease without a card: parts that fail in every way do not stop the others, and a rerun takes what is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from lease_parts import PARTS, packed, python, results, run

from bench.gpu import archive, lease, order, package
from bench.gpu.order import Part


@pytest.fixture(autouse=True)
def short_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEAST_SECONDS", 1.0)


def test_no_part_stops_the_later_ones_and_the_table_comes_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("raises", "absent", "missing", "cannot", "silent", "hangs", "deaf", "talks")
    status, content = run(tmp_path, *names)
    assert status == 1
    assert results(content) == {
        "raises": "FAILED",
        "absent": "FAILED",
        "missing": "FAILED",
        "cannot": "NOT RUN",
        "silent": "PRINTED NOTHING",
        "hangs": "OUT OF TIME",
        "deaf": "OUT OF TIME",
        "talks": "ok",
    }
    for entry in content["parts"]:
        assert entry["seconds"] <= PARTS[entry["part"]].seconds + 0.5, "it did not end in its box"
    told = {entry["part"]: entry["summary"] for entry in content["parts"]}
    assert told["raises"] == "(status 1) RuntimeError: planted" and told["talks"] == "all is well"
    assert "no-such-program" in told["absent"] and "no-such-file.py" in told["missing"]
    assert told["cannot"] == "there is nothing to do it with" and told["deaf"].startswith("(killed)")
    printed = capfd.readouterr()
    assert printed.out.startswith("# Lease: 7 of 8 parts not ok;") and not printed.err
    lines = printed.out.splitlines()
    assert lines[2:4] == ["| part | result | seconds | box | summary |", "|---|---|---|---|---|"]
    assert [line.split(" | ")[0] for line in lines[4:12]] == [f"| {name}" for name in names]
    assert "## end of raises.log" in printed.out and "RuntimeError: planted" in printed.out
    assert len(printed.out) < 12_000


def test_what_a_part_started_ends_with_it(tmp_path: Path) -> None:
    """Even a child of a part that ignores interrupts: nothing may run on the card together with the next part."""
    run(tmp_path, "deaf")
    child = int((tmp_path / "work" / "results" / "deaf.log").read_text())
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(") ")[2].startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail("the child of a killed part is still running")


def test_an_interrupted_part_may_still_write(tmp_path: Path) -> None:
    code = (
        "import time\ntry:\n    print('measuring', flush=True); time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('what there was')"
    )
    _, content = run(tmp_path, "writes", parts={"writes": Part("writes", 2, python(code))})
    assert content["parts"][0]["result"] == "OUT OF TIME" and content["parts"][0]["summary"] == "what there was"


def test_results_are_packed_after_every_part(tmp_path: Path) -> None:
    seen = python(
        "import sys, tarfile; from pathlib import Path; out = Path(" + repr(str(tmp_path / "out")) + ")\n"
        "print(*sorted(tarfile.open(out / 'results.tar.gz').getnames()), (out / 'summary.md').exists())"
    )
    _, content = run(tmp_path, "talks", "looks", parts={**PARTS, "looks": Part("looks", 20, seen)})
    assert content["parts"][1]["summary"] == "lease.json talks.log True"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.tar.gz", "summary.md"]
    assert set(packed(tmp_path)) == {"lease.json", "talks.log", "looks.log"}
    assert "still to come" not in (tmp_path / "out" / "summary.md").read_text()


def test_the_lease_ends_in_its_time_and_the_last_part_takes_what_is_left(tmp_path: Path) -> None:
    boxes = {name: Part(name, 30, python("import time; print('x', flush=True); time.sleep(600)")) for name in "ab"}
    started = time.monotonic()
    _, content = run(tmp_path, "a", "b", options=("--seconds", "10"), parts=boxes)
    assert time.monotonic() - started < 10
    assert results(content) == {"a": "OUT OF TIME", "b": "NOT RUN"} and "no time" in content["parts"][1]["summary"]
    rest = Part("rest", 6, python("print('x')"), takes_rest=True)
    parts = {"rest": rest, "talks": PARTS["talks"]}
    for names, wanted in ((("talks", "rest"), 24), (("rest", "talks"), 6)):
        _, content = run(tmp_path, *names, options=("--seconds", "30"), parts=parts)
        (box,) = (entry["box"] for entry in content["parts"] if entry["part"] == "rest")
        assert wanted - 3 < box <= wanted


def test_a_stopped_lease_says_what_it_knew(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from lease_parts import PARTS; from bench.gpu import lease\n"
        "parts = [PARTS['talks'], PARTS['hangs'].__class__('hangs', 300, PARTS['hangs'].command), PARTS['talks']]\n"
        f"places = [{str(tmp_path / 'out')!r}, '--work', {str(tmp_path / 'work')!r}, '--prepared', '/nonexistent']\n"
        "sys.exit(lease.main([*places, '--device', 'cpu'], parts=parts))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    log = tmp_path / "work" / "results" / "hangs.log"
    for _ in range(600):
        if log.exists() and log.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1 and printed.startswith("# Lease: 2 of 3 parts not ok")
    assert printed.count("| NOT RUN |") == 2 and "the lease was stopped" in printed


RERUN = {
    **PARTS,
    "extra": Part("extra", 20, python("print('asked for')"), routine=False),
    "data": Part("data", 20, python("print('made')")),
    "reads": Part("reads", 20, python("print('read')"), needs=("data",)),
}


def asked(content: dict, before: dict | None = None) -> list[str]:
    """The parts that a call ran: those with new entries in its summary, in their order."""
    old = [] if before is None else [entry for entry in before["parts"] if entry in content["parts"]]
    return [entry["part"] for entry in content["parts"] if entry not in old]


def test_a_rerun_takes_what_failed_and_then_what_is_no_routine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("talks", "raises", "extra")
    monkeypatch.setenv("FASTBOUND_COMMIT", "first")
    _, first = run(tmp_path, *names, parts=RERUN)
    assert asked(first) == ["talks", "raises"] and first["of"] == order.LEASE_SECONDS
    monkeypatch.setenv("FASTBOUND_COMMIT", "second")
    _, second = run(tmp_path, *names, options=("--rerun",), parts=RERUN)
    assert asked(second, first) == ["raises", "extra"] and second["of"] == order.RERUN_SECONDS
    # The results of the first call stay in the archive, under its own commit.
    assert {entry["part"]: entry["commit"] for entry in second["parts"]} == {
        **{"talks": "first", "raises": "second", "extra": "second"}
    }
    assert "talks.log" in packed(tmp_path)


def test_a_rerun_on_a_machine_that_has_forgotten(tmp_path: Path) -> None:
    """It finds what failed in the archive of the first call; without one it says so."""
    run(tmp_path, "talks", "raises", parts=RERUN)
    prepared, elsewhere = tmp_path / "elsewhere" / "prepared", tmp_path / "elsewhere"
    prepared.mkdir(parents=True)
    _, content = run(elsewhere, "talks", "raises", "extra", options=("--rerun",), parts=RERUN)
    assert asked(content) == ["extra"] and any("NOTHING IS KNOWN" in note for note in content["notes"])
    shutil.rmtree(elsewhere / "work")
    shutil.copy(tmp_path / "out" / "results.tar.gz", prepared)
    _, content = run(elsewhere, "talks", "raises", "extra", options=("--rerun",), parts=RERUN)
    assert results(content) == {"talks": "ok", "raises": "FAILED", "extra": "ok"} and "talks.log" in packed(elsewhere)
    assert not any("NOTHING IS KNOWN" in note for note in content["notes"])


@pytest.mark.parametrize(
    "damaged", ["[1, 2]", '{"parts": [{"part": "raises"}]}', '{"parts": 3}', "{", '{"parts": ["x"]}']
)
def test_a_damaged_memory_is_none(tmp_path: Path, damaged: str) -> None:
    run(tmp_path, "talks", "raises", parts=RERUN)
    (tmp_path / "work" / "results" / "lease.json").write_text(damaged)
    _, content = run(tmp_path, "talks", "raises", "extra", options=("--rerun",), parts=RERUN)
    assert asked(content) == ["extra"]


def test_some_parts_alone_with_what_they_need(tmp_path: Path) -> None:
    _, first = run(tmp_path, "talks", "data", "reads", "extra", parts=RERUN)
    for name, wanted in (("extra", ["extra"]), ("reads", ["data", "reads"])):
        _, content = run(tmp_path, "talks", "data", "reads", "extra", options=("--only", name), parts=RERUN)
        assert set(results(content)) == {"talks", "data", "reads", "extra"} - ({"extra"} - set(asked(content, first)))
        assert set(wanted) <= set(asked(content, first))
    (tmp_path / "work" / "data").mkdir()
    seen = packed(tmp_path)["data.log"]
    run(tmp_path, "talks", "data", "reads", options=("--only", "reads"), parts={**RERUN, "data": PARTS["raises"]})
    assert packed(tmp_path)["data.log"] == seen, "what is there was made again"


def test_an_earlier_headline_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    at = tmp_path / "work" / "results"
    writes = python(f'from pathlib import Path; Path({str(at / "x.json")!r}).write_text(\'{{"headline": "good"}}\')')
    _, content = run(tmp_path, "x", parts={"x": Part("x", 20, writes)})
    assert content["parts"][0]["summary"] == "good" and content["parts"][0]["result"] == "ok"
    failing = {"x": Part("x", 20, python("raise ValueError('no')"))}
    _, content = run(tmp_path, "x", options=("--rerun", "--only", "x"), parts=failing)
    assert "good" not in content["parts"][0]["summary"] and "ValueError: no" in content["parts"][0]["summary"]


def test_folders_of_others_are_not_cleared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "work" / "results" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    with pytest.raises(SystemExit):
        run(tmp_path, "talks")
    assert mine.read_text() == "kept" and "holds other things" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        lease.main([str(tmp_path / "w" / "out"), "--work", str(tmp_path / "w")], parts=[PARTS["talks"]])
    assert "is inside the work folder" in capsys.readouterr().err


def test_a_flood_and_json_of_another_shape_are_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LARGEST_FILE", 20_000_000)
    at = tmp_path / "work" / "results"
    flood = python("import sys\nwhile True: sys.stdout.write('again and again\\n' * 10000)")
    shapes = python(f"from pathlib import Path; Path({str(at / 'shapes.json')!r}).write_text('[1]'); print('a list')")
    parts = {"floods": Part("floods", 20, flood), "shapes": Part("shapes", 20, shapes), "talks": PARTS["talks"]}
    started = time.monotonic()
    _, content = run(tmp_path, *parts, parts=parts)
    assert results(content) == {"floods": "FAILED", "shapes": "ok", "talks": "ok"} and time.monotonic() - started < 20
    assert (tmp_path / "out" / "results.tar.gz").stat().st_size < 100_000
    assert "bytes left out" in packed(tmp_path)["floods.log"]


def test_a_full_disk_does_not_stop_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "pack", full)
    _, content = run(tmp_path, "talks", "raises")
    assert results(content) == {"talks": "ok", "raises": "FAILED"} and "No space left" in content["notes"][-1]


def test_paths_are_those_of_the_caller(tmp_path: Path) -> None:
    places = ["results-here", "--work", "work-here", "--device", "cpu", "--caller", str(tmp_path)]
    assert lease.main(places, parts=[PARTS["talks"]]) == 0
    assert (tmp_path / "results-here" / "summary.md").exists() and (tmp_path / "work-here" / "results").is_dir()


@pytest.mark.parametrize("git", ["absent", "no repository"])
def test_neither_git_nor_a_repository_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FASTBOUND_COMMIT", raising=False)
    if git == "absent":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    _, content = run(tmp_path, "talks")
    assert content["commit"] == "unknown" and results(content) == {"talks": "ok"}
    (tmp_path / "prepared").mkdir()
    about = {"commit": "abc", "sources": package.fingerprint(ROOT)}
    for sources, wanted in ((about["sources"], "abc"), ("other", "abc, changed since")):
        (tmp_path / "prepared" / "prepared.json").write_text(json.dumps({**about, "sources": sources}))
        assert run(tmp_path, "talks")[1]["commit"] == wanted
    script = "import sys; sys.path.insert(0, '.'); from bench.gpu.record import commit; print(commit())"
    environment = {name: value for name, value in os.environ.items() if name != "FASTBOUND_COMMIT"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "unknown\n", done.stderr


def test_paths_of_the_machine_stay_there(tmp_path: Path) -> None:
    where = python("import os; print(os.getcwd()); print(os.environ['TRITON_CACHE_DIR'])")
    run(tmp_path, "where", parts={"where": Part("where", 20, where)})
    assert packed(tmp_path)["where.log"] == "TREE\nWORK/triton-cache\n"


def test_a_stale_or_foreign_module_is_named(tmp_path: Path) -> None:
    prepared, module = tmp_path / "prepared", tmp_path / "module"
    prepared.mkdir()
    module.write_bytes(b"not really one")
    archive.compress([(package.MODULE, module)], prepared / "module.tar.xz")
    _, content = run(tmp_path, "talks")
    assert any("STALE MODULE" in note for note in content["notes"])
    archive.compress([("_C.cpython-27-other.so", module)], prepared / "module.tar.xz")
    _, content = run(tmp_path, "talks")
    assert any("another version of Python" in note for note in content["notes"])
    module.write_bytes(os.urandom(100_000))
    for name in ("module.tar.xz", "triton-cache.tar.xz"):
        archive.compress([(package.MODULE, module)], prepared / name)
        whole = (prepared / name).read_bytes()
        for damaged in (b"broken", whole[: len(whole) // 2], whole[:-20] + 20 * b"x"):
            (prepared / name).write_bytes(damaged)
            _, content = run(tmp_path, "talks")
            assert any("could not be prepared" in note for note in content["notes"]), (name, content["notes"])
            assert results(content) == {"talks": "ok"}
    shutil.rmtree(prepared)
    _, content = run(tmp_path, "talks")
    assert content["notes"] == ["there is no prepared folder prepared: `make lease` makes it"]
