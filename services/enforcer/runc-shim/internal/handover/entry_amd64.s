#include "textflag.h"

// There is neither a Go runtime nor a goroutine yet. The stack pointer is at argc, and stays there.
//
// func entry()
TEXT ·entry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	XORL R12, R12                    // the set
	MOVQ $1, DI                      // the signal
signal:
	MOVQ $13, AX                     // rt_sigaction(DI, nil, scratch, 8)
	XORL SI, SI
	LEAQ ·inherited+32(SB), DX
	MOVQ $8, R10
	SYSCALL
	TESTQ AX, AX
	JNE  handled
	CMPQ ·inherited+32(SB), $1       // SIG_IGN
	JNE  handled
	LEAQ -1(DI), AX
	BTSQ AX, R12
handled:
	INCQ DI
	CMPQ DI, $64
	JLS  signal
	MOVQ R12, ·inherited+8(SB)

	MOVQ $14, AX                     // rt_sigprocmask(SIG_BLOCK, nil, blocked, 8)
	XORL DI, DI
	XORL SI, SI
	LEAQ ·inherited+16(SB), DX
	MOVQ $8, R10
	SYSCALL

	XORL R12, R12
	XORL DI, DI                      // the descriptor
descriptor:
	MOVQ $72, AX                     // fcntl(DI, F_GETFD)
	MOVQ $1, SI
	SYSCALL
	CMPQ AX, $-9                     // EBADF
	JNE  open
	BTSQ DI, R12
open:
	INCQ DI
	CMPQ DI, $3
	JLT  descriptor
	MOVQ R12, ·inherited+24(SB)

	MOVQ $1, ·inherited+0(SB)
	JMP  _rt0_amd64_linux(SB)
