// Package e2e tests the binaries in bin/ the way people use them: a real node, a real containerd and runC, real attacks,
// the command line, the sockets and the console's ports. It runs as root and leaves nothing behind.
package e2e
