package peer

import (
	"context"
	"time"
)

const (
	// repairEvery bounds how long a master that was away misses copies.
	repairEvery = 10 * time.Minute
	// scrubEvery: disks rot slowly.
	scrubEvery = 24 * time.Hour
	// scrubRate in bytes per second costs 2 % of a core.
	scrubRate = 32 << 20
)

// Run repairs and scrubs until ctx ends, then stops every transfer. A service
// whose Run has ended refuses work.
func (s *Service) Run(ctx context.Context) error {
	defer s.stop()
	s.spawn(func() { s.scrubLoop(ctx) })
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		s.Repair(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Repair fetches the blobs that the index refers to and that are missing
// here. It does nothing on an agent.
func (s *Service) Repair(ctx context.Context) {
	if s.Wanted == nil {
		return
	}
	fetched, missing := 0, 0
	for d := range s.Wanted(ctx) {
		if ctx.Err() != nil {
			return
		}
		if _, err := s.Store.Stat(d); err == nil {
			continue
		}
		if _, err := s.ensureLocal(d); err != nil {
			missing++
		} else {
			fetched++
		}
	}
	if fetched+missing > 0 {
		s.Log.Info("blobs repaired", "fetched", fetched, "still_missing", missing)
	}
}

func (s *Service) scrubLoop(ctx context.Context) {
	timer := time.NewTimer(scrubEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		s.Scrub(ctx, scrubRate)
		timer.Reset(scrubEvery)
	}
}

// Scrub reads every blob at most at rate bytes per second and drops copies
// that are corrupt; Repair or the next read fetches good ones.
func (s *Service) Scrub(ctx context.Context, rate int64) {
	checked, corrupt := 0, 0
	for info, err := range s.Store.List(ctx) {
		if err != nil {
			s.Log.Warn("scrub ended early", "error", err)
			return
		}
		checked++
		if s.Store.Verify(info.Digest) != nil {
			corrupt++
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(info.Size) / float64(rate) * float64(time.Second))):
		}
	}
	s.Log.Info("blobs scrubbed", "checked", checked, "corrupt", corrupt)
}
