"""The suite for a GPU: `lease.sh` runs all of it, in the order of `order`; each driver is `python -m bench.gpu.<name>`.

Every driver takes `--device cpu --small` too: that measures nothing worth keeping, but runs every line.
"""
