// Package glob matches shell patterns. In: a pattern and text. Out: yes or no, in bounded time and without allocation.
package glob

// Match matches as fnmatch(3) without flags: * and ? also match a slash, [a-z] and [!a-z] a byte of
// a set, a backslash takes the next byte as it is. It goes back to the last * only, so its time is
// bounded by the product of the lengths.
func Match(pattern, s string) bool {
	p, i := 0, 0
	starP, starI := -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			starP, starI = p, i
			p++
			continue
		}
		if next, ok := one(pattern, p, s[i]); ok {
			p = next
			i++
			continue
		}
		if starP < 0 {
			return false
		}
		starI++
		p, i = starP+1, starI
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches one byte with the element of the pattern at p, and says where the next begins.
func one(pattern string, p int, c byte) (next int, ok bool) {
	if p >= len(pattern) {
		return p, false
	}
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		if end, in, closed := set(pattern, p, c); closed {
			return end, in
		}
	case '\\':
		if p+1 < len(pattern) {
			p++
		}
	}
	return p + 1, pattern[p] == c
}

// set matches a byte with the bracket expression at p. An expression without an end is no set
// but a plain bracket.
func set(pattern string, p int, c byte) (next int, in, closed bool) {
	i := p + 1
	negated := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negated {
		i++
	}
	for start := i; i < len(pattern); i++ {
		if pattern[i] == ']' && i > start {
			return i + 1, in != negated, true
		}
		low, high := pattern[i], pattern[i]
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			high = pattern[i+2]
			i += 2
		}
		in = in || low <= c && c <= high
	}
	return 0, false, false
}
