package doctor

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// well is a sample of a node in which nothing is wrong.
func well() *Sample {
	member := func(name string) Member { return Member{Name: name, Version: "v1", Alive: true, Since: t0} }
	return &Sample{Now: t0, Node: "mm1", Master: true, Leader: "mm1", Version: "v1",
		Disk:     Disk{Dir: "/d", Size: 100 << 30, Free: 50 << 30, Inodes: 1000, InodesFree: 900, Reserve: 64 * mib, ReserveWanted: 64 * mib},
		Log:      Log{Slow: time.Millisecond},
		Clock:    Clock{Known: true, Ahead: 3 * time.Millisecond, Slack: time.Millisecond},
		Files:    Files{Open: 100, Limit: 1000},
		Memory:   Memory{RSS: 100 * mib, Total: 1 << 30, Available: 500 * mib},
		Certs:    Certs{LeafFrom: t0.Add(-12 * time.Hour), LeafTo: t0.Add(12 * time.Hour), CATo: t0.Add(10 * 365 * 24 * time.Hour)},
		Masters:  []Member{member("mm1"), member("mm2"), member("mm3")},
		Nodes:    []Member{member("mm1"), member("mm2"), member("mm3"), member("ms1")},
		Snapshot: Snapshot{Wanted: true, At: t0.Add(-time.Hour), Started: t0.Add(-24 * time.Hour), Every: 6 * time.Hour}}
}

func never(Code) Severity { return Fine }

