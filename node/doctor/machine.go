package doctor

import (
	"fmt"
	"time"
)

const (
	mib = 1 << 20
	// Of the disk: a share, but never more than diskEnough, since a tenth of a
	// large disk is room for years. Under diskLeast even the log is in danger:
	// its segments are 64 MiB.
	diskWarn   = 0.10
	diskError  = 0.03
	diskEnough = 5 << 30
	diskLeast  = 256 * mib
	// inodeWarn and inodeError are shares that are used.
	inodeWarn, inodeError = 0.90, 0.98
	// A clock that is off by 250 ms spoils the order in logs of several nodes;
	// by 2 s it makes tokens, leases and certificates last wrongly.
	clockWarn, clockError = 250 * time.Millisecond, 2 * time.Second
	// clockHold: an offset is an error of measurement until it has lasted.
	clockHold = 3 * time.Second
	// stepWarn is a jump that somebody may have seen; stepShown how long it is
	// told.
	stepWarn  = time.Second
	stepShown = 10 * time.Minute
	// Each connection and file needs a descriptor; at the limit all ports go deaf.
	filesWarn, filesError = 0.70, 0.90
	// The kernel ends a process at its limit; a node without a limit of its own
	// should leave most of the machine to the apps.
	memoryWarn, memoryError = 0.80, 0.95
	ownShareWarn            = 0.50
	freeWarn, freeError     = 0.92, 0.97 // of the machine's memory in use
	memoryHold              = 20 * time.Second
	// A durable write takes about 1 ms; at 100 ms users feel it, at 1 s leases
	// and elections come near their limits.
	writeWarn, writeError = 100 * time.Millisecond, time.Second
	writeHold             = 5 * time.Second
)

// Was tells the severity of an open finding, for hysteresis.
type Was func(Code) Severity

func checkDisk(s *Sample, was Was) []Finding {
	d := s.Disk
	if d.Size == 0 {
		return nil
	}
	var out []Finding
	// As shares of what is wanted free: 1 is the threshold, more is worse.
	warn := min(max(float64(d.Size)*diskWarn, diskLeast), diskEnough)
	bad := min(max(float64(d.Size)*diskError, diskLeast/2), diskEnough/4)
	free := max(float64(d.Free), 1)
	sev := Fine
	switch {
	case free <= slack(bad, Error, was(DiskSpace)):
		sev = Error
	case free <= slack(warn, Warning, was(DiskSpace)):
		sev = Warning
	}
	if sev != Fine {
		out = append(out, Finding{Code: DiskSpace, Severity: sev, What: fmt.Sprintf("%s are free on the disk of %s", size(d.Free), d.Dir),
			Why: fmt.Sprintf("of %s; the log, images and volumes cannot grow without room", size(d.Size)),
			Fix: "free some space: appliance images shows what the registry holds; du -xh --max-depth=2 " + d.Dir})
	}
	if d.Inodes > 0 {
		used := 1 - float64(d.InodesFree)/float64(d.Inodes)
		if sev := (Level{inodeWarn, inodeError}).Judge(used, was(DiskInodes)); sev != Fine {
			out = append(out, Finding{Code: DiskInodes, Severity: sev, What: fmt.Sprintf("%d of %d inodes are free on the disk of %s", d.InodesFree, d.Inodes, d.Dir),
				Why: "without one no file can be made, however much space is free", Fix: "remove directories with many small files"})
		}
	}
	if d.ReserveWanted > 0 && d.Reserve < d.ReserveWanted {
		why := "the disk was full, and the reserve was given up so that the node could go on writing"
		if d.ReserveErr != "" {
			why = d.ReserveErr
		}
		out = append(out, Finding{Code: DiskReserve, Severity: Warning, What: fmt.Sprintf("the reserve of %s on the disk of %s is missing", size(d.ReserveWanted), d.Dir),
			Why: why, Fix: "free some space; the node makes it again by itself", hold: 5 * time.Second})
	}
	return out
}

// slack raises a lower threshold that is already crossed, so that a figure at
// it does not flap.
func slack(threshold float64, of, was Severity) float64 {
	if !of.Worse(was) {
		return threshold / hysteresis
	}
	return threshold
}

func size(b uint64) string {
	if b >= 10<<30 {
		return fmt.Sprintf("%d GiB", b>>30)
	}
	return fmt.Sprintf("%d MiB", b>>20)
}

