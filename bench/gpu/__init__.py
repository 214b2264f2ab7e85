"""The speed suite for a GPU: `run.sh` runs all of it, each module alone is `python -m bench.gpu.<name> --help`.

Every driver takes `--device cpu --small` too: that measures nothing worth keeping, but runs every line.
"""
