package marathon

import (
	"regexp"
	"slices"
	"strings"
)

var (
	setSelector   = regexp.MustCompile(`^\s*([^\s,!=()]+)\s+(in|notin)\s*\(([^()]*)\)\s*(?:,|$)`)
	plainSelector = regexp.MustCompile(`^\s*([^\s,!=()]+)\s*(?:(==|!=)\s*([^\s,()]*))?\s*(?:,|$)`)
)

// parseSelector reads a label selector: k, k==v, k!=v, k in (a,b),
// k notin (a,b), joined by commas that mean "and".
func parseSelector(s string) (func(map[string]string) bool, error) {
	var tests []func(map[string]string) bool
	for rest := strings.TrimSpace(s); rest != ""; rest = strings.TrimSpace(rest) {
		if m := setSelector.FindStringSubmatch(rest); m != nil {
			values := strings.Split(m[3], ",")
			for i := range values {
				values[i] = strings.TrimSpace(values[i])
			}
			key, in := m[1], m[2] == "in"
			tests = append(tests, func(l map[string]string) bool {
				v, ok := l[key]
				return ok && slices.Contains(values, v) == in
			})
			rest = rest[len(m[0]):]
			continue
		}
		m := plainSelector.FindStringSubmatch(rest)
		if m == nil {
			return nil, unprocessable("Couldn't parse label selector: %s", s)
		}
		key, op, want := m[1], m[2], m[3]
		tests = append(tests, func(l map[string]string) bool {
			v, ok := l[key]
			return op == "" && ok || op == "==" && ok && v == want || op == "!=" && v != want
		})
		rest = rest[len(m[0]):]
	}
	return func(l map[string]string) bool {
		for _, t := range tests {
			if !t(l) {
				return false
			}
		}
		return true
	}, nil
}
