#!/usr/bin/env bash
# What `make test-vm` does: boots a Debian cloud kernel in QEMU (no KVM needed), as a host with cgroup v2 alone,
# starts containerd and a node there, runs the demo, and compares what the console says with what must be in it.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=bin/vm
mkdir -p "$work"
# A row of test/vm/matrix/row.go.
row=${KERNEL:-6.1}
kernel=$(bin/tools/matrix -work "$work" -fetch "$row")
release=$(<"$kernel/release")

root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,etc,opt,proc,sys,dev}
cp /bin/busybox "$root/bin/"
cp bin/palisade bin/palisade-* "$root/opt/"
cp test/vm/init test/vm/node "$root/"
cp test/vm/mounts "$kernel"/modules/*.ko "$root/opt/"
for program in containerd containerd-shim-runc-v2 ctr runc; do
	path=$(command -v "$program")
	install -D "$path" "$root/usr/bin/$program"
	for library in $(ldd "$path" | grep -oE '/[^ ]+' || true); do
		install -D "$library" "$root$library"
	done
done
echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initrd.cpio"

console=$work/console.log
echo "vm: booting $release (console in $console)"
# thread=single for the reason that is in test/vm/matrix/vm.go.
ended=0
timeout 600 qemu-system-x86_64 -M q35 -accel tcg,thread=single -cpu max,cx16=off -smp 2 -m 3072 \
	-display none -no-reboot -nodefaults -monitor none -serial "file:$console" \
	-kernel "$kernel/vmlinux" -initrd "$work/initrd.cpio" \
	-append "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off random.trust_cpu=on no_timer_check tsc=reliable" || ended=$?

failed=$ended
[[ $ended -eq 0 ]] || echo "vm: QEMU ended with $ended (124: no end after 10 minutes)"
while IFS= read -r want; do
	if ! grep -qF -- "$want" "$console"; then
		echo "vm: not on the console: $want"
		failed=1
	fi
done <test/vm/expected
if [[ $failed -ne 0 ]]; then
	tail -60 "$console"
	exit 1
fi
grep -E 'Seen after|KILLED|^vm:' "$console"
echo "vm: passed on $release"
