package discovery

import (
	"maps"
	"strconv"
	"strings"

	"appliance/node/model"
)

// settingPrefix begins the names of Registrator's settings in environment
// variables and labels.
const settingPrefix = "SERVICE_"

// settings are what SERVICE_* says about one port: keys in lower case without
// prefix; own tells which came from SERVICE_<port>_ and so are for this port
// alone.
type settings struct {
	values map[string]string
	own    map[string]bool
}

// settingsFor reads Registrator's conventions: labels win over environment,
// port-specific settings over general ones, the port's own labels over all.
func settingsFor(env, labels map[string]string, port model.Port, number int) settings {
	merged := map[string]string{}
	for k, v := range env {
		merged[k] = v
	}
	maps.Copy(merged, labels)
	s := settings{values: map[string]string{}, own: map[string]bool{}}
	special := map[string]string{}
	for k, v := range merged {
		key, ok := strings.CutPrefix(k, settingPrefix)
		if !ok || key == "" {
			continue
		}
		head, rest, _ := strings.Cut(key, "_")
		if n, err := strconv.Atoi(head); err == nil {
			if n == number && rest != "" {
				special[strings.ToLower(rest)] = v
			}
			continue
		}
		s.values[strings.ToLower(key)] = v
	}
	for k, v := range port.Labels {
		if key, ok := strings.CutPrefix(k, settingPrefix); ok && key != "" {
			special[strings.ToLower(key)] = v
		}
	}
	for k, v := range special {
		s.values[k] = v
		s.own[k] = true
	}
	return s
}

func (s settings) ignored() bool { return s.values["ignore"] != "" }

// name is the service's name. With several ports each gets a suffix, unless
// its name was given for the port.
func (s settings) name(fallback, suffix string, several bool) string {
	name := s.values["name"]
	if name == "" {
		name = fallback
	}
	if several && !s.own["name"] {
		name += "-" + suffix
	}
	return name
}

func (s settings) id(fallback, suffix string, several bool) string {
	id := s.values["id"]
	if id == "" {
		return fallback
	}
	if several && !s.own["id"] {
		id += "-" + suffix
	}
	return id
}

// tags are those of SERVICE_TAGS followed by the forced ones.
func (s settings) tags(forced ...string) []string {
	tags := SplitTags(s.values["tags"])
	seen := map[string]bool{}
	for _, t := range tags {
		seen[t] = true
	}
	for _, t := range forced {
		if t != "" && !seen[t] {
			seen[t] = true
			tags = append(tags, t)
		}
	}
	return tags
}

// meta is everything that has no meaning of its own.
func (s settings) meta() map[string]string {
	meta := map[string]string{}
	for k, v := range s.values {
		switch k {
		case "name", "id", "tags", "ignore":
		default:
			meta[k] = v
		}
	}
	return meta
}

// SplitTags splits SERVICE_TAGS at commas; "\," is a comma inside a tag.
// Spaces around tags and empty tags are dropped.
func SplitTags(list string) []string {
	tags := []string{}
	var b strings.Builder
	flush := func() {
		if t := strings.TrimSpace(b.String()); t != "" {
			tags = append(tags, t)
		}
		b.Reset()
	}
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list) && list[i+1] == ',':
			b.WriteByte(',')
			i++
		case list[i] == ',':
			flush()
		default:
			b.WriteByte(list[i])
		}
	}
	flush()
	return tags
}
