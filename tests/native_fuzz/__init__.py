"""Random calls of every pass of fastbound._C and of every primitive, and what must come of them.

`calls` draws those that must be accepted, `breaks` spoils them, `verdicts` runs and judges both, `operators` does the
same for `fastbound.ops`. Everything follows from a seed and a number of the call.
"""
