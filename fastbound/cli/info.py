"""fastbound info."""

from __future__ import annotations

import torch

from fastbound.backends import show_config
from fastbound.train.runs import version


def info() -> None:
    """Show versions, and which backend serves which operator."""
    print(f"fastbound {version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    show_config()
