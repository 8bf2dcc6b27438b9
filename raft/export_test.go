package raft

import (
	"strings"
	"sync"

	hraft "github.com/hashicorp/raft"

	"appliance/raft/durable"
)

// stalls holds what tests do before each write below a directory. The hook is set before any node opens,
// so that tests with stalls may run side by side.
var stalls sync.Map

func init() {
	beforeWrite = func(dir string) {
		stalls.Range(func(below, fn any) bool {
			if strings.HasPrefix(dir, below.(string)) {
				fn.(func())()
			}
			return true
		})
	}
}

// Stall makes every write below dir call fn first; nil ends that.
func Stall(dir string, fn func()) {
	if fn == nil {
		stalls.Delete(dir)
		return
	}
	stalls.Store(dir, fn)
}

// Watch is how a node uses a log store.
func Watch(store hraft.LogStore) hraft.LogStore { return &diskLog{LogStore: store} }

// RefuseRecord makes the writes of the record of what was stored fail, and those alone, until heal.
func RefuseRecord(n *Node, path string) (heal func(), err error) {
	broken, err := durable.OpenSlots(path, tailSlot)
	if err != nil {
		return nil, err
	}
	broken.Close()
	t := n.disk.checked.tail
	swap := func(f *durable.Slots) (old *durable.Slots) {
		t.mu.Lock()
		defer t.mu.Unlock()
		old, t.file = t.file, f
		return old
	}
	good := swap(broken)
	return func() { swap(good) }, nil
}
