package wire

// CallType is scheduler.Call.Type.
type CallType int32

// The calls of a scheduler.
const (
	CallSubscribe   CallType = 1
	CallTeardown    CallType = 2
	CallAccept      CallType = 3
	CallDecline     CallType = 4
	CallRevive      CallType = 5
	CallKill        CallType = 6
	CallShutdown    CallType = 7
	CallAcknowledge CallType = 8
	CallReconcile   CallType = 9
	CallMessage     CallType = 10
	CallRequest     CallType = 11
	CallSuppress    CallType = 12
	CallUpdate      CallType = 17
)

var callNames = map[int32]string{
	0: "UNKNOWN", 1: "SUBSCRIBE", 2: "TEARDOWN", 3: "ACCEPT", 4: "DECLINE", 5: "REVIVE", 6: "KILL", 7: "SHUTDOWN", 8: "ACKNOWLEDGE",
	9: "RECONCILE", 10: "MESSAGE", 11: "REQUEST", 12: "SUPPRESS", 13: "ACCEPT_INVERSE_OFFERS", 14: "DECLINE_INVERSE_OFFERS",
	15: "ACKNOWLEDGE_OPERATION_STATUS", 16: "RECONCILE_OPERATIONS", 17: "UPDATE_FRAMEWORK",
}

// Names implements Enum.
func (CallType) Names() map[int32]string { return callNames }

// EventType is scheduler.Event.Type.
type EventType int32

// The events of a scheduler.
const (
	EventSubscribed EventType = 1
	EventOffers     EventType = 2
	EventRescind    EventType = 3
	EventUpdate     EventType = 4
	EventFailure    EventType = 6
	EventError      EventType = 7
	EventHeartbeat  EventType = 8
)

var eventNames = map[int32]string{
	0: "UNKNOWN", 1: "SUBSCRIBED", 2: "OFFERS", 3: "RESCIND", 4: "UPDATE", 5: "MESSAGE", 6: "FAILURE", 7: "ERROR", 8: "HEARTBEAT",
	9: "INVERSE_OFFERS", 10: "RESCIND_INVERSE_OFFER", 11: "UPDATE_OPERATION_STATUS",
}

// Names implements Enum.
func (EventType) Names() map[int32]string { return eventNames }

// OperationType is Offer.Operation.Type.
type OperationType int32

// The operations that we carry out.
const (
	OpLaunch      OperationType = 1
	OpLaunchGroup OperationType = 6
)

var operationNames = map[int32]string{
	0: "UNKNOWN", 1: "LAUNCH", 2: "RESERVE", 3: "UNRESERVE", 4: "CREATE", 5: "DESTROY", 6: "LAUNCH_GROUP",
	11: "GROW_VOLUME", 12: "SHRINK_VOLUME", 13: "CREATE_DISK", 14: "DESTROY_DISK",
}

// Names implements Enum.
func (OperationType) Names() map[int32]string { return operationNames }

// TaskState is mesos.TaskState.
type TaskState int32

var taskStateNames = map[int32]string{
	0: "TASK_STARTING", 1: "TASK_RUNNING", 2: "TASK_FINISHED", 3: "TASK_FAILED", 4: "TASK_KILLED", 5: "TASK_LOST", 6: "TASK_STAGING",
	7: "TASK_ERROR", 8: "TASK_KILLING", 9: "TASK_DROPPED", 10: "TASK_UNREACHABLE", 11: "TASK_GONE", 12: "TASK_GONE_BY_OPERATOR", 13: "TASK_UNKNOWN",
}

// Names implements Enum.
func (TaskState) Names() map[int32]string { return taskStateNames }

// TaskStateOf gives the number of a state by its name; unknown ones are
// TASK_UNKNOWN.
func TaskStateOf(name string) TaskState {
	for n, s := range taskStateNames {
		if s == name {
			return TaskState(n)
		}
	}
	return 13
}

// ValueType is mesos.Value.Type.
type ValueType int32

// Types of resources and attributes.
const (
	Scalar ValueType = 0
	Range  ValueType = 1
	Text   ValueType = 3
)

// Names implements Enum.
func (ValueType) Names() map[int32]string {
	return map[int32]string{0: "SCALAR", 1: "RANGES", 2: "SET", 3: "TEXT"}
}

// Capability is FrameworkInfo.Capability.Type.
type Capability int32

var capabilityNames = map[int32]string{
	0: "UNKNOWN", 1: "REVOCABLE_RESOURCES", 2: "TASK_KILLING_STATE", 3: "GPU_RESOURCES", 4: "SHARED_RESOURCES", 5: "PARTITION_AWARE",
	6: "MULTI_ROLE", 7: "RESERVATION_REFINEMENT", 8: "REGION_AWARE",
}

// Names implements Enum.
func (Capability) Names() map[int32]string { return capabilityNames }

// Source is TaskStatus.Source.
type Source int32

// Who made a status.
const (
	SourceMaster Source = 0
	SourceAgent  Source = 1
)

// Names implements Enum.
func (Source) Names() map[int32]string {
	return map[int32]string{0: "SOURCE_MASTER", 1: "SOURCE_AGENT", 2: "SOURCE_EXECUTOR"}
}

// Reason is TaskStatus.Reason.
type Reason int32

// The reasons that we give.
const (
	ReasonInvalidOffers  Reason = 6
	ReasonReconciliation Reason = 9
	ReasonTaskInvalid    Reason = 14
	ReasonGroupInvalid   Reason = 25
	ReasonHealthChanged  Reason = 29
)

