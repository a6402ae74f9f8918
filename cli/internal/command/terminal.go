package command

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/status"

	findingv1 "github.com/palisade-sec/palisade/api/palisade/finding/v1"
	"github.com/palisade-sec/palisade/cli/internal/node"
	"github.com/palisade-sec/palisade/cli/internal/show"
	"github.com/palisade-sec/palisade/internal/runcshim"
)

// passwordPrefix opens the line with which a console tells its first password, once.
const passwordPrefix = "palisade-console: admin password: "

// terminal is what `palisade up` shows: findings on out, everything else on notes.
type terminal struct {
	out     io.Writer
	print   func(*findingv1.Finding) error
	notes   io.Writer
	paint   show.Painter
	verbose bool

	mu        sync.Mutex
	password  string
	announced bool // the banner is out
	stopping  bool // processes lose each other in turn, as they should
}

func (t *terminal) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.notes, format+"\n", args...)
}

// checked is told how each process's check went.
func (t *terminal) checked(process string, err error) {
	if err == nil {
		t.note("%s checked %s", t.paint.Good("✓"), process)
		return
	}
	t.note("%s %s does not pass", t.paint.Bad("✗"), process) // why is the command's error, at the end
}

// restarted is told that a process died.
func (t *terminal) restarted(process string, reason error) {
	t.note("%s %s died (%v) and is started again", t.paint.Bad("!"), process, reason)
}

// shimEvent is told what becomes of the runC shim.
func (t *terminal) shimEvent(event runcshim.Event) {
	mark := t.paint.Bad("!")
	if event.Kind == runcshim.Healed || event.Kind == runcshim.Connected {
		mark = t.paint.Good("✓")
	}
	t.note("%s runC shim %s: %s: %s", mark, show.Safe(event.Path), event.Kind, show.Safe(event.Detail))
}

// notScanned is told of an image that could not be scanned ahead.
func (t *terminal) notScanned(image string, err error) {
	t.note("%s image %s could not be scanned: %s", t.paint.Bad("!"), show.Safe(image), show.Safe(status.Convert(err).Message()))
}

// processLine takes one line a process wrote. Its log is JSON: warnings and errors are shown, the rest with -v.
func (t *terminal) processLine(process, line string) {
	if password, ok := strings.CutPrefix(line, passwordPrefix); ok {
		t.mu.Lock()
		t.password = password
		late := t.announced
		t.mu.Unlock()
		if late { // it is told once, so it must be shown
			t.note("  login     admin / %s   (shown this once)", show.Safe(password))
		}
		return
	}
	var entry map[string]any
	isLog := json.Unmarshal([]byte(line), &entry) == nil && entry["level"] != nil
	switch {
	case t.verbose, !isLog:
		t.note("%s %s", t.paint.Quiet(process), show.Safe(line))
	case t.isStopping():
	case entry["level"] == "WARN" || entry["level"] == "ERROR":
		t.note("%s %s", t.paint.Quiet(process), show.Safe(logText(entry)))
	}
}

// logText is a log entry for people: its message, its error, and its other attributes in order of their keys.
func logText(entry map[string]any) string {
	var text strings.Builder
	fmt.Fprint(&text, entry["msg"])
	if reason, ok := entry["err"]; ok {
		fmt.Fprintf(&text, ": %v", reason)
	}
	for _, key := range slices.Sorted(maps.Keys(entry)) {
		switch key {
		case "time", "level", "msg", "err", "service": // said already, or of no use on a terminal
		default:
			fmt.Fprintf(&text, " %s=%v", key, entry[key])
		}
	}
	return text.String()
}

// stop is told that the node is being stopped.
func (t *terminal) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopping = true
	fmt.Fprintln(t.notes, "\nStopping …")
}

func (t *terminal) isStopping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopping
}

// banner says that the node is up and where its console is.
func (t *terminal) banner(settings node.Settings, healthy, all int) {
	t.mu.Lock()
	password := t.password
	t.announced = true
	t.mu.Unlock()
	lines := []string{"", fmt.Sprintf("Palisade is up: %d of %d processes healthy (palisade status)", healthy, all)}
	if settings.Console == "" {
		lines = append(lines, "  console   https://"+settings.PeopleListen)
		if password != "" {
			lines = append(lines, "  login     admin / "+password+"   (shown this once)")
		} else {
			lines = append(lines, "  login     admin, with the password shown at the first start")
		}
	} else {
		lines = append(lines, "  console   "+settings.Console)
	}
	lines = append(lines,
		"  audit     "+settings.AuditLog(),
		"  try       "+os.Args[0]+" demo   (three harmless attacks in a container, from another terminal)",
		"  stop      Ctrl-C", "")
	t.note("%s", strings.Join(lines, "\n"))
}
