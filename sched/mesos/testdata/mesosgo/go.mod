// Module mesosgo builds the example scheduler of mesos-go, an independent
// client, for the dialect's tests. It is a module of its own so that the
// client's old dependencies do not reach the product.
module appliance/sched/mesos/testdata/mesosgo

go 1.26

require (
	github.com/mesos/mesos-go v0.0.11
	github.com/prometheus/client_golang v0.9.4
)

require (
	github.com/beorn7/perks v1.0.0 // indirect
	github.com/gogo/protobuf v1.1.1 // indirect
	github.com/golang/protobuf v1.3.1 // indirect
	github.com/matttproud/golang_protobuf_extensions v1.0.1 // indirect
	github.com/pquerna/ffjson v0.0.0-20190930134022-aa0246cd15f7 // indirect
	github.com/prometheus/client_model v0.0.0-20190129233127-fd36f4220a90 // indirect
	github.com/prometheus/common v0.4.1 // indirect
	github.com/prometheus/procfs v0.0.2 // indirect
)
