package raft_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"appliance/raft"
	"appliance/raft/rafttest"
)

// The log takes an entry and the record of it fails, while all other files of the master are well: raft takes
// the entry as not stored, and from then on everything that it appends is refused. Nothing but a start cures
// that, and until it is possible the master must say that it is not well.
func TestFailedRecordOfTheLogIsFoundAndHealed(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			c := rafttest.New(t, 3).Up()
			before := rafttest.Put(t, c.Leader().Node, "before")
			for _, x := range c.Members { // one that has nothing yet is behind for another reason
				if err := x.Node.WaitApplied(t.Context(), before); err != nil {
					t.Fatal(err)
				}
			}
			m := c.Leader()
			if who == "follower" {
				m = c.Follower()
			}
			heal, err := raft.RefuseRecord(m.Node, filepath.Join(t.TempDir(), "record"))
			if err != nil {
				t.Fatal(err)
			}
			defer heal()
			rafttest.Put(t, c.Members[0].Node, "during")
			other := anotherLeads(t, c, m)
			rafttest.Eventually(t, "word of the failure", m.Node.Behind)
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				if st := m.Node.Stats(); !m.Node.Behind() || st.DiskError == "" || len(st.Unfit) == 0 || st.State == "Shutdown" {
					t.Fatalf("it seems well or has stopped, though it could not start again: %+v", st)
				}
			}
			heal()
			ended := make(chan error, 1)
			go func() { ended <- m.Wait() }()
			select {
			case err := <-ended:
				if !errors.Is(err, raft.ErrDisk) {
					t.Errorf("ended with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("goes on as %+v", m.Node.Stats())
			}
			m.Stop(false)
			m.Start()
			last := rafttest.Put(t, m.Node, "after")
			for _, x := range c.Members {
				if err := x.Node.WaitApplied(t.Context(), last); err != nil {
					t.Fatal(err)
				}
			}
			if got := m.SM.Text(); !slices.Equal(got, []string{"before", "during", "after"}) || !slices.Equal(got, other.SM.Text()) {
				t.Errorf("it has %q, the leader %q", got, other.SM.Text())
			}
			rafttest.Eventually(t, "well master", func() bool { return len(m.Node.Stats().Unfit) == 0 && !m.Node.Behind() })
		})
	}
}
