package realrunc

import (
	"bytes"
	"io"
	"os"
	"syscall"
)

// LargestShim is more bytes than a shim ever has (a test of the built one says so). A larger program is none, and
// need not be read to know it: runC is larger.
const LargestShim = 6 << 20

// marked says whether a file names the shim, as every version of it does, and scripts that call it. A file that cannot
// be read is not marked: whether it can be started will be seen.
func marked(path string) bool {
	file, err := open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	buffer := make([]byte, 64<<10)
	mark, kept := []byte(Name), 0
	for read := 0; read <= LargestShim; {
		n, err := io.ReadFull(file, buffer[kept:])
		if bytes.Contains(buffer[:kept+n], mark) {
			return true
		}
		if err != nil {
			return false
		}
		read += n
		kept = copy(buffer, buffer[kept+n-len(mark)+1:kept+n])
	}
	return false
}

// isScript says whether another program is to read a file.
func isScript(path string) bool {
	file, err := open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	begin := make([]byte, 2)
	_, err = io.ReadFull(file, begin)
	return err == nil && string(begin) == "#!"
}

// open opens what was a regular file a moment ago; if it is a FIFO now, nobody waits for its writer.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}
