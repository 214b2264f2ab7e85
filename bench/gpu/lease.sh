#!/usr/bin/env bash
# Measures and tests fastbound on a GPU in one short lease of about ten minutes, and a rerun of two and a half.
#
#   bench/gpu/lease.sh OUT                     every routine part, in order, each within its time box
#   bench/gpu/lease.sh OUT --rerun             the parts that failed before, then the parts on request
#   bench/gpu/lease.sh OUT --only PART ...     some parts; --list names them; --help lists the other options
#
# Needs the working tree, the folder that `make lease` prepared (.lease) and, of the machine, Python 3.11 or newer with
# torch, triton, numpy and what fastbound and its tests depend on. Nothing is built, installed or downloaded. Where the
# module is built in the tree, or fastbound is installed, it runs without a prepared folder too.
# Nothing is printed before the end, and then the table first. OUT receives the same and one archive, which
# `python -m bench.gpu.report` reads. On a machine that has forgotten the first call, --rerun finds what failed in a
# results.tar.gz in .lease. PYTHON chooses the interpreter, python3 by default.
set -uo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
exec "${PYTHON:-python3}" -m bench.gpu.lease --caller "$caller" "$@"
