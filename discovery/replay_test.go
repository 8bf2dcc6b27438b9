package discovery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"appliance/discovery"
	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/node/replay"
	"appliance/raft/command"
)

// Tasks, services and opinions come and go. Every table follows from the one
// before, and shows all that can be asked.
func TestTablesReplayExactly(t *testing.T) {
	replay.Exactly(t, func(r *rand.Rand, say replay.Say) {
		c, l := notejam(nil), discoverytest.NewLiveness()
		c.Deploy(model.AppSpec{ID: "/test/web", Instances: 2, Ports: []model.Port{{ContainerPort: 80}, {ContainerPort: 81}}})
		var table *discovery.Table
		for i := range 25 {
			node, id := replay.One(r, "ms1", "ms2"), fmt.Sprint("t", r.IntN(i+1))
			switch r.IntN(7) {
			case 0, 1:
				c.Run(fmt.Sprint("t", i), replay.One(r, "/test/notejam", "/test/web"), node, 31000+2*i, 31001+2*i)
			case 2:
				_, _ = command.Do(context.Background(), c, &command.StopTasks{Tasks: []string{id}, At: discoverytest.Start})
			case 3:
				l.Kill(node, discoverytest.Start.Add(time.Duration(r.IntN(20))*time.Second))
			case 4:
				l.Revive(node)
			case 5:
				_, _ = command.Do(context.Background(), c, &command.RegisterService{Service: &model.ExternalService{Node: node, ID: id, Name: replay.One(r, "ext", "Ext", "EXT"), Port: 1 + r.IntN(3)}})
			case 6:
				_, _ = command.Do(context.Background(), c, &command.DeregisterService{Node: node, ID: id})
			}
			table = discovery.Rebuild(table, c.Store.Snapshot(), l)
			say(fmt.Sprint("index ", table.Index), table.Nodes(), table.OnNode(node), table.App("/test/web"), table.Find("ext"))
			for _, name := range table.Names() {
				say(table.Service(name), table.Service(name).Offered())
			}
		}
	})
}