func checkLog(s *Sample, was Was) []Finding {
	if s.Log.Failure != "" {
		return []Finding{{Code: DiskWrites, Severity: Error, What: "the log cannot be written", Why: s.Log.Failure,
			Fix: "free space or replace the disk; the other masters go on, and this one rejoins by itself"}}
	}
	if sev := (Level{writeWarn.Seconds(), writeError.Seconds()}).Judge(s.Log.Slow.Seconds(), was(DiskWrites)); sev != Fine {
		return []Finding{{Code: DiskWrites, Severity: sev, What: fmt.Sprintf("durable writes of the log take %v", s.Log.Slow.Round(time.Millisecond)),
			Why: "every change waits for a majority of the masters' disks", Fix: "see what loads the disk: iostat -x 1; a disk of its own for the data directory helps", hold: writeHold}}
	}
	return nil
}

func checkClock(s *Sample, was Was) []Finding {
	var out []Finding
	if sure := s.Clock.Ahead.Abs() - s.Clock.Slack; s.Clock.Known && sure > 0 {
		if sev := (Level{clockWarn.Seconds(), clockError.Seconds()}).Judge(sure.Seconds(), was(ClockOffset)); sev != Fine {
			side := "ahead of"
			if s.Clock.Ahead < 0 {
				side = "behind"
			}
			out = append(out, Finding{Code: ClockOffset, Severity: sev, hold: clockHold,
				What: fmt.Sprintf("the clock is %s %s that of the other nodes (give or take %s)", short(s.Clock.Ahead.Abs()), side, short(s.Clock.Slack)),
				Why:  "expiry of tokens, leases and certificates, and the order of logs, go by it", Fix: "run a time service: timedatectl set-ntp true; chronyc makestep"})
		}
	}
	if step := s.Clock.Step; step.Abs() >= stepWarn && s.Now.Sub(s.Clock.SteppedAt) < stepShown {
		dir := "forward"
		if step < 0 {
			dir = "back"
		}
		out = append(out, Finding{Code: ClockStep, Severity: Warning, Since: s.Clock.SteppedAt,
			What: fmt.Sprintf("the clock jumped %s by %s", dir, short(step.Abs())), Why: "somebody set it, or the machine slept",
			Fix: "let a time service adjust it slowly, as chronyd does after the start"})
	}
	return out
}

func short(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func checkFiles(s *Sample, was Was) []Finding {
	if s.Files.Limit == 0 {
		return nil
	}
	share := float64(s.Files.Open) / float64(s.Files.Limit)
	sev := (Level{filesWarn, filesError}).Judge(share, was(OpenFiles))
	if sev == Fine {
		return nil
	}
	return []Finding{{Code: OpenFiles, Severity: sev, What: fmt.Sprintf("%d of %d file descriptors are in use", s.Files.Open, s.Files.Limit),
		Why: "at the limit the node takes no connections any more", Fix: "raise LimitNOFILE of the service; appliance status tells whether clients leave many connections open"}}
}

func checkMemory(s *Sample, was Was) []Finding {
	var out []Finding
	m := s.Memory
	limit, level, what := m.Total, Level{ownShareWarn, memoryError}, "of the machine's"
	if m.Limit > 0 && m.Limit < m.Total {
		limit, level, what = m.Limit, Level{memoryWarn, memoryError}, "of the allowed"
	}
	if limit > 0 {
		if sev := level.Judge(float64(m.RSS)/float64(limit), was(OwnMemory)); sev != Fine {
			out = append(out, Finding{Code: OwnMemory, Severity: sev, hold: memoryHold, What: fmt.Sprintf("the node itself uses %s %s %s", size(m.RSS), what, size(limit)),
				Why: "the kernel ends it at the limit", Fix: "give the machine more memory; a profile is at /debug/pprof/heap of the API socket"})
		}
	}
	if m.Total > 0 && m.Available > 0 {
		used := 1 - float64(m.Available)/float64(m.Total)
		if sev := (Level{freeWarn, freeError}).Judge(used, was(MachineMemory)); sev != Fine {
			out = append(out, Finding{Code: MachineMemory, Severity: sev, hold: memoryHold, What: fmt.Sprintf("%s of %s of memory are available", size(m.Available), size(m.Total)),
				Why: "the kernel will end some process", Fix: "scale apps down here, or give them memory limits: appliance ps --node " + s.Node})
		}
	}
	return out
}
