"""Triton kernels, one stem a file; installed as `fastbound.kernels`. Imported only where Triton is installed."""
