#!/usr/bin/env bash
# What `make test-vm-specs` does: boots a Debian kernel in QEMU, once with AppArmor and once with SELinux and Debian's own policies, has Docker make a
# container there, and writes the config.json that Docker gave to runC to internal/compliance/testdata. Test machines have neither.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$PWD/bin/vm
mkdir -p "$work"
row=${KERNEL:-6.1}
kernel=$(bin/tools/matrix -work "$work" -fetch "$row")
release=$(<"$kernel/release")
root=$work/specs

# unpack PACKAGE puts a Debian package's files below the VM's root.
unpack() {
	(cd "$work" && apt-get download -qq "$1" 2>/dev/null && dpkg -x "$1"_*.deb "$root" && rm "$1"_*.deb)
}

# lay makes the VM's root: Docker, what it needs, and what the script of the VM's life needs.
lay() {
	rm -rf "$root"
	mkdir -p "$root"/{bin,etc,opt,proc,sys,dev,usr/bin}
	cp /bin/busybox "$root/bin/"
	cp test/vm/init "$root/"
	cp test/vm/docker-specs "$root/node"
	cp test/vm/mounts "$kernel"/modules/*.ko "$root/opt/"
	echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
	echo 'root:x:0:' >"$root/etc/group"
	for program in containerd containerd-shim-runc-v2 ctr runc dockerd docker docker-init; do
		install -D "$(command -v "$program")" "$root/usr/bin/$program"
	done
}

apparmor() {
	unpack apparmor # the parser of profiles, and what they include
	mv "$root/sbin/apparmor_parser" "$root/usr/bin/"
	rmdir "$root/sbin"
}

selinux() {
	unpack selinux-policy-default
	mkdir -p "$root/var/lib/selinux"
	semodule -p "$root" -s default -n -X 100 -i "$root"/usr/share/selinux/default/*.pp.bz2 # half a minute
	printf 'SELINUX=permissive\nSELINUXTYPE=default\n' >"$root/etc/selinux/config"
	rm -r "$root/var/lib/selinux" "$root/usr/share"
}

# boot LSM runs the VM and writes its spec.
boot() {
	for program in "$root"/usr/bin/*; do
		for library in $(ldd "$program" 2>/dev/null | grep -oE '/[^ ]+' || true); do
			[[ -e $root$library ]] || install -D "$library" "$root$library"
		done
	done
	(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/specs.cpio"
	local console=$work/specs-$1.log ended=0 spec
	echo "vm: booting $release with $1 (console in $console)"
	# thread=single for the reason that is in test/vm/matrix/vm.go.
	timeout 900 qemu-system-x86_64 -M q35 -accel tcg,thread=single -cpu max,cx16=off -smp 2 -m 4096 \
		-display none -no-reboot -nodefaults -monitor none -serial "file:$console" \
		-kernel "$kernel/vmlinux" -initrd "$work/specs.cpio" \
		-append "console=ttyS0 panic=-1 quiet loglevel=3 mitigations=off random.trust_cpu=on no_timer_check tsc=reliable security=$1 $1=1" || ended=$?
	spec=$(sed -n '/^vm: spec begins/,/^vm: spec ends/p' "$console" | grep -av '^vm:' | tr -d '\r\n' | base64 -d) || true
	if [[ $ended -ne 0 || $spec != *'"ociVersion"'* ]]; then
		echo "vm: no spec came out of it (QEMU ended with $ended)"
		tail -60 "$console"
		exit 1
	fi
	printf '%s\n' "$spec" >"internal/compliance/testdata/docker-$1.json"
	grep -a '^vm: docker' "$console"
}

for lsm in ${LSM:-apparmor selinux}; do
	lay
	"$lsm"
	boot "$lsm"
done
go test ./internal/compliance -run 'TestGolden'
