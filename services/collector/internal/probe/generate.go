package probe

// The C flags, and why:
//
//	-O2               the verifier cannot follow unoptimised code
//	-g                BTF, without which nothing relocates
//	-mcpu=v2          instructions every kernel with typed tracepoints has; v3 gains nothing measured
//	-Wall -Werror     a warning in code that runs in the kernel is an error
//
// Needs clang 14 and libbpf-dev's headers, which clang finds in /usr/include.
//
//go:generate bpf2go -target amd64,arm64 -cflags "-O2 -g -mcpu=v2 -Wall -Werror" collector ../../bpf/collector.bpf.c
