package command

// all lists every command of the log. Numbers are given once and for ever.
var all = append([]Command{
	(*InitCluster)(nil), (*RegisterNode)(nil), (*UpdateNode)(nil), (*SetNodeStatus)(nil), (*SetNodeDrain)(nil), (*RemoveNode)(nil),
	(*PutJoinToken)(nil), (*DeleteJoinToken)(nil), (*PutAPIToken)(nil), (*DeleteAPIToken)(nil),
	(*PutEnvironment)(nil), (*DeleteEnvironment)(nil), (*PutSecret)(nil), (*DeleteSecret)(nil),
	(*RotateKey)(nil), (*Reseal)(nil), (*ReportTrust)(nil),
	(*TakeLease)(nil), (*ReleaseLease)(nil), (*Batch)(nil), (*RecordEvent)(nil), (*SetVIPHolder)(nil), (*SetLeader)(nil),
	(*Audited)(nil), (*StageRestore)(nil), (*EndRestore)(nil),
	(*CreateRelease)(nil), (*ScaleApp)(nil), (*DeleteApp)(nil), (*EndDeployment)(nil), (*SetBackoff)(nil),
	(*CreateTasks)(nil), (*Place)(nil), (*StopTasks)(nil), (*Observe)(nil), (*ForgetTasks)(nil),
	(*PutFramework)(nil), (*RemoveFramework)(nil), (*LaunchTasks)(nil), (*AckStatus)(nil),
	(*PutVolume)(nil), (*DeleteVolume)(nil), (*MoveVolume)(nil),
	(*PutManifest)(nil), (*DeleteManifest)(nil), (*DeleteTag)(nil),
	(*KVTxn)(nil), (*PutSession)(nil), (*DestroySession)(nil), (*RenewSession)(nil),
	(*RegisterService)(nil), (*DeregisterService)(nil), (*UpdateCheck)(nil), (*DeregisterCheck)(nil),
	(*RaiseLevel)(nil), (*Checkpoint)(nil), (*SetAutopilot)(nil), (*RaiseGeneration)(nil),
}, future...)

func (*InitCluster) kind() kind     { return 1 }
func (*RegisterNode) kind() kind    { return 2 }
func (*UpdateNode) kind() kind      { return 3 }
func (*SetNodeStatus) kind() kind   { return 4 }
func (*SetNodeDrain) kind() kind    { return 5 }
func (*RemoveNode) kind() kind      { return 6 }
func (*PutJoinToken) kind() kind    { return 7 }
func (*DeleteJoinToken) kind() kind { return 8 }
func (*PutAPIToken) kind() kind     { return 9 }
func (*DeleteAPIToken) kind() kind  { return 10 }

func (*PutEnvironment) kind() kind    { return 11 }
func (*DeleteEnvironment) kind() kind { return 12 }
func (*PutSecret) kind() kind         { return 13 }
func (*DeleteSecret) kind() kind      { return 14 }
func (*TakeLease) kind() kind         { return 15 }
func (*ReleaseLease) kind() kind      { return 16 }
func (*Batch) kind() kind             { return 17 }
func (*RecordEvent) kind() kind       { return 18 }
func (*SetVIPHolder) kind() kind      { return 19 }
func (*SetLeader) kind() kind         { return 20 }
func (*Audited) kind() kind           { return 21 }
func (*StageRestore) kind() kind      { return 22 }
func (*EndRestore) kind() kind        { return 23 }
func (*RaiseLevel) kind() kind        { return 24 }
func (*Checkpoint) kind() kind        { return 25 }

func (*RotateKey) kind() kind       { return 26 }
func (*Reseal) kind() kind          { return 27 }
func (*RaiseGeneration) kind() kind { return 28 }
func (*ReportTrust) kind() kind     { return 91 }

func (*CreateRelease) kind() kind { return 30 }
func (*ScaleApp) kind() kind      { return 31 }
func (*DeleteApp) kind() kind     { return 32 }
func (*EndDeployment) kind() kind { return 33 }
func (*SetBackoff) kind() kind    { return 34 }

func (*CreateTasks) kind() kind { return 40 }
func (*Place) kind() kind       { return 41 }
func (*StopTasks) kind() kind   { return 42 }
func (*Observe) kind() kind     { return 43 }
func (*ForgetTasks) kind() kind { return 44 }

func (*PutFramework) kind() kind    { return 50 }
func (*RemoveFramework) kind() kind { return 51 }
func (*LaunchTasks) kind() kind     { return 52 }
func (*AckStatus) kind() kind       { return 53 }

func (*PutVolume) kind() kind    { return 60 }
func (*DeleteVolume) kind() kind { return 61 }
func (*MoveVolume) kind() kind   { return 62 }

func (*PutManifest) kind() kind    { return 70 }
func (*DeleteManifest) kind() kind { return 71 }
func (*DeleteTag) kind() kind      { return 72 }

func (*KVTxn) kind() kind             { return 80 }
func (*PutSession) kind() kind        { return 81 }
func (*DestroySession) kind() kind    { return 82 }
func (*RenewSession) kind() kind      { return 83 }
func (*RegisterService) kind() kind   { return 84 }
func (*DeregisterService) kind() kind { return 85 }
func (*UpdateCheck) kind() kind       { return 86 }
func (*DeregisterCheck) kind() kind   { return 87 }

func (*SetAutopilot) kind() kind { return 90 }
