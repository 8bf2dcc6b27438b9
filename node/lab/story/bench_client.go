package story

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// rawClient speaks HTTP/1.1 on one connection to a machine's API with next to no processor time, because
// the bench counts what the nodes can do and its clients share their cores.
type rawClient struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
}

func (s *Story) raw(ctx context.Context, machine string) (*rawClient, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.o.Dir, machine, "run", "api.sock"))
	if err != nil {
		return nil, err
	}
	return &rawClient{conn: conn, in: bufio.NewReaderSize(conn, 4096)}, nil
}

// put writes a key through the Consul dialect. An error other than an answer's leaves the connection useless.
func (c *rawClient) put(key, value string) error {
	c.buf = fmt.Appendf(c.buf[:0], "PUT /v1/kv/%s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", key, len(value), value)
	_ = c.conn.SetDeadline(time.Now().Add(stepTime))
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	status, body, err := readAnswer(c.in)
	if err == nil && (status != 200 || body != "true") {
		err = fmt.Errorf("put %s: HTTP %d: %s", key, status, strings.TrimSpace(body))
	}
	return err
}

// readAnswer reads an answer that has a Content-Length.
func readAnswer(in *bufio.Reader) (status int, body string, err error) {
	size := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		text := strings.TrimRight(string(line), "\r\n")
		if first {
			code, ok := strings.CutPrefix(text, "HTTP/1.1 ")
			if status, err = strconv.Atoi(code[:min(3, len(code))]); !ok || err != nil {
				return 0, "", fmt.Errorf("not an answer: %q", text)
			}
			continue
		}
		if text == "" {
			break
		}
		if name, v, _ := strings.Cut(text, ":"); strings.EqualFold(name, "Content-Length") {
			if size, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return 0, "", err
			}
		}
	}
	if size < 0 || size > maxAnswer {
		return 0, "", fmt.Errorf("an answer of %d bytes", size)
	}
	raw := make([]byte, size)
	_, err = io.ReadFull(in, raw)
	return status, string(raw), err
}
