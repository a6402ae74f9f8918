package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/palisade-sec/palisade/services/console/internal/index"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// answer is what GET /api/v1/findings returns.
type answer struct {
	// Findings have the names of finding.proto. Newest first; with `after`, in the order in which they came.
	Findings []json.RawMessage `json:"findings"`
	// Cursor, given as `after`, asks for what came later than everything here.
	Cursor string `json:"cursor"`
}

// list answers GET /api/v1/findings?limit=&since=&after=.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	found, err := s.findings.Find(r.Context(), query)
	if err != nil {
		s.log.ErrorContext(r.Context(), "Could not look findings up", "err", err)
		problem(w, http.StatusServiceUnavailable, "findings cannot be looked up now")
		return
	}
	out := answer{Findings: make([]json.RawMessage, 0, len(found)), Cursor: cursor(found, query.After)}
	for _, one := range found {
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(one.Finding)
		if err != nil {
			s.log.ErrorContext(r.Context(), "Could not encode a finding", "err", err)
			continue
		}
		out.Findings = append(out.Findings, escapeJSON(raw))
	}
	writeJSON(w, http.StatusOK, out)
}

// cursor is the last place in the journal among found, or after if there is none later.
func cursor(found []index.Found, after uint64) string {
	for _, one := range found {
		after = max(after, one.Sequence)
	}
	return strconv.FormatUint(after, 10)
}

// parseQuery reads limit (1 to 1000, default 100), since (RFC 3339 or Unix seconds) and after (a cursor). Whatever
// else is there is an error: a misspelt name must not widen the answer.
func parseQuery(raw string) (index.Query, error) {
	query := index.Query{Limit: defaultLimit}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query, errors.New("query cannot be parsed")
	}
	for name, given := range values {
		if len(given) != 1 {
			return query, fmt.Errorf("%.20q: given more than once", name)
		}
		switch name {
		case "limit":
			query.Limit, err = strconv.Atoi(given[0])
			if err != nil || query.Limit < 1 || query.Limit > maxLimit {
				return query, fmt.Errorf("limit: want a number from 1 to %d", maxLimit)
			}
		case "since":
			if query.Since, err = parseTime(given[0]); err != nil {
				return query, err
			}
		case "after":
			if query.After, err = strconv.ParseUint(given[0], 10, 63); err != nil {
				return query, errors.New("after: want the cursor of an earlier answer")
			}
			query.Oldest = true
		default:
			return query, fmt.Errorf("%.20q: want limit, since or after", name)
		}
	}
	return query, nil
}

// Times that fit into nanoseconds of 63 bits.
const (
	minUnix = 0
	maxUnix = 9_000_000_000
)

func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		var seconds int64
		seconds, err = strconv.ParseInt(text, 10, 64)
		at = time.Unix(min(max(seconds, minUnix-1), maxUnix+1), 0)
	}
	if err != nil || at.Unix() < minUnix || at.Unix() > maxUnix {
		return time.Time{}, errors.New("since: want RFC 3339, such as 2026-01-31T12:00:00Z, or Unix seconds")
	}
	return at, nil
}

// escapeJSON writes what a terminal or a reader could be misled by as \u escapes; JSON has the others escaped already.
func escapeJSON(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for _, r := range string(raw) {
		if r < 0x7f || unicode.IsGraphic(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, "\\u%04x", unit)
		}
	}
	return out
}

// problem answers an error as JSON.
func problem(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the caller may have gone
}
