package wire

// ID is any of the messages that hold one string: FrameworkID, OfferID,
// AgentID, TaskID, ExecutorID, OperationID.
type ID struct {
	Value string `mesos:"1,value,req"`
}

// Call is scheduler.Call.
type Call struct {
	FrameworkID *ID          `mesos:"1,framework_id"`
	Type        CallType     `mesos:"2,type"`
	Subscribe   *Subscribe   `mesos:"3,subscribe"`
	Accept      *Accept      `mesos:"4,accept"`
	Decline     *Decline     `mesos:"5,decline"`
	Kill        *Kill        `mesos:"6,kill"`
	Shutdown    *Shutdown    `mesos:"7,shutdown"`
	Acknowledge *Acknowledge `mesos:"8,acknowledge"`
	Reconcile   *Reconcile   `mesos:"9,reconcile"`
	Revive      *Roles       `mesos:"15,revive"`
	Suppress    *Roles       `mesos:"16,suppress"`
	Update      *Subscribe   `mesos:"19,update_framework"`
}

// Subscribe is Call.Subscribe and Call.UpdateFramework.
type Subscribe struct {
	FrameworkInfo   *FrameworkInfo `mesos:"1,framework_info"`
	SuppressedRoles []string       `mesos:"2,suppressed_roles"`
}

// Roles is Call.Revive and Call.Suppress.
type Roles struct {
	Roles []string `mesos:"1,roles"`
}

// Accept is Call.Accept.
type Accept struct {
	OfferIDs   []ID        `mesos:"1,offer_ids"`
	Operations []Operation `mesos:"2,operations"`
	Filters    *Filters    `mesos:"3,filters"`
}

// Decline is Call.Decline.
type Decline struct {
	OfferIDs []ID     `mesos:"1,offer_ids"`
	Filters  *Filters `mesos:"2,filters"`
}

// Filters is mesos.Filters.
type Filters struct {
	RefuseSeconds *float64 `mesos:"1,refuse_seconds"`
}

// Kill is Call.Kill.
type Kill struct {
	TaskID  *ID `mesos:"1,task_id"`
	AgentID *ID `mesos:"2,agent_id"`
}

// Shutdown is Call.Shutdown.
type Shutdown struct {
	ExecutorID *ID `mesos:"1,executor_id"`
	AgentID    *ID `mesos:"2,agent_id"`
}

// Acknowledge is Call.Acknowledge.
type Acknowledge struct {
	AgentID *ID    `mesos:"1,agent_id"`
	TaskID  *ID    `mesos:"2,task_id"`
	UUID    []byte `mesos:"3,uuid"`
}

// Reconcile is Call.Reconcile.
type Reconcile struct {
	Tasks []Kill `mesos:"1,tasks"` // task_id and agent_id
}

// Operation is Offer.Operation.
type Operation struct {
	Type        OperationType `mesos:"1,type"`
	Launch      *Launch       `mesos:"2,launch"`
	LaunchGroup *LaunchGroup  `mesos:"7,launch_group"`
	ID          *ID           `mesos:"12,id"`
}

// Launch is Offer.Operation.Launch, and TaskGroupInfo.
type Launch struct {
	Tasks []TaskInfo `mesos:"1,task_infos"`
}

// TaskGroup is mesos.TaskGroupInfo.
type TaskGroup struct {
	Tasks []TaskInfo `mesos:"1,tasks"`
}

// LaunchGroup is Offer.Operation.LaunchGroup.
type LaunchGroup struct {
	Executor  *ExecutorInfo `mesos:"1,executor"`
	TaskGroup *TaskGroup    `mesos:"2,task_group"`
}

// FrameworkInfo is mesos.FrameworkInfo.
type FrameworkInfo struct {
	User            string           `mesos:"1,user,req"`
	Name            string           `mesos:"2,name,req"`
	ID              *ID              `mesos:"3,id"`
	FailoverTimeout float64          `mesos:"4,failover_timeout"`
	Checkpoint      bool             `mesos:"5,checkpoint"`
	Role            string           `mesos:"6,role"`
	Hostname        string           `mesos:"7,hostname"`
	Principal       string           `mesos:"8,principal"`
	WebUI           string           `mesos:"9,webui_url"`
	Capabilities    []CapabilityInfo `mesos:"10,capabilities"`
	Labels          *Labels          `mesos:"11,labels"`
	Roles           []string         `mesos:"12,roles"`
}

