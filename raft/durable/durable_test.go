package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"appliance/raft/durable"
)

func TestSecondCopyRepairs(t *testing.T) {
	for name, c := range map[string]struct {
		first, second string // "" as written, "-" removed, else changed to this
		keep          bool
		want          string
	}{
		"intact":             {"", "", false, "old"},
		"changed":            {"bad", "", false, "old"},
		"lost":               {"-", "", false, "old"},
		"changed on purpose": {"new", "", true, "new"},
		"copy lost":          {"", "-", false, "old"},
		"copy damaged":       {"", "bad", false, "old"},
		"both lost":          {"-", "-", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, second := filepath.Join(dir, "f"), filepath.Join(dir, "copies", "f")
			if err := durable.WriteTwice(path, second, []byte("old")); err != nil {
				t.Fatal(err)
			}
			for p, to := range map[string]string{path: c.first, second: c.second} {
				switch to {
				case "":
				case "-":
					os.Remove(p)
				default:
					os.WriteFile(p, []byte(to), 0o600)
				}
			}
			for range 2 { // repaired once, it stays so
				got, err := durable.ReadTwice(path, second, filepath.Join(dir, "aside"), func([]byte) bool { return c.keep })
				if c.want == "" && !errors.Is(err, fs.ErrNotExist) || string(got) != c.want {
					t.Fatalf("%q %v", got, err)
				}
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, "aside", "*-f")); (len(kept) == 1) != (c.first == "bad") {
				t.Error("kept", kept)
			}
		})
	}
}

func TestSlotsSurviveATornWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := durable.ReadSlots(path, 128); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	s, err := durable.OpenSlots(path, 128)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.ReadSlots(path, 128); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("empty slots hold something:", err)
	}
	for _, text := range []string{"one", "two", "three"} {
		if err := s.Write([]byte(text), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(bytes.Repeat([]byte("x"), 128), false); err == nil {
		t.Error("too long and taken")
	}
	s.Close()
	raw, _ := os.ReadFile(path)
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			os.WriteFile(path, raw, 0o600)
			if got, err := durable.ReadSlots(path, 128); err != nil || string(got) != "three" && string(got) != "two" {
				t.Fatalf("bit %d of byte %d: %q %v", bit, i, got, err)
			}
			raw[i] ^= 1 << bit
		}
	}
}
