package build

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Dockerfile is what ParseDockerfile understands of one.
type Dockerfile struct {
	From string // "scratch", or an image reference to resolve
	Spec Spec   // without Base and Context
}

// maxDockerfile in bytes; a real one has kilobytes.
const maxDockerfile = 1 << 20

// ParseError names the line at fault.
type ParseError struct {
	Line   int // from 1
	Reason string
}

func (e *ParseError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

func syntax(line int, format string, args ...any) error {
	return &ParseError{line, fmt.Sprintf(format, args...)}
}

// unsupported tells why and what to do instead.
var unsupported = map[string]string{
	"RUN":         "nothing is executed while building: run the command before and COPY its result",
	"ADD":         "use COPY, and unpack archives before",
	"ARG":         "write the value where it is used",
	"HEALTHCHECK": "describe health checks in the app's specification",
	"VOLUME":      "describe volumes in the app's specification",
	"SHELL":       `write commands as JSON lists: ["program", "argument"]`,
	"STOPSIGNAL":  "the app's specification says how a task is stopped",
	"ONBUILD":     "write the instruction where it is needed",
	"MAINTAINER":  "use LABEL org.opencontainers.image.authors=...",
}

type parser struct {
	Dockerfile
	seen bool // FROM
}

// ParseDockerfile reads the subset FROM (one), COPY, ENV, EXPOSE, ENTRYPOINT,
// CMD, WORKDIR, USER and LABEL. Anything else is an error that names the line
// and a way out; nothing is skipped in silence.
func ParseDockerfile(text string) (Dockerfile, error) {
	if len(text) > maxDockerfile {
		return Dockerfile{}, syntax(1, "longer than %d bytes", maxDockerfile)
	}
	p := &parser{}
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); {
		number := i + 1
		instruction, next := join(lines, i)
		i = next
		if instruction == "" {
			continue
		}
		if err := p.instruction(number, instruction); err != nil {
			return Dockerfile{}, err
		}
	}
	if !p.seen {
		return Dockerfile{}, syntax(len(lines), "no FROM: begin with FROM scratch or FROM an image")
	}
	return p.Dockerfile, nil
}

