package wire

// OperatorRequest is master.Call.
type OperatorRequest struct {
	Type OperatorCall `mesos:"1,type"`
}

// OperatorAnswer is master.Response.
type OperatorAnswer struct {
	Type       OperatorResponse `mesos:"1,type"`
	Health     *Health          `mesos:"2,get_health"`
	Version    *VersionAnswer   `mesos:"4,get_version"`
	State      *StateAnswer     `mesos:"9,get_state"`
	Agents     *AgentList       `mesos:"10,get_agents"`
	Frameworks *FrameworkList   `mesos:"11,get_frameworks"`
	Tasks      *TaskList        `mesos:"13,get_tasks"`
	Master     *MasterAnswer    `mesos:"16,get_master"`
}

// Health is Response.GetHealth.
type Health struct {
	Healthy bool `mesos:"1,healthy,req"`
}

// VersionAnswer is Response.GetVersion.
type VersionAnswer struct {
	Info *VersionInfo `mesos:"1,version_info"`
}

// VersionInfo is mesos.VersionInfo.
type VersionInfo struct {
	Version string `mesos:"1,version,req"`
}

// StateAnswer is Response.GetState.
type StateAnswer struct {
	Tasks      *TaskList      `mesos:"1,get_tasks"`
	Frameworks *FrameworkList `mesos:"3,get_frameworks"`
	Agents     *AgentList     `mesos:"4,get_agents"`
}

// AgentList is Response.GetAgents.
type AgentList struct {
	Agents []AgentRow `mesos:"1,agents"`
}

// AgentRow is Response.GetAgents.Agent.
type AgentRow struct {
	Info        *AgentInfo   `mesos:"1,agent_info"`
	Active      bool         `mesos:"2,active,req"`
	Version     string       `mesos:"3,version,req"`
	PID         string       `mesos:"4,pid"`
	Registered  *Nanoseconds `mesos:"5,registered_time"`
	Total       []Resource   `mesos:"7,total_resources"`
	Allocated   []Resource   `mesos:"8,allocated_resources"`
	Deactivated bool         `mesos:"12,deactivated"`
}

// AgentInfo is mesos.AgentInfo.
type AgentInfo struct {
	Hostname   string      `mesos:"1,hostname,req"`
	Resources  []Resource  `mesos:"3,resources"`
	Attributes []Attribute `mesos:"5,attributes"`
	ID         *ID         `mesos:"6,id"`
	Port       int32       `mesos:"8,port"`
}

// FrameworkList is Response.GetFrameworks.
type FrameworkList struct {
	Frameworks []FrameworkRow `mesos:"1,frameworks"`
	Completed  []FrameworkRow `mesos:"2,completed_frameworks"`
}

// FrameworkRow is Response.GetFrameworks.Framework.
type FrameworkRow struct {
	Info         *FrameworkInfo `mesos:"1,framework_info"`
	Active       bool           `mesos:"2,active,req"`
	Connected    bool           `mesos:"3,connected,req"`
	Registered   *Nanoseconds   `mesos:"4,registered_time"`
	Unregistered *Nanoseconds   `mesos:"6,unregistered_time"`
	Allocated    []Resource     `mesos:"9,allocated_resources"`
	Recovered    bool           `mesos:"11,recovered,req"`
}

// TaskList is Response.GetTasks.
type TaskList struct {
	Tasks     []TaskRow `mesos:"2,tasks"`
	Completed []TaskRow `mesos:"3,completed_tasks"`
}

// TaskRow is mesos.Task.
type TaskRow struct {
	Name        string       `mesos:"1,name,req"`
	TaskID      *ID          `mesos:"2,task_id"`
	FrameworkID *ID          `mesos:"3,framework_id"`
	AgentID     *ID          `mesos:"5,agent_id"`
	State       TaskState    `mesos:"6,state,req"`
	Resources   []Resource   `mesos:"7,resources"`
	Statuses    []TaskStatus `mesos:"8,statuses"`
}

// MasterAnswer is Response.GetMaster.
type MasterAnswer struct {
	Info *MasterInfo `mesos:"1,master_info"`
}
