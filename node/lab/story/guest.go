package story

import (
	"context"
	"fmt"
)

// Visitor is a browser on Notejam for load generators elsewhere. It is used
// by one goroutine at a time.
type Visitor struct{ v *visitor }

// NewVisitor returns a browser that finds host at addr ("192.168.56.100:80").
func NewVisitor(addr, host string, keepAlive bool) *Visitor {
	return &Visitor{newVisitor(addr, host, keepAlive)}
}

// SignUp makes an account and logs in.
func (v *Visitor) SignUp(ctx context.Context, email string) error {
	_, err := v.v.signUp(ctx, email)
	return err
}

// Get reads a page that must be there.
func (v *Visitor) Get(ctx context.Context, path string) (body string, err error) {
	p, err := v.v.get(ctx, path)
	return p.body, err
}

// Write makes a note and returns its path once it is acknowledged.
func (v *Visitor) Write(ctx context.Context, name, text string) (path string, err error) {
	p, err := v.v.write(ctx, name, text)
	return p.location, err
}

// Close ends the browser's connections.
func (v *Visitor) Close() { v.v.close() }

// Prepare builds the app's image in a lab that is up and deploys it to the
// test environment, without a look at the promises.
func (s *Story) Prepare(ctx context.Context) error {
	if err := s.open(); err != nil {
		return err
	}
	if err := s.everybodyReady(ctx); err != nil {
		return err
	}
	dir, err := s.carry(ctx)
	if err != nil {
		return err
	}
	first := s.cluster.Masters()[0].Name
	if _, err := s.run(ctx, "lab", "exec", first, "appliance", "build", dir); err != nil {
		return err
	}
	if _, err := s.run(ctx, "deploy", appName, "--env", envTest); err != nil {
		return fmt.Errorf("the app for the load: %w", err)
	}
	return nil
}
