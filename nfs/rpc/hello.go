package rpc

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// A connection to a volume starts with one line in each direction, before any RPC record:
//
//	client: "appliance-nfs/1 VOLUME\n"
//	server: "ok\n"  or  "error REASON\n"
//
// It names the volume, so that every hop (agent endpoint, tunnel, server) can route and authorize
// the connection without reading RPC. A kernel client does not send it; the agent's endpoint for
// kernel clients adds it.
const hello = "appliance-nfs/1 "

// maxHello bounds a line: a volume name of 255 bytes and room for a reason.
const maxHello = 1024

// ErrRefused wraps the reason for which the far side refused a volume.
var ErrRefused = errors.New("volume refused")

// WriteHello names the volume that the connection is for.
func WriteHello(w io.Writer, volume string) error {
	_, err := io.WriteString(w, hello+volume+"\n")
	return err
}

// ReadHello reads the volume's name. It reads no byte beyond the line.
func ReadHello(r io.Reader) (string, error) {
	line, err := readLine(r)
	if err != nil {
		return "", err
	}
	v, ok := strings.CutPrefix(line, hello)
	if !ok || v == "" {
		return "", fmt.Errorf("not a volume connection: starts with %.20q", line)
	}
	return v, nil
}

// WriteHelloReply accepts (nil) or refuses the volume.
func WriteHelloReply(w io.Writer, refusal error) error {
	s := "ok\n"
	if refusal != nil {
		s = strings.NewReplacer("\n", " ", "\r", " ").Replace(fmt.Sprintf("error %.900s", refusal)) + "\n"
	}
	_, err := io.WriteString(w, s)
	return err
}

// ReadHelloReply returns nil when accepted, an error wrapping ErrRefused when refused.
func ReadHelloReply(r io.Reader) error {
	line, err := readLine(r)
	if err != nil {
		return err
	}
	if line == "ok" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRefused, strings.TrimPrefix(line, "error "))
}

func readLine(r io.Reader) (string, error) {
	var b [1]byte
	var line []byte
	for len(line) < maxHello {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("first line too long")
}
