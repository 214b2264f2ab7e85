"""Converts an archive of image files to the binary files of CIFAR-10, in several processes.

    python -m bench.gpu.images ARCHIVE OUT        the archive has train/<class>/<image> and test/<class>/<image>
    python -m bench.gpu.images --check OUT        counts what is there

Images are sorted by name and shuffled once, with a fixed seed: the same files from the same archive.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
FOLDER = "cifar-10-batches-bin"
FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
CHUNK = 1000
SEED = 0


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("archive", type=Path, nargs="?")
    options.add_argument("out", type=Path)
    options.add_argument("--check", action="store_true", help="only say what is in OUT")
    options.add_argument("--processes", type=int, default=1)
    chosen = options.parse_args(arguments)
    started = time.monotonic()
    if not chosen.check:
        if chosen.archive is None:
            options.error("name an archive, or give --check")
        unpack(chosen.archive, chosen.out, chosen.processes)
    counts = {split: count(chosen.out, split) for split in FILES}
    told = ", ".join(f"{number} {split} images" for split, number in counts.items())
    print(f"{told} in {time.monotonic() - started:.1f} s")
    return 0 if all(counts.values()) else 1


def unpack(archive: Path, out: Path, processes: int = 1) -> None:
    """Writes OUT/cifar-10-batches-bin. Raises ValueError if the archive holds anything but images of 32x32
    pixels in train/<class>/ and test/<class>/.
    """
    files = sorted(_members(archive))
    classes = sorted({name.split("/")[1] for name, _ in files})
    target = out / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        for split, names in FILES.items():
            chosen = [(name, content) for name, content in files if name.startswith(f"{split}/")]
            if not chosen:
                raise ValueError(f"{archive}: no image in {split}/<class>/.")
            chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
            records = np.concatenate(list(pool.map(_records, chunks, [classes] * len(chunks))))
            records = records[np.random.default_rng(SEED).permutation(len(records))]
            for name, part in zip(names, np.array_split(records, len(names)), strict=True):
                part.tofile(target / name)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isfile():
                if name.count("/") != 2:
                    raise ValueError(f"{archive}: wanted train/<class>/<image> and test/<class>/<image>, got {name}.")
                content = tar.extractfile(member)
                assert content is not None
                yield name, content.read()


def _records(images: Iterable[tuple[str, bytes]], classes: list[str]) -> np.ndarray:
    """A label byte and 3 x 32 x 32 pixel bytes for each image [N, 3073]."""
    rows = []
    for name, content in images:
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        if pixels.shape != (SIDE, SIDE, 3):
            raise ValueError(f"{name}: wanted {SIDE} x {SIDE} pixels, got {pixels.shape[1]} x {pixels.shape[0]}.")
        label = np.array([classes.index(name.split("/")[1])], np.uint8)
        rows.append(np.concatenate([label, pixels.transpose(2, 0, 1).reshape(-1)]))
    return np.stack(rows)


def count(out: Path, split: str) -> int:
    """How many images the binary files of a split hold."""
    record = 1 + 3 * SIDE * SIDE
    paths = [out / FOLDER / name for name in FILES[split]]
    return sum(path.stat().st_size // record for path in paths if path.exists())


if __name__ == "__main__":
    sys.exit(main())
