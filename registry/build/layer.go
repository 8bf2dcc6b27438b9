package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// certificatesPath is where Go, OpenSSL and curl look on Debian.
const certificatesPath = "etc/ssl/certs/ca-certificates.crt"

// layerWriter writes a tar whose bytes depend on its content only.
type layerWriter struct {
	*tar.Writer
	modified time.Time
	dirs     map[string]bool // directories written so far
}

func newLayerWriter(w io.Writer) *layerWriter {
	return &layerWriter{Writer: tar.NewWriter(w), dirs: map[string]bool{"": true, ".": true}}
}

func (w *layerWriter) header(h tar.Header) error {
	h.ModTime = time.Unix(0, 0)
	if !w.modified.IsZero() {
		h.ModTime = w.modified.UTC().Truncate(time.Second)
	}
	return w.WriteHeader(&h)
}

// mkdir writes name and the directories above it, each once.
func (w *layerWriter) mkdir(name string, mode int64, uid, gid int) error {
	if w.dirs[name] {
		return nil
	}
	if err := w.mkdir(path.Dir(name), 0o755, 0, 0); err != nil {
		return err
	}
	w.dirs[name] = true
	return w.header(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: gid})
}

func (w *layerWriter) file(name string, mode int64, uid, gid int, size int64, r io.Reader) error {
	if err := w.mkdir(path.Dir(name), 0o755, 0, 0); err != nil {
		return err
	}
	if err := w.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Uid: uid, Gid: gid, Size: size}); err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err == nil && n < size {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	return err
}

func (w *layerWriter) text(name string, mode int64, content string) error {
	return w.file(name, mode, 0, 0, int64(len(content)), strings.NewReader(content))
}

// hostFile takes a file of the builder's machine.
func (w *layerWriter) hostFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return w.text(to, 0o644, string(b))
}

// writeBaseFiles is what programs expect even on scratch: users, a resolver
// order, a place for temporary files, and certificates if asked for.
func (s *Spec) writeBaseFiles(w *layerWriter) error {
	err := errors.Join(
		w.text("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		w.text("etc/nsswitch.conf", 0o644, "hosts: files dns\n"),
		w.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"),
	)
	if err == nil && s.Certificates != "" {
		err = w.hostFile(s.Certificates, certificatesPath)
	}
	work := strings.TrimPrefix(path.Clean("/"+s.Config.WorkingDir), "/")
	return errors.Join(err, w.mkdir("root", 0o700, 0, 0), w.mkdir("tmp", 0o1777, 0, 0), w.mkdir(work, 0o755, 0, 0))
}

// entry is a file of the context on its way into the layer.
type entry struct {
	from string // in the context
	to   string // in the layer, relative
}

// writeCopy adds the sources of c with Dockerfile semantics: a directory's
// content goes into To; a file goes to To, or into it if To ends in "/".
func (s *Spec) writeCopy(w *layerWriter, c Copy) error {
	root, err := os.OpenRoot(s.Context)
	if err != nil {
		return err
	}
	defer root.Close()
	var entries []entry
	for _, source := range c.Sources {
		found, err := s.expand(root, source, c)
		if err != nil {
			return err
		}
		entries = append(entries, found...)
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return strings.Compare(a.to, b.to) })
	for i, e := range entries {
		if i > 0 && e.to == entries[i-1].to {
			if st, err := root.Stat(e.from); err == nil && st.IsDir() {
				continue // the same directory in two sources
			}
			return fmt.Errorf("%s and %s both go to /%s", entries[i-1].from, e.from, e.to)
		}
		if err := w.copy(root, e, c); err != nil {
			return err
		}
	}
	return nil
}

// expand lists what a source brings.
func (s *Spec) expand(root *os.Root, source string, c Copy) ([]entry, error) {
	clean := path.Clean(strings.TrimPrefix(source, "/"))
	if !fs.ValidPath(clean) {
		return nil, fmt.Errorf("%q leaves the build context %s", source, s.Context)
	}
	st, err := root.Stat(clean)
	if err != nil {
		return nil, fmt.Errorf("%q in the build context %s: %w", source, s.Context, err)
	}
	to := strings.TrimPrefix(path.Join("/", s.Config.WorkingDir, c.To), "/")
	if path.IsAbs(c.To) {
		to = strings.TrimPrefix(path.Clean(c.To), "/")
	}
	if !st.IsDir() {
		if strings.HasSuffix(c.To, "/") || len(c.Sources) > 1 || c.To == "." {
			to = path.Join(to, path.Base(clean))
		}
		if to == "" {
			return nil, fmt.Errorf("a file cannot be copied to %q itself: add a name or a slash", c.To)
		}
		return []entry{{clean, to}}, nil
	}
	if _, err := root.Lstat(path.Join(clean, ".dockerignore")); err == nil {
		return nil, fmt.Errorf("%s/.dockerignore is not supported: copy the files you want by name", clean)
	}
	var entries []entry
	err = fs.WalkDir(root.FS(), clean, func(name string, e fs.DirEntry, err error) error {
		below := strings.TrimPrefix(strings.TrimPrefix(name, clean), "/")
		if clean == "." {
			below = name
		}
		entries = append(entries, entry{name, path.Join(to, below)})
		return err
	})
	return entries, err
}

func (w *layerWriter) copy(root *os.Root, e entry, c Copy) error {
	st, err := root.Lstat(e.from)
	if err != nil {
		return err
	}
	switch {
	case e.to == "" || e.to == ".":
		return nil // the root directory exists
	case st.IsDir():
		return w.mkdir(e.to, 0o755, c.UID, c.GID)
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(e.from)
		if err != nil {
			return err
		}
		if err := w.mkdir(path.Dir(e.to), 0o755, 0, 0); err != nil {
			return err
		}
		return w.header(tar.Header{Typeflag: tar.TypeSymlink, Name: e.to, Linkname: target, Mode: 0o777, Uid: c.UID, Gid: c.GID})
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither file, directory nor symbolic link", e.from)
	}
	f, err := root.Open(e.from)
	if err != nil {
		return err
	}
	defer f.Close()
	mode := c.Mode
	if mode == 0 {
		mode = 0o644
		if st.Mode()&0o111 != 0 {
			mode = 0o755
		}
	}
	return w.file(e.to, mode, c.UID, c.GID, st.Size(), f)
}
