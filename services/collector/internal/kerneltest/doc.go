// Package kerneltest holds the tests that run the collector's programs on the running kernel, as root: every kind of
// event caused by the real operation. It exports nothing. The test binary starts itself again as the process under
// observation; what it then does is a role in roles_test.go.
package kerneltest
