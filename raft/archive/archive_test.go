package archive_test

import (
	"bytes"
	"testing"
	"time"

	"appliance/discovery/discoverytest"
	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/command"
	"appliance/raft/state"
)

func file(t testing.TB) []byte {
	t.Helper()
	c := discoverytest.New()
	c.Must(&command.InitCluster{Cluster: model.Cluster{ID: "c1", Name: "house"}})
	c.Node("n1", "192.0.2.1", model.RoleAgent)
	c.Must(&command.KVTxn{Ops: []command.KVOp{{Verb: "set", Key: "k", Value: []byte("v")}}})
	var b bytes.Buffer
	h := archive.Header{Time: time.Unix(1000, 0).UTC(), Term: 3, Version: "v1"}
	if err := archive.Write(&b, c.Store.Snapshot(), h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	raw := file(t)
	h, store, err := archive.Load(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if h.Cluster != "c1" || h.Name != "house" || h.Term != 3 || h.Index != store.Index() || h.Tables["kv"] != 1 || h.Tables["nodes"] != 1 {
		t.Errorf("header is %+v", h)
	}
	if kv := state.KVs.Get(store.Snapshot(), "k"); kv == nil || string(kv.Value) != "v" {
		t.Errorf("k is %+v", kv)
	}
}

func TestEveryDamageIsRefused(t *testing.T) {
	raw := file(t)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		if _, err := archive.Verify(bytes.NewReader(bad), int64(len(bad))); err == nil {
			t.Fatalf("a flipped bit in byte %d of %d was accepted", i, len(raw))
		}
		if _, err := archive.Verify(bytes.NewReader(raw[:i]), int64(i)); err == nil {
			t.Fatalf("a file cut at %d of %d was accepted", i, len(raw))
		}
	}
}

func TestStateWithoutAClusterIsNotWritten(t *testing.T) {
	var b bytes.Buffer
	if err := archive.Write(&b, state.New().Snapshot(), archive.Header{}); model.CodeOf(err) != model.CodeUnavailable || b.Len() > 0 {
		t.Errorf("got %v, %d bytes", err, b.Len())
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(file(f))
	f.Add([]byte(nil))
	f.Add([]byte("{\"format\":\"appliance-snapshot/1\"}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, store, err := archive.Load(bytes.NewReader(raw), int64(len(raw))); err == nil && store == nil {
			t.Error("no state and no error")
		}
	})
}
