package web

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"

	"github.com/palisade-sec/palisade/services/console/internal/index"
)

//go:embed assets
var assets embed.FS

// pageFindings is how many findings the page shows.
const pageFindings = 200

// assetTypes are the files anyone may have. Read only.
var assetTypes = map[string]string{
	"icon.svg":   "image/svg+xml",
	"page.css":   "text/css; charset=utf-8",
	"refresh.js": "text/javascript; charset=utf-8",
}

func asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	kind, ok := assetTypes[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	raw, err := assets.ReadFile("assets/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(raw) // the caller may have gone
}

type loginView struct{ Problem string }

type pageView struct {
	Rows   []row
	Cursor string
	Limit  int
}

// page shows the newest findings.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	found, err := s.findings.Find(r.Context(), index.Query{Limit: pageFindings})
	if err != nil {
		s.log.ErrorContext(r.Context(), "Could not look findings up", "err", err)
		http.Error(w, "findings cannot be looked up now", http.StatusServiceUnavailable)
		return
	}
	view := pageView{Cursor: cursor(found, 0), Limit: pageFindings}
	for _, one := range found {
		view.Rows = append(view.Rows, newRow(one.Finding))
	}
	s.render(w, http.StatusOK, "page.html", view)
}

// render executes a template to the end before the first byte leaves.
func (s *Server) render(w http.ResponseWriter, code int, name string, view any) {
	var body bytes.Buffer
	page, err := template.ParseFS(assets, "assets/*.html")
	if err == nil {
		err = page.ExecuteTemplate(&body, name, view)
	}
	if err != nil {
		s.log.Error("Could not render a page", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // the caller may have gone
}
