package story

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// Conditions are what the numbers depend on besides the product.
type Conditions struct {
	Cores    int    `json:"cores"`
	CPU      string `json:"cpu"`
	MemoryMB uint64 `json:"memory_mb"`
	Kernel   string `json:"kernel"`
	Load     string `json:"load_before"` // load averages before the bench
	Disk     string `json:"disk"`        // file system of the lab's directory
}

func conditions(dir string) Conditions {
	c := Conditions{Cores: runtime.NumCPU(), CPU: "unknown", Load: "unknown", Disk: "unknown"}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		c.Load = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				c.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		c.Kernel = string(uts.Release[:bytes.IndexByte(uts.Release[:], 0)])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		c.MemoryMB = uint64(info.Totalram) * uint64(info.Unit) >> 20
	}
	if dir == "" {
		dir = "/var/lib"
	}
	c.Disk = fileSystem(dir)
	return c
}

// fileSystem names the file system that dir is or will be on.
func fileSystem(dir string) string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	point, kind := "", "unknown"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 2 && len(f[1]) >= len(point) && strings.HasPrefix(dir+"/", strings.TrimSuffix(f[1], "/")+"/") {
			point, kind = f[1], f[2]
		}
	}
	return kind + " at " + point
}

// value formats a number of the row with its unit.
func (r Row) value(v float64) string {
	switch r.Unit {
	case "s":
		if v != 0 && v < 1 {
			return fmt.Sprintf("%.0f ms", v*1000)
		}
		return fmt.Sprintf("%.2f s", v)
	case "/s":
		return fmt.Sprintf("%.0f /s", v)
	case "MB":
		return fmt.Sprintf("%.1f MB", v)
	}
	return fmt.Sprintf("%g", v)
}

// Text is the table for people.
func (b *Bench) Text() string {
	var out strings.Builder
	c := b.Conditions
	fmt.Fprintf(&out, "%d cores (%s), %d MB, Linux %s, disk %s, load before %s\n", c.Cores, c.CPU, c.MemoryMB, c.Kernel, c.Disk, c.Load)
	fmt.Fprintf(&out, "seven machines, the load generator and this program share them all\n\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tMEASURED\tFLOOR\tGOAL\tVERDICT\tREMARK")
	for _, r := range b.Rows {
		floor, goal := "-", "-"
		if r.Bounded {
			floor, goal = r.value(r.Floor), r.value(r.Goal)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.value(r.Measured), floor, goal, r.Verdict, r.Note)
	}
	w.Flush()
	return strings.TrimSuffix(out.String(), "\n")
}
