package runcshim

import "fmt"

// steps does what changes the host, one after the other, and tells of each before.
type steps struct {
	dry bool
	say func(step string)
	// after is called when a step is done; an error ends everything there, as a crash would. Tests only.
	after func(step int) error
	done  int
}

// do does a step, or only tells of it.
func (s *steps) do(what string, act func() error) error {
	if s.say != nil {
		s.say(what)
	}
	if s.dry {
		return nil
	}
	if err := act(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.done++
	if s.after != nil {
		return s.after(s.done)
	}
	return nil
}
