package story

import (
	"bufio"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	cases := []struct {
		name, text string
		status     int
		body       string
		bad        bool
	}{
		{name: "written", text: "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nX: y\r\n\r\ntrue", status: 200, body: "true"},
		{name: "refused", text: "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno", status: 500, body: "no"},
		{name: "no length", text: "HTTP/1.1 200 OK\r\n\r\n", bad: true},
		{name: "cut short", text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntrue", bad: true},
		{name: "another protocol", text: "220 hello\r\n", bad: true},
		{name: "short", text: "HTTP/1.1 2\n", bad: true},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			status, body, err := readAnswer(bufio.NewReader(strings.NewReader(tc.text)))
			if (err != nil) != tc.bad || err == nil && (status != tc.status || body != tc.body) {
				t.Errorf("%d %q %v", status, body, err)
			}
		})
	}
}
