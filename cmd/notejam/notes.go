package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	maxName  = 200
	maxText  = 64 << 10
	maxPads  = 200    // per user: the side bar lists them all
	maxNotes = 10_000 // per user: bounds what one account can put on the volume
	pageSize = 100    // notes shown on one page
)

type pad struct {
	ID   int64
	Name string
}

type note struct {
	ID      int64
	Name    string
	Text    string
	Updated time.Time
	PadID   int64 // 0: in no pad
	PadName string
}

// inputError is a refusal that the form shows to its user.
type inputError string

func (e inputError) Error() string { return string(e) }

func cleanName(what, name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxName {
		return "", inputError(fmt.Sprintf("the name of a %s has 1 to %d characters", what, maxName))
	}
	return name, nil
}

func (s *store) pads(ctx context.Context, uid int64) ([]pad, error) {
	var pads []pad
	err := s.read(ctx, func(db *sql.DB) error {
		pads = pads[:0]
		rows, err := db.QueryContext(ctx, "SELECT id, name FROM pads WHERE user_id = ? ORDER BY name, id LIMIT ?", uid, maxPads)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p pad
			if err := rows.Scan(&p.ID, &p.Name); err != nil {
				return err
			}
			pads = append(pads, p)
		}
		return rows.Err()
	})
	return pads, err
}

// savePad makes a pad (id 0) or renames one, and returns its id.
func (s *store) savePad(ctx context.Context, uid, id int64, name string) (int64, error) {
	name, err := cleanName("pad", name)
	if err != nil {
		return 0, err
	}
	saved := id
	err = s.write(ctx, func(tx *sql.Tx) error {
		if id != 0 {
			return affected(tx.ExecContext(ctx, "UPDATE pads SET name = ? WHERE id = ? AND user_id = ?", name, id, uid))
		}
		if err := underLimit(ctx, tx, "pads", uid, maxPads); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "INSERT INTO pads(user_id, name) VALUES(?, ?)", uid, name)
		if err != nil {
			return err
		}
		saved, err = res.LastInsertId()
		return err
	})
	return saved, err
}

// deletePad removes the pad; its notes stay, in no pad.
func (s *store) deletePad(ctx context.Context, uid, id int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, "DELETE FROM pads WHERE id = ? AND user_id = ?", id, uid))
	})
}

// orders are the sort orders a page may ask for.
var orders = map[string]string{
	"name":     "n.name COLLATE NOCASE, n.id",
	"-name":    "n.name COLLATE NOCASE DESC, n.id",
	"updated":  "n.updated, n.id",
	"-updated": "n.updated DESC, n.id DESC",
}

const noteColumns = "n.id, n.name, n.text, n.updated, coalesce(p.id, 0), coalesce(p.name, '') FROM notes n LEFT JOIN pads p ON p.id = n.pad_id"

// notes lists a user's notes, of one pad or (0) of all.
func (s *store) notes(ctx context.Context, uid, padID int64, order string) ([]note, error) {
	by, ok := orders[order]
	if !ok {
		by = orders["-updated"]
	}
	var notes []note
	err := s.read(ctx, func(db *sql.DB) error {
		notes = notes[:0]
		rows, err := db.QueryContext(ctx, "SELECT "+noteColumns+
			" WHERE n.user_id = ? AND (? = 0 OR n.pad_id = ?) ORDER BY "+by+" LIMIT ?", uid, padID, padID, pageSize)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			n, err := scanNote(rows)
			if err != nil {
				return err
			}
			notes = append(notes, n)
		}
		return rows.Err()
	})
	return notes, err
}

func (s *store) note(ctx context.Context, uid, id int64) (note, error) {
	var n note
	err := s.read(ctx, func(db *sql.DB) (err error) {
		n, err = scanNote(db.QueryRowContext(ctx, "SELECT "+noteColumns+" WHERE n.id = ? AND n.user_id = ?", id, uid))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	return n, err
}

// saveNote makes a note (ID 0) or changes one, and returns its id.
func (s *store) saveNote(ctx context.Context, uid int64, n note, now time.Time) (int64, error) {
	name, err := cleanName("note", n.Name)
	if err != nil {
		return 0, err
	}
	if len(n.Text) > maxText {
		return 0, inputError(fmt.Sprintf("a note holds up to %d KiB of text: split it", maxText>>10))
	}
	id := n.ID
	err = s.write(ctx, func(tx *sql.Tx) error {
		padID := sql.NullInt64{Int64: n.PadID, Valid: n.PadID != 0}
		if padID.Valid {
			if err := owns(ctx, tx, uid, n.PadID); err != nil {
				return err
			}
		}
		if n.ID != 0 {
			return affected(tx.ExecContext(ctx, "UPDATE notes SET name = ?, text = ?, pad_id = ?, updated = ? WHERE id = ? AND user_id = ?",
				name, n.Text, padID, now.UnixMilli(), n.ID, uid))
		}
		if err := underLimit(ctx, tx, "notes", uid, maxNotes); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "INSERT INTO notes(user_id, pad_id, name, text, updated) VALUES(?, ?, ?, ?, ?)",
			uid, padID, name, n.Text, now.UnixMilli())
		if err != nil {
			return err
		}
		id, err = res.LastInsertId()
		return err
	})
	return id, err
}

func (s *store) deleteNote(ctx context.Context, uid, id int64) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		return affected(tx.ExecContext(ctx, "DELETE FROM notes WHERE id = ? AND user_id = ?", id, uid))
	})
}

func scanNote(row interface{ Scan(...any) error }) (note, error) {
	var n note
	var millis int64
	err := row.Scan(&n.ID, &n.Name, &n.Text, &millis, &n.PadID, &n.PadName)
	n.Updated = time.UnixMilli(millis).UTC()
	return n, err
}

func owns(ctx context.Context, tx *sql.Tx, uid, padID int64) error {
	var one int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM pads WHERE id = ? AND user_id = ?", padID, uid).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return inputError("this pad is gone: choose another")
	}
	return err
}

func underLimit(ctx context.Context, tx *sql.Tx, table string, uid int64, limit int) error {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+table+" WHERE user_id = ?", uid).Scan(&n); err != nil {
		return err
	}
	if n >= limit {
		return inputError(fmt.Sprintf("an account holds up to %d %s: delete some first", limit, table))
	}
	return nil
}

// affected turns a statement that met no row into errNotFound.
func affected(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return errNotFound
}
