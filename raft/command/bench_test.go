package command

import (
	"fmt"
	"testing"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// benchWrites are encoded KV writes as users make them, over 6,400 keys.
func benchWrites(tb testing.TB) [][]byte {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	by := model.Actor{Who: "root", From: "unix socket", Node: "5a1cf3a2-7c1e-4f6b-9a51-3a7f2c1d9e04"}
	var out [][]byte
	for i := range 6400 {
		key := fmt.Sprintf("bench/%d/%d", i%64, i/64)
		by.Via = "PUT /v1/kv/" + key
		raw, err := EncodeFor(Audit(&KVTxn{Ops: []KVOp{{Verb: "set", Key: key, Value: fmt.Appendf(nil, "a value of an ordinary length %d", i)}}, At: at}, by, at), Speaks)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

// BenchmarkApplyKV is what every node does for each durable KV write: the row that counts seven times in
// "durable KV writes/s". full has an audit log that drops a record for each new one.
func BenchmarkApplyKV(b *testing.B) {
	for _, full := range []bool{false, true} {
		b.Run(fmt.Sprintf("full=%t", full), func(b *testing.B) {
			writes := benchWrites(b)
			m := NewMachine(state.New())
			index := uint64(0)
			batch := func(n int) {
				last := index + uint64(n)
				m.Batch(last, func() {
					for index < last {
						m.Apply(index+1, 1, writes[int(index)%len(writes)])
						index++
					}
				})
			}
			if full {
				for range MaxAudit / 500 {
					batch(500)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += 16 {
				batch(min(16, b.N-done))
			}
		})
	}
}

// BenchmarkDecodeKV reads the log form of such a write.
func BenchmarkDecodeKV(b *testing.B) {
	raw := benchWrites(b)[0]
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		if _, err := Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
