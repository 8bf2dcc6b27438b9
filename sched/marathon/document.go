package marathon

// document is an app definition as Marathon 1.4 and later write it. Fields of
// type any are recognised only to say that they are not supported, or to be
// ignored because they are part of every answer of GET.
type document struct {
	ID              string            `json:"id"`
	Cmd             *string           `json:"cmd"`
	Args            []string          `json:"args"`
	User            string            `json:"user"`
	Env             map[string]any    `json:"env"`
	Labels          map[string]string `json:"labels"`
	Instances       *int              `json:"instances"`
	CPUs            *float64          `json:"cpus"`
	Mem             *float64          `json:"mem"`
	Disk            float64           `json:"disk"`
	GPUs            float64           `json:"gpus"`
	Constraints     [][]string        `json:"constraints"`
	Container       *container        `json:"container"`
	Networks        []network         `json:"networks"`
	Ports           []int             `json:"ports"`
	PortDefinitions []portDefinition  `json:"portDefinitions"`
	RequirePorts    bool              `json:"requirePorts"`
	HealthChecks    []healthCheck     `json:"healthChecks"`
	UpgradeStrategy *upgradeStrategy  `json:"upgradeStrategy"`
	KillGrace       float64           `json:"taskKillGracePeriodSeconds"`
	Roles           []string          `json:"acceptedResourceRoles"`
	// DeploymentTimeout is ours: a deployment that is not done then goes back.
	DeploymentTimeout float64 `json:"deploymentTimeoutSeconds"`

	// Supported only if empty.
	URIs            []string       `json:"uris"`
	Fetch           []any          `json:"fetch"`
	StoreURLs       []string       `json:"storeUrls"`
	IPAddress       any            `json:"ipAddress"`
	Residency       any            `json:"residency"`
	Secrets         map[string]any `json:"secrets"`
	ReadinessChecks []any          `json:"readinessChecks"`
	Check           any            `json:"check"`
	Executor        string         `json:"executor"`

	// Without effect here: the loop backs off by itself, lost tasks are
	// replaced at once, apps of a group start together.
	BackoffSeconds        float64  `json:"backoffSeconds"`
	BackoffFactor         float64  `json:"backoffFactor"`
	MaxLaunchDelaySeconds float64  `json:"maxLaunchDelaySeconds"`
	Dependencies          []string `json:"dependencies"`
	KillSelection         string   `json:"killSelection"`
	UnreachableStrategy   any      `json:"unreachableStrategy"`
	Role                  string   `json:"role"`
	TTY                   bool     `json:"tty"`
	ResourceLimits        any      `json:"resourceLimits"`
	ExecutorResources     any      `json:"executorResources"`
}

// readOnlyFields are in every answer; clients send them back.
var readOnlyFields = []string{
	"version", "versionInfo", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments", "tasks",
	"lastTaskFailure", "readinessCheckResults", "taskStats",
}

type container struct {
	Type         string        `json:"type"`
	Docker       *docker       `json:"docker"`
	Volumes      []volume      `json:"volumes"`
	PortMappings []portMapping `json:"portMappings"`
	LinuxInfo    any           `json:"linuxInfo"`
}

type docker struct {
	Image        string        `json:"image"`
	Network      string        `json:"network"`
	PortMappings []portMapping `json:"portMappings"`
	Parameters   []parameter   `json:"parameters"`
	Privileged   bool          `json:"privileged"`
	ForcePull    bool          `json:"forcePullImage"`
	Credential   any           `json:"credential"`
	PullConfig   any           `json:"pullConfig"`
}

type parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type network struct {
	Mode   string            `json:"mode"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

type portMapping struct {
	ContainerPort int               `json:"containerPort"`
	HostPort      int               `json:"hostPort"`
	ServicePort   int               `json:"servicePort"`
	Protocol      string            `json:"protocol"`
	Name          string            `json:"name"`
	Labels        map[string]string `json:"labels"`
	NetworkNames  []string          `json:"networkNames"`
}

type portDefinition struct {
	Port     int               `json:"port"`
	Protocol string            `json:"protocol"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
}

type volume struct {
	ContainerPath string    `json:"containerPath"`
	HostPath      string    `json:"hostPath"`
	Mode          string    `json:"mode"`
	External      *external `json:"external"`
	Persistent    any       `json:"persistent"`
	Secret        any       `json:"secret"`
}

type external struct {
	Name     string         `json:"name"`
	Provider string         `json:"provider"`
	Size     int            `json:"size"`
	Options  map[string]any `json:"options"`
	Shared   bool           `json:"shared"`
}

type healthCheck struct {
	Protocol     string        `json:"protocol"`
	Path         string        `json:"path"`
	Port         *int          `json:"port"`
	PortIndex    int           `json:"portIndex"`
	Command      *shellCommand `json:"command"`
	Grace        *float64      `json:"gracePeriodSeconds"`
	Interval     *float64      `json:"intervalSeconds"`
	Timeout      *float64      `json:"timeoutSeconds"`
	MaxFailures  *int          `json:"maxConsecutiveFailures"`
	Delay        float64       `json:"delaySeconds"`
	IgnoreHTTP1x bool          `json:"ignoreHttp1xx"`
	IPProtocol   string        `json:"ipProtocol"`
}

type shellCommand struct {
	Value string `json:"value"`
}

type upgradeStrategy struct {
	MinimumHealthCapacity *float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   *float64 `json:"maximumOverCapacity"`
}
