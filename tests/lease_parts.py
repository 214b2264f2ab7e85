"""Parts of a lease that end in every way, a lease of them, and what it leaves.

Without the GPU suite, or the Python that it needs, the tests that import this are skipped.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

if not (ROOT / "bench" / "gpu").is_dir():
    pytest.skip("bench/ is not part of this checkout", allow_module_level=True)
if sys.version_info < (3, 11):
    pytest.skip("a lease needs Python 3.11", allow_module_level=True)

sys.path.insert(0, str(ROOT))

from PIL import Image

from bench.gpu import lease
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
