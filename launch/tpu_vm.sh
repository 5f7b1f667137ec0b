#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU VM. Where it is not there yet it is asked for as a queued
# resource; after a pre-emption the same command goes on, from what is saved in --workdir.
#
#   launch/tpu_vm.sh [--dry-run] NAME ZONE TYPE RUNTIME OPTION…
#   launch/tpu_vm.sh lab us-west4-a v5litepod-16 v2-alpha-tpuv5-lite \
#     --config=configs/mvtec.py --workdir=gs://BUCKET/run --config.dtype=bfloat16
#
# SPOT=1 asks for one that may be taken away, DIRECTORY is that of the code on each worker.
set -euo pipefail

say() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
run() { if [[ $dry ]]; then printf '%q ' "$@"; echo; else "$@"; fi; }

dry=""
[[ ${1-} == --dry-run ]] && dry=1 && shift
[[ $# -ge 5 && $5 == --* ]] || say
name=$1 zone=$2 type=$3 runtime=$4
shift 4
directory=${DIRECTORY:-stlm_jax}
tpu=(gcloud compute tpus)
spot=()
[[ ${SPOT-} ]] && spot=(--spot)

found() { "${tpu[@]}" tpu-vm describe "$name" --zone="$zone" --format="value(state)" 2>/dev/null; }
state=""
[[ $dry ]] || state=$(found || true)
if [[ $state == PREEMPTED ]]; then
  run "${tpu[@]}" queued-resources delete "$name" --zone="$zone" --force --quiet
  state=""
fi
if [[ -z $state ]]; then
  run "${tpu[@]}" queued-resources create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type="$type" --runtime-version="$runtime" "${spot[@]}"
  until [[ $dry || $(found || true) == READY ]]; do sleep 30; done
fi

# What git knows of, as a worker has no use for .venv and runs.
code=$(mktemp -d)/code.tar.gz
run git archive --format=tar.gz --output="$code" HEAD
run "${tpu[@]}" tpu-vm scp "$code" "$name:code.tar.gz" --zone="$zone" --worker=all
printf -v options '%q ' "$@"
run "${tpu[@]}" tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -e; mkdir -p $directory; tar xzf code.tar.gz -C $directory; cd $directory
  test -d .venv || python3 -m venv .venv
  .venv/bin/python -m pip install -q -c constraints.txt -e '.[tpu,gcs,convert]'
  exec .venv/bin/python -m stlm_jax.main $options"
