package chaos

import (
	"strings"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	const took = 30 * time.Minute
	// young needs 40, and 50 from its second minute on, as a node that works with its state.
	usual := func(age time.Duration) int64 {
		if age < 2*time.Minute {
			return 40 << 20
		}
		return 50 << 20
	}
	aged := func(s Size, age time.Duration) Size { s.Age, s.Memory = age, usual(age); return s }
	late := func(s Size) bool { return s.At > 20*time.Minute }
	for _, tt := range []struct {
		name   string
		took   time.Duration
		change func(i int, s Size) Size
		grown  string // part of what is said, "" if all is well
	}{
		{"flat", took, func(_ int, s Size) Size { return s }, ""},
		{"restarted at other times", took, func(i int, s Size) Size {
			s.Pid = i // every time
			return aged(s, time.Duration(30+100*(i%3))*time.Second)
		}, ""},
		{"a leak", took, func(_ int, s Size) Size { s.Memory += int64(s.At/time.Minute) << 19; return s }, "the memory of all masters grew by"},
		{"a leak that restarts hide", took, func(i int, s Size) Size {
			s.Pid = i
			s = aged(s, time.Minute)
			if !late(s) && i%2 == 0 {
				s = aged(s, 5*time.Minute)
			} else if late(s) {
				s.Memory = 48 << 20
			}
			return s
		}, "the memory of all masters grew by 20.0 %"},
		{"more pages of files", took, func(_ int, s Size) Size { s.Mapped = int64(s.At); return s }, ""},
		{"more before it was warm", took, func(_ int, s Size) Size {
			if s.At < 4*time.Minute {
				s.Memory /= 2
			}
			return s
		}, ""},
		{"nothing comparable", took, func(i int, s Size) Size {
			s.Pid = i
			if late(s) {
				return aged(s, time.Hour)
			}
			return aged(s, time.Minute)
		}, "was not proven flat"},
		{"goroutines", took, func(_ int, s Size) Size { s.Goroutines += int(s.At / time.Second); return s }, "goroutines"},
		{"files of one machine", took, func(_ int, s Size) Size {
			if s.Of == "mm2" && late(s) {
				s.Files += 13 // of 50
			}
			return s
		}, "mm2 went from"},
		{"a few goroutines and files", took, func(_ int, s Size) Size {
			if late(s) {
				s.Goroutines, s.Files = s.Goroutines+15, s.Files+12
			}
			return s
		}, ""},
		{"one goroutine more than a few", took, func(_ int, s Size) Size {
			if late(s) {
				s.Goroutines += 16
			}
			return s
		}, "mm1 went from 100 goroutines"},
		{"too short to be judged", 10 * time.Minute, func(_ int, s Size) Size { s.Memory += int64(s.At); return s }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{Took: tt.took}
			machines := []string{"mm1", "mm2", "mm3"}
			var sizes []map[string]Size
			for i := 1; time.Duration(i)*time.Minute < tt.took; i++ {
				at := map[string]Size{}
				for _, m := range machines {
					s := Size{Of: m, At: time.Duration(i) * time.Minute, Pid: 1, Goroutines: 100, Files: 50}
					at[m] = tt.change(i, aged(s, s.At))
				}
				sizes = append(sizes, at)
			}
			r.grow("all masters", machines, sizes, 0)
			said := strings.Join(r.Grown, "; ")
			if tt.grown == "" && said != "" || !strings.Contains(said, tt.grown) {
				t.Errorf("said %q, want %q", said, tt.grown)
			}
			if len(r.Growth) != 4 || !strings.Contains((&Report{Growth: r.Growth}).Text(), "all masters") {
				t.Errorf("%d rows", len(r.Growth))
			}
		})
	}
}

func TestGrowthOfProcessesThatLive(t *testing.T) {
	const calm, took = 40 * time.Minute, time.Hour
	for _, tt := range []struct {
		name   string
		change func(m string, s Size) Size
		took   time.Duration
		grown  string
	}{
		{"flat", func(_ string, s Size) Size { return s }, took, ""},
		{"all leak a little with their age", func(_ string, s Size) Size { s.Memory += int64(s.Age) / int64(time.Minute) << 19; return s }, took, "the same masters grew"},
		{"one leaks much", func(m string, s Size) Size {
			if m == "mm2" {
				s.Memory += int64(s.Age) / int64(time.Minute) << 21
			}
			return s
		}, took, "the same masters grew"},
		{"mapped pages count here", func(_ string, s Size) Size { s.Mapped += int64(s.Age) / int64(time.Minute) << 20; return s }, took, "the same masters grew"},
		{"the leader changes", func(m string, s Size) Size {
			if (m == "mm1") == (s.At < 50*time.Minute) && m != "mm3" {
				s.Memory += 20 << 20
			}
			return s
		}, took, ""},
		{"before, they leaked", func(_ string, s Size) Size {
			if s.At < calm {
				s.Memory += int64(s.At)
			}
			return s
		}, took, ""},
		{"they died", func(_ string, s Size) Size { s.Pid = int(s.At); return s }, took, "not proven flat"},
		{"too short to be judged", func(_ string, s Size) Size { s.Memory += int64(s.Age); return s }, calm + 10*time.Minute, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Report{Took: tt.took}
			machines := []string{"mm1", "mm2", "mm3"}
			var sizes []map[string]Size
			for at := time.Minute; at < tt.took; at += time.Minute {
				row := map[string]Size{}
				for _, m := range machines {
					s := Size{Of: m, At: at, Age: at % calm, Pid: int(at/calm) + 1, Memory: 40 << 20, Mapped: 20 << 20, Goroutines: 100, Files: 50}
					row[m] = tt.change(m, s)
				}
				sizes = append(sizes, row)
			}
			r.lived("the same masters", machines, sizes, calm)
			said := strings.Join(r.Grown, "; ")
			if tt.grown == "" && said != "" || !strings.Contains(said, tt.grown) {
				t.Errorf("said %q, want %q", said, tt.grown)
			}
		})
	}
}
