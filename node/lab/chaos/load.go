package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"appliance/node/api"
	"appliance/node/lab/story"
	"appliance/vagrant"
)

// errSkip is what a client returns that made no request.
var errSkip = errors.New("no request was made")

const (
	appName  = "notejam"
	envTest  = "test"
	appID    = "/test/notejam"
	appHost  = "app-test"
	service  = "notejam-test"
	instance = 3 // wanted at the end

	pageTime = 5 * time.Second // for one page: longer than a failover takes
	kvTime   = 4 * time.Second // for one key: longer than an election takes
	dnsTime  = time.Second     // for one server; the resolver has two
	// maxNotes bounds the notes of one scenario, which are all read again.
	maxNotes = 400
)

// load are the clients of a run. They go on until the run ends.
type load struct {
	cluster vagrant.Cluster
	nodes   []*node
	crowd   *crowd
	wrong   *verdicts
	kv      *durable
	lin     *linear
	leases  *leases

	notesMu sync.Mutex
	notes   map[string]string // path -> name, acknowledged
	writer  *story.Visitor
	email   int
}

// start begins with all clients and returns a function that ends them.
func (l *load) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	client := func(name string, each, between time.Duration, do func(ctx context.Context) error) {
		group.Go(func() { l.crowd.loop(ctx, name, each, between, do) })
	}
	vip := net.JoinHostPort(l.cluster.VIP.String(), "80")
	kept, fresh := story.NewVisitor(vip, appHost, true), story.NewVisitor(vip, appHost, false)
	client("page", pageTime, 30*time.Millisecond, func(ctx context.Context) error { return page(ctx, kept) })
	client("page, new connection", pageTime, 50*time.Millisecond, func(ctx context.Context) error { return page(ctx, fresh) })
	client("page, agents' ingress", pageTime, 100*time.Millisecond, l.agentsPage())
	client("note", pageTime, 150*time.Millisecond, l.note(vip))
	client("dns", 3*dnsTime, 50*time.Millisecond, l.lookup())
	client("scale", 10*time.Second, 9*time.Second, l.scale())
	for range 3 {
		client("kv write", kvTime, 20*time.Millisecond, l.kv.write)
	}
	for i := range 4 {
		client("kv history", kvTime, 40*time.Millisecond, l.lin.client(i))
	}
	for i := range 3 {
		client("lease", kvTime, 200*time.Millisecond, l.leases.client(i))
	}
	group.Go(func() { l.kv.run(ctx) })
	group.Go(func() { l.lin.run(ctx) })
	return func() { cancel(); group.Wait(); l.lin.judge(true); kept.Close(); fresh.Close() }
}

func page(ctx context.Context, v *story.Visitor) error {
	body, err := v.Get(ctx, "/")
	if err == nil && !strings.Contains(body, `data-environment="`+envTest+`"`) {
		err = fmt.Errorf("a page of another environment")
	}
	return err
}

// agentsPage asks the agents in turn, and a second one if the first fails, as
// a client with several addresses does.
func (l *load) agentsPage() func(ctx context.Context) error {
	var list []*story.Visitor
	for _, m := range l.cluster.Machines {
		if m.Role == vagrant.RoleAgent {
			list = append(list, story.NewVisitor(net.JoinHostPort(m.Address.String(), "80"), appHost, true))
		}
	}
	n := 0
	return func(ctx context.Context) (err error) {
		for range 2 {
			n++
			try, cancel := context.WithTimeout(ctx, pageTime/2)
			err = page(try, list[n%len(list)])
			cancel()
			if err == nil {
				break
			}
		}
		return err
	}
}

// note writes notes through the virtual address, with an account of its own
// for each scenario.
func (l *load) note(vip string) func(ctx context.Context) error {
	n := 0
	return func(ctx context.Context) error {
		l.notesMu.Lock()
		v, full := l.writer, len(l.notes) >= maxNotes
		l.notesMu.Unlock()
		if full {
			return errSkip
		}
		if v == nil {
			l.email++
			v = story.NewVisitor(vip, appHost, true)
			if err := v.SignUp(ctx, fmt.Sprintf("chaos-%d-%d@example.org", time.Now().UnixNano(), l.email)); err != nil {
				return fmt.Errorf("sign up: %w", err)
			}
			l.notesMu.Lock()
			l.writer, l.notes = v, map[string]string{}
			l.notesMu.Unlock()
			return nil
		}
		n++
		name := fmt.Sprintf("note %d", n)
		path, err := v.Write(ctx, name, "written in chaos")
		if err == nil {
			l.notesMu.Lock()
			if l.writer == v {
				l.notes[path] = name
			}
			l.notesMu.Unlock()
		}
		return err
	}
}

const noteRule = "no acknowledged note lost"

// checkNotes reads every acknowledged note again, and begins a new account.
func (l *load) checkNotes(ctx context.Context) (count int) {
	l.notesMu.Lock()
	v, notes := l.writer, l.notes
	l.writer, l.notes = nil, nil
	l.notesMu.Unlock()
	if v == nil {
		return 0
	}
	for path, name := range notes {
		err := again(ctx, settleTime, func(ctx context.Context) error {
			body, err := v.Get(ctx, path)
			if err == nil && !strings.Contains(body, name) {
				err = errors.New("the page does not show it")
			}
			return err
		})
		if ctx.Err() != nil {
			break // interrupted: it says nothing
		}
		l.wrong.check(noteRule, 1)
		if err != nil {
			l.wrong.violate(noteRule, "%s (%s): %v", path, name, err)
		}
	}
	v.Close()
	return len(notes)
}

// lookup resolves the app's service as a resolver with two servers does.
func (l *load) lookup() func(ctx context.Context) error {
	n := 0
	return func(ctx context.Context) (err error) {
		for range 2 {
			n++
			m := l.cluster.Machines[n%len(l.cluster.Machines)]
			try, cancel := context.WithTimeout(ctx, dnsTime)
			r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(m.Address.String(), "8600"))
			}}
			var list []*net.SRV
			_, list, err = r.LookupSRV(try, "", "", service+".service.consul.")
			cancel()
			if err == nil && len(list) == 0 {
				err = fmt.Errorf("%s knows no instance of %s", m.Name, service)
			}
			if err == nil {
				break
			}
		}
		return err
	}
}

// scale changes the number of instances now and then.
func (l *load) scale() func(ctx context.Context) error {
	n := 0
	return func(ctx context.Context) error {
		n++
		return l.setScale(ctx, instance-n%2)
	}
}

func (l *load) setScale(ctx context.Context, count int) error {
	body, err := json.Marshal(api.ScaleRequest{App: appName, Env: envTest, Instances: count})
	if err != nil {
		return err
	}
	_, _, err = l.any().do(ctx, http.MethodPost, api.Prefix+"/scale", string(body))
	return err
}

// setScaleSure sets the number that is wanted at the end.
func (l *load) setScaleSure(ctx context.Context) error {
	return again(ctx, settleTime, func(ctx context.Context) error { return l.setScale(ctx, instance) })
}

// any is a machine at random.
func (l *load) any() *node { return l.nodes[rand.IntN(len(l.nodes))] }

// again repeats fn until it succeeds or the limit is over.
func again(ctx context.Context, limit time.Duration, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		try, end := context.WithTimeout(ctx, pageTime)
		err := fn(try)
		end()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if ctx.Err() != nil {
			return last
		}
		pause(ctx, 200*time.Millisecond)
	}
}
