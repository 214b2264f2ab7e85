"""The order of a short lease: its parts, the time box of each, and the command that it runs.

Boxes add up to less than `LEASE_SECONDS`; time that is left over goes to the last part. Parts that are not `routine`
run on request (`--only`), and in a rerun after those that failed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Out of fifteen minutes on a card, start included, these leave enough to start a second machine for a rerun.
LEASE_SECONDS, RERUN_SECONDS = 560, 150
# Taken off a driver's time for its start and for writing its files; a training run also writes a checkpoint.
START_AND_END, START_AND_CHECKPOINT = 16, 20
PROCESSES = min(14, os.cpu_count() or 1)

STEPS = ("natural", "ibp", "short-warmup")
PASSES = ("*_norm_relu*, native", "crown_relu*, native", "crown_concretize*, native", "interval_margin*, native")
TUNED = ("interval_product/bf16/wide", "interval_weight_gradient/bf16/wide")
# Tests of whole networks, graphs, memory and processes: few can share the card. All other GPU tests are small.
NETWORK_TESTS = ("test_capture.py", "test_gpu_networks.py")
# A few tests of each, for a rehearsal on a processor.
REHEARSED = {"tests-networks": "mlp or refused or captured", "tests-kernels": "interval_linear and plain"}


@dataclass(frozen=True)
class Setting:
    """The settings that all parts share. `results`: folder for their files; `data`: folder with the images, or None."""

    tree: Path
    results: Path
    work: Path
    device: str
    small: bool
    rerun: bool = False
    archive: Path | None = None
    data: Path | None = None
    data_name: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


@dataclass(frozen=True)
class Part:
    """`command(setting, seconds)` returns the command to run in `seconds`, or a sentence that says why it cannot.

    `needs`: parts whose folder of that name it reads. `takes_rest`: as the last part it may use all the time left.
    """

    name: str
    seconds: int
    command: Callable[[Setting, float], list[str] | str]
    routine: bool = True
    needs: tuple[str, ...] = ()
    takes_rest: bool = False


def driver(
    module: str, *options: str, name: str | None = None, off: float = START_AND_END
) -> Callable[[Setting, float], list[str]]:
    """The command of a module of this suite, which stops measuring `off` seconds before the end of its box."""

    def command(setting: Setting, seconds: float) -> list[str]:
        common = ["--device", setting.device, "--seconds", f"{max(5.0, seconds - off):.0f}"]
        small = ["--small"] * setting.small
        named = ["--name", name] if name else []
        return [*_module(module), str(setting.results), *common, *small, *named, *options]

    return command


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"bench.gpu.{name}"]


def _only(patterns: tuple[str, ...]) -> list[str]:
    return [word for pattern in patterns for word in ("--only", pattern)]


def _images(setting: Setting, seconds: float) -> list[str] | str:
    if setting.data is None:
        return "no archive of images was prepared, and there is no --data-dir"
    if setting.archive is None:
        return [*_module("images"), "--check", str(setting.data)]
    return [*_module("images"), str(setting.archive), str(setting.data), "--processes", str(PROCESSES)]


def _steps(setting: Setting, seconds: float) -> list[str]:
    network = "cnn7" if setting.small else "cnn7-width64, batch 128"
    options = [f"{network}, {step}, automatic, *" for step in STEPS]
    rounds = ["--rounds", "5"] if setting.small else []
    replay = ["--replay", f"{network}, short-warmup, automatic, bf16"]
    return driver("steps", "--ceilings", *replay, *rounds, *_only(tuple(options)))(setting, seconds)


def _recipe(name: str, *options: str) -> Callable[[Setting, float], list[str] | str]:
    def command(setting: Setting, seconds: float) -> list[str] | str:
        if setting.data is None and not setting.small:
            return "there are no images to train on"
        data = [] if setting.data is None else ["--data-dir", str(setting.data)]
        named = ["--data-name", setting.data_name] if setting.data_name else []
        run = ["--run", str(setting.work / "runs" / name)]
        said = ("--precision", "bf16", *data, *named, *run, *options)
        return driver("recipe", *said, name=name, off=START_AND_CHECKPOINT)(setting, seconds)

    return command


def _whole_recipe(setting: Setting, seconds: float) -> list[str] | str:
    # The final attack takes longer on a trained network than on that of the short run.
    fits = max(1.0, 0.95 * (seconds - START_AND_CHECKPOINT))
    predicted = ["--predicted-by", str(setting.results / "recipe-short.json"), "--fits", f"{fits:.0f}"]
    return _recipe("recipe", *predicted, "--else-epochs", "20")(setting, seconds)


def _tests(name: str, files: Callable[[Path], list[Path]], processes: int) -> Callable[[Setting, float], list[str]]:
    def command(setting: Setting, seconds: float) -> list[str]:
        chosen = ["-m", "gpu"] if setting.on_gpu else ["-m", "not gpu and not slow and not cuda_on_cpu"]
        if not setting.on_gpu:
            chosen += ["-k", REHEARSED[name]]
        spread = ["-n", str(processes), "--dist", "worksteal"]
        again = ["--last-failed", "--last-failed-no-failures", "all"] if setting.rerun else []
        cache = ["-o", f"cache_dir={setting.work / 'pytest' / name}"]
        # A test that hangs, even inside a driver call, only ends its worker: it is named, and the others go on.
        limits = ["--timeout", f"{max(5.0, seconds / 2):.0f}", "--timeout-method", "thread"]
        told = ["--tb", "short", "-q", *cache, *map(str, files(setting.tree))]
        return [sys.executable, "-m", "pytest", *chosen, *spread, *again, *limits, *told]

    return command


def gpu_tests(tree: Path) -> list[Path]:
    """The files with GPU tests, marked there or by a decorator of a helper."""
    marked = ("mark.gpu", "@every_device", "@every_place")
    return [path for path in sorted((tree / "tests").rglob("test_*.py")) if any(m in path.read_text() for m in marked)]


def _network_tests(tree: Path) -> list[Path]:
    return [path for path in gpu_tests(tree) if path.name in NETWORK_TESTS]


def _kernel_tests(tree: Path) -> list[Path]:
    return [path for path in gpu_tests(tree) if path.name not in NETWORK_TESTS]


def _sanitizer(tool: str) -> Callable[[Setting, float], list[str]]:
    def command(setting: Setting, seconds: float) -> list[str]:
        launches = [*_module("launches"), "--device", setting.device, "--backend", "native", "--dtype", "float32"]
        if not setting.on_gpu:
            return [*launches, "--limit", "1"]
        # Each tensor gets its own allocation; otherwise an access past the end of one would hit the next.
        uncached = ["env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1"]
        watched = [_sanitizer_path(), "--tool", tool, "--target-processes", "all", "--error-exitcode", "9"]
        return [*uncached, *watched, *launches]

    return command


def _sanitizer_path() -> str:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or f"{home}/bin/compute-sanitizer"


def _tune(setting: Setting, seconds: float) -> list[str]:
    asked = ["--seconds", f"{max(5.0, seconds - START_AND_END):.0f}", *_only(TUNED)]
    if not setting.on_gpu:
        return [*_module("tune"), "--dry-run", *asked[:-2]]
    return [*_module("tune"), "--out", str(setting.results / "tuned.json"), *asked]


PARTS = (
    Part("environment", 40, driver("environment")),  # the first import of torch on a machine reads 4 GB
    Part("images", 20, _images),
    Part("steps", 60, _steps),
    Part("recipe-short", 40, _recipe("recipe-short", "--epochs", "4"), needs=("images",)),
    Part("tests-networks", 60, _tests("tests-networks", _network_tests, min(4, PROCESSES))),
    Part("tests-kernels", 95, _tests("tests-kernels", _kernel_tests, PROCESSES)),
    Part("convolutions", 40, driver("convolutions")),
    Part("passes", 30, driver("kernels", "--rounds", "20", *_only(PASSES), name="passes")),
    Part("recipe", 155, _whole_recipe, needs=("images",), takes_rest=True),
    Part("memcheck", 65, _sanitizer("memcheck"), routine=False),
    Part("racecheck", 65, _sanitizer("racecheck"), routine=False),
    Part("tune", 130, _tune, routine=False),
)
