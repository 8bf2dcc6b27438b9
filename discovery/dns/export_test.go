package dns

// MaxPacked is how much one socket keeps, about.
const MaxPacked = maxPacked

// Quick answers questions as one socket does; nil means the long way. size is
// what it keeps.
func (s *Server) Quick() (answer func(raw []byte) []byte, size func() int) {
	p := &packed{s: s}
	out := make([]byte, 0, maxUDP)
	return func(raw []byte) []byte {
		return p.answer(out, raw, s.cfg.Catalog.Current(), s.cfg.Now().Unix())
	}, func() int { return p.size }
}
