package node

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"appliance/node/model"
	"appliance/node/pki"
	"appliance/node/wire"
	"appliance/raft/command"
	"appliance/raft/durable"
	"appliance/raft/state"
)

// generationFile says to which generation a master's log belongs; missing in
// the first.
const generationFile = "generation.json"

// generation is a recovery from a lost quorum.
type generation struct {
	wire.Generation
	At   time.Time `json:"at"`
	Node string    `json:"node"` // name of the master that was recovered
	Last uint64    `json:"last"` // index of its last entry
}

func readGeneration(c Config) (generation, error) {
	g := generation{Generation: wire.Generation{Number: 1}}
	path, second, aside := c.twice(generationFile)
	body, err := durable.ReadTwice(path, second, aside, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &g)
	}
	if err != nil {
		return g, model.Errorf(model.CodeInternal, "%s is damaged", c.dir(generationFile)).Because("%v", err).
			Try("run appliance recover --resync: it learns the generation from the other masters")
	}
	return g, nil
}

func (g generation) save(c Config) error {
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	path, second, _ := c.twice(generationFile)
	return durable.WriteTwice(path, second, body)
}

// statement is what the cluster signs.
func statement(cluster string, number uint64) string {
	return fmt.Sprintf("appliance cluster %s generation %d", cluster, number)
}

func genuine(keys *pki.Keychain) func(wire.Generation) bool {
	return func(g wire.Generation) bool {
		return slices.ContainsFunc(keys.CAs(), func(ca *x509.Certificate) bool {
			return pki.Signed(ca, statement(keys.Identity().Cluster, g.Number), g.Proof)
		})
	}
}

// pathGeneration answers with nothing: the header says it.
const pathGeneration = "/rpc/generation"

const (
	// generationAsk bounds the look at the other nodes at the start. A machine
	// that is off must not hold up a start for long.
	generationAsk = 700 * time.Millisecond
	// generationEvery is how often a master looks whether it was left behind.
	// Every other call between nodes tells it too.
	generationEvery = 3 * time.Second
	// generationNodes bounds how many nodes are asked, masters first.
	generationNodes = 32
)

// openFence makes all calls between nodes tell the generation.
func (n *Node) openFence() error {
	own := n.stateGeneration
	if n.cfg.Role == model.RoleMaster {
		var err error
		if n.generation, err = readGeneration(n.cfg); err != nil {
			if o, _ := readOrder(n.cfg); o == nil || o.Kind != orderResync {
				return err
			}
		}
		own = func() wire.Generation { return n.generation.Generation } // changes before the log is opened only
	}
	n.fence = wire.NewFence(own, genuine(n.keys))
	n.dialer.Fence(n.fence)
	n.rpc.HandleFunc("GET "+pathGeneration, func(http.ResponseWriter, *http.Request) {})
	return nil
}

// stateGeneration is what an agent goes by: its state.
func (n *Node) stateGeneration() wire.Generation {
	for c := range state.Clusters.All(n.store.Snapshot()) {
		return wire.Generation{Number: max(1, c.Generation), Proof: c.GenerationProof}
	}
	return wire.Generation{Number: 1}
}

// openGeneration looks, before this master takes part in elections, whether
// the cluster has gone on without it.
func (n *Node) openGeneration(ctx context.Context) error {
	n.openRecover()
	if n.voter == nil {
		return nil
	}
	if err := n.lookForLater(ctx); err != nil {
		return err
	}
	n.voter.mayDial.Store(true)
	n.voter.OnLeadership(n.raiseGeneration)
	n.part("generation", n.watchGeneration)
	return nil
}

// watchGeneration ends this master when it hears of a later generation.
func (n *Node) watchGeneration(ctx context.Context) error {
	for ctx.Err() == nil {
		_, changed := n.fence.Heard()
		select {
		case <-changed:
		case <-time.After(generationEvery):
		case <-ctx.Done():
			return nil
		}
		if err := n.lookForLater(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lookForLater asks other nodes, all at once. It returns an error if one of
// them belongs to a later generation.
func (n *Node) lookForLater(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, generationAsk)
	defer cancel()
	var wg sync.WaitGroup
	for _, addr := range n.others() {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+pathGeneration, nil)
			if err != nil {
				return
			}
			if resp, err := n.dialer.Client().Do(req); err == nil {
				resp.Body.Close() // the fence has heard
			}
		})
	}
	wg.Wait()
	if later, _ := n.fence.Heard(); later.Number > n.generation.Number {
		return model.Errorf(model.CodeConflict, "the cluster has gone on without this master").
			Because("its log is of generation %d and the cluster was recovered as generation %d", n.generation.Number, later.Number).
			Try("run appliance recover --resync here: this master takes everything anew from the others")
	}
	return nil
}

// others are the wire addresses of other nodes, masters first.
func (n *Node) others() []string {
	var out []string
	add := func(addr string) {
		if addr != n.cfg.wireAddr() && !slices.Contains(out, addr) && len(out) < generationNodes {
			out = append(out, addr)
		}
	}
	if servers, err := n.voter.Servers(); err == nil {
		for _, s := range servers {
			add(s.Addr)
		}
	}
	for _, addr := range n.masters.list() {
		add(addr)
	}
	for node := range state.Nodes.All(n.store.Snapshot()) {
		if node.Status != model.NodeLeft {
			add(withPort(node.Addr))
		}
	}
	return out
}

// raiseGeneration tells all nodes of the recovery, through the log.
func (n *Node) raiseGeneration(ctx context.Context) {
	for ctx.Err() == nil {
		if now := n.stateGeneration(); now.Number >= n.generation.Number {
			return
		}
		_, err := command.Do(ctx, n.proposer, &command.RaiseGeneration{Generation: n.generation.Number, Proof: n.generation.Proof,
			Node: n.generation.Node, Last: n.generation.Last, At: time.Now().UTC()})
		if err != nil {
			n.log.Debug("the generation is not noted yet", "err", err)
			pause(ctx, time.Second)
		}
	}
}

var errNotYet = errors.New("this master is still looking whether the cluster has gone on without it")

// dialRaft connects to a master of the same generation, once this one knows
// that it is the latest.
func (v *voter) dialRaft(ctx context.Context, d *wire.Dialer, g uint64, addr string) (net.Conn, error) {
	if !v.mayDial.Load() {
		return nil, errNotYet
	}
	return d.Dial(ctx, addr, wire.RaftProtocol(g))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
