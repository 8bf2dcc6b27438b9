package lb

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"sync/atomic"
	"time"
)

// An Access is one line of the access log.
type Access struct {
	Time      time.Time     `json:"time"`
	Client    string        `json:"client"`
	Method    string        `json:"method"`
	Host      string        `json:"host"`
	Path      string        `json:"path"`
	Status    int           `json:"status"`
	Bytes     int64         `json:"bytes"`
	Duration  time.Duration `json:"duration"` // whole exchange, nanoseconds
	Service   string        `json:"service,omitempty"`
	Backend   string        `json:"backend,omitempty"`
	Retries   int           `json:"retries,omitempty"`
	RequestID string        `json:"requestId,omitempty"`
}

// accessQueue holds about a second of lines at full speed.
const accessQueue = 16 << 10

// An AccessLog writes JSON lines off the request path. When the writer cannot
// keep up, lines are dropped and counted, never waited for.
type AccessLog struct {
	queue   chan Access
	dropped atomic.Uint64
}

// NewAccessLog makes a log; nothing is written until Run.
func NewAccessLog() *AccessLog { return &AccessLog{queue: make(chan Access, accessQueue)} }

func (l *AccessLog) add(a Access) {
	select {
	case l.queue <- a:
	default:
		l.dropped.Add(1)
	}
}

// Dropped returns how many lines were lost.
func (l *AccessLog) Dropped() uint64 { return l.dropped.Load() }

// Run writes lines to w until ctx ends, then those still queued.
func (l *AccessLog) Run(ctx context.Context, w io.Writer) error {
	buf := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(buf)
	write := func(a Access) {
		if enc.Encode(a) != nil {
			l.dropped.Add(1) // a full disk must not stop the ingress
			buf.Reset(w)
		}
	}
	for {
		select {
		case a := <-l.queue:
			write(a)
			continue
		default:
		}
		_ = buf.Flush() // an error stays in buf and makes the next Encode fail
		select {
		case a := <-l.queue:
			write(a)
		case <-ctx.Done():
			for {
				select {
				case a := <-l.queue:
					write(a)
				default:
					return buf.Flush()
				}
			}
		}
	}
}