func codes(list []Finding) string {
	var out []string
	for _, f := range list {
		out = append(out, fmt.Sprintf("%s %s", f.Code, f.Severity))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestExamine(t *testing.T) {
	cases := []struct {
		name   string
		change func(s *Sample)
		want   string
	}{
		{"all is well", func(*Sample) {}, ""},
		{"little space", func(s *Sample) { s.Disk.Free = 4 << 30 }, "D001 warning"},
		{"very little space", func(s *Sample) { s.Disk.Free = 1 << 30 }, "D001 error"},
		{"a tenth of a large disk is enough", func(s *Sample) { s.Disk.Size, s.Disk.Free = 4<<40, 6<<30 }, ""},
		{"a small disk", func(s *Sample) { s.Disk.Size, s.Disk.Free = 1<<30, 200*mib }, "D001 warning"},
		{"inodes", func(s *Sample) { s.Disk.InodesFree = 90 }, "D002 warning"},
		{"no inodes", func(s *Sample) { s.Disk.InodesFree = 3 }, "D002 error"},
		{"a file system without inodes", func(s *Sample) { s.Disk.Inodes, s.Disk.InodesFree = 0, 0 }, ""},
		{"reserve given up", func(s *Sample) { s.Disk.Reserve = 0 }, "D003 warning"},
		{"slow log", func(s *Sample) { s.Log.Slow = 150 * time.Millisecond }, "D004 warning"},
		{"failing log", func(s *Sample) { s.Log.Failure = "no space" }, "D004 error"},
		{"clock ahead", func(s *Sample) { s.Clock.Ahead = 300 * time.Millisecond }, "D010 warning"},
		{"clock far behind", func(s *Sample) { s.Clock.Ahead = -3 * time.Second }, "D010 error"},
		{"clock that may be right", func(s *Sample) { s.Clock.Ahead, s.Clock.Slack = 400*time.Millisecond, 300*time.Millisecond }, ""},
		{"clock that nobody can tell", func(s *Sample) { s.Clock.Ahead, s.Clock.Known = time.Hour, false }, ""},
		{"clock that jumped", func(s *Sample) { s.Clock.Step, s.Clock.SteppedAt = -time.Minute, t0.Add(-time.Minute) }, "D011 warning"},
		{"clock that jumped long ago", func(s *Sample) { s.Clock.Step, s.Clock.SteppedAt = -time.Minute, t0.Add(-time.Hour) }, ""},
		{"descriptors", func(s *Sample) { s.Files.Open = 950 }, "D020 error"},
		{"own memory of the machine", func(s *Sample) { s.Memory.RSS = 600 * mib }, "D021 warning"},
		{"own memory under a limit", func(s *Sample) { s.Memory.RSS, s.Memory.Limit = 99*mib, 100*mib }, "D021 error"},
		{"machine without memory", func(s *Sample) { s.Memory.Available = 20 * mib }, "D022 error"},
		{"leaf at half of its life", func(s *Sample) { s.Certs.LeafTo = t0.Add(11 * time.Hour) }, ""},
		{"leaf not renewed", func(s *Sample) { s.Certs.LeafTo = t0.Add(2 * time.Hour) }, "D030 warning"},
		{"leaf ran out", func(s *Sample) { s.Certs.LeafTo = t0.Add(-time.Hour) }, "D030 error"},
		{"CA within a year", func(s *Sample) { s.Certs.CATo = t0.Add(300 * 24 * time.Hour) }, "D031 warning"},
		{"CA within a month", func(s *Sample) { s.Certs.CATo = t0.Add(20 * 24 * time.Hour) }, "D031 error"},
		{"one master", func(s *Sample) { s.Masters = s.Masters[:1] }, "D040 warning"},
		{"a master is away", func(s *Sample) { s.Masters[2].Alive = false }, "D040 warning"},
		{"the majority is away", func(s *Sample) { s.Masters[1].Alive, s.Masters[2].Alive = false, false }, "D041 error"},
		{"nobody leads", func(s *Sample) { s.Leader = "" }, "D041 error"},
		{"nobody leads, and nothing is known", func(s *Sample) { s.Masters, s.Leader, s.Master = nil, "", true }, "D041 error"},
		{"four masters", func(s *Sample) { s.Masters = append(s.Masters, s.Masters[0]) }, "D040 warning"},
		{"old state", func(s *Sample) { s.Stale = true }, "D042 error"},
		{"copied data", func(s *Sample) { s.Conflict = "twice" }, "D043 error"},
		{"no snapshot for a day", func(s *Sample) { s.Snapshot.At = t0.Add(-25 * time.Hour) }, "D050 warning"},
		{"no snapshot, but nothing to save", func(s *Sample) { s.Snapshot.At, s.Snapshot.Wanted = time.Time{}, false }, ""},
		{"no snapshot, but just started", func(s *Sample) { s.Snapshot.At, s.Snapshot.Started = time.Time{}, t0.Add(-time.Minute) }, ""},
		{"a damaged file", func(s *Sample) { s.Damaged = []Damage{{"/audit/1", "a bit", "copy it"}} }, "D051 error"},
		{"two versions", func(s *Sample) { s.Nodes[1].Version = "v2" }, "D060 warning"},
		{"a part", func(s *Sample) { s.Parts = []Part{{"DNS", "port in use", "free it"}} }, "D061 warning"},
		{"a link", func(s *Sample) { s.Links = []Link{{From: "mm1", To: "ms1", What: "cut"}} }, "D070 warning"},
		{"a link of masters", func(s *Sample) { s.Links = []Link{{From: "mm1", To: "mm2", What: "cut", Masters: true}} }, "D070 error"},
		{"a silent node", func(s *Sample) { s.Nodes[3].Alive = false }, "D071 warning"},
		{"a lost node", func(s *Sample) { s.Nodes[3].Alive, s.Nodes[3].Down = false, true }, "D071 error"},
		{"a node that never started", func(s *Sample) { s.Nodes[3] = Member{Name: "ms9", Down: true} }, ""},
		{"nothing is known yet", func(s *Sample) { *s = Sample{Now: t0} }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := well()
			c.change(s)
			got := Examine(s, never)
			if codes(got) != c.want {
				t.Fatalf("got %q, want %q\n%+v", codes(got), c.want, got)
			}
			for _, f := range got {
				if f.What == "" || f.Fix == "" || titles[f.Code] == "" || strings.Contains(f.Fix, "appliance help") {
					t.Errorf("a finding without its words: %+v", f)
				}
			}
		})
	}
}

func TestThresholdsDoNotFlap(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(s *Sample, v float64) // v around 1, where the warning begins
		code Code
	}{
		{"space", func(s *Sample, v float64) { s.Disk.Free = uint64(diskEnough / v) }, DiskSpace},
		{"clock", func(s *Sample, v float64) {
			s.Clock.Ahead, s.Clock.Slack = time.Duration(v*float64(clockWarn)), 0
		}, ClockOffset},
		{"descriptors", func(s *Sample, v float64) { s.Files = Files{Open: uint64(v * 7000), Limit: 10000} }, OpenFiles},
		{"log", func(s *Sample, v float64) { s.Log.Slow = time.Duration(v * float64(writeWarn)) }, DiskWrites},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, changes, now := NewBoard(), 0, t0
			for i := range 600 { // ten minutes at the threshold, give or take 10 %
				s := well()
				s.Disk.Size = 1 << 40
				s.Now = now
				c.set(s, []float64{1.1, 0.9}[i/10%2])
				changes += len(b.Update(now, Examine(s, b.Was)))
				now = now.Add(time.Second)
			}
			if changes != 1 || b.Was(c.code) != Warning {
				t.Errorf("%d changes, now %q", changes, b.Was(c.code))
			}
			for range 60 {
				b.Update(now, Examine(well(), b.Was))
				now = now.Add(time.Second)
			}
			if len(b.Open()) != 0 {
				t.Errorf("still open: %+v", b.Open())
			}
		})
	}
}

