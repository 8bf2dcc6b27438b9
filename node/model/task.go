package model

import "time"

// TaskState uses the names of Mesos. States only move forward, see Rank.
type TaskState string

const (
	TaskStaging  TaskState = "TASK_STAGING"  // created; placed or waiting for a place
	TaskStarting TaskState = "TASK_STARTING" // the agent pulls the image, prepares, starts
	TaskRunning  TaskState = "TASK_RUNNING"
	TaskKilling  TaskState = "TASK_KILLING"
	TaskFinished TaskState = "TASK_FINISHED" // exited with 0
	TaskFailed   TaskState = "TASK_FAILED"
	TaskKilled   TaskState = "TASK_KILLED"
	TaskError    TaskState = "TASK_ERROR" // could not be attempted: bad spec
	TaskLost     TaskState = "TASK_LOST"  // its node is gone
)

// Rank orders states: a report with a lower rank than the stored one is
// refused and counted. All terminal states share the highest rank.
func (s TaskState) Rank() int {
	switch s {
	case TaskStaging:
		return 0
	case TaskStarting:
		return 1
	case TaskRunning:
		return 2
	case TaskKilling:
		return 3
	default:
		return 4
	}
}

// Terminal reports whether the task is over.
func (s TaskState) Terminal() bool { return s.Rank() == 4 }

// Task is one run of one instance; never restarted, always replaced.
//
// Masters write the first part when the task is created, placed or stopped;
// the owning agent writes Status through Observe commands and nobody else
// does, except that the leader declares the tasks of a dead node lost.
type Task struct {
	Meta
	ID        string    `json:"id"`
	App       string    `json:"app,omitempty"`     // empty for tasks of foreign frameworks
	Release   uint64    `json:"release,omitempty"` // spec comes from this release
	Env       string    `json:"env,omitempty"`
	Framework string    `json:"framework,omitempty"`
	Node      string    `json:"node,omitempty"` // node id; empty until placed
	Ports     []int     `json:"ports,omitempty"`
	Resources Resources `json:"resources"`
	CreatedAt time.Time `json:"createdAt"`
	PlacedAt  time.Time `json:"placedAt"`
	// Stop asks the agent to end the task; StopWhy is for the reader.
	Stop    bool      `json:"stop,omitempty"`
	StopWhy string    `json:"stopWhy,omitempty"`
	StopAt  time.Time `json:"stopAt"`
	// Foreign is the task as an external framework described it.
	Foreign *ForeignTask `json:"foreign,omitempty"`

	Status TaskStatus `json:"status"`
	// Acked is the UUID of the last status that the external framework has
	// acknowledged.
	Acked string `json:"acked,omitempty"`
}

// TaskStatus is what the agent observed.
type TaskStatus struct {
	Task      string    `json:"task"`
	State     TaskState `json:"state"`
	Healthy   *bool     `json:"healthy,omitempty"` // nil: no check, or none has answered yet
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	ExitCode  *int      `json:"exitCode,omitempty"`
	Container string    `json:"container,omitempty"`
	IP        string    `json:"ip,omitempty"` // of the container in bridge mode
	Node      string    `json:"node,omitempty"`
	Seq       uint64    `json:"seq"` // grows with every report of the agent for this task
	At        time.Time `json:"at"`
	StartedAt time.Time `json:"startedAt"`
	ReadyAt   time.Time `json:"readyAt"` // first time healthy
	UUID      string    `json:"uuid,omitempty"`
}

// Ready reports whether the task can take traffic: it runs and no check says
// otherwise. hasChecks tells whether the app has health checks at all.
func (t *Task) Ready(hasChecks bool) bool {
	if t.Status.State != TaskRunning || t.Stop {
		return false
	}
	if t.Status.Healthy == nil {
		return !hasChecks
	}
	return *t.Status.Healthy
}

// Live reports whether the task occupies its node or will.
func (t *Task) Live() bool { return !t.Status.State.Terminal() }

// ForeignTask is a task launched by an external framework through an offer.
type ForeignTask struct {
	TaskID   string            `json:"taskId"` // framework's own id; Task.ID is unique in the cluster
	Name     string            `json:"name"`
	Shell    bool              `json:"shell"`
	Value    string            `json:"value,omitempty"`
	Args     []string          `json:"args,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	Image    string            `json:"image,omitempty"` // empty: a plain process in a sandbox directory
	URIs     []URI             `json:"uris,omitempty"`  // fetched into the sandbox before the start
	Network  string            `json:"network,omitempty"`
	Ports    []Port            `json:"ports,omitempty"`
	User     string            `json:"user,omitempty"`
	Info     []byte            `json:"info,omitempty"` // the TaskInfo as received (protobuf)
	Executor string            `json:"executor,omitempty"`
	KillWait Duration          `json:"killWait,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Check    *Check            `json:"check,omitempty"`
}

// URI is a file that a foreign task wants in its sandbox directory.
type URI struct {
	Value      string `json:"value"`
	Executable bool   `json:"executable,omitempty"`
	Extract    bool   `json:"extract,omitempty"` // unpack if it is an archive
	File       string `json:"file,omitempty"`    // name in the sandbox; empty: last part of the URI
}

// Placement gives a waiting task its node and host ports. Decided by the
// scheduler.
type Placement struct {
	Task  string    `json:"task"`
	Node  string    `json:"node"`
	Ports []int     `json:"ports,omitempty"`
	At    time.Time `json:"at"`
}

// RefusalCode says why a node did not take a task.
type RefusalCode string

const (
	RefusedEnvironment RefusalCode = "environment" // the node is not of the environment
	RefusedStatus      RefusalCode = "node-status" // down, draining or not an agent
	RefusedCPUs        RefusalCode = "cpus"
	RefusedMemory      RefusalCode = "mem"
	RefusedDisk        RefusalCode = "disk"
	RefusedGPUs        RefusalCode = "gpus"
	RefusedPorts       RefusalCode = "ports"
	RefusedConstraint  RefusalCode = "constraint"
	RefusedVolume      RefusalCode = "volume"
	RefusedBackoff     RefusalCode = "backoff"
)

// Refusal is why one node did not take one app's task, with numbers.
type Refusal struct {
	Node   string      `json:"node"`
	Code   RefusalCode `json:"code"`
	Detail string      `json:"detail"` // "wants 4 cpus, 1.5 free"
}

// Waiting explains the tasks of an app that have no place. Written by the
// scheduler; removed when nothing waits.
type Waiting struct {
	Meta
	App      string    `json:"app"`
	Since    time.Time `json:"since"`
	Tasks    int       `json:"tasks"`
	Refusals []Refusal `json:"refusals"`
}

// Framework is an external Mesos framework, kept over master failover.
type Framework struct {
	Meta
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	User            string    `json:"user,omitempty"`
	Hostname        string    `json:"hostname,omitempty"`
	Principal       string    `json:"principal,omitempty"`
	Roles           []string  `json:"roles,omitempty"`
	Capabilities    []string  `json:"capabilities,omitempty"`
	WebUI           string    `json:"webUi,omitempty"`
	Checkpoint      bool      `json:"checkpoint,omitempty"`
	FailoverTimeout Duration  `json:"failoverTimeout"`
	RegisteredAt    time.Time `json:"registeredAt"`
	Connected       bool      `json:"connected"`
	DisconnectedAt  time.Time `json:"disconnectedAt"`
	Removed         bool      `json:"removed,omitempty"`
	Info            []byte    `json:"info,omitempty"`
}
