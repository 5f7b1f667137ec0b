#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that xpk made; each pod is a process of the run. Started
# again under another NAME it goes on, from what is saved in --workdir.
#
#   launch/xpk.sh [--dry-run] CLUSTER NAME TYPE OPTION…
#   launch/xpk.sh lab mvtec-1 v5litepod-16 --config=configs/mvtec.py --workdir=gs://BUCKET/run
#
# SLICES, 1, is how many; IMAGE, python:3.12, is built upon; XPK_OPTIONS are further ones of xpk,
# such as --spot or --zone=us-west4-a.
set -euo pipefail

say() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
run() { if [[ $dry ]]; then printf '%q ' "$@"; echo; else "$@"; fi; }

dry=""
[[ ${1-} == --dry-run ]] && dry=1 && shift
[[ $# -ge 4 && $4 == --* ]] || say
cluster=$1 name=$2 type=$3
shift 3
read -ra more <<<"${XPK_OPTIONS-}"
printf -v options '%q ' "$@"

# xpk copies the folder that it is called in into the image.
cd "$(dirname "$0")/.."
run xpk workload create --cluster="$cluster" --workload="$name" --tpu-type="$type" \
  --num-slices="${SLICES:-1}" --base-docker-image="${IMAGE:-python:3.12}" --script-dir=. \
  --max-restarts=10 "${more[@]}" --command="
  set -e
  python -m pip install -q -c constraints.txt -e '.[tpu,gcs,convert]'
  exec python -m stlm_jax.main $options"