// CapabilityInfo is FrameworkInfo.Capability.
type CapabilityInfo struct {
	Type Capability `mesos:"1,type"`
}

// Labels is mesos.Labels.
type Labels struct {
	Labels []Label `mesos:"1,labels"`
}

// Label is mesos.Label.
type Label struct {
	Key   string `mesos:"1,key,req"`
	Value string `mesos:"2,value"`
}

// Parameter is mesos.Parameter.
type Parameter struct {
	Key   string `mesos:"1,key,req"`
	Value string `mesos:"2,value,req"`
}

// TaskInfo is mesos.TaskInfo.
type TaskInfo struct {
	Name        string         `mesos:"1,name,req"`
	TaskID      *ID            `mesos:"2,task_id"`
	AgentID     *ID            `mesos:"3,agent_id"`
	Resources   []Resource     `mesos:"4,resources"`
	Executor    *ExecutorInfo  `mesos:"5,executor"`
	Data        []byte         `mesos:"6,data"`
	Command     *CommandInfo   `mesos:"7,command"`
	HealthCheck *HealthCheck   `mesos:"8,health_check"`
	Container   *ContainerInfo `mesos:"9,container"`
	Labels      *Labels        `mesos:"10,labels"`
	Discovery   *Discovery     `mesos:"11,discovery"`
	KillPolicy  *KillPolicy    `mesos:"12,kill_policy"`
}

// KillPolicy is mesos.KillPolicy.
type KillPolicy struct {
	GracePeriod *Nanoseconds `mesos:"1,grace_period"`
}

// Nanoseconds is mesos.DurationInfo and mesos.TimeInfo.
type Nanoseconds struct {
	Nanoseconds int64 `mesos:"1,nanoseconds,req"`
}

// CommandInfo is mesos.CommandInfo.
type CommandInfo struct {
	URIs        []URI        `mesos:"1,uris"`
	Environment *Environment `mesos:"2,environment"`
	Value       string       `mesos:"3,value"`
	User        string       `mesos:"5,user"`
	Shell       *bool        `mesos:"6,shell"`
	Arguments   []string     `mesos:"7,arguments"`
}

// URI is CommandInfo.URI.
type URI struct {
	Value      string `mesos:"1,value,req"`
	Executable bool   `mesos:"2,executable"`
	Extract    *bool  `mesos:"3,extract"`
	Cache      bool   `mesos:"4,cache"`
	OutputFile string `mesos:"5,output_file"`
}

// Environment is mesos.Environment.
type Environment struct {
	Variables []Variable `mesos:"1,variables"`
}

// Variable is Environment.Variable.
type Variable struct {
	Name  string `mesos:"1,name,req"`
	Value string `mesos:"2,value"`
}

// ExecutorInfo is mesos.ExecutorInfo.
type ExecutorInfo struct {
	ExecutorID  *ID            `mesos:"1,executor_id"`
	Data        []byte         `mesos:"4,data"`
	Resources   []Resource     `mesos:"5,resources"`
	Command     *CommandInfo   `mesos:"7,command"`
	FrameworkID *ID            `mesos:"8,framework_id"`
	Name        string         `mesos:"9,name"`
	Source      string         `mesos:"10,source"`
	Container   *ContainerInfo `mesos:"11,container"`
	Type        ExecutorType   `mesos:"15,type"`
}

// ContainerInfo is mesos.ContainerInfo.
type ContainerInfo struct {
	Type     ContainerType `mesos:"1,type,req"`
	Docker   *DockerInfo   `mesos:"3,docker"`
	Hostname string        `mesos:"4,hostname"`
	Mesos    *MesosImage   `mesos:"5,mesos"`
}

// DockerInfo is ContainerInfo.DockerInfo.
type DockerInfo struct {
	Image        string        `mesos:"1,image,req"`
	Network      Network       `mesos:"2,network"`
	PortMappings []PortMapping `mesos:"3,port_mappings"`
	Privileged   bool          `mesos:"4,privileged"`
	Parameters   []Parameter   `mesos:"5,parameters"`
	ForcePull    bool          `mesos:"6,force_pull_image"`
}

