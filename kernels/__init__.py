"""Triton kernels, one file per primitive; installed as `fastbound.kernels`. Imported only if Triton is installed.

All products of layers are two kernels (`_product`, `_weight_gradient`), which see a linear layer as a convolution of
maps of one pixel. Power iterations, of one sample, have their own (`_power`). The files of the primitives say which
maps go in and what comes out.
"""

from fastbound.kernels._precision import three_pass_tf32

__all__ = ["three_pass_tf32"]
