package ring

import (
	"errors"
	"iter"
	"time"

	"github.com/cilium/ebpf"
)

// Window looks at what is written to the rings from some moment on, and takes nothing out of them. While there is one, no
// Reader may run.
type Window struct {
	rings [2]*mapped
	from  [2]uint64
}

// busyFor is how long a window waits for a record that another processor has begun to write.
const busyFor = 20 * time.Millisecond

// OpenWindow opens one from now on.
func OpenWindow(urgent, bulk *ebpf.Map) (*Window, error) {
	w := &Window{}
	for i, m := range []*ebpf.Map{urgent, bulk} {
		memory, err := mapRing(m)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.rings[i] = memory
	}
	w.Forget()
	return w, nil
}

// Forget begins anew, from now on.
func (w *Window) Forget() {
	for i, r := range w.rings {
		w.from[i] = r.producer.Load()
	}
}

// Samples are the records that have been written by now. They are valid until a Reader runs.
func (w *Window) Samples() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i, r := range w.rings {
			if !r.each(w.from[i], r.producer.Load(), yield) {
				return
			}
		}
	}
}

// each yields the records between two positions, and says whether it may go on.
func (m *mapped) each(from, to uint64, yield func([]byte) bool) bool {
	deadline := time.Now().Add(busyFor)
	for from < to {
		sample, next, ok := m.at(from)
		if !ok {
			if time.Now().After(deadline) {
				return true
			}
			time.Sleep(busyFor / 200)
			continue
		}
		if sample != nil && !yield(sample) {
			return false
		}
		from = next
	}
	return true
}

// Close unmaps the rings.
func (w *Window) Close() error {
	var errs []error
	for _, r := range w.rings {
		if r != nil {
			errs = append(errs, r.close())
		}
	}
	return errors.Join(errs...)
}