// PortMapping is DockerInfo.PortMapping.
type PortMapping struct {
	HostPort      uint32 `mesos:"1,host_port,req"`
	ContainerPort uint32 `mesos:"2,container_port,req"`
	Protocol      string `mesos:"3,protocol"`
}

// MesosImage is ContainerInfo.MesosInfo.
type MesosImage struct {
	Image *Image `mesos:"1,image"`
}

// Image is mesos.Image.
type Image struct {
	Type   ImageType   `mesos:"1,type,req"`
	Docker *ImageNamed `mesos:"3,docker"`
}

// ImageNamed is Image.Docker.
type ImageNamed struct {
	Name string `mesos:"1,name,req"`
}

// HealthCheck is mesos.HealthCheck.
type HealthCheck struct {
	HTTP        *HTTPCheck   `mesos:"1,http"`
	Interval    *float64     `mesos:"3,interval_seconds"`
	Timeout     *float64     `mesos:"4,timeout_seconds"`
	Failures    *uint32      `mesos:"5,consecutive_failures"`
	GracePeriod *float64     `mesos:"6,grace_period_seconds"`
	Command     *CommandInfo `mesos:"7,command"`
	Type        CheckType    `mesos:"8,type"`
	TCP         *TCPCheck    `mesos:"9,tcp"`
}

// HTTPCheck is HealthCheck.HTTPCheckInfo.
type HTTPCheck struct {
	Port   uint32 `mesos:"1,port,req"`
	Path   string `mesos:"2,path"`
	Scheme string `mesos:"3,scheme"`
}

// TCPCheck is HealthCheck.TCPCheckInfo.
type TCPCheck struct {
	Port uint32 `mesos:"1,port,req"`
}

// Discovery is mesos.DiscoveryInfo.
type Discovery struct {
	Visibility Visibility      `mesos:"1,visibility,req"`
	Name       string          `mesos:"2,name"`
	Ports      *DiscoveryPorts `mesos:"6,ports"`
	Labels     *Labels         `mesos:"7,labels"`
}

// DiscoveryPorts is mesos.Ports.
type DiscoveryPorts struct {
	Ports []DiscoveryPort `mesos:"1,ports"`
}

// DiscoveryPort is mesos.Port.
type DiscoveryPort struct {
	Number   uint32 `mesos:"1,number,req"`
	Name     string `mesos:"2,name"`
	Protocol string `mesos:"3,protocol"`
}

// Resource is mesos.Resource.
type Resource struct {
	Name         string        `mesos:"1,name,req"`
	Type         ValueType     `mesos:"2,type,req"`
	Scalar       *ScalarValue  `mesos:"3,scalar"`
	Ranges       *Ranges       `mesos:"4,ranges"`
	Role         string        `mesos:"6,role"`
	Allocation   *Allocation   `mesos:"11,allocation_info"`
	Reservations []Reservation `mesos:"13,reservations"`
}

// Reservation is Resource.ReservationInfo.
type Reservation struct {
	Role string          `mesos:"3,role"`
	Type ReservationType `mesos:"4,type"`
}

// ScalarValue is Value.Scalar.
type ScalarValue struct {
	Value float64 `mesos:"1,value,req"`
}

// TextValue is Value.Text.
type TextValue struct {
	Value string `mesos:"1,value,req"`
}

// Ranges is Value.Ranges.
type Ranges struct {
	Range []PortRange `mesos:"1,range"`
}

// PortRange is Value.Range, inclusive.
type PortRange struct {
	Begin uint64 `mesos:"1,begin,req"`
	End   uint64 `mesos:"2,end,req"`
}

// Allocation is Resource.AllocationInfo.
type Allocation struct {
	Role string `mesos:"1,role"`
}

// Attribute is mesos.Attribute.
type Attribute struct {
	Name string     `mesos:"1,name,req"`
	Type ValueType  `mesos:"2,type,req"`
	Text *TextValue `mesos:"5,text"`
}