// join returns the instruction that begins at line i, continued over lines
// that end in a backslash, without comments.
func join(lines []string, i int) (instruction string, next int) {
	var b strings.Builder
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "#") || line == "" && b.Len() > 0 {
			if b.Len() == 0 {
				return "", i + 1
			}
			continue
		}
		part, more := strings.CutSuffix(line, `\`)
		b.WriteString(part)
		if !more {
			return strings.TrimSpace(b.String()), i + 1
		}
	}
	return strings.TrimSpace(b.String()), i
}

func (p *parser) instruction(line int, text string) error {
	word, rest, _ := strings.Cut(text, " ")
	if i := strings.IndexByte(text, '\t'); i >= 0 && i < len(word) {
		word, rest = text[:i], text[i:]
	}
	rest = strings.TrimSpace(rest)
	name := strings.ToUpper(word)
	if way, ok := unsupported[name]; ok {
		return syntax(line, "%s is not supported: %s", name, way)
	}
	handle, ok := map[string]func(int, string) error{
		"FROM": p.from, "COPY": p.copy, "ENV": p.env, "EXPOSE": p.expose, "ENTRYPOINT": p.entrypoint,
		"CMD": p.cmd, "WORKDIR": p.workdir, "USER": p.user, "LABEL": p.label,
	}[name]
	switch {
	case !ok:
		return syntax(line, "unknown instruction %q", word)
	case rest == "":
		return syntax(line, "%s needs an argument", name)
	case !p.seen && name != "FROM":
		return syntax(line, "%s before FROM", name)
	}
	if name != "ENTRYPOINT" && name != "CMD" && strings.Contains(rest, "$") {
		return syntax(line, "variables are not supported: write the value in place of %q", rest[strings.IndexByte(rest, '$'):])
	}
	return handle(line, rest)
}

func (p *parser) from(line int, rest string) error {
	fields := strings.Fields(rest)
	switch {
	case p.seen:
		return syntax(line, "a second FROM: builds with stages are not supported")
	case strings.HasPrefix(rest, "--"):
		return syntax(line, "FROM with %s is not supported", fields[0])
	case len(fields) == 3 && strings.EqualFold(fields[1], "AS"): // a name nobody can refer to
	case len(fields) != 1:
		return syntax(line, "FROM takes one image")
	}
	p.seen, p.From = true, fields[0]
	return nil
}

func (p *parser) copy(line int, rest string) error {
	c := Copy{}
	for strings.HasPrefix(rest, "--") {
		option, after, _ := strings.Cut(rest, " ")
		if err := copyOption(&c, line, option); err != nil {
			return err
		}
		rest = strings.TrimSpace(after)
	}
	fields := strings.Fields(rest)
	if strings.HasPrefix(rest, "[") {
		if err := json.Unmarshal([]byte(rest), &fields); err != nil {
			return syntax(line, "COPY: not a JSON list of strings: %v", err)
		}
	}
	if len(fields) < 2 {
		return syntax(line, "COPY needs a source and a destination")
	}
	last := len(fields) - 1
	c.Sources, c.To = fields[:last], fields[last]
	for _, s := range c.Sources {
		if strings.ContainsAny(s, "*?[") {
			return syntax(line, "COPY %s: patterns are not supported, name the files or their directory", s)
		}
		if strings.HasPrefix(s, "<<") {
			return syntax(line, "COPY of an inline file is not supported")
		}
	}
	if len(c.Sources) > 1 && !strings.HasSuffix(c.To, "/") {
		return syntax(line, "COPY of several sources needs a destination that ends in /")
	}
	c.To = p.absolute(c.To)
	p.Spec.Copies = append(p.Spec.Copies, c)
	return nil
}

// absolute resolves against WORKDIR and keeps a final slash, which matters.
func (p *parser) absolute(to string) string {
	slash := strings.HasSuffix(to, "/") || to == "." || strings.HasSuffix(to, "/.")
	if !path.IsAbs(to) {
		to = path.Join("/", p.Spec.Config.WorkingDir, to)
	}
	to = path.Clean(to)
	if slash && to != "/" {
		to += "/"
	}
	return to
}

func copyOption(c *Copy, line int, option string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(option, "--"), "=")
	switch name {
	case "chown":
		uid, gid, both := strings.Cut(value, ":")
		if !both {
			gid = uid
		}
		u, err1 := strconv.ParseUint(uid, 10, 31)
		g, err2 := strconv.ParseUint(gid, 10, 31)
		if err1 != nil || err2 != nil {
			return syntax(line, "COPY --chown=%s: want numbers, as 1000:1000", value)
		}
		c.UID, c.GID = int(u), int(g)
	case "chmod":
		mode, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return syntax(line, "COPY --chmod=%s: want an octal number, as 755", value)
		}
		c.Mode = int64(mode)
	case "from":
		return syntax(line, "COPY --from is not supported: there are no stages, copy from the build context")
	default:
		return syntax(line, "COPY %s is not supported", option)
	}
	return nil
}

func (p *parser) env(line int, rest string) error {
	pairs, err := keyValues(line, "ENV", rest)
	for _, kv := range pairs {
		p.Spec.Config.Env = append(p.Spec.Config.Env, kv[0]+"="+kv[1])
	}
	return err
}

func (p *parser) label(line int, rest string) error {
	pairs, err := keyValues(line, "LABEL", rest)
	for _, kv := range pairs {
		if p.Spec.Config.Labels == nil {
			p.Spec.Config.Labels = map[string]string{}
		}
		p.Spec.Config.Labels[kv[0]] = kv[1]
	}
	return err
}

func (p *parser) expose(line int, rest string) error {
	for _, f := range strings.Fields(rest) {
		port, err := parsePort(f)
		if err != nil {
			return syntax(line, "EXPOSE: %v", err)
		}
		p.Spec.Config.Ports = append(p.Spec.Config.Ports, port)
	}
	return nil
}

func (p *parser) workdir(_ int, rest string) error {
	p.Spec.Config.WorkingDir = path.Join("/", p.Spec.Config.WorkingDir, rest)
	if path.IsAbs(rest) {
		p.Spec.Config.WorkingDir = path.Clean(rest)
	}
	return nil
}

func (p *parser) user(line int, rest string) error {
	if len(strings.Fields(rest)) != 1 {
		return syntax(line, "USER takes one user[:group]")
	}
	p.Spec.Config.User = rest
	return nil
}

func (p *parser) entrypoint(line int, rest string) (err error) {
	p.Spec.Config.Entrypoint, err = p.command(line, "ENTRYPOINT", rest)
	return err
}

func (p *parser) cmd(line int, rest string) (err error) {
	p.Spec.Config.Cmd, err = p.command(line, "CMD", rest)
	return err
}

// command reads the JSON form, or the shell form where there is a shell.
func (p *parser) command(line int, name, rest string) ([]string, error) {
	if strings.HasPrefix(rest, "[") {
		list := []string{}
		if err := json.Unmarshal([]byte(rest), &list); err != nil {
			return nil, syntax(line, `%s: not a JSON list of strings (use double quotes): %v`, name, err)
		}
		return list, nil
	}
	if p.From == "scratch" {
		return nil, syntax(line, `%s needs /bin/sh in this form, which scratch does not have: write ["program", "argument"]`, name)
	}
	return []string{"/bin/sh", "-c", rest}, nil
}
