"""Launch configurations, keyed by card, kernel, precision and shape class. Nothing is tuned on import or in a call.

``sm_90.json`` holds the table of a card; each row has the times that `bench/gpu/tune.py` measured, or null if they are
not measured yet. A row may also say which of its launches are ``serialised`` (`_ahead_of_time`), and how many
candidates were ``left_out`` when it was measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from fastbound.errors import BackendError
from fastbound.kernels._precision import PRECISIONS

FOLDER = Path(__file__).parent
# The kernels, each with the precisions that it computes in.
KERNELS = {
    "interval_product": PRECISIONS,
    "rows_product": PRECISIONS,
    "interval_weight_gradient": PRECISIONS,
    "rows_weight_gradient": PRECISIONS,
    "power_linear": ("ieee",),
    "power_conv2d": ("ieee",),
}
SHAPE_CLASSES = ("narrow", "wide")
INTERPRETER = "interpreter"


@dataclass(frozen=True)
class Configuration:
    """Tile and launch options of a kernel: BLOCK_M output channels, BLOCK_P pixels, BLOCK_K input channels (in power
    iterations times their taps).

    ``part``: pixels that one program of a weight gradient sums up; the parts are added afterwards.
    """

    block_m: int
    block_p: int
    block_k: int
    num_warps: int
    num_stages: int
    part: int = 8192

    def tile(self) -> dict[str, int]:
        return {"BLOCK_M": self.block_m, "BLOCK_P": self.block_p, "BLOCK_K": self.block_k}

    def options(self) -> dict[str, Any]:
        """The launch options; multiplications and additions of index arithmetic and epilogue may fuse."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


# A program of the interpreter takes milliseconds whatever its tile, so tiles are large. A part ends inside a tile.
_INTERPRETED = Configuration(block_m=32, block_p=64, block_k=32, num_warps=4, num_stages=1, part=100)


def shape_class(features: int) -> str:
    """Class of a product by its output channels per group: a tile of 128 would be half empty below 65."""
    return "wide" if features > 64 else "narrow"


def row_keys() -> list[str]:
    """The keys of all rows that a table can have, in order."""
    return [f"{kernel}/{p}/{shape}" for kernel, known in KERNELS.items() for p in known for shape in SHAPE_CLASSES]


def configuration(card: str, kernel: str, precision: str, features: int) -> Configuration:
    """The row of the table. Raises BackendError if the card, or the shape class on it, has none."""
    if card == INTERPRETER:
        return _INTERPRETED
    key = f"{kernel}/{precision}/{shape_class(features)}"
    rows = table(card)
    if key not in rows:
        known = ", ".join(cards())
        raise BackendError(
            f"the Triton kernels have no configuration for {key} on {card} (cards with a table: {known}); write one "
            "with `python -m bench.gpu.tune`, or leave use_backend('triton')."
        )
    return Configuration(**rows[key]["configuration"])


def card_of(device: torch.device, interpreted: bool) -> str:
    """``sm_90`` for a card of compute capability 9.0."""
    return INTERPRETER if interpreted else _capability(device.index if device.index is not None else -1)


@cache
def _capability(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(None if index < 0 else index)
    return f"sm_{major}{minor}"


def cards() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("sm_*.json"))


@cache
def table(card: str) -> Mapping[str, Any]:
    """Rows of a card by key, with ``configuration``, ``measured`` (a mapping or null), and optional entries."""
    path = FOLDER / f"{card}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
