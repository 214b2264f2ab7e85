"""fastbound info."""

from __future__ import annotations


def info() -> None:
    """Show versions, and which backend serves which operator."""
    import torch

    from fastbound.backends import show_config
    from fastbound.version import __version__

    print(f"fastbound {__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    show_config()
