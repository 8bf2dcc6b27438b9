package lb

// schedule spreads n weights over a repeating sequence of indexes, by smooth
// weighted round-robin: equal weights give 0,1,..,n-1, and a weight of two never
// gets its turns in a row if it can be helped.
func schedule(weights []int) []int {
	total, div := 0, 0
	for _, w := range weights {
		div = gcd(div, w)
	}
	for _, w := range weights {
		total += w / div
	}
	current := make([]int, len(weights))
	out := make([]int, 0, total)
	for range total {
		best := 0
		for i, w := range weights {
			current[i] += w / div
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		out = append(out, best)
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
