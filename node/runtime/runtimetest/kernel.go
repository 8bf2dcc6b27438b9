package runtimetest

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"appliance/node/runtime"
)

var kernelTests = map[string]func(*testing.T, *suite){
	"MemoryLimit": testMemoryLimit,
	"CPULimit":    testCPULimit,
	"Confinement": testConfinement,
	"Stats":       testStats,
	"Update":      testUpdate,
}

func testMemoryLimit(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.MemoryLimit, "memory limit")
	spec := s.spec(t, "hog", "200")
	spec.Resources.MemoryBytes = 48 << 20
	exit, _, _ := s.run(t, spec)
	if !exit.Known || !exit.OOM || exit.Code != 137 {
		t.Errorf("%+v, want killed for lack of memory", exit)
	}
}

func testCPULimit(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.CPULimit, "CPU limit")
	spec := s.spec(t, "spin", "1000")
	spec.Resources.CPULimit = 0.25
	_, out, _ := s.run(t, spec)
	ms, err := strconv.Atoi(strings.TrimSpace(out))
	// The share is exact only over whole periods; a free core gives 1000.
	if err != nil || ms > 500 {
		t.Errorf("used %q ms of CPU in a second, allowed a quarter", out)
	}
}

func testConfinement(t *testing.T, s *suite) {
	s.needs(t, s.info.Features.Processes, "processes")
	spec := s.spec(t, "run")
	spec.Resources.Pids = 77
	id := s.start(t, spec)
	_, out, _ := s.exec(t, id, "read", "/proc/1/status")
	fields := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		k, v, _ := strings.Cut(line, ":")
		fields[k] = strings.TrimSpace(v)
	}
	want := map[string]string{"NoNewPrivs": "1", "CapEff": "00000000a80425fb"} // Docker's fourteen
	if s.info.Features.Seccomp {
		want["Seccomp"] = "2"
	}
	for k, v := range want {
		if fields[k] != v {
			t.Errorf("%s is %q, want %q", k, fields[k], v)
		}
	}
	if code, _, _ := s.exec(t, id, "write", "/proc/sys/kernel/hostname", "x"); code == 0 {
		t.Error("/proc/sys is writable")
	}
	if code, _, _ := s.exec(t, id, "read", "/proc/kcore"); code == 0 {
		if _, out, _ := s.exec(t, id, "read", "/proc/kcore"); out != "" {
			t.Error("/proc/kcore is readable")
		}
	}
}

func testStats(t *testing.T, s *suite) {
	spec := s.spec(t, "hog", "20")
	spec.Resources.MemoryBytes = 128 << 20
	id := s.start(t, spec)
	s.ready(t, id, "ready")
	st, err := s.rt.Stats(ctx(t), id)
	if err != nil {
		t.Fatal(err)
	}
	if st.At.IsZero() || st.MemoryLimit != 128<<20 || st.Pids == 0 {
		t.Errorf("%+v", st)
	}
	if s.info.Features.Processes && (st.MemoryBytes < 20<<20 || st.CPU <= 0 || st.CPU > time.Minute) {
		t.Errorf("%+v, after touching 20 MB", st)
	}
	if err := s.rt.Stop(ctx(t), id, 0); err != nil {
		t.Fatal(err)
	}
	s.wait(t, id)
	if _, err := s.rt.Stats(ctx(t), id); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("stats after the exit: %v, want ErrNotRunning", err)
	}
}

func testUpdate(t *testing.T, s *suite) {
	spec := s.spec(t, "run")
	spec.Resources.MemoryBytes = 64 << 20
	id := s.start(t, spec)
	if err := s.rt.Update(ctx(t), id, runtime.Resources{CPUs: 0.5, CPULimit: 1, MemoryBytes: 96 << 20}); err != nil {
		t.Fatal(err)
	}
	st, err := s.rt.Stats(ctx(t), id)
	if err != nil || st.MemoryLimit != 96<<20 {
		t.Errorf("%+v, %v", st, err)
	}
	s.create(t, spec) // an update is no other spec
}
