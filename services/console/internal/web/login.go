package web

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/palisade-sec/palisade/services/console/internal/account"
)

// cookieName's prefix makes browsers refuse the cookie unless it is Secure, for the whole host and for it alone.
const cookieName = "__Host-palisade"

// pageUser lets those in who have logged in, and sends others to the login.
func (s *Server) pageUser(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.loggedIn(r) {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
			return
		}
		next(w, r)
	})
}

// apiUser lets those in who have logged in or send the password with the request. Nothing else counts, a client
// certificate least of all.
func (s *Server) apiUser(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.loggedIn(r) {
			next(w, r)
			return
		}
		user, password, given := r.BasicAuth()
		if given {
			switch s.verify(w, r, user, password) {
			case granted:
				next(w, r)
				return
			case answered:
				problem(w, http.StatusTooManyRequests, "too many wrong passwords from this address")
				return
			case denied:
			}
		}
		// Not "Basic": browsers must not open a dialogue of their own for the page's requests.
		w.Header().Set("WWW-Authenticate", `x-basic realm="palisade", charset="UTF-8"`)
		problem(w, http.StatusUnauthorized, "log in, or send the administrator's name and password")
	})
}

func (s *Server) loggedIn(r *http.Request) bool {
	cookie, err := r.Cookie(cookieName)
	return err == nil && s.sessions.Valid(cookie.Value)
}

type verdict int

const (
	denied verdict = iota
	granted
	// answered means too many attempts; Retry-After is set.
	answered
)

// verify checks a password, not more often per address than the limiter allows.
func (s *Server) verify(w http.ResponseWriter, r *http.Request, user, password string) verdict {
	if s.accounts.Remembers(user, password) {
		return granted
	}
	address := addressOf(r)
	wait, ok := s.limiter.Take(address)
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		return answered
	}
	right, err := s.accounts.Verify(r.Context(), user, password)
	if err != nil {
		return denied
	}
	if !right {
		s.log.WarnContext(r.Context(), "Refused a login", "address", address.String())
		return denied
	}
	s.limiter.Return(address)
	return granted
}

func addressOf(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) {
	if s.loggedIn(r) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	s.render(w, http.StatusOK, "login.html", loginView{})
}

// login checks the form and begins a session.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.render(w, http.StatusBadRequest, "login.html", loginView{Problem: "The form could not be read."})
		return
	}
	switch s.verify(w, r, r.PostForm.Get("user"), r.PostForm.Get("password")) {
	case answered:
		s.render(w, http.StatusTooManyRequests, "login.html", loginView{
			Problem: "Too many wrong passwords from this address. Wait " + w.Header().Get("Retry-After") + " seconds.",
		})
		return
	case denied:
		s.render(w, http.StatusUnauthorized, "login.html", loginView{Problem: "Name or password is wrong."})
		return
	case granted:
	}
	token, err := s.sessions.Begin()
	if err != nil {
		s.log.ErrorContext(r.Context(), "Could not begin a session", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	http.SetCookie(w, sessionCookie(token, int(account.SessionLifetime/time.Second)))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// logout ends the session. Only a POST from a page of this origin gets here.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		s.sessions.End(cookie.Value)
	}
	http.SetCookie(w, sessionCookie("", -1))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

func sessionCookie(token string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: token, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}
