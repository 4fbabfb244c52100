#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, in one go: build for this device, tests, benchmarks, compute-sanitizer.
#   bash benchmarks/cuda_all.sh FOLDER [ARCHITECTURE]
# FOLDER gets logs, Markdown tables and figures as JSON; ARCHITECTURE is as in CMake, by default 90-real. It needs nvcc,
# cmake, and a Python with torch (CUDA), numpy, onnx, pytest, and for sessions onnxruntime-gpu; it installs nothing. A
# library with CUDA code that is there already is not built again. Takes under ten minutes, whatever happens: each part
# has a limit and the next one runs whatever becomes of it. The exit code is the number of parts that failed.
#   PARTS="tests cuda_decode"   runs only these: build tests cuda_decode cuda_packed models cuda_session sanitizer
#   MODELS=FOLDER               where the models for sessions lie or are made (benchmarks/cuda_models.py)
#   NETWORKS="minilm-x1"        which of them: NAME-xCOPIES each
set -u
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:?a folder for logs and tables}")
models=$(realpath -m "${MODELS:-$folder/models}")
networks=${NETWORKS:-minilm-x1 efficientnet_lite0-x1 minilm-x47}
architecture=${2:-90-real}
python=${PYTHON:-python3}
mkdir -p "$folder"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
failed=0

part() { # part NAME SECONDS COMMAND...: runs it under a limit, its output to NAME.log
  local name=$1 limit=$2 start=$SECONDS
  shift 2
  case " ${PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
  timeout -k 5 "$limit" "$@" >"$folder/$name.log" 2>&1
  local code=$?
  [ $code -eq 0 ] || failed=$((failed + 1))
  echo "== $name: exit $code after $((SECONDS - start)) s"
  tail -n "${TAIL:-4}" "$folder/$name.log"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no GPU that nvidia-smi knows"
build() {
  "$python" -c 'from runtime import gpu; raise SystemExit(not gpu.examine().built)' && echo "built already" && return
  cmake -S . -B build/cuda -DCMAKE_BUILD_TYPE=Release -DTOOLKIT_CUDA=ON \
    "-DTOOLKIT_CUDA_ARCHITECTURES=$architecture" &&
    cmake --build build/cuda -j "$(nproc)"
}
export -f build
export architecture python models networks folder
part build 140 bash -c build
part tests 90 "$python" -m pytest tests/cuda -q -rs -p no:cacheprovider
# Memory accesses of every kernel over the golden blobs, then races in shared memory over a few.
sanitize() {
  compute-sanitizer --tool memcheck --error-exitcode 9 "$python" -m pytest tests/cuda -q -x -p no:cacheprovider \
    -k "samples or malformed or packed or (products and matmul)" &&
    compute-sanitizer --tool racecheck --error-exitcode 9 "$python" -m pytest tests/cuda -q -x -p no:cacheprovider \
      -k "samples and (paired or buckets) and (both or wide)"
}
export -f sanitize
TAIL=80 part cuda_decode 90 "$python" -m benchmarks.cuda_decode --folder "$folder" --budget 70
TAIL=90 part cuda_packed 70 "$python" -m benchmarks.cuda_packed --folder "$folder"
make_models() {
  for network in $networks; do
    "$python" -m benchmarks.cuda_models "$models" --network "${network%-x*}" --copies "${network##*-x}" || return
  done
}
measure_sessions() {
  local pairs=()
  for network in $networks; do
    [ -e "$models/$network.compressed.onnx" ] && pairs+=("$models/$network".{float16,compressed}.onnx)
  done
  "$python" -m benchmarks.cuda_session ${pairs[@]+"${pairs[@]}"} --folder "$folder"
}
export -f make_models measure_sessions
part models 150 bash -c make_models
TAIL=40 part cuda_session 150 bash -c measure_sessions
part sanitizer 60 bash -c sanitize
for name in cuda_decode cuda_packed cuda_session; do # where there is a table, the log is the same
  [ -e "$folder/$name.md" ] && rm -f "$folder/$name.log"
done
echo "$failed parts failed; tables in $folder"
exit $failed
