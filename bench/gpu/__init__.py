"""The suite for a GPU: `lease.sh` runs all of it, in the order of `order`; each driver is `python -m bench.gpu.<name>`.

Every driver also takes `--device cpu --small`: the figures mean nothing, but every line runs.
"""
