"""Memory of the process."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next step instead of returning them to the operating system.

    Each training step on CPU frees the same large blocks and allocates them again. By default glibc returns them in
    between, and the next step pays with page faults for every byte it writes (10-30% of a step in measurements, in
    plain PyTorch as in fastbound). The setting affects the whole process, so fastbound makes it only in processes of
    its own: in ``fastbound train`` and ``fastbound bench``. Call it once at the start of your own training script.

    Returns:
        Whether the C library took the setting (glibc does; others return False).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
