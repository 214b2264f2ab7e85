"""A lease without a card: parts that fail in every way do not stop the others, and the whole order is rehearsed."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, find_shared_data

if not (ROOT / "bench" / "gpu").is_dir():
    pytest.skip("bench/ is not part of this checkout", allow_module_level=True)
if sys.version_info < (3, 11):
    pytest.skip("a lease needs Python 3.11", allow_module_level=True)

sys.path.insert(0, str(ROOT))

from PIL import Image

from bench.gpu import archive, images, lease, order, package, report
from bench.gpu.order import Part, Setting

SETTING = Setting(ROOT, Path("results"), Path("work"), "cuda", small=False)


def python(code: str) -> Callable[[Setting, float], list[str]]:
    return lambda setting, seconds: [sys.executable, "-c", code]


PARTS = {
    "talks": Part("talks", 20, python("print('first'); print('all is well')")),
    "raises": Part("raises", 20, python("raise RuntimeError('planted')")),
    "absent": Part("absent", 20, lambda setting, seconds: ["no-such-program"]),
    "missing": Part("missing", 20, lambda setting, seconds: [sys.executable, str(setting.work / "no-such-file.py")]),
    "cannot": Part("cannot", 20, lambda setting, seconds: "there is nothing to do it with"),
    "silent": Part("silent", 20, python("")),
    "hangs": Part("hangs", 2, python("import time; print('here', flush=True); time.sleep(600)")),
    "deaf": Part(
        "deaf",
        2,
        python(
            "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print(child.pid, flush=True); time.sleep(600)"
        ),
    ),
}


@pytest.fixture(autouse=True)
def short_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEAST_SECONDS", 1.0)


def run(tmp_path: Path, *names: str, options: tuple[str, ...] = (), parts: dict[str, Part] = PARTS) -> tuple[int, dict]:
    """The exit status of a lease of these parts, and its summary as data."""
    out, work = tmp_path / "out", tmp_path / "work"
    places = [str(out), "--work", str(work), "--prepared", str(tmp_path / "prepared"), "--device", "cpu"]
    status = lease.main([*places, *options], parts=[parts[name] for name in names])
    return status, json.loads((work / "results" / "lease.json").read_text())


def results(content: dict) -> dict[str, str]:
    return {entry["part"]: entry["result"] for entry in content["parts"]}


def packed(tmp_path: Path) -> dict[str, str]:
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar if member.isfile()}


# ---- the runner ------------------------------------------------------------------------------------------------------


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
    """Also a child of a part that hears no interrupt: nothing may run on the card beside the next part."""
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
        "from test_lease import PARTS; from bench.gpu import lease\n"
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
    """The parts that a call ran: those that stand in its summary anew, in their order."""
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
    # What the first call found stays in the archive, under its own commit.
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


# ---- the order -------------------------------------------------------------------------------------------------------


def test_boxes_fit_into_a_lease_and_a_rerun() -> None:
    routine = [part.seconds for part in order.PARTS if part.routine]
    assert 0.9 * order.LEASE_SECONDS < sum(routine) <= order.LEASE_SECONDS - lease.RESERVE_SECONDS - 10
    sanitizers = [part.seconds for part in order.PARTS if part.name.endswith("check")]
    assert len(sanitizers) == 2 and sum(sanitizers) <= order.RERUN_SECONDS - lease.RESERVE_SECONDS
    assert order.PARTS[0].name == "environment" and [part for part in order.PARTS if part.routine][-1].takes_rest


@pytest.mark.slow
def test_every_gpu_test_belongs_to_one_part() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    collected = {line.partition("::")[0].removeprefix("tests/") for line in listed if "::" in line}
    assert {"test_contract.py", "test_native.py", *order.NETWORK_TESTS} <= collected
    commands = {part.name: part.command(SETTING, 60) for part in order.PARTS if part.name.startswith("tests")}
    chosen = [Path(word).name for command in commands.values() for word in command if word.endswith(".py")]
    assert len(chosen) == len(set(chosen)) and collected <= set(chosen)


def test_a_test_that_hangs_in_the_driver_is_named_and_the_others_run(tmp_path: Path) -> None:
    """In a call that hears no signal, as a wait for the card is one, and with the options that the parts have."""
    file = tmp_path / "test_hangs.py"
    file.write_text(
        "import ctypes\n"
        "def test_in_c():\n    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "    for _ in range(2):\n        libc.pthread_mutex_lock(mutex)\n"
        + "".join(f"def test_{n}():\n    pass\n" for n in range(8))
    )
    part = next(part for part in order.PARTS if part.name == "tests-kernels").command(SETTING, 12)
    options = part[part.index("--timeout") : part.index("-o")]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", *options, str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "test_in_c" in done.stdout and "1 failed, 8 passed" in done.stdout, done.stdout


# ---- what travels ----------------------------------------------------------------------------------------------------


def test_long_logs_are_shortened_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST_LOG", 1000)
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "long.log").write_text("begin" + 9000 * "." + "the end")
    (folder / "a.json").write_text("{}")
    archive.pack(folder, tmp_path / "packed.tar.gz", {})
    with tarfile.open(tmp_path / "packed.tar.gz") as tar:
        text = tar.extractfile("long.log").read().decode()
    assert text.startswith("begin") and text.endswith("the end") and "8012 bytes left out" in text
    monkeypatch.setattr(archive, "LARGEST_ARCHIVE", 500)
    archive.pack(folder, tmp_path / "packed.tar.gz", {})
    with tarfile.open(tmp_path / "packed.tar.gz") as tar:
        assert tar.extractfile("left_out.txt").read() == b"long.log" and "a.json" in tar.getnames()


def test_a_triton_cache_works_where_it_is_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "KEY"
    folder.mkdir(parents=True)
    (folder / "kernel.cubin").write_bytes(b"code")
    (folder / "__grp__kernel.json").write_text(
        json.dumps({"child_paths": {"kernel.cubin": str(folder / "kernel.cubin"), "kernel.ptx": str(folder / "x.ptx")}})
    )
    files = [(str(path.relative_to(tmp_path / "made")), path) for path in folder.iterdir()]
    archive.compress(files, tmp_path / "cache.tar.xz")
    shutil.rmtree(tmp_path / "made")
    archive.unpack_triton_cache(tmp_path / "cache.tar.xz", tmp_path / "there")
    paths = json.loads((tmp_path / "there" / "KEY" / "__grp__kernel.json").read_text())["child_paths"]
    assert paths == {"kernel.cubin": str(tmp_path / "there" / "KEY" / "kernel.cubin")}, "what stayed behind is a miss"
    assert Path(paths["kernel.cubin"]).read_bytes() == b"code"


def make_archive(path: Path, names: list[str], size: int = 32) -> dict[str, np.ndarray]:
    """An archive of PNG images under `names`, and their pixels [H, W, 3]."""
    generator, pixels = np.random.default_rng(0), {}
    with tarfile.open(path, "w:xz") as tar:
        for name in names:
            pixels[name] = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels[name]).save(file, "PNG")
            entry = tarfile.TarInfo(name)
            entry.size = file.tell()
            file.seek(0)
            tar.addfile(entry, file)
    return pixels


def test_an_archive_of_images_becomes_binary_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{split}/{name}/{n}.png" for split, name in (("train", "cat"), ("train", "dog")) for n in range(5)]
    names += ["test/cat/1.png", "test/dog/2.png"]
    pixels = make_archive(tmp_path / "images.tar.xz", names)
    assert images.main([str(tmp_path / "images.tar.xz"), str(tmp_path / "out"), "--processes", "2"]) == 0
    assert "10 train images, 2 test images" in capsys.readouterr().out
    folder = tmp_path / "out" / "cifar-10-batches-bin"
    rows = {
        split: np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in files])
        for split, files in images.FILES.items()
    }
    for name, wanted in pixels.items():
        split, label, _ = name.split("/")
        record = np.concatenate([[["cat", "dog"].index(label)], wanted.transpose(2, 0, 1).reshape(-1)])
        assert (rows[split] == record).all(1).sum() == 1, name
    assert len(rows["train"]) == 10 and list(rows["train"][:, 0]) != sorted(rows["train"][:, 0]), "not shuffled"
    assert images.main(["--check", str(tmp_path / "out")]) == 0 and images.main(["--check", str(tmp_path)]) == 1


def test_other_archives_are_refused(tmp_path: Path) -> None:
    make_archive(tmp_path / "flat.tar.xz", ["1.png"])
    with pytest.raises(ValueError, match=r"wanted train/<class>/<image> and test/<class>/<image>, got 1.png"):
        images.unpack(tmp_path / "flat.tar.xz", tmp_path / "out")
    make_archive(tmp_path / "large.tar.xz", ["train/cat/1.png"], size=40)
    with pytest.raises(ValueError, match=r"train/cat/1.png: wanted 32 x 32 pixels, got 40 x 40"):
        images.unpack(tmp_path / "large.tar.xz", tmp_path / "out")
    make_archive(tmp_path / "half.tar.xz", ["train/cat/1.png"])
    with pytest.raises(ValueError, match=r"no image in test/<class>/"):
        images.unpack(tmp_path / "half.tar.xz", tmp_path / "out")


def test_a_fingerprint_sees_sources_and_nothing_else(tmp_path: Path) -> None:
    for name in ("csrc/a.cpp", "fastbound/b.py", "bench/results/old.json", "fastbound/_C.x.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = package.fingerprint(tmp_path), package.fingerprint(tmp_path, package.BUILT_FROM)
    (tmp_path / "bench/results/old.json").write_text("2")
    (tmp_path / "fastbound/_C.x.so").write_text("2")
    assert before == (package.fingerprint(tmp_path), package.fingerprint(tmp_path, package.BUILT_FROM))
    (tmp_path / "fastbound/b.py").write_text("2")
    after = package.fingerprint(tmp_path), package.fingerprint(tmp_path, package.BUILT_FROM)
    assert after[0] != before[0] and after[1] == before[1]
    (tmp_path / "csrc/a.cpp").rename(tmp_path / "csrc/c.cpp")
    assert package.fingerprint(tmp_path, package.BUILT_FROM) != before[1]


# ---- what comes back -------------------------------------------------------------------------------------------------


def brought_back(folder: Path, gpu: str | None, started: str = "2026-01-31T10:00:00+00:00") -> Path:
    """The OUT of a lease with a table of each part."""
    made, out = folder / "made", folder / "out"
    made.mkdir(parents=True)
    out.mkdir()
    part = {"part": "steps", "result": "ok", "seconds": 51.23, "box": 60, "summary": "ibp 1.9 ms", "commit": "abc"}
    device = "cuda" if gpu else "cpu"
    rest = {"commit": "abc", "small": gpu is None, "rerun": False, "seconds": 580.0, "of": 590, "notes": ["a note"]}
    contents = {
        "lease": {"started": started, "device": device, **rest, "parts": [part]},
        "environment": {"machine": {"gpu": gpu, "cuda": "13.0", "cudnn": 9}, "packages": {"torch": "2.11.0"}},
        "steps": {
            "rows": [{"network": "cnn7", "batch": 128, "step": "ibp", "mode": "captured", "ms": 1.918}],
            "replays": {"ibp": [{"kernel": f"kernel {n}", "launches": 1, "us": 9.5, "share": 0.1} for n in range(30)]},
        },
        "recipe": {"rows": [{"config": "c", "data": "CIFAR-10 (JPEG)", "epochs": "160 of 160", "wall s": 119.5}]},
    }
    for name, content in contents.items():
        (made / f"{name}.json").write_text(json.dumps(content))
    (made / "steps.log").write_text("a log")
    archive.pack(made, out / "results.tar.gz", {})
    return out


def test_results_are_kept_and_the_page_is_written_from_them(tmp_path: Path) -> None:
    kept, page = tmp_path / "results", tmp_path / "gpu.md"
    places = ["--results", str(kept), "--page", str(page)]
    assert report.main([str(brought_back(tmp_path / "1", "NVIDIA H100 80GB HBM3")), *places]) == 0
    folder = kept / "2026-01-31-h100"
    assert {path.name for path in folder.iterdir()} == {
        *("lease.json", "environment.json", "steps.json", "recipe.json", "steps.log")
    }
    text = page.read_text()
    for wanted in ("## NVIDIA H100 80GB HBM3, 2026-01-31", "Commit abc; torch 2.11.0, CUDA 13.0, cuDNN 9", "a note"):
        assert wanted in text
    assert "| steps | ok | 51.23 | ibp 1.9 ms |" in text and "| 1.918 |" in text and "CIFAR-10 (JPEG)" in text
    assert "The 20 most expensive of 30 kernels" in text and "kernel 19" in text and "kernel 20" not in text
    # The same card on the same day, another card, an earlier day.
    for index, gpu, started, wanted in (
        (2, "NVIDIA H100 80GB HBM3", "2026-01-31T12:00", "2026-01-31-h100-2"),
        (3, "NVIDIA GeForce RTX 4090", "2026-02-01T12:00", "2026-02-01-rtx-4090"),
        (4, None, "2026-02-02T12:00", "2026-02-02-rehearsal"),
    ):
        packed = brought_back(tmp_path / str(index), gpu, started) / "results.tar.gz"
        assert report.main([str(packed), *places]) == 0 and (kept / wanted).is_dir()
    text = page.read_text()
    assert text.count("## NVIDIA H100") == 1 and "## NVIDIA GeForce RTX 4090" in text
    assert "Earlier leases: 2026-01-31-h100." in text
    rehearsal = text[text.index("## Rehearsal on a processor") :]
    assert "**Not a measurement**" in rehearsal[:200]


def test_the_page_is_what_the_results_say() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert page == report.page(ROOT / "bench" / "results"), "run `python -m bench.gpu.report`"
    assert "rehearsal" not in page.lower(), "a rehearsal is no result"


def test_other_things_than_a_lease_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "gpu.md")]
    assert report.main([str(tmp_path / "nothing"), *places]) == 2
    assert "there is none" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    archive.pack(tmp_path / "empty", tmp_path / "x.tar.gz", {})
    assert report.main([str(tmp_path / "x.tar.gz"), *places]) == 2
    assert "found no lease.json" in capsys.readouterr().err
    whole = brought_back(tmp_path / "1", None) / "results.tar.gz"
    for damaged in (b"broken", whole.read_bytes()[:100]):
        (tmp_path / "y.tar.gz").write_bytes(damaged)
        assert report.main([str(tmp_path / "y.tar.gz"), *places]) == 2
        assert "y.tar.gz" in capsys.readouterr().err
    assert not (tmp_path / "gpu.md").exists() and not (tmp_path / "results").exists()


# ---- the rehearsal ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make lease` made, or the same with few kernels, and small images where there is no archive of them."""
    if "LEASE_PREPARED" in os.environ:
        return Path(os.environ["LEASE_PREPARED"])
    folder = tmp_path_factory.mktemp("prepared")
    found = find_shared_data("cifar10-jpeg.tar.xz")
    if found is None:
        found = folder / "few.tar.xz"
        make_archive(found, [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in "12"])
    target = folder / "lease"
    command = [sys.executable, "-m", "bench.gpu.prepare", str(target), "--few-kernels", "--cache", str(folder / "c")]
    done = subprocess.run(
        [*command, "--without-cuda", "--images", str(found)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def tree(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as it is carried to another machine: without its history, and ignored files but for .lease."""
    target = tmp_path_factory.mktemp("machine") / "fastbound"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this checkout has no history to tell its files by")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    shutil.copytree(prepared, target / ".lease")
    return target


def rehearse(tree: Path, out: Path, *options: str, path: str | None = None) -> tuple[str, dict, int]:
    """lease.sh in that tree with an empty environment: what it printed, its summary, its status."""
    environment = {"PATH": path or os.environ["PATH"], "HOME": str(out.parent), "PYTHON": sys.executable}
    command = [str(tree / "bench" / "gpu" / "lease.sh"), str(out), "--device", "cpu", "--small", *options]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True)
    with tarfile.open(out / "results.tar.gz") as tar:
        content = json.loads(tar.extractfile("lease.json").read())
    assert not done.stderr, done.stderr
    return done.stdout, content, done.returncode


@pytest.mark.slow
def test_the_whole_order_is_rehearsed(prepared: Path, tree: Path, tmp_path: Path) -> None:
    sizes = [path.stat().st_size for path in prepared.iterdir()]
    assert sum(sizes) < 60 * 2**20 and len(sizes) <= 8
    printed, content, status = rehearse(tree, tmp_path / "out")
    assert status == 0, printed
    assert printed.startswith("# Lease: all 9 parts ok") and "a rehearsal: no figure counts" in printed.splitlines()[0]
    assert list(results(content)) == [part.name for part in order.PARTS if part.routine]
    boxes = {part.name: part.seconds for part in order.PARTS}
    assert all(entry["seconds"] < boxes[entry["part"]] for entry in content["parts"]), content["parts"]
    assert not content["notes"] and content["commit"] not in ("unknown", None) and "changed" not in content["commit"]
    assert len(printed) < 12_000 and not list(tree.glob("fastbound/*.so")) and not (tree / "fastbound/kernels").exists()
    files = list((tmp_path / "out").iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 16 * 2**20 for file in files)
    places = ["--results", str(tmp_path / "results"), "--page", str(tmp_path / "gpu.md")]
    assert report.main([str(tmp_path / "out"), *places]) == 0
    (folder,) = (tmp_path / "results").iterdir()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["module"]["file"].startswith("WORK/site/fastbound/"), "another fastbound was measured"
    page = (tmp_path / "gpu.md").read_text()
    for title in ("Rehearsal on a processor", "Whole steps", "The recipe", "Convolutions", "Passes"):
        assert title in page


@pytest.mark.slow
def test_the_parts_on_request_are_rehearsed(tree: Path, tmp_path: Path) -> None:
    wanted = [part.name for part in order.PARTS if not part.routine]
    printed, content, status = rehearse(tree, tmp_path / "out", *(w for name in wanted for w in ("--only", name)))
    assert status == 0 and printed.startswith("# Lease: all 3 parts ok"), printed
    assert {name: results(content)[name] for name in wanted} == dict.fromkeys(wanted, "ok")


@pytest.mark.slow
def test_planted_faults_leave_the_other_parts_whole(tree: Path, tmp_path: Path) -> None:
    """No git, a broken archive of images, no Triton cache, a test that hangs beside a driver that is gone."""
    broken = tmp_path / "broken"
    shutil.copytree(tree, broken)
    (broken / ".lease" / "images.tar.xz").write_bytes(b"broken")
    (broken / ".lease" / "triton-cache.tar.xz").unlink()
    (broken / "bench" / "gpu" / "convolutions.py").unlink()
    (broken / "tests" / "test_capture.py").write_text(
        "import time\nimport pytest\npytest.mark.gpu\n"
        "def test_mlp_hangs():\n    time.sleep(600)\ndef test_mlp_runs():\n    pass\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "cc", "as", "ld"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    printed, content, status = rehearse(broken, tmp_path / "out", path=str(tools))
    assert status == 1
    bad = {name for name, result in results(content).items() if result != "ok"}
    assert bad == {"images", "tests-networks", "convolutions"}, printed
    assert results(content)["tests-networks"] == "FAILED" and "test_mlp_hangs" in printed
    assert "1 failed, " in printed, "the other tests of the part did not run"
    assert printed.startswith("# Lease: 3 of 9 parts not ok")
    assert "No module named bench.gpu.convolutions" in printed
    assert "changed since" in content["commit"]


@pytest.mark.slow
def test_no_prepared_kernel_is_compiled_again(prepared: Path, tmp_path: Path) -> None:
    """In another folder than where they were made, as on another machine."""
    pytest.importorskip("triton", reason="Triton is not installed: no kernel was prepared")
    cache, site = tmp_path / "cache", tmp_path / "site"
    archive.unpack_triton_cache(prepared / "triton-cache.tar.xz", cache)
    package.link(ROOT, ROOT / "fastbound" / package.MODULE, site)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")}
    assert len(before) >= 20
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}:{ROOT}",
        "PYTHONSAFEPATH": "1",
        "TRITON_CACHE_DIR": str(cache),
        "TRITON_STORE_BINARY_ONLY": "1",
    }
    command = [sys.executable, "-m", "bench.gpu.precompile", "--few"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")}
    assert after and after.items() <= before.items(), "a kernel was compiled again"
