package cache

import (
	"bufio"
	"os"

	"google.golang.org/protobuf/encoding/protodelim"

	scannerv1 "github.com/palisade-sec/palisade/api/palisade/scanner/v1"
)

// maxHeader bounds the first message: names, times and at most a few dozen lines of faults.
const maxHeader = 1 << 20

// readHeader reads the beginning of a file and no more.
func readHeader(path string) (*scannerv1.Report, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	header := &scannerv1.Report{}
	return header, protodelim.UnmarshalOptions{MaxSize: maxHeader}.UnmarshalFrom(bufio.NewReader(file), header)
}
