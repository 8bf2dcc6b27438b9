package main

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// view is everything that a template may show.
type view struct {
	Title     string
	Problem   string
	Done      string
	User      *user
	FormToken string
	Place     place
	Order     string
	Email     string
	Pads      []pad
	Pad       pad
	Notes     []note
	Note      note
}

// render writes a page. Guests get the seed of their form token here.
func (a *app) render(w http.ResponseWriter, r *http.Request, status int, page string, v view) {
	vis, ok := r.Context().Value(visitKey{}).(visit)
	if !ok {
		vis = guestOf(r)
	}
	if vis.seed == "" && (page == "signup" || page == "signin") {
		vis.seed = newToken()
		setCookie(w, r, seedCookie, vis.seed, 24*time.Hour)
	}
	v.User, v.FormToken, v.Place = vis.user, vis.formToken(), a.place
	var b bytes.Buffer
	if err := a.pages.ExecuteTemplate(&b, page+".html", v); err != nil {
		a.log.Error("template failed", "page", page, "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes()) // the reader may be gone; there is nothing to do then
}

type visitKey struct{}

// retry shows the form again with what was wrong; other errors get a page.
func (a *app) retry(w http.ResponseWriter, r *http.Request, page string, v view, err error) {
	var in inputError
	if !errors.As(err, &in) {
		a.fail(w, r, err)
		return
	}
	v.Problem = string(in)
	a.render(w, r, http.StatusUnprocessableEntity, page, v)
}

func pathID(r *http.Request) (int64, error) {
	s := r.PathValue("id")
	if s == "" {
		return 0, nil
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id <= 0 {
		return 0, errNotFound
	}
	return id, nil
}
