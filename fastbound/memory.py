"""Memory of the process."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library keep freed blocks for the next step instead of returning them to the operating system.

    A training step on CPU frees and takes again the same large blocks; by default glibc returns them, and each step
    pays for page faults on every byte it writes (10-30% of a step was measured, of an ordinary one as of ours). Acts on
    the whole process, so fastbound calls it only where the process is its own: in ``fastbound train`` and
    ``fastbound bench``. Call it once at the start of your own training script.

    Returns:
        Whether the C library took the setting (glibc does; others return False).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
