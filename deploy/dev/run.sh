#!/usr/bin/env bash
# What `make run` does: a containerd if there is none, then the node in the foreground, its state thrown away at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/dev/containerd.sh

trap stop_containerd EXIT
trap : INT TERM # Ctrl-C goes to the node; this script goes on to clean up after it
start_containerd
bin/palisade up --ephemeral "$@"
