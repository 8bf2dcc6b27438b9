package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"time"
)

const (
	sessionCookie = "notejam_session"
	seedCookie    = "notejam_seed" // before login: what the form token is made from
)

// errForgery says that a form did not come from one of our pages.
var errForgery = errors.New("form token missing or wrong")

// visit is what one request knows about its sender. user is nil for guests.
type visit struct {
	user  *user
	token string // session token, empty for guests
	seed  string // what the form token is derived from
}

// guestOf is the sender without a login, whom the forms to sign up and in are for.
func guestOf(r *http.Request) (v visit) {
	if c, err := r.Cookie(seedCookie); err == nil && len(c.Value) == len(newToken()) {
		v.seed = c.Value
	}
	return v
}

// visitOf reads the cookies. Only a request that carries a session cookie
// costs a read of the database.
func (a *app) visitOf(r *http.Request) (visit, error) {
	v := guestOf(r)
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return v, nil
	}
	s := a.store.Load()
	if s == nil {
		return v, errNotOpen
	}
	u, err := s.session(r.Context(), c.Value, time.Now())
	if errors.Is(err, errNotFound) {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.user, v.token, v.seed = &u, c.Value, c.Value
	return v, nil
}

// formToken is put into every form. It is derived from a cookie that other
// sites can neither read nor guess, so any instance can verify it.
func (v visit) formToken() string {
	mac := hmac.New(sha256.New, []byte(v.seed))
	mac.Write([]byte("notejam form"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// posted parses the form and checks its token.
func (v visit) posted(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return err
	}
	got := r.PostForm.Get("form_token")
	if v.seed == "" || subtle.ConstantTimeCompare([]byte(got), []byte(v.formToken())) != 1 {
		return errForgery
	}
	return nil
}

// setCookie leaves Secure to https: the lab and many inner networks are http.
func setCookie(w http.ResponseWriter, r *http.Request, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
}
