"""Archives: the results of a lease, limited in size, and the files that `make lease` prepares for it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.gpu.summary import ends

# Small enough to be fetched from anywhere. Figures come first, so that only logs are left out.
LARGEST_ARCHIVE = 14 * 2**20  # bytes before compression
LARGEST_LOG = 400_000  # bytes, a fifth from its beginning
TEXTS = (".json", ".md", ".log")  # in the order of their importance
GROUP = "__grp__"  # prefix of the files in Triton's cache that list others by their absolute paths


def pack(folder: Path, target: Path, hidden: Mapping[str, str]) -> None:
    """The files of `folder` as a tar.gz, long logs shortened in the middle, moved into place when it is whole.

    `hidden`: paths of this machine and the words that replace them, because results are read and kept elsewhere.
    """
    left = LARGEST_ARCHIVE
    fresh = target.with_name(target.name + ".new")
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=_importance)
    missing = []
    with tarfile.open(fresh, "w:gz", compresslevel=6) as tar:
        for path in files:
            name = str(path.relative_to(folder))
            size = min(path.stat().st_size, LARGEST_LOG) if path.suffix == ".log" else path.stat().st_size
            if size > left:
                missing.append(name)
                continue
            content = _text(path, hidden) if path.suffix in TEXTS else path.read_bytes()
            left -= size
            _add(tar, name, content)
        if missing:
            _add(tar, "left_out.txt", "\n".join(missing).encode())
    os.replace(fresh, target)


def _importance(path: Path) -> tuple[int, int, str]:
    kind = TEXTS.index(path.suffix) if path.suffix in TEXTS else len(TEXTS)
    return kind, path.stat().st_size, path.name


def _text(path: Path, hidden: Mapping[str, str]) -> bytes:
    head, tail = (LARGEST_LOG // 5, LARGEST_LOG * 4 // 5) if path.suffix == ".log" else (LARGEST_ARCHIVE, 0)
    text = ends(path, head, tail)
    for private, public in hidden.items():
        text = text.replace(private, public)
    return text.encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def compress(files: Iterable[tuple[str, Path]], target: Path) -> None:
    """Files under the given names as a tar.xz; the same bytes for the same files."""
    with tarfile.open(target, "w:xz", preset=6) as tar:
        for name, path in sorted(files):
            _add(tar, name, path.read_bytes())


def unpack(source: Path, folder: Path) -> None:
    """The files of an archive into `folder`; never outside of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(source) as tar:
        tar.extractall(folder, filter="data")


def unpack_triton_cache(source: Path, cache: Path) -> None:
    """Unpacks a Triton cache that was filled elsewhere, and updates the paths in its lists."""
    cache.mkdir(parents=True, exist_ok=True)
    unpack(source, cache)
    for group in cache.glob(f"*/{GROUP}*"):
        names = json.loads(group.read_text(encoding="utf-8"))["child_paths"]
        paths = {name: str(group.parent / name) for name in names if (group.parent / name).exists()}
        group.write_text(json.dumps({"child_paths": paths}), encoding="utf-8")
