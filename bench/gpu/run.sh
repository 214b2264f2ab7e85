#!/usr/bin/env bash
# Everything that needs a GPU: builds, then tests, sanitizer, kernels, steps and recipe, none longer than nine minutes.
#
#   bench/gpu/run.sh OUT [--only tests|sanitizer|kernels|steps|recipe]... [--dry-run] [--data-dir DIR]
#
# OUT receives a log, a JSON file and a table of every part. --only takes some parts alone (repeat it), --dry-run lists
# what would run, --data-dir names the folder with the binary files of CIFAR-10, which the recipe needs. Nothing is
# downloaded. PYTHON chooses the interpreter, the one that has torch; python3 by default.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

readonly PARTS=(tests sanitizer kernels steps recipe)
python=${PYTHON:-python3}
out="" data_dir="" dry_run=false
only=()

usage() {
  sed -n '2,9s/^# \{0,1\}//p' bench/gpu/run.sh
}

fail() {
  echo "run.sh: $1" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --only)
      [[ " ${PARTS[*]} " == *" ${2-} "* ]] || fail "--only: wanted one of ${PARTS[*]}, got '${2-}'"
      only+=("$2")
      shift
      ;;
    --data-dir)
      [[ -n ${2-} ]] || fail "--data-dir: wanted a folder"
      data_dir=$2
      shift
      ;;
    --dry-run) dry_run=true ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*) fail "there is no option $1; see --help" ;;
    *)
      [[ -z $out ]] || fail "one folder OUT is enough, got $out and $1"
      out=$1
      ;;
  esac
  shift
done
[[ -n $out ]] || fail "name a folder OUT for the results; see --help"
((${#only[@]})) || only=("${PARTS[@]}")

failed=()

# step PART SECONDS COMMAND...: one command of a part, with its own guard on the time, into OUT/PART.log.
step() {
  local part=$1 seconds=$2
  shift 2
  printf '[%s, at most %s s] %s\n' "$part" "$seconds" "$*"
  $dry_run && return
  local status=0
  timeout --kill-after=15 "$seconds" "$@" 2>&1 | tee -a "$out/$part.log" || status=${PIPESTATUS[0]}
  if ((status)); then
    failed+=("$part (status $status$( ((status == 124)) && echo ', out of time'))")
  fi
  return "$status"
}

build() {
  # Without network: what a build needs (pybind11, cmake, ninja, setuptools) is there already.
  step build 500 env FASTBOUND_CUDA=on "$python" -m pip install --no-build-isolation --no-deps --editable .
}

run_tests() {
  step tests 530 "$python" -m pytest -m gpu -q tests
}

run_sanitizer() {
  # Each tensor its own allocation, or an access behind the end of one hits the next.
  local sanitizer=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --target-processes all --error-exitcode 9)
  local launches=("$python" -m bench.gpu.launches)
  if ! $dry_run && ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer was not found: the sanitizer part did NOT run" >&2
    failed+=("sanitizer (not found)")
    return
  fi
  step sanitizer 260 "${sanitizer[@]}" --tool memcheck "${launches[@]}"
  step sanitizer 260 "${sanitizer[@]}" --tool racecheck "${launches[@]}" --backend native
}

run_kernels() {
  step kernels 530 "$python" -m bench.gpu.kernels "$out"
}

run_steps() {
  step steps 530 "$python" -m bench.gpu.steps "$out"
}

run_recipe() {
  if [[ -z $data_dir ]] && ! $dry_run; then
    echo "recipe: did NOT run, there is no --data-dir" >&2
    failed+=("recipe (no --data-dir)")
    return
  fi
  step recipe 540 "$python" -m bench.gpu.recipe "$out" --data-dir "${data_dir:-DIR}"
}

$dry_run || mkdir -p "$out" || exit 2
if build; then
  for part in "${only[@]}"; do
    "run_$part"
  done
fi

$dry_run && exit 0
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}" | tee "$out/failed.txt"
  exit 1
fi
rm -f "$out/failed.txt"
echo "all parts passed: ${only[*]}"
