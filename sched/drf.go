package sched

import (
	"cmp"
	"slices"

	"appliance/node/model"
)

// Client is a framework in the eyes of dominant resource fairness (Ghodsi et
// al., NSDI 2011). The app layer is one with the role "*".
type Client struct {
	ID     string
	Role   string
	Used   model.Resources // of its tasks and of the offers that it holds
	Weight float64         // of the role; 0 counts as 1
}

// Share orders the clients by who should be offered resources next: first the
// role with the smallest weighted dominant share, inside it the framework
// with the smallest one, then by id.
func Share(clients []Client, total model.Resources) []Client {
	roles := map[string]model.Resources{}
	for _, c := range clients {
		roles[c.Role] = roles[c.Role].Add(c.Used)
	}
	sorted := slices.Clone(clients)
	slices.SortFunc(sorted, func(a, b Client) int {
		return cmp.Or(
			cmp.Compare(weighted(roles[a.Role], total, a.Weight), weighted(roles[b.Role], total, b.Weight)),
			cmp.Compare(a.Role, b.Role),
			cmp.Compare(Dominant(a.Used, total), Dominant(b.Used, total)),
			cmp.Compare(a.ID, b.ID))
	})
	return sorted
}

func weighted(used, total model.Resources, weight float64) float64 {
	if weight <= 0 {
		weight = 1
	}
	return Dominant(used, total) / weight
}

// Dominant is the largest share of any one resource, 0..1.
func Dominant(used, total model.Resources) float64 {
	share := 0.0
	for _, p := range [][2]float64{{used.CPUs, total.CPUs}, {used.Memory, total.Memory}, {used.Disk, total.Disk}, {used.GPUs, total.GPUs}} {
		if p[1] > 0 {
			share = max(share, p[0]/p[1])
		}
	}
	return share
}
