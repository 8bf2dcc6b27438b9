package sched

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"appliance/node/model"
)

// Limits of a spec. They keep one careless document from filling the log or
// the cluster.
const (
	MaxInstances   = 10000 // more in one app is a typing error on clusters of this kind
	maxIDLength    = 200   // ends up in task ids, file and host names
	maxPorts       = 100
	maxVolumes     = 50
	maxChecks      = 10
	maxConstraints = 20
	maxRoutes      = 50
	maxVars        = 1000      // environment variables, and labels
	maxVarBytes    = 128 << 10 // of all of them: the kernel's limit of one string
	maxCPUs        = 1024
	maxMiB         = 64 << 20 // 64 TiB
)

// FieldError is one fault of a spec. Path is JSON style: "/ports(0)/hostPort".
type FieldError struct {
	Path  string `json:"path"`
	Fault string `json:"fault"`
}

// InvalidSpec lists every fault of a spec. It unwraps to a *model.Error with
// the code invalid.
type InvalidSpec struct{ Fields []FieldError }

func (e *InvalidSpec) Error() string { return e.Unwrap().Error() }

// Unwrap gives the error in the form that a user reads.
func (e *InvalidSpec) Unwrap() error {
	var all []string
	for _, f := range e.Fields {
		all = append(all, f.Path+" "+f.Fault)
	}
	return model.Errorf(model.CodeInvalid, "the app's spec is not valid").Because("%s", strings.Join(all, "; "))
}

// faults collects what is wrong.
type faults []FieldError

func (f *faults) add(path, format string, args ...any) {
	*f = append(*f, FieldError{path, fmt.Sprintf(format, args...)})
}

// check adds a fault unless ok.
func (f *faults) check(ok bool, path, format string, args ...any) {
	if !ok {
		f.add(path, format, args...)
	}
}

// Validate judges a spec by itself, without looking at the cluster; Admit
// also asks whether any node could ever take it. The error is an *InvalidSpec
// with all faults.
func Validate(spec *model.AppSpec) error {
	var f faults
	validateID(&f, spec.ID)
	f.check(spec.Image != "", "/image", "is missing: an app runs from an image")
	f.check(!strings.ContainsAny(spec.Image, " \t\n"), "/image", "%q is not an image reference", spec.Image)
	f.check(spec.Shell == "" || len(spec.Command)+len(spec.Args) == 0, "/cmd", "excludes command and args")
	f.check(spec.Instances >= 0, "/instances", "is negative")
	f.check(spec.Instances <= MaxInstances, "/instances", "is %d, at most %d are allowed", spec.Instances, MaxInstances)
	validateResources(&f, spec.Resources)
	validateUpgrade(&f, spec.Upgrade)
	f.check(spec.KillGrace >= 0, "/killGrace", "is negative")
	validatePorts(&f, spec)
	validateVolumes(&f, spec.Volumes)
	validateChecks(&f, spec)
	validateConstraints(&f, spec)
	validateRoutes(&f, spec)
	validateVars(&f, "/env", spec.Env)
	validateVars(&f, "/labels", spec.Labels)
	validateSecrets(&f, spec)
	if len(f) > 0 {
		return &InvalidSpec{f}
	}
	return nil
}

var segment = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func validateID(f *faults, id string) {
	if id == "" {
		f.add("/id", "is missing")
		return
	}
	f.check(len(id) <= maxIDLength, "/id", "is longer than %d characters", maxIDLength)
	if !strings.HasPrefix(id, "/") {
		f.add("/id", "must begin with /, then the environment: /test/name")
		return
	}
	parts := strings.Split(id[1:], "/")
	f.check(len(parts) >= 2, "/id", "must name an environment and an app: /test/name")
	for _, p := range parts {
		f.check(segment.MatchString(p) && len(p) <= 63, "/id", "part %q: use up to 63 of a-z, 0-9 and inner - or .", p)
	}
}

