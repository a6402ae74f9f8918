# Sourced: start_containerd starts containerd on its usual socket if none answers there, with everything it writes in
# a directory of its own; stop_containerd ends that one, and no other, and removes what it left.
containerd_socket=/run/containerd/containerd.sock
containerd_pid=
containerd_home=
containerd_inode=

start_containerd() {
	if ctr --address "$containerd_socket" --timeout 2s version >/dev/null 2>&1; then
		return
	fi
	containerd_home=$(mktemp -d /var/tmp/palisade-containerd-XXXXXX)
	mkdir -p "${containerd_socket%/*}"
	chmod 0711 "${containerd_socket%/*}" # as containerd makes it when its state is there too
	cat >"$containerd_home/config.toml" <<-TOML
		version = 2
		root = "$containerd_home/root"
		state = "$containerd_home/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri"]
		[grpc]
		  address = "$containerd_socket"
	TOML
	echo "No containerd answers here: starting one for this run (log in $containerd_home/log)"
	setsid containerd --config "$containerd_home/config.toml" >"$containerd_home/log" 2>&1 &
	containerd_pid=$!
	for _ in $(seq 100); do
		if ctr --address "$containerd_socket" --timeout 1s version >/dev/null 2>&1; then
			containerd_inode=$(stat -c %i "$containerd_socket")
			return
		fi
		sleep 0.1
	done
	echo "containerd did not come up:" >&2
	tail -5 "$containerd_home/log" >&2
	stop_containerd
	exit 1
}

stop_containerd() {
	[[ -n $containerd_pid ]] || return 0
	kill "$containerd_pid" 2>/dev/null || true
	wait "$containerd_pid" 2>/dev/null || true
	containerd_pid=
	rm -rf "$containerd_home"
	if [[ -e $containerd_socket && $(stat -c %i "$containerd_socket") != "$containerd_inode" ]]; then
		return 0 # the host's own containerd was started meanwhile and has taken the place
	fi
	rm -f "$containerd_socket" "$containerd_socket.ttrpc"
	# What containerd, its shims and runC make beside the socket whatever their configuration says, if it is empty.
	find "${containerd_socket%/*}" -depth -type d -empty -delete
}
