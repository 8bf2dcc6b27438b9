package build

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParseDockerfile(t *testing.T) {
	got, err := ParseDockerfile(`# syntax=docker/dockerfile:1
FROM debian:12 AS final

LABEL a=b "c d"="e \"f\"" \
      # a comment inside
      g='h i'
ENV PATH_INFO=/x OTHER="two words"
ENV OLD style of value
WORKDIR /srv
WORKDIR app
COPY --chown=1000:1001 --chmod=755 run.sh bin/
COPY ["with space", "/x"]
EXPOSE 80 53/udp
USER 1000:1001
ENTRYPOINT ["/srv/app/bin/run.sh", "--flag"]
CMD echo $HOME
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Dockerfile{From: "debian:12", Spec: Spec{
		Copies: []Copy{{Sources: []string{"run.sh"}, To: "/srv/app/bin/", UID: 1000, GID: 1001, Mode: 0o755}, {Sources: []string{"with space"}, To: "/x"}},
		Config: Config{User: "1000:1001", WorkingDir: "/srv/app", Ports: []string{"80/tcp", "53/udp"},
			Env:        []string{"PATH_INFO=/x", "OTHER=two words", "OLD=style of value"},
			Labels:     map[string]string{"a": "b", "c d": `e "f"`, "g": "h i"},
			Entrypoint: []string{"/srv/app/bin/run.sh", "--flag"}, Cmd: []string{"/bin/sh", "-c", "echo $HOME"}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v\nwant\n%+v", got, want)
	}
}

func TestDockerfileErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		line int
		want string
	}{
		"RUN":               {"FROM scratch\n\nRUN make\n", 3, "RUN is not supported: nothing is executed"},
		"ADD":               {"FROM scratch\nadd a b", 2, "use COPY"},
		"unknown":           {"FROM scratch\nFROBNICATE x", 2, `unknown instruction "FROBNICATE"`},
		"no FROM":           {"# nothing\n", 2, "no FROM"},
		"before FROM":       {"COPY a b", 1, "COPY before FROM"},
		"stages":            {"FROM scratch\nFROM debian", 2, "stages"},
		"platform":          {"FROM --platform=linux/amd64 debian", 1, "--platform"},
		"copy from stage":   {"FROM scratch\nCOPY --from=b /a /b", 2, "no stages"},
		"copy pattern":      {"FROM scratch\nCOPY *.go /", 2, "patterns"},
		"copy heredoc":      {"FROM scratch\nCOPY <<EOF /x\nhello\nEOF", 2, "inline file"},
		"copy one argument": {"FROM scratch\nCOPY a", 2, "a source and a destination"},
		"copy many to one":  {"FROM scratch\nCOPY a b c", 2, "ends in /"},
		"chown by name":     {"FROM scratch\nCOPY --chown=www a /", 2, "want numbers"},
		"variable":          {"FROM scratch\nENV A=1\nENV B=$A", 3, `variables are not supported: write the value in place of "$A"`},
		"shell on scratch":  {"FROM scratch\nCMD app --x", 2, "needs /bin/sh"},
		"bad JSON":          {"FROM scratch\nCMD ['app']", 2, "double quotes"},
		"bad port":          {"FROM scratch\nEXPOSE 0", 2, "1-65535"},
		"open quote":        {"FROM scratch\nLABEL a=\"b", 2, "not closed"},
		"bad pair":          {"FROM scratch\nENV a=b c", 2, "want NAME=value"},
		"continued":         {"FROM scratch\nENV a=b \\\n c=d\nRUN x", 4, "RUN"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseDockerfile(tc.text)
			var at *ParseError
			if !errors.As(err, &at) || at.Line != tc.line || !strings.Contains(at.Reason, tc.want) {
				t.Fatalf("got %v, want line %d: %s", err, tc.line, tc.want)
			}
		})
	}
}

func FuzzParseDockerfile(f *testing.F) {
	f.Add("FROM scratch\nCOPY a /\nCMD [\"/a\"]")
	f.Add("FROM a\nENV x=\"\\\nRUN")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDockerfile(text)
		if err != nil {
			var at *ParseError
			if !errors.As(err, &at) || at.Line < 1 || at.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, c := range d.Spec.Copies {
			if !strings.HasPrefix(c.To, "/") || strings.Contains(c.To, "/../") {
				t.Fatalf("destination %q", c.To)
			}
		}
	})
}
