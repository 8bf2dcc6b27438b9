package discovery

import (
	"time"

	"appliance/node/model"
)

// defaultCheckInterval is Registrator's.
const defaultCheckInterval = 10 * time.Second

// ConventionChecks reads the health checks that an app describes by
// Registrator's SERVICE_CHECK_* settings. It is for whoever makes a release of
// an app without checks of its own: what is in the release is what the agent
// probes and what the catalog believes. CHECK_TTL and CHECK_GRPC have no
// counterpart and are left out.
func ConventionChecks(spec model.AppSpec) []model.Check {
	var out []model.Check
	for i, p := range spec.Ports {
		number := p.ContainerPort
		if number == 0 {
			number = p.HostPort
		}
		s := settingsFor(spec.Env, spec.Labels, p, number)
		c := model.Check{
			Port:     i,
			Interval: settingDuration(s, "check_interval", defaultCheckInterval),
			Timeout:  settingDuration(s, "check_timeout", 0),
		}
		switch v := s.values; {
		case s.ignored():
			continue
		case v["check_http"] != "":
			c.Type, c.Path = "http", v["check_http"]
		case v["check_https"] != "":
			c.Type, c.Path = "https", v["check_https"]
		case v["check_cmd"] != "":
			c.Type, c.Command = "command", []string{"/bin/sh", "-c", v["check_cmd"]}
		case v["check_tcp"] != "":
			c.Type = "tcp"
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// settingDuration takes what can be read, as Registrator does.
func settingDuration(s settings, key string, fallback time.Duration) model.Duration {
	if d, err := time.ParseDuration(s.values[key]); err == nil && d > 0 {
		return model.Duration(d)
	}
	return model.Duration(fallback)
}
