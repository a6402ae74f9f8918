package handover

// entry is where the kernel enters the program, if the linker is told so (the Makefile's shim_ldflags). It writes down
// what the Go runtime is about to change, and goes on where Go programs begin. Without it Exec restores no signals.
func entry()

// The linker keeps what is used; vet and the linter see it used here.
var _ = entry
