#!/usr/bin/env bash
# What `make loadtest` does: a throwaway node in a directory of its own, ghz against each of its sockets, and its end.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/dev/containerd.sh

run=/run/palisade-loadtest
up_pid=
finish() {
	if [[ -n $up_pid ]]; then
		kill -INT "$up_pid" 2>/dev/null || true
		wait "$up_pid" 2>/dev/null || true
	fi
	stop_containerd
}
trap finish EXIT
start_containerd
bin/palisade up --ephemeral --run "$run" --nodes-listen 127.0.0.1:18084 --people-listen 127.0.0.1:18083 >/dev/null &
up_pid=$!
for _ in $(seq 200); do
	if bin/palisade status --run "$run" >/dev/null 2>&1; then
		break
	fi
	kill -0 "$up_pid" # it may have refused to start
	sleep 0.1
done
bin/tools/loadtest -run "$run" -ghz bin/tools/ghz -protoset bin/palisade.protoset -cases loadtest/ghz "$@"
