"""CONTRIBUTING.md as data: the files that a recipe writes, and a copy of the tree in which it can be followed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from fastbound import _C

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
# What `lint-imports` runs, for `Tree.python`.
LINT_IMPORTS = ("-c", "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))")


def section(heading: str) -> str | None:
    """The text under ``## heading``, or None if the page has no such heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return None if found is None else found[1]


def files(heading: str, first: str = "") -> dict[str, str]:
    """The files that a recipe writes, by path: a line ``# path/to/file.py`` in its indented blocks begins a file.

    Code without such a line before it goes to the file ``first``.
    """
    text = section(heading)
    assert text is not None, f"CONTRIBUTING.md has no section {heading!r}"
    code = textwrap.dedent("".join(re.findall(r"^(?:    .*)?\n", text, re.M)))
    parts = [first, *re.split(r"^# ([\w/]+\.\w+)\n", code, flags=re.M)]
    return {path: f"{source.strip()}\n" for path, source in zip(parts[::2], parts[1::2]) if source.strip()}


class Tree:
    """A copy of the tree, the installed kernels in their place, whose ``fastbound`` its programs import."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        for folder, place in (("fastbound", "fastbound"), ("kernels", "fastbound/kernels"), ("docs", "docs")):
            shutil.copytree(ROOT / folder, root / place, ignore=ignored)
        shutil.copytree(ROOT / "tests", root / "tests", ignore=ignored)
        for page in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / page, root)
        (root / "fastbound" / Path(_C.__file__).name).symlink_to(_C.__file__)

    def write(self, path: str, text: str) -> None:
        """A new file, or more at the end of one that is there."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        with open(self.root / path, "a", encoding="utf-8") as file:
            file.write(text)

    def follow(self, heading: str, first: str = "") -> None:
        """Write the files of a recipe of the page; ``first`` as for `files`."""
        for path, text in files(heading, first).items():
            self.write(path, text)

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``python *arguments`` in the tree, with `variables`; ``stdout`` has its output, errors included."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (self.root, self.root / "tests"))),
                "OMP_NUM_THREADS": "1",
                "COLUMNS": "200",
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
