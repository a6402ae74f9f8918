#!/usr/bin/env bash
# What `make bench-replay` does: a node and a containerd of its own in the tier that this kernel allows, containers with
# a mixed load, a recording of it; then the recording over and over through the pipeline on one processor.
#
# EVENTS is how many events are replayed, RECORDING a file to replay instead of making one.
set -euo pipefail
cd "$(dirname "$0")/../.."
source deploy/dev/containerd.sh

events=${EVENTS:-5000000}
recording=${RECORDING:-}
falco=${FALCO_RULES:-../shared/falco/falco_rules.yaml}
rules=()
[[ -r $falco ]] && rules=(--rules "$(realpath "$falco")")
directory=$(mktemp -d /run/palisade-bench-XXXXXX)
chmod 0711 "$directory"
trap 'rm -rf "$directory"' EXIT
containerd_socket=$directory/containerd/containerd.sock # never the host's
node_pid=

stop_all() {
	if [[ -n $node_pid ]]; then
		kill -INT "$node_pid" 2>/dev/null || true
		wait "$node_pid" 2>/dev/null || true
	fi
	ctr --address "$containerd_socket" --namespace palisade-bench images rm palisade.bench/shell:1 >/dev/null 2>&1 || true
	stop_containerd
	find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name palisade-bench -exec rmdir {} + || true # containerd's namespace
	rm -rf "$directory"
}

# load is what one container does: programs, files, directories, names, permissions, connections, and processes in the background.
load='
for tool in mkdir mv rm ln grep head md5sum uname; do busybox ln -s busybox /bin/$tool; done
i=0
while [ $i -lt 40 ]; do
	i=$((i + 1))
	mkdir -p /tmp/w/$i
	echo text >/tmp/w/$i/a && cp /tmp/w/$i/a /tmp/w/$i/b && mv /tmp/w/$i/b /tmp/w/$i/c && chmod 600 /tmp/w/$i/c
	for f in /etc/passwd /etc/group /etc/hostname /proc/self/status /proc/mounts; do cat $f >/dev/null 2>&1; done
	ls -la /bin >/dev/null
	ln -s a /tmp/w/$i/l
	(head -c 2000 /dev/zero | md5sum; id; uname -a) >/dev/null &
	nc -w 1 127.0.0.1 9 </dev/null >/dev/null 2>&1
	sh -c "sh -c \"grep root /etc/passwd\"" >/dev/null
	wait
	rm -r /tmp/w/$i
done
cat /etc/shadow >/dev/null 2>&1
'

record() {
	trap stop_all EXIT
	trap : INT TERM
	start_containerd
	local run=$directory/node
	bin/palisade up --ephemeral --run "$run" --containerd-socket "$containerd_socket" --nodes-listen 127.0.0.1:18084 \
		--people-listen 127.0.0.1:18083 "${rules[@]}" >"$directory/findings" 2>"$directory/up" &
	node_pid=$!
	for _ in $(seq 600); do
		grep -q 'Palisade is up' "$directory/up" && break
		kill -0 "$node_pid" 2>/dev/null || { cat "$directory/up" >&2; exit 1; }
		sleep 0.1
	done
	bin/palisade status --run "$run" collector | grep -i tier || true
	bin/tools/busyboximage palisade.bench/shell:1 | ctr --address "$containerd_socket" --namespace palisade-bench images import - >/dev/null
	bin/palisade record --run "$run" "$recording" --size 512 &
	local record_pid=$! round id job jobs
	sleep 1
	for round in 1 2 3 4 5 6; do
		jobs=()
		for id in a b c d; do
			ctr --address "$containerd_socket" --namespace palisade-bench run --rm --snapshotter native palisade.bench/shell:1 "bench-$round-$id" \
				/bin/sh -c "$load" &
			jobs+=($!)
		done
		for job in "${jobs[@]}"; do
			wait "$job" || true # the last file cannot be read by everybody
		done
	done
	sleep 2
	kill -INT "$record_pid"
	wait "$record_pid"
	kill -INT "$node_pid"
	wait "$node_pid" || true
	node_pid=
}

if [[ -z $recording ]]; then
	recording=bin/bench-replay.rec
	rm -f "$recording"
	record
fi
ls -l "$recording"
GOMAXPROCS=1 bin/palisade replay "$recording" --events "$events" "${rules[@]}" "$@"