func TestFindingMustLast(t *testing.T) {
	b := NewBoard()
	f := Finding{Code: ClockOffset, Severity: Warning, hold: 3 * time.Second}
	var got []string
	for sec, there := range []bool{true, true, false, true, true, true, true, true, false, true, false, false} {
		var found []Finding
		if there {
			found = append(found, f)
		}
		for _, c := range b.Update(t0.Add(time.Duration(sec)*time.Second), found) {
			got = append(got, fmt.Sprintf("%d over=%v", sec, c.Over))
		}
	}
	for _, c := range b.Update(t0.Add(20*time.Second), nil) {
		got = append(got, fmt.Sprintf("20 over=%v since %v", c.Over, c.Since.Sub(t0)))
	}
	if want := "6 over=false; 20 over=true since 3s"; strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBoardIsBounded(t *testing.T) {
	b := NewBoard()
	var found []Finding
	for i := range 3 * maxFindings {
		found = append(found, Finding{Code: BrokenLink, Severity: Warning, Subject: fmt.Sprint(i)})
	}
	b.Update(t0, found)
	if n := len(b.Open()); n != maxFindings {
		t.Errorf("%d findings", n)
	}
}

// A board tells each beginning and each end once, whatever comes.
func TestBoardTellsEachChangeOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, now, open := NewBoard(), t0, map[Code]Severity{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds")) * time.Second)
			var found []Finding
			for c := range Code(3) {
				if s := rapid.SampledFrom([]Severity{Fine, Warning, Error}).Draw(t, "severity"); s != Fine {
					found = append(found, Finding{Code: c, Severity: s, hold: time.Duration(c) * 4 * time.Second})
				}
			}
			for _, c := range b.Update(now, found) {
				switch {
				case c.Over && open[c.Code] == Fine:
					t.Fatalf("%v ends and never began", c.Code)
				case !c.Over && open[c.Code] == c.Severity:
					t.Fatalf("%v is told twice", c.Code)
				}
				open[c.Code] = c.Severity
				if c.Over {
					delete(open, c.Code)
				}
			}
			if len(b.Open()) != len(open) {
				t.Fatalf("open %+v, told %v", b.Open(), open)
			}
		}
	})
}

func TestReserve(t *testing.T) {
	for _, c := range []struct {
		name             string
		free, have, want uint64
		step             ReserveStep
	}{
		{"first start", 10 << 30, 0, 64 * mib, ReserveMake},
		{"there and room", 10 << 30, 64 * mib, 64 * mib, ReserveKeep},
		{"the disk is full", 0, 64 * mib, 64 * mib, ReserveGiveUp},
		{"almost full", giveUpAt - 1, 64 * mib, 64 * mib, ReserveGiveUp},
		{"just given up", 64 * mib, 0, 64 * mib, ReserveKeep},
		{"a little room", 300 * mib, 0, 64 * mib, ReserveKeep},
		{"room again", 400 * mib, 0, 64 * mib, ReserveMake},
		{"small disk", 60 * mib, 0, ReserveWanted(1 << 30), ReserveMake},
		{"full without a reserve", 0, 0, 64 * mib, ReserveKeep},
		{"tiny disk", 50 * mib, 0, ReserveWanted(64), ReserveKeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Reserve(c.free, c.have, c.want); got != c.step {
				t.Errorf("got %v, want %v", got, c.step)
			}
		})
	}
}

func TestReserveDoesNotComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Uint64Range(0, reserveMost).Draw(t, "want")
		free := rapid.Uint64Range(0, 1<<40).Draw(t, "free")
		switch Reserve(free, 0, want) {
		case ReserveMake:
			if free < want || Reserve(free-want, want, want) != ReserveKeep {
				t.Fatal("made and given up at once")
			}
		case ReserveGiveUp:
			t.Fatal("there is none to give up")
		}
	})
}

func TestCodesAreText(t *testing.T) {
	raw, err := json.Marshal(Finding{Code: ClockOffset, Severity: Error})
	if err != nil || !strings.Contains(string(raw), `"code":"D010"`) {
		t.Fatalf("%s %v", raw, err)
	}
	var f Finding
	if err := json.Unmarshal(raw, &f); err != nil || f.Code != ClockOffset {
		t.Errorf("%+v %v", f, err)
	}
	if json.Unmarshal([]byte(`{"code":"12"}`), &f) == nil {
		t.Error("a code without its letter")
	}
}
