package trim

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident reads a line of /proc/self/status, in KiB.
func resident(t *testing.T, name string) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

func TestProgramPagesAreGivenBackAndComeAgain(t *testing.T) {
	areas, err := programAreas()
	if err != nil || len(areas) == 0 {
		t.Fatalf("%d areas, %v", len(areas), err)
	}
	sum := func() (n int) {
		for _, a := range areas {
			for i := 0; i < len(a); i += 4096 {
				n += int(a[i])
			}
		}
		return n
	}
	before := sum()
	full := resident(t, "RssFile")
	if err := Now(); err != nil {
		t.Fatal(err)
	}
	if left := resident(t, "RssFile"); left >= full {
		t.Errorf("%d KiB of the program resident before, %d after", full, left)
	}
	if after := sum(); after != before {
		t.Error("the program reads differently")
	}
}