func validateResources(f *faults, r model.Resources) {
	amount := func(path string, v, limit float64) {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			f.add(path, "is not a number")
		case v < 0:
			f.add(path, "is negative")
		case v > limit:
			f.add(path, "is %g, at most %g is allowed", v, limit)
		}
	}
	amount("/cpus", r.CPUs, maxCPUs)
	amount("/mem", r.Memory, maxMiB)
	amount("/disk", r.Disk, maxMiB)
	amount("/gpus", r.GPUs, maxCPUs)
}

func validateUpgrade(f *faults, u model.UpgradePolicy) {
	share := func(path string, v float64) {
		f.check(v >= 0, path, "is less than 0")
		f.check(v <= 1, path, "is greater than 1")
	}
	share("/upgradeStrategy/minimumHealthCapacity", u.MinHealth)
	share("/upgradeStrategy/maximumOverCapacity", u.MaxOver)
	f.check(u.Deadline >= 0, "/upgrade/deadline", "is negative")
}

func validateConstraints(f *faults, spec *model.AppSpec) {
	f.check(len(spec.Constraints) <= maxConstraints, "/constraints", "are more than %d", maxConstraints)
	fixed := map[string]string{}
	for i, c := range spec.Constraints {
		at := fmt.Sprintf("/constraints(%d)", i)
		f.check(c.Attribute != "", at, "names no attribute")
		switch c.Operator {
		case opUnique:
			f.check(c.Value == "", at, "UNIQUE takes no value")
		case opLike, opUnlike:
			_, err := regexp.Compile("^(?:" + c.Value + ")$")
			f.check(c.Value != "", at, "%s needs a pattern", c.Operator)
			f.check(err == nil, at, "pattern %q: %v", c.Value, err)
		case opMaxPer:
			n, err := strconv.Atoi(c.Value)
			f.check(err == nil && n > 0, at, "MAX_PER needs a number above 0, not %q", c.Value)
		case opGroupBy:
			n, err := strconv.Atoi(c.Value)
			f.check(c.Value == "" || err == nil && n > 0, at, "GROUP_BY takes a number above 0, not %q", c.Value)
		case opIs:
			f.check(c.Value != "", at, "IS needs a value")
		case opCluster:
		default:
			f.add(at, "operator %q is not known; use UNIQUE, CLUSTER, GROUP_BY, LIKE, UNLIKE, MAX_PER or IS", c.Operator)
		}
		if (c.Operator == opIs || c.Operator == opCluster) && c.Value != "" {
			if old, ok := fixed[c.Attribute]; ok && !sameValue(old, c.Value) {
				f.add(at, "is impossible: %s cannot be both %s and %s", c.Attribute, old, c.Value)
			}
			fixed[c.Attribute] = c.Value
		}
	}
	contradictions(f, spec, fixed)
}

// contradictions finds constraints that exclude each other on any cluster.
func contradictions(f *faults, spec *model.AppSpec, fixed map[string]string) {
	for i, c := range spec.Constraints {
		value, ok := fixed[c.Attribute]
		if !ok {
			continue
		}
		at := fmt.Sprintf("/constraints(%d)", i)
		r := newRule(c)
		switch c.Operator {
		case opUnique:
			f.check(spec.Instances <= 1, at, "is impossible: %d instances cannot have unique values of %s when all must have %s", spec.Instances, c.Attribute, value)
		case opMaxPer:
			f.check(r.limit == 0 || spec.Instances <= r.limit, at, "is impossible: %d instances must all have %s=%s", spec.Instances, c.Attribute, value)
		case opLike:
			f.check(r.pattern == nil || r.pattern.MatchString(value), at, "is impossible: %s must be %s", c.Attribute, value)
		case opUnlike:
			f.check(r.pattern == nil || !r.pattern.MatchString(value), at, "is impossible: %s must be %s", c.Attribute, value)
		}
	}
}
