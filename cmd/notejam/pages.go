package main

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// list shows all notes, or those of one pad.
func (a *app) list(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	show := view{Title: "All notes", Order: r.URL.Query().Get("order")}
	if show.Pads, err = s.pads(r.Context(), v.user.ID); err != nil {
		return err
	}
	if id != 0 {
		p, ok := find(show.Pads, id)
		if !ok {
			return errNotFound
		}
		show.Pad, show.Title = p, p.Name
	}
	if show.Notes, err = s.notes(r.Context(), v.user.ID, id, show.Order); err != nil {
		return err
	}
	a.render(w, r, http.StatusOK, "list", show)
	return nil
}

func find(pads []pad, id int64) (pad, bool) {
	for _, p := range pads {
		if p.ID == id {
			return p, true
		}
	}
	return pad{}, false
}

// editPad shows the form for a new pad or an existing one.
func (a *app) editPad(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	show := view{Title: "New pad"}
	if show.Pads, err = s.pads(r.Context(), v.user.ID); err != nil {
		return err
	}
	if id != 0 {
		p, ok := find(show.Pads, id)
		if !ok {
			return errNotFound
		}
		show.Pad, show.Title = p, "Edit pad"
	}
	a.render(w, r, http.StatusOK, "pad", show)
	return nil
}

func (a *app) savePad(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	name := r.PostForm.Get("name")
	saved, err := s.savePad(r.Context(), v.user.ID, id, name)
	if err != nil {
		a.retry(w, r, "pad", view{Title: "Pad", Pad: pad{ID: id, Name: name}}, err)
		return nil
	}
	http.Redirect(w, r, fmt.Sprintf("/pads/%d", saved), http.StatusSeeOther)
	return nil
}

func (a *app) deletePad(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := s.deletePad(r.Context(), v.user.ID, id); err != nil {
		return err
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (a *app) showNote(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	return a.oneNote(w, r, s, v, "note")
}

// editNote shows the form for a new note (in the pad of the query) or an
// existing one.
func (a *app) editNote(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	return a.oneNote(w, r, s, v, "edit")
}

func (a *app) oneNote(w http.ResponseWriter, r *http.Request, s *store, v visit, page string) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	show := view{Title: "New note"}
	if show.Pads, err = s.pads(r.Context(), v.user.ID); err != nil {
		return err
	}
	if id == 0 {
		show.Note.PadID, _ = strconv.ParseInt(r.URL.Query().Get("pad"), 10, 64) // a wrong pad selects none
	} else {
		if show.Note, err = s.note(r.Context(), v.user.ID, id); err != nil {
			return err
		}
		show.Title = show.Note.Name
	}
	a.render(w, r, http.StatusOK, page, show)
	return nil
}

func (a *app) saveNote(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	f := r.PostForm
	n := note{ID: id, Name: f.Get("name"), Text: f.Get("text")}
	if p := f.Get("pad"); p != "" {
		if n.PadID, err = strconv.ParseInt(p, 10, 64); err != nil || n.PadID < 0 {
			return errNotFound
		}
	}
	saved, err := s.saveNote(r.Context(), v.user.ID, n, time.Now())
	if err != nil {
		pads, perr := s.pads(r.Context(), v.user.ID)
		if perr != nil {
			return perr
		}
		a.retry(w, r, "edit", view{Title: "Note", Note: n, Pads: pads}, err)
		return nil
	}
	http.Redirect(w, r, fmt.Sprintf("/notes/%d", saved), http.StatusSeeOther)
	return nil
}

func (a *app) deleteNote(w http.ResponseWriter, r *http.Request, s *store, v visit) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := s.deleteNote(r.Context(), v.user.ID, id); err != nil {
		return err
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}
