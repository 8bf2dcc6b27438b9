// Package statetest makes states for tests and measurements.
package statetest

import (
	"fmt"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// Start is when everything in the states of this package happened.
var Start = time.Date(2026, 1, 2, 12, 0, 0, 123456789, time.UTC)

// Full returns the state of a cluster of the given protocol level with so many running tasks: one app per 100 of
// them, one node per 50, and a key per task.
func Full(level, tasks int) *state.Store {
	s := state.New()
	tx := s.Begin()
	index := uint64(1)
	state.Clusters.Put(tx, index, &model.Cluster{ID: "c1", Name: "house", CreatedAt: Start, Level: level})
	state.Environments.Put(tx, index, &model.Environment{Name: "test", Selector: map[string]string{"env": "test"}})
	for i := range tasks {
		index++
		app, node := fmt.Sprintf("/test/app%d", i/100), fmt.Sprintf("n%016d", i/50)
		if i%50 == 0 {
			state.Nodes.Put(tx, index, &model.Node{ID: node, Name: "ms" + node, Role: model.RoleAgent, Addr: "192.0.2.1", Attributes: map[string]string{"env": "test"},
				Capacity: model.Resources{CPUs: 64, Memory: 256 << 10}, PortRange: [2]int{31000, 32000}, JoinedAt: Start, StartedAt: Start, Status: model.NodeReady, StatusSince: Start, Level: level})
		}
		if i%100 == 0 {
			state.Apps.Put(tx, index, &model.App{ID: app, Env: "test", Release: 3, Stable: 3, Instances: 100, UpdatedAt: Start})
		}
		healthy := true
		id := fmt.Sprintf("app%d-%08x", i/100, uint32(i)*2654435761)
		state.Tasks.Put(tx, index, &model.Task{ID: id, App: app, Release: 3, Env: "test", Node: node, Ports: []int{31000 + i%1000},
			Resources: model.Resources{CPUs: 0.1, Memory: 64}, CreatedAt: Start, PlacedAt: Start,
			Status: model.TaskStatus{Task: id, State: model.TaskRunning, Healthy: &healthy, Container: fmt.Sprintf("%064x", i), IP: "172.18.0.2", Node: node, Seq: 4,
				At: Start, StartedAt: Start, ReadyAt: Start, UUID: fmt.Sprintf("%032x", i)}})
		state.KVs.Put(tx, index, &model.KV{Key: fmt.Sprintf("config/%s/%d", app, i), Value: []byte("a value as keys have them")})
	}
	tx.Commit(index)
	return s
}
