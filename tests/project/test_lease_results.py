"""The contents of a lease and its results: archives of logs, kernels and images, and the page written from them."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from lease_parts import make_archive

from bench.gpu import archive, images, package, report


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
    assert paths == {"kernel.cubin": str(tmp_path / "there" / "KEY" / "kernel.cubin")}, "a file left there is a miss"
    assert Path(paths["kernel.cubin"]).read_bytes() == b"code"


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
