#!/usr/bin/env bash
# What `make bench` does after Go's own benchmarks: what a node costs programs on its host, against the same without it.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/dev/containerd.sh

trap stop_containerd EXIT
trap : INT TERM
start_containerd
bin/tools/overhead -palisade bin/palisade "$@"
