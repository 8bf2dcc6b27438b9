package doctor

// own are the checks of a node by itself; their findings travel with it.
var own = []func(*Sample, Was) []Finding{checkDisk, checkLog, checkClock, checkFiles, checkMemory, checkCerts, checkState, checkSnapshot, checkDamage, checkParts}

// shared are the checks of the cluster; every node sees it its own way, and
// who is asked answers.
var shared = []func(*Sample, Was) []Finding{checkMasters, checkVersions, checkNodes, checkLinks}

// Examine judges a sample. was tells the open findings, for hysteresis.
func Examine(s *Sample, was Was) []Finding {
	var out []Finding
	for _, check := range own {
		for _, f := range check(s, was) {
			f.Node = s.Node
			out = append(out, f)
		}
	}
	for _, check := range shared {
		out = append(out, check(s, was)...)
	}
	return out
}
