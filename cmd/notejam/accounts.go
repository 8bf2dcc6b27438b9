package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"net/mail"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	sessionLife = 30 * 24 * time.Hour
	minPassword = 8
	maxPassword = 72 // bcrypt reads no further
	maxEmail    = 254
	// hashSlots bounds concurrent bcrypt runs: each takes a core for 50 ms or
	// more, and a burst of logins must not starve the pages.
	hashSlots = 2
)

const (
	errTaken      = inputError("an account with this e-mail address exists already: sign in instead")
	errBadLogin   = inputError("wrong e-mail address or password")
	errBadEmail   = inputError("this is not an e-mail address")
	errPassLength = inputError("a password has 8 to 72 characters")
	errPassMatch  = inputError("the two passwords differ")
	errPassOld    = inputError("the current password is wrong")
)

type user struct {
	ID    int64
	Email string
}

var hashing = make(chan struct{}, hashSlots)

func hashed[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	select {
	case hashing <- struct{}{}:
		defer func() { <-hashing }()
		return fn()
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func checkPassword(password, confirm string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return errPassLength
	}
	if password != confirm {
		return errPassMatch
	}
	return nil
}

func hashPassword(ctx context.Context, password string) ([]byte, error) {
	return hashed(ctx, func() ([]byte, error) {
		return bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	})
}

// signUp makes an account and returns its first session token.
func (s *store) signUp(ctx context.Context, email, password, confirm string, now time.Time) (string, error) {
	email = strings.TrimSpace(email)
	if a, err := mail.ParseAddress(email); err != nil || a.Address != email || len(email) > maxEmail {
		return "", errBadEmail
	}
	if err := checkPassword(password, confirm); err != nil {
		return "", err
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return "", err
	}
	token := newToken()
	err = s.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "INSERT INTO users(email, password, created) VALUES(?, ?, ?)", email, hash, now.Unix())
		if isUnique(err) {
			return errTaken
		}
		if err != nil {
			return err
		}
		id, err := res.LastInsertId()
		if err != nil {
			return err
		}
		return insertSession(ctx, tx, token, id, now)
	})
	return token, err
}

// nobody is compared against when an address is unknown, so that the answer
// takes as long as for a known one. Made on first use: it would add 50 ms to
// every start.
var nobody = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte("nobody has this password"), bcrypt.DefaultCost)
	if err != nil {
		panic(err) // the password is a constant of legal length
	}
	return hash
})

// signIn checks the password and returns a new session token.
func (s *store) signIn(ctx context.Context, email, password string, now time.Time) (string, error) {
	var id int64
	var hash []byte
	err := s.read(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT id, password FROM users WHERE email = ?", strings.TrimSpace(email)).Scan(&id, &hash)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", err
	}
	if id == 0 {
		hash = nobody()
	}
	match, err := hashed(ctx, func() (bool, error) {
		return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil, nil
	})
	if err != nil {
		return "", err
	}
	if !match || id == 0 {
		return "", errBadLogin
	}
	token := newToken()
	return token, s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE expires < ?", now.Unix()); err != nil {
			return err
		}
		return insertSession(ctx, tx, token, id, now)
	})
}

// signOut ends one session everywhere at once.
func (s *store) signOut(ctx context.Context, token string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE token = ?", digest(token))
		return err
	})
}

// session returns the user of a token; errNotFound if none.
func (s *store) session(ctx context.Context, token string, now time.Time) (user, error) {
	var u user
	err := s.read(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `SELECT u.id, u.email FROM sessions s JOIN users u ON u.id = s.user_id
			WHERE s.token = ? AND s.expires >= ?`, digest(token), now.Unix()).Scan(&u.ID, &u.Email)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return u, errNotFound
	}
	return u, err
}

// changePassword checks the old password, sets the new one and ends every
// other session of the user.
func (s *store) changePassword(ctx context.Context, id int64, token, old, password, confirm string) error {
	if err := checkPassword(password, confirm); err != nil {
		return err
	}
	var current []byte
	err := s.read(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT password FROM users WHERE id = ?", id).Scan(&current)
	})
	if err != nil {
		return err
	}
	match, err := hashed(ctx, func() (bool, error) {
		return bcrypt.CompareHashAndPassword(current, []byte(old)) == nil, nil
	})
	if err != nil {
		return err
	}
	if !match {
		return errPassOld
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE users SET password = ? WHERE id = ?", hash, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM sessions WHERE user_id = ? AND token <> ?", id, digest(token))
		return err
	})
}

func insertSession(ctx context.Context, tx *sql.Tx, token string, id int64, now time.Time) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO sessions(token, user_id, expires) VALUES(?, ?, ?)",
		digest(token), id, now.Add(sessionLife).Unix())
	return err
}

func newToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
