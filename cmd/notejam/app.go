package main

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
)

//go:embed page
var files embed.FS

// app is one instance. Its only state is whether the database is open and
// whether the instance drains; all truth is in the store.
type app struct {
	log      *slog.Logger
	place    place
	pages    *template.Template
	store    atomic.Pointer[store] // nil until the database is open
	draining atomic.Bool
	check    chan struct{} // holds the one running health check
}

func newApp(p place, log *slog.Logger) *app {
	pages := template.Must(template.New("").Funcs(template.FuncMap{
		"when": func(t time.Time) string { return t.Format("2 Jan 2006, 15:04 MST") },
	}).ParseFS(files, "page/*.html"))
	return &app{log: log, place: p, pages: pages, check: make(chan struct{}, 1)}
}

// open tries until the database is open or ctx ends.
func (a *app) open(ctx context.Context, path string) {
	var last string
	for {
		s, err := openStore(ctx, path)
		if err == nil {
			a.store.Store(s)
			a.log.Info("database open", "path", path)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if last != err.Error() {
			last = err.Error()
			a.log.Warn("database not open yet; trying on", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(openRetry):
		}
	}
}

func (a *app) close() {
	if s := a.store.Load(); s != nil {
		if err := s.close(); err != nil {
			a.log.Warn("database did not close cleanly", "err", err)
		}
	}
}

// handler is the table of routes. The order of wrapping matters: health
// answers without cookies, pages get the limits and the origin check.
func (a *app) handler() http.Handler {
	pages := http.NewServeMux()
	pages.HandleFunc("GET /{$}", a.front)
	pages.HandleFunc("GET /signup", a.form("signup"))
	pages.HandleFunc("POST /signup", a.signUp)
	pages.HandleFunc("GET /signin", a.form("signin"))
	pages.HandleFunc("POST /signin", a.signIn)
	pages.HandleFunc("POST /signout", a.member(a.signOut))
	pages.HandleFunc("GET /settings", a.member(a.settings))
	pages.HandleFunc("POST /settings", a.member(a.saveSettings))
	pages.HandleFunc("GET /pads/create", a.member(a.editPad))
	pages.HandleFunc("POST /pads/create", a.member(a.savePad))
	pages.HandleFunc("GET /pads/{id}", a.member(a.list))
	pages.HandleFunc("GET /pads/{id}/edit", a.member(a.editPad))
	pages.HandleFunc("POST /pads/{id}/edit", a.member(a.savePad))
	pages.HandleFunc("POST /pads/{id}/delete", a.member(a.deletePad))
	pages.HandleFunc("GET /notes/create", a.member(a.editNote))
	pages.HandleFunc("POST /notes/create", a.member(a.saveNote))
	pages.HandleFunc("GET /notes/{id}", a.member(a.showNote))
	pages.HandleFunc("GET /notes/{id}/edit", a.member(a.editNote))
	pages.HandleFunc("POST /notes/{id}/edit", a.member(a.saveNote))
	pages.HandleFunc("POST /notes/{id}/delete", a.member(a.deleteNote))
	pages.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.fail(w, r, errNotFound) })

	root := http.NewServeMux()
	root.HandleFunc("GET /healthz", a.healthz)
	root.HandleFunc("GET /readyz", a.readyz)
	root.Handle("GET /style.css", cached(http.FileServerFS(sub(files, "page"))))
	root.Handle("/", http.NewCrossOriginProtection().Handler(a.limits(pages)))
	return a.marks(root)
}

const (
	maxBody = 256 << 10 // a form with the largest note, percent-encoded three for one
	// pageTime bounds one request, below the server's write timeout so that
	// the reader gets an answer and not a cut connection.
	pageTime = 20 * time.Second
)

func (a *app) limits(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTime)
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// marks sets the headers of every answer: who answered, and nothing foreign.
func (a *app) marks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Notejam-Instance", a.place.Instance)
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		if a.draining.Load() {
			h.Set("Connection", "close") // proxies move their pooled connections away
		}
		next.ServeHTTP(w, r)
	})
}

// fail answers with a page that fits the error.
func (a *app) fail(w http.ResponseWriter, r *http.Request, err error) {
	var tooBig *http.MaxBytesError
	status, text := http.StatusInternalServerError, "Something went wrong here. Nothing was saved; try again."
	switch {
	case errors.Is(err, errNotFound):
		status, text = http.StatusNotFound, "There is no such page, or it is not yours."
	case errors.Is(err, errNotOpen):
		status, text = http.StatusServiceUnavailable, "This instance is still opening its database. Try again in a moment."
	case errors.Is(err, errForgery):
		status, text = http.StatusForbidden, "The form is out of date. Go back, reload the page and send it again."
	case errors.As(err, &tooBig):
		status, text = http.StatusRequestEntityTooLarge, "This is too much for one note. Split it."
	case isBusy(err), errors.Is(err, context.DeadlineExceeded):
		status, text = http.StatusServiceUnavailable, "The database is busy. Nothing was saved; try again."
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if status == http.StatusInternalServerError && r.Context().Err() == nil {
		a.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	a.render(w, r, status, "error", view{Title: http.StatusText(status), Problem: text})
}
