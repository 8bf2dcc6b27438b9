package wire

// Event is scheduler.Event.
type Event struct {
	Type       EventType   `mesos:"1,type"`
	Subscribed *Subscribed `mesos:"2,subscribed"`
	Offers     *Offers     `mesos:"3,offers"`
	Rescind    *Rescind    `mesos:"4,rescind"`
	Update     *Update     `mesos:"5,update"`
	Failure    *Failure    `mesos:"7,failure"`
	Error      *Error      `mesos:"8,error"`
}

// Subscribed is Event.Subscribed.
type Subscribed struct {
	FrameworkID       *ID         `mesos:"1,framework_id"`
	HeartbeatInterval float64     `mesos:"2,heartbeat_interval_seconds"`
	MasterInfo        *MasterInfo `mesos:"3,master_info"`
}

// MasterInfo is mesos.MasterInfo.
type MasterInfo struct {
	ID       string   `mesos:"1,id,req"`
	IP       uint32   `mesos:"2,ip,req"` // network order
	Port     uint32   `mesos:"3,port,req"`
	PID      string   `mesos:"4,pid"`
	Hostname string   `mesos:"5,hostname"`
	Version  string   `mesos:"6,version"`
	Address  *Address `mesos:"7,address"`
}

// Address is mesos.Address.
type Address struct {
	Hostname string `mesos:"1,hostname"`
	IP       string `mesos:"2,ip"`
	Port     int32  `mesos:"3,port,req"`
}

// URL is mesos.URL.
type URL struct {
	Scheme  string   `mesos:"1,scheme,req"`
	Address *Address `mesos:"2,address"`
	Path    string   `mesos:"3,path"`
}

// Offers is Event.Offers.
type Offers struct {
	Offers []Offer `mesos:"1,offers"`
}

// Offer is mesos.Offer.
type Offer struct {
	ID          *ID         `mesos:"1,id"`
	FrameworkID *ID         `mesos:"2,framework_id"`
	AgentID     *ID         `mesos:"3,agent_id"`
	Hostname    string      `mesos:"4,hostname,req"`
	Resources   []Resource  `mesos:"5,resources"`
	Attributes  []Attribute `mesos:"7,attributes"`
	URL         *URL        `mesos:"8,url"`
	Allocation  *Allocation `mesos:"10,allocation_info"`
}

// Rescind is Event.Rescind.
type Rescind struct {
	OfferID *ID `mesos:"1,offer_id"`
}

// Update is Event.Update.
type Update struct {
	Status *TaskStatus `mesos:"1,status"`
}

// Failure is Event.Failure.
type Failure struct {
	AgentID *ID `mesos:"1,agent_id"`
}

// Error is Event.Error.
type Error struct {
	Message string `mesos:"1,message,req"`
}

// TaskStatus is mesos.TaskStatus.
type TaskStatus struct {
	TaskID     *ID              `mesos:"1,task_id"`
	State      TaskState        `mesos:"2,state,req"`
	Message    string           `mesos:"4,message"`
	AgentID    *ID              `mesos:"5,agent_id"`
	Timestamp  float64          `mesos:"6,timestamp"`
	ExecutorID *ID              `mesos:"7,executor_id"`
	Healthy    *bool            `mesos:"8,healthy"`
	Source     *Source          `mesos:"9,source"`
	Reason     *Reason          `mesos:"10,reason"`
	UUID       []byte           `mesos:"11,uuid"`
	Container  *ContainerStatus `mesos:"13,container_status"`
}

// ContainerStatus is mesos.ContainerStatus.
type ContainerStatus struct {
	Networks []NetworkInfo `mesos:"1,network_infos"`
}

// NetworkInfo is mesos.NetworkInfo.
type NetworkInfo struct {
	Addresses []IPAddress `mesos:"5,ip_addresses"`
}

// IPAddress is NetworkInfo.IPAddress.
type IPAddress struct {
	Protocol IPVersion `mesos:"1,protocol"`
	Address  string    `mesos:"2,ip_address"`
}
