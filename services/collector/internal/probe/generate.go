package probe

// The C flags, and why:
//
//	-O2               the verifier cannot follow unoptimised code
//	-g                BTF, without which nothing relocates
//	-mcpu=v3          atomic exchange, which Linux has from 5.12 on; v2 for what must load before that
//	-DLEGACY          without typed current task and atomic exchange
//	-Wall -Werror     a warning in code that runs in the kernel is an error
//
// Needs clang 14 and libbpf-dev's headers, which clang finds in /usr/include.
//
//go:generate bpf2go -target amd64,arm64 -cflags "-O2 -g -mcpu=v3 -Wall -Werror" collector ../../bpf/collector.bpf.c
//go:generate bpf2go -target amd64,arm64 -cflags "-O2 -g -mcpu=v2 -DLEGACY -Wall -Werror" legacy ../../bpf/collector.bpf.c
//go:generate bpf2go -target amd64,arm64 -cflags "-O2 -g -mcpu=v2 -DLEGACY -Wall -Werror" dns ../../bpf/dns.bpf.c
