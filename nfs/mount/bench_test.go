package mount

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// rss is the FUSE client's resident memory in KiB.
func rss(b *testing.B, v *volume) (kib float64) {
	l, err := List(v.spec(1).StateDir)
	if err != nil || len(l) != 1 {
		b.Fatal(l, err)
	}
	s, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l[0].PID))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(s), "VmRSS:")
	fmt.Sscan(rest, &kib)
	return kib
}

func BenchmarkWriteFsync4k(b *testing.B) {
	v := newVolume(b)
	f, err := os.Create(v.mount(1) + "/f")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(buf, int64(i%1000)*4096); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
	b.ReportMetric(rss(b, v), "client-KiB")
}

// BenchmarkWriteFsync4kParallel shows group commit.
func BenchmarkWriteFsync4kParallel(b *testing.B) {
	v := newVolume(b)
	d := v.mount(1)
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		f, err := os.Create(fmt.Sprintf("%s/f%d", d, n.Add(1)))
		if err != nil {
			b.Error(err)
			return
		}
		defer f.Close()
		buf := make([]byte, 4096)
		for i := 0; pb.Next(); i++ {
			if _, err := f.WriteAt(buf, int64(i%1000)*4096); err != nil {
				b.Error(err)
			}
			if err := f.Sync(); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
}

const seqSize = 64 << 20

func BenchmarkSequentialWrite(b *testing.B) {
	v := newVolume(b)
	d := v.mount(1)
	buf := make([]byte, 1<<20)
	b.SetBytes(seqSize)
	for b.Loop() {
		f, err := os.Create(d + "/f")
		if err != nil {
			b.Fatal(err)
		}
		for range seqSize / len(buf) {
			if _, err := f.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	b.ReportMetric(rss(b, v), "client-KiB")
}

func BenchmarkSequentialRead(b *testing.B) {
	v := newVolume(b)
	d := v.mount(1)
	if err := os.WriteFile(d+"/f", make([]byte, seqSize), 0o644); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(seqSize)
	for b.Loop() {
		f, err := os.Open(d + "/f")
		if err != nil {
			b.Fatal(err)
		}
		for range seqSize / len(buf) {
			if _, err := f.Read(buf); err != nil {
				b.Fatal(err)
			}
		}
		f.Close()
	}
	b.ReportMetric(rss(b, v), "client-KiB")
}

func BenchmarkRead4k(b *testing.B) {
	v := newVolume(b)
	d := v.mount(1)
	if err := os.WriteFile(d+"/f", make([]byte, 4<<20), 0o644); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(d + "/f")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4096)
	for i := 0; b.Loop(); i++ {
		if _, err := f.ReadAt(buf, int64(i%1000)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	d := newVolume(b).mount(1)
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", d, i), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSQLiteTransaction(b *testing.B) {
	db := openDB(b, newVolume(b).mount(1))
	if _, err := db.Exec("create table counter (n int); insert into counter values (0); create table log (id text primary key)"); err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := increment(db, fmt.Sprint(i)); err != nil {
			b.Fatal(err)
		}
	}
}
