package discovery_test

import (
	"reflect"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/node/model"
)

func TestConventionChecks(t *testing.T) {
	seconds := func(n int) model.Duration { return model.Duration(time.Duration(n) * time.Second) }
	tests := []struct {
		name   string
		env    map[string]string
		labels map[string]string
		want   []model.Check
	}{
		{"none", nil, nil, nil},
		{"http for one port", map[string]string{"SERVICE_80_CHECK_HTTP": "/health", "SERVICE_80_CHECK_INTERVAL": "3s"}, nil,
			[]model.Check{{Type: "http", Path: "/health", Port: 0, Interval: seconds(3)}}},
		{"tcp for all", map[string]string{"SERVICE_CHECK_TCP": "true", "SERVICE_CHECK_TIMEOUT": "2s"}, nil,
			[]model.Check{{Type: "tcp", Port: 0, Interval: seconds(10), Timeout: seconds(2)}, {Type: "tcp", Port: 1, Interval: seconds(10), Timeout: seconds(2)}}},
		{"label wins, ignored port has none", map[string]string{"SERVICE_CHECK_HTTP": "/a", "SERVICE_81_IGNORE": "1"}, map[string]string{"SERVICE_CHECK_HTTP": "/b"},
			[]model.Check{{Type: "http", Path: "/b", Port: 0, Interval: seconds(10)}}},
		{"command, bad interval", map[string]string{"SERVICE_80_CHECK_CMD": "true", "SERVICE_CHECK_INTERVAL": "soon"}, nil,
			[]model.Check{{Type: "command", Command: []string{"/bin/sh", "-c", "true"}, Interval: seconds(10)}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := model.AppSpec{Env: tt.env, Labels: tt.labels, Ports: []model.Port{{ContainerPort: 80}, {ContainerPort: 81}}}
			if got := discovery.ConventionChecks(spec); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}
