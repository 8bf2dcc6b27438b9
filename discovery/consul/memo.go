package consul

import (
	lru "container/list"
	"crypto/sha256"
	"sync"
)

// memo remembers answers, so that any number of clients who wait for the same
// thing share one computation and one encoding, and so that an answer has an
// index that moves only when its bytes do. An answer that is forgotten costs
// its clients one early return.
type memo struct {
	mu      sync.Mutex
	entries map[string]*lru.Element
	order   *lru.List // most recently used first
}

func newMemo() *memo { return &memo{entries: map[string]*lru.Element{}, order: lru.New()} }

type entry struct {
	key string

	mu      sync.Mutex
	made    bool
	version uint64
	answer  answer
	sum     [sha256.Size]byte
}

// answer is an encoded answer with the index of its last change.
type answer struct {
	body  []byte
	index uint64
	found bool // false is a 404 that is waited for like any answer
}

// entry returns the place for a key.
func (m *memo) entry(key string) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.entries[key]; el != nil {
		m.order.MoveToFront(el)
		return el.Value.(*entry)
	}
	e := &entry{key: key}
	m.entries[key] = m.order.PushFront(e)
	if m.order.Len() > maxMemo {
		last := m.order.Back()
		m.order.Remove(last)
		delete(m.entries, last.Value.(*entry).key)
	}
	return e
}

// at gives the answer as of version, which grows whenever the answer may have
// changed. compute is called by one caller at a time, if at all.
func (e *entry) at(version uint64, compute func() (answer, error)) (answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.made && e.version == version && e.answer.body != nil {
		return e.answer, nil
	}
	a, err := compute()
	if err != nil {
		return a, err
	}
	sum := sha256.Sum256(a.body)
	switch {
	case a.index != 0: // the answer knows its own
	case e.made && e.sum == sum && e.answer.found == a.found:
		a.index = e.answer.index
	default:
		a.index = max(version, 1)
	}
	e.made, e.version, e.answer, e.sum = true, version, a, sum
	if len(a.body) > maxMemoBody {
		e.answer.body = nil // large ones are made again
	}
	return a, nil
}
