// Package runclog tells an error as runC tells one, so that it reaches who called the container engine: engines read the
// last error from runC's log file, and show standard error where there is none.
//
// In: where runC was told to log, and a message. Out: a line appended to that file, and one to standard error.
package runclog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Log is what runC's flags --log and --log-format say.
type Log struct {
	// Path is "" if runC logs to standard error.
	Path string
	// JSON is false for logrus's text.
	JSON bool
}

// Error writes a message, as one line of the log, whatever lines it has itself. If the log cannot be written, what is on standard error says so, and the error is
// returned.
func (l Log) Error(stderr io.Writer, now time.Time, message string) error {
	message = strings.Trim(message, "\r\n")
	line, err := l.line(now, message)
	if err != nil {
		return err
	}
	if l.Path == "" {
		_, err = stderr.Write(line)
		return err
	}
	err = l.append(line)
	if err != nil {
		fmt.Fprintf(stderr, "%v\n", err)
	}
	fmt.Fprintf(stderr, "%s\n", message)
	return err
}

func (l Log) line(now time.Time, message string) ([]byte, error) {
	stamp := now.Format(time.RFC3339)
	if !l.JSON {
		return fmt.Appendf(nil, "time=%q level=error msg=%q\n", stamp, message), nil
	}
	line, err := json.Marshal(struct {
		Level   string `json:"level"`
		Message string `json:"msg"`
		Time    string `json:"time"`
	}{"error", message, stamp})
	return append(line, '\n'), err
}

// append opens the file as runC does. An engine may have made it a FIFO; nobody waits for its reader.
func (l Log) append(line []byte) error {
	file, err := os.OpenFile(l.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC|syscall.O_NONBLOCK, 0o644) //nolint:gosec // runC's mode
	if err != nil {
		return err
	}
	_, err = file.Write(line)
	return errors.Join(err, file.Close())
}
