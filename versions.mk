# Versions and build settings that are not a go.mod's business.

# Symbol tables are left out: a third of the size, and traces of panics still name functions.
ldflags := -s -w
# The runC shim begins at a place of its own, to see what it inherits before the Go runtime changes it. That is written for
# amd64; elsewhere the shim is linked as usual (docs/shim.md says what that costs).
shim_entry := $(if $(filter amd64,$(shell go env GOARCH)),-E github.com/palisade-sec/palisade/services/enforcer/runc-shim/internal/handover.entry)
shim_ldflags := $(ldflags) $(shim_entry)

# What `make run` and `make test` need on the host, as command-or-file:debian-package.
setup_commands := gcc:gcc containerd:containerd runc:runc /bin/busybox:busybox-static

# What tests run besides: real Docker and Podman.
test_commands := dockerd:docker.io podman:podman debootstrap:debootstrap

# The CRI's command line, which Debian has not.
crictl := v1.37.0

# What the VMs need besides: QEMU, and what undoes the compression of Debian's kernels.
vm_commands := qemu-system-x86_64:qemu-system-x86 cpio:cpio xz:xz-utils zstd:zstd lz4:lz4 \
	/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring

# The containerd that `make test-runtimes` runs beside Debian's.
containerd2 := v2.4.2

# The runC that `make test-runtimes` puts the shim in place of, beside Debian's.
runc15 := v1.5.2

# The Docker that `make test-compose` runs: Debian's knows no CAP_BPF. Compose is in tools/compose.
moby := v2.0.0-beta.24
