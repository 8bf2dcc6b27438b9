package main

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations are applied in order; the file's user_version counts them. Only
// additive changes are allowed: during a rolling deployment the old release
// works on the new schema.
var migrations = []string{
	`CREATE TABLE users (
		id       INTEGER PRIMARY KEY,
		email    TEXT NOT NULL UNIQUE COLLATE NOCASE,
		password BLOB NOT NULL,
		created  INTEGER NOT NULL
	);
	CREATE TABLE sessions (
		token   BLOB PRIMARY KEY, -- SHA-256 of the cookie: a leaked file opens no session
		user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
		expires INTEGER NOT NULL
	) WITHOUT ROWID;
	CREATE INDEX sessions_expires ON sessions(expires);
	CREATE INDEX sessions_user ON sessions(user_id);
	CREATE TABLE pads (
		id      INTEGER PRIMARY KEY AUTOINCREMENT,
		user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
		name    TEXT NOT NULL
	);
	CREATE INDEX pads_user ON pads(user_id, name);
	CREATE TABLE notes (
		id      INTEGER PRIMARY KEY AUTOINCREMENT,
		user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
		pad_id  INTEGER REFERENCES pads(id) ON DELETE SET NULL,
		name    TEXT NOT NULL,
		text    TEXT NOT NULL,
		updated INTEGER NOT NULL -- Unix milliseconds
	);
	CREATE INDEX notes_user ON notes(user_id, updated);
	CREATE INDEX notes_pad ON notes(pad_id);`,
}

// migrate takes the write lock before it looks a second time, so of several
// instances that start together one migrates and the others see it done.
func (s *store) migrate(ctx context.Context) error {
	var version int
	err := s.read(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
	})
	if err != nil || version >= len(migrations) {
		return err
	}
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		for ; version < len(migrations); version++ {
			if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
				return fmt.Errorf("step %d: %w", version+1, err)
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version))
		return err
	})
}
