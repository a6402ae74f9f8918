# Versions and build settings that are not a go.mod's business.

# Symbol tables are left out: a third of the size, and traces of panics still name functions.
ldflags := -s -w

# What `make run` and `make test` need on the host, as command-or-file:debian-package.
setup_commands := gcc:gcc containerd:containerd runc:runc /bin/busybox:busybox-static
