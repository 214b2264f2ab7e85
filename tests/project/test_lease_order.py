"""The order of a lease: boxes that fit, every test of a GPU in one part, and a test that hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from lease_parts import SETTING

from bench.gpu import lease, order


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
    collected = {Path(line.partition("::")[0]).name for line in listed if "::" in line}
    assert {"test_contract.py", "test_native_margin.py", *order.NETWORK_TESTS} <= collected
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
