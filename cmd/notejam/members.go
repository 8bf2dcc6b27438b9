package main

import (
	"context"
	"net/http"
	"time"
)

// member wraps a handler that needs a login: it reads the session, checks the
// form token of a POST, and sends guests to the login page.
func (a *app) member(next func(http.ResponseWriter, *http.Request, *store, visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := a.visitOf(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if v.user == nil {
			http.Redirect(w, r, "/signin", http.StatusSeeOther)
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
		if r.Method == http.MethodPost {
			if err := v.posted(r); err != nil {
				a.fail(w, r, err)
				return
			}
		}
		if err := next(w, r, a.store.Load(), v); err != nil {
			a.fail(w, r, err)
		}
	}
}

// front is the list of notes for members and the welcome page for guests,
// which touches no database.
func (a *app) front(w http.ResponseWriter, r *http.Request) {
	if _, err := r.Cookie(sessionCookie); err == nil {
		v, err := a.visitOf(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if v.user != nil {
			a.member(a.list)(w, r)
			return
		}
	}
	a.render(w, r, http.StatusOK, "welcome", view{Title: "Notes for everyone"})
}

// form shows the sign-up or login form to guests; members are in already.
func (a *app) form(page string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if v, err := a.visitOf(r); err == nil && v.user != nil {
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		a.render(w, r, http.StatusOK, page, view{Title: titles[page]})
	}
}

var titles = map[string]string{"signup": "Sign up", "signin": "Sign in"}

func (a *app) signUp(w http.ResponseWriter, r *http.Request) {
	a.enter(w, r, "signup", func(s *store) (string, error) {
		return s.signUp(r.Context(), r.PostForm.Get("email"), r.PostForm.Get("password"), r.PostForm.Get("confirm"), time.Now())
	})
}

func (a *app) signIn(w http.ResponseWriter, r *http.Request) {
	a.enter(w, r, "signin", func(s *store) (string, error) {
		return s.signIn(r.Context(), r.PostForm.Get("email"), r.PostForm.Get("password"), time.Now())
	})
}

// enter checks the guest's form and turns the token that door returns into a
// session cookie. The form may be older than a login in another window: it
// is a guest's all the same.
func (a *app) enter(w http.ResponseWriter, r *http.Request, page string, door func(*store) (string, error)) {
	err := guestOf(r).posted(r)
	s := a.store.Load()
	if err == nil && s == nil {
		err = errNotOpen
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	token, err := door(s)
	if err != nil {
		a.retry(w, r, page, view{Title: titles[page], Email: r.PostForm.Get("email")}, err)
		return
	}
	setCookie(w, r, sessionCookie, token, sessionLife)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (a *app) signOut(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	if err := s.signOut(r.Context(), v.token); err != nil {
		return err
	}
	setCookie(w, r, sessionCookie, "", -time.Second)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (a *app) settings(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	a.render(w, r, http.StatusOK, "settings", view{Title: "Settings"})
	return nil
}

func (a *app) saveSettings(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	f := r.PostForm
	err := s.changePassword(r.Context(), v.user.ID, v.token, f.Get("current"), f.Get("password"), f.Get("confirm"))
	if err != nil {
		a.retry(w, r, "settings", view{Title: "Settings"}, err)
		return nil
	}
	a.render(w, r, http.StatusOK, "settings", view{Title: "Settings", Done: "The password is changed; all other sessions are ended."})
	return nil
}
