"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

Threads = Annotated[int | None, typer.Option(help="Threads of PyTorch and the native code; PyTorch's own by default.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the files of the data set (digits needs none).")]


def parse_radius(text: str) -> float:
    """A number or a fraction such as 8/255."""
    parts = text.split("/")
    try:
        value = float(parts[0]) / float(parts[1]) if len(parts) == 2 else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"eps: wanted a number or a fraction such as 8/255, got {text!r}.") from None
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps: wanted a finite radius of at least 0, got {text!r}.")
    return value


def parse_epochs(text: str | None) -> tuple[float, ...] | None:
    """Epochs such as 50,60; None for None."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"milestones: wanted epochs such as 50,60, got {text!r}.") from None


def _parse_value(text: str) -> object:
    """The value of name=value: parsed if it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def assignments(texts: Sequence[str] | None, option: str) -> dict[str, object]:
    """The names and values in the name=value texts of `option`."""
    pairs = [text.partition("=") for text in texts or ()]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise ValueError(f"{option}: wanted name=value, got {name!r}.")
    return {name: _parse_value(value) for name, _, value in pairs}


def given(**options: object) -> dict[str, object]:
    """The options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def set_threads(count: int | None) -> None:
    """Gives PyTorch, and with it the native code, this many threads; None leaves them as they are."""
    if count is not None:
        if count < 1:
            raise ValueError(f"threads: wanted at least 1, got {count}.")
        import torch

        torch.set_num_threads(count)


def find_place(device: str | None) -> torch.device:
    """The device that the option names."""
    from fastbound.train.distributed import find_device

    return find_device(device or "auto")


def check_free(out: Path | None, names: Sequence[str], overwrite: bool) -> None:
    """Raises ValueError if files of ``names`` in the folder ``out`` would be replaced without ``overwrite``."""
    taken = [str(out / name) for name in names if out is not None and (out / name).exists()]
    if taken and not overwrite:
        raise ValueError(
            f"out: {', '.join(taken)} exists already; name another folder, or replace it with --overwrite."
        )
