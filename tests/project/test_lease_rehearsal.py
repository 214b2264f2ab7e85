"""The whole order of a lease, rehearsed on the processor in a tree as it is carried to another machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT, find_shared_data
from lease_parts import make_archive, results

from bench.gpu import archive, order, package, report


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make lease`, or one with few kernels, and with small images if there is no archive of them."""
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
    """No git, a broken archive of images, no Triton cache, a test that hangs, and a driver that is missing."""
    broken = tmp_path / "broken"
    shutil.copytree(tree, broken)
    (broken / ".lease" / "images.tar.xz").write_bytes(b"broken")
    (broken / ".lease" / "triton-cache.tar.xz").unlink()
    (broken / "bench" / "gpu" / "convolutions.py").unlink()
    (broken / "tests" / "train" / "test_capture.py").write_text(
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
    """Even in another folder than the one where they were compiled, as on another machine."""
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
