package node

import (
	"context"
	"sync/atomic"
	"time"

	"appliance/node/doctor"
)

// damageEvery is how often the volumes are asked what damage they have met.
const damageEvery = 10 * time.Second

// volumeDamage is what the volumes last said of damaged files. The watchdogs cannot ask them: a volume answers when
// its disk does, which may be never. Safe for concurrent use.
type volumeDamage struct {
	last atomic.Pointer[[]doctor.Damage]
}

// watchDamage asks until ctx ends.
func (v *volumes) watchDamage(ctx context.Context) error {
	for ctx.Err() == nil {
		var found []doctor.Damage
		for _, d := range v.server.Damaged() {
			found = append(found, doctor.Damage(d))
		}
		v.damage.last.Store(&found)
		pause(ctx, damageEvery)
	}
	return nil
}

func (d *volumeDamage) damaged() []doctor.Damage {
	if last := d.last.Load(); last != nil {
		return *last
	}
	return nil
}