var reasonNames = map[int32]string{
	0: "REASON_COMMAND_EXECUTOR_FAILED", 1: "REASON_EXECUTOR_TERMINATED", 2: "REASON_EXECUTOR_UNREGISTERED", 3: "REASON_FRAMEWORK_REMOVED",
	4: "REASON_GC_ERROR", 5: "REASON_INVALID_FRAMEWORKID", 6: "REASON_INVALID_OFFERS", 7: "REASON_MASTER_DISCONNECTED",
	8: "REASON_CONTAINER_LIMITATION_MEMORY", 9: "REASON_RECONCILIATION", 10: "REASON_AGENT_DISCONNECTED", 11: "REASON_AGENT_REMOVED",
	12: "REASON_AGENT_RESTARTED", 13: "REASON_AGENT_UNKNOWN", 14: "REASON_TASK_INVALID", 15: "REASON_TASK_UNAUTHORIZED", 16: "REASON_TASK_UNKNOWN",
	17: "REASON_CONTAINER_PREEMPTED", 18: "REASON_RESOURCES_UNKNOWN", 19: "REASON_CONTAINER_LIMITATION", 20: "REASON_CONTAINER_LIMITATION_DISK",
	21: "REASON_CONTAINER_LAUNCH_FAILED", 22: "REASON_CONTAINER_UPDATE_FAILED", 23: "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
	24: "REASON_EXECUTOR_REREGISTRATION_TIMEOUT", 25: "REASON_TASK_GROUP_INVALID", 26: "REASON_TASK_GROUP_UNAUTHORIZED",
	29: "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED",
}

// Names implements Enum.
func (Reason) Names() map[int32]string { return reasonNames }

// ReasonOf finds a reason by its name, nil if it has no number.
func ReasonOf(name string) *Reason {
	for n, s := range reasonNames {
		if s == name {
			r := Reason(n)
			return &r
		}
	}
	return nil
}

// ContainerType is ContainerInfo.Type.
type ContainerType int32

// Names implements Enum.
func (ContainerType) Names() map[int32]string { return map[int32]string{1: "DOCKER", 2: "MESOS"} }

// Network is DockerInfo.Network.
type Network int32

// Names implements Enum.
func (Network) Names() map[int32]string {
	return map[int32]string{1: "HOST", 2: "BRIDGE", 3: "NONE", 4: "USER"}
}

// CheckType is HealthCheck.Type.
type CheckType int32

// Names implements Enum.
func (CheckType) Names() map[int32]string {
	return map[int32]string{0: "UNKNOWN", 1: "COMMAND", 2: "HTTP", 3: "TCP"}
}

// IPVersion is NetworkInfo.Protocol.
type IPVersion int32

// Names implements Enum.
func (IPVersion) Names() map[int32]string { return map[int32]string{1: "IPv4", 2: "IPv6"} }

// OperatorCall is master.Call.Type.
type OperatorCall int32

// The calls of operators that we answer.
const (
	GetHealth     OperatorCall = 1
	GetVersion    OperatorCall = 3
	GetState      OperatorCall = 9
	GetAgents     OperatorCall = 10
	GetFrameworks OperatorCall = 11
	GetTasks      OperatorCall = 13
	GetMaster     OperatorCall = 17
)

var operatorCallNames = map[int32]string{
	0: "UNKNOWN", 1: "GET_HEALTH", 2: "GET_FLAGS", 3: "GET_VERSION", 4: "GET_METRICS", 5: "GET_LOGGING_LEVEL", 6: "SET_LOGGING_LEVEL",
	7: "LIST_FILES", 8: "READ_FILE", 9: "GET_STATE", 10: "GET_AGENTS", 11: "GET_FRAMEWORKS", 12: "GET_EXECUTORS", 13: "GET_TASKS",
	14: "GET_ROLES", 15: "GET_WEIGHTS", 16: "UPDATE_WEIGHTS", 17: "GET_MASTER", 18: "SUBSCRIBE", 31: "TEARDOWN",
}

// Names implements Enum.
func (OperatorCall) Names() map[int32]string { return operatorCallNames }

// OperatorResponse is master.Response.Type.
type OperatorResponse int32

// Names implements Enum.
func (OperatorResponse) Names() map[int32]string {
	return map[int32]string{1: "GET_HEALTH", 3: "GET_VERSION", 8: "GET_STATE", 9: "GET_AGENTS", 10: "GET_FRAMEWORKS", 12: "GET_TASKS", 15: "GET_MASTER"}
}

// ExecutorType is ExecutorInfo.Type.
type ExecutorType int32

// Names implements Enum.
func (ExecutorType) Names() map[int32]string {
	return map[int32]string{0: "UNKNOWN", 1: "DEFAULT", 2: "CUSTOM"}
}

// ImageType is Image.Type.
type ImageType int32

// Names implements Enum.
func (ImageType) Names() map[int32]string { return map[int32]string{1: "APPC", 2: "DOCKER"} }

// ReservationType is Resource.ReservationInfo.Type.
type ReservationType int32

// Names implements Enum.
func (ReservationType) Names() map[int32]string {
	return map[int32]string{0: "UNKNOWN", 1: "STATIC", 2: "DYNAMIC"}
}

// Visibility is DiscoveryInfo.Visibility.
type Visibility int32

// Names implements Enum.
func (Visibility) Names() map[int32]string {
	return map[int32]string{0: "FRAMEWORK", 1: "CLUSTER", 2: "EXTERNAL"}
}
