"""Makes `fastbound` importable from a working tree without installing it: links, a built module, a line of metadata.

For machines without compilers and network: the module was built elsewhere, for the same version of Python.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"  # the name that this interpreter looks for
# The sources of the module, and of all that runs or is measured: nothing else changes a figure.
BUILT_FROM = ("csrc", "CMakeLists.txt", "setup.py")
SOURCES = (*BUILT_FROM, "fastbound", "kernels", "bench", "tests")


def link(tree: Path, module: Path, site: Path) -> None:
    """Fills the folder `site` with the package and `module`; it comes before `tree` on PYTHONPATH."""
    import tomllib  # Python 3.11, which a lease needs anyway; the drivers alone do not

    shutil.rmtree(site, ignore_errors=True)
    package = site / "fastbound"
    package.mkdir(parents=True)
    for entry in sorted((tree / "fastbound").iterdir()):
        if entry.suffix != ".so" and entry.name not in ("__pycache__", "kernels"):
            (package / entry.name).symlink_to(entry.resolve())
    (package / "kernels").symlink_to((tree / "kernels").resolve())
    (package / MODULE).symlink_to(module.resolve())
    version = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    about = site / f"fastbound-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fastbound\nVersion: {version}\n", encoding="utf-8")


def fingerprint(tree: Path, parts: tuple[str, ...] = SOURCES) -> str:
    """A digest of the source files under `parts` of `tree`: equal for equal code."""
    digest = hashlib.sha256()
    for part in parts:
        for path in _files(tree / part):
            digest.update(f"{path.relative_to(tree)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def commit(tree: Path) -> str:
    """The commit of the tree by git, or "unknown" without git or a history."""
    try:
        command = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def version(name: str) -> str:
    """The version of an installed distribution, or "absent"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _files(path: Path) -> Iterator[Path]:
    """Source files only, without products of builds and runs and without committed results."""
    if path.is_file():
        yield path
    elif path.is_dir() and path.name not in ("__pycache__", "results"):
        for entry in sorted(path.iterdir()):
            if not entry.is_symlink() and entry.suffix not in (".so", ".new", ".pyc"):
                yield from _files(entry)
