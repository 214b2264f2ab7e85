"""Prepares all that a GPU machine without compilers and network needs besides the working tree; see `make lease`.

    python -m bench.gpu.prepare .lease [--images ARCHIVE --images-name NAME] [--cache DIR]

FOLDER receives the built module, a Triton cache of the kernels that the suite and the tests launch, the archive of
images, and prepared.json, which names the sources of all these. Run it with the version of Python, of torch and of
Triton that the other machine has.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.gpu import archive, package

LARGEST = 60 * 2**20  # bytes of the whole folder: what can be carried along with a working tree
PACKED = ("module.tar.xz", "triton-cache.tar.xz", "images.tar.xz")


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--images", type=Path, help="archive with train/<class>/<image> and test/<class>/<image>")
    options.add_argument("--images-name", default="images", help="their name in the results")
    options.add_argument("--cache", type=Path, default=Path("build/lease/triton-cache"), help="kept for the next call")
    options.add_argument("--card", default="sm_90", help="to compile the kernels for")
    options.add_argument("--without-cuda", action="store_true", help="accept a module that was built without CUDA")
    options.add_argument("--few-kernels", action="store_true", help="only those that the suite itself launches")
    chosen = options.parse_args(arguments)
    if chosen.images is not None and not chosen.images.is_file():
        options.error(f"--images: there is no file {chosen.images}")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for name in (*PACKED, "prepared.json"):
        (chosen.folder / name).unlink(missing_ok=True)
    module = package.ROOT / "fastbound" / package.MODULE
    if not module.exists():
        options.error(f"{module} is not built; `python setup.py build_ext --inplace` builds it")
    archs = _cuda_archs(module)
    if not any(arch.startswith(chosen.card.removeprefix("sm_")) for arch in archs) and not chosen.without_cuda:
        has = f"has code for {', '.join(archs)}" if archs else "was built without CUDA"
        options.error(f"{module} {has}, not for {chosen.card}; --without-cuda takes it, for a rehearsal")
    archive.compress([(package.MODULE, module)], chosen.folder / "module.tar.xz")
    kernels = _triton_cache(module, chosen)
    if chosen.images is not None:
        shutil.copyfile(chosen.images, chosen.folder / "images.tar.xz")
    about = {
        "python": platform.python_version(),
        "torch": package.version("torch"),
        "triton": package.version("triton"),
        "commit": package.commit(package.ROOT),
        "sources": package.fingerprint(package.ROOT),
        "built_from": package.fingerprint(package.ROOT, package.BUILT_FROM),
        "cuda_archs": archs,
        "card": chosen.card,
        "kernels": kernels,
        "images": chosen.images_name if chosen.images is not None else None,
    }
    (chosen.folder / "prepared.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return _say(chosen.folder, about)


def _cuda_archs(module: Path) -> list[str]:
    """The architectures that the built module has code for; empty if it was built without CUDA."""
    with tempfile.TemporaryDirectory() as site:
        package.link(package.ROOT, module, Path(site))
        script = "import json; from fastbound import _C; print(json.dumps(list(_C.cuda_archs) * _C.built_with_cuda))"
        return json.loads(_python(site, "-c", script))


def _python(site: str, *arguments: str, **variables: str) -> str:
    """The output of this interpreter with the package of `site` and `variables` in its environment."""
    path = {"PYTHONPATH": os.pathsep.join([site, str(package.ROOT)]), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **path, **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _triton_cache(module: Path, chosen: argparse.Namespace) -> int:
    """Compiles into the kept cache, packs it without the files that only compilers read, and counts the kernels."""
    if importlib.util.find_spec("triton") is None:
        print("Triton is not installed: no kernel was compiled", flush=True)
        return 0
    cache = chosen.cache.resolve()
    with tempfile.TemporaryDirectory() as site:
        package.link(package.ROOT, module, Path(site))
        command = ["-m", "bench.gpu.precompile", "--card", chosen.card, *["--few"] * chosen.few_kernels]
        print(_python(site, *command, TRITON_CACHE_DIR=str(cache), TRITON_STORE_BINARY_ONLY="1"), end="", flush=True)
    files = [path for path in cache.glob("*/*") if path.is_file() and path.suffix != ".source"]
    archive.compress([(str(path.relative_to(cache)), path) for path in files], chosen.folder / "triton-cache.tar.xz")
    return sum(path.suffix == ".cubin" for path in files)


def _say(folder: Path, about: dict[str, object]) -> int:
    sizes = {name: (folder / name).stat().st_size for name in PACKED if (folder / name).exists()}
    for name, value in about.items():
        print(f"{name}: {value}")
    for name in PACKED:
        print(f"{name}: {sizes[name] / 2**20:.1f} MiB" if name in sizes else f"{name}: none")
    total = sum(sizes.values())
    print(f"{folder}: {total / 2**20:.1f} of {LARGEST / 2**20:.0f} MiB")
    if total > LARGEST:
        print(f"{folder} is larger than can be carried along", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
