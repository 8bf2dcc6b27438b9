package node

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"

	"appliance/node/model"

	"golang.org/x/sys/unix"
)

// reserveMB is kept for the node itself: the agent, the runtime, the kernel.
const reserveMB = 256

// capacity is what the node offers to tasks.
func capacity(c Config) model.Resources {
	r := model.Resources{CPUs: c.CPUs, Memory: c.MemoryMB}
	if r.CPUs == 0 {
		r.CPUs = float64(runtime.NumCPU())
	}
	if r.Memory == 0 {
		r.Memory = max(totalMemoryMB()-reserveMB, 0)
	}
	var st unix.Statfs_t
	if unix.Statfs(c.Data, &st) == nil {
		r.Disk = float64(st.Bavail*uint64(st.Bsize)) / (1 << 20)
	}
	return r
}

// totalMemoryMB reads /proc/meminfo (proc(5)).
func totalMemoryMB() float64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kb, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kb / 1024
		}
	}
	return 0
}
