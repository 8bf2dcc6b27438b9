package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/command"

	"github.com/spf13/cobra"
)

func (a *app) caCmd() *cobra.Command {
	cmd := look(a, "ca", "Show and rotate the certificate authority of the cluster", at("/trust"), func(p *ui.Printer, t api.Trust) { printRings(p, t, model.RingCA) })
	cmd.Long = `Show and rotate the certificate authority (CA) by which nodes know each other.
Certificates of nodes live 24 hours and renew themselves; the CA lives 20 years
and is rotated when its key may be known to somebody, or by policy.`
	cmd.Example = "  appliance ca\n  appliance ca rotate"
	cmd.AddCommand(a.rotateCmd(model.RingCA, "rotate", `Move all nodes to a new CA while everything runs. No node restarts and no
connection is cut: every node first believes both CAs, then gets a certificate
of the new one, and then the old one goes. A node that is down is waited for,
because with a certificate of the old CA it could not come back; with
--accept-risk=`+api.RiskLeaveNodes+` it is not, and has to join again.

Join tokens made before name the old CA: they work until the rotation is done
and are then removed. Make new ones: appliance token rotate --role agent`), a.abortCmd(model.RingCA))
	return cmd
}

func (a *app) gossipCmd() *cobra.Command {
	cmd := look(a, "gossip", "Show and rotate the keys that gossip is encrypted with", at("/trust"), func(p *ui.Printer, t api.Trust) { printRings(p, t, model.RingGossip) })
	cmd.Example = "  appliance gossip\n  appliance gossip rotate"
	cmd.AddCommand(a.rotateCmd(model.RingGossip, "rotate", `Give all nodes a new gossip key while everything runs: it is installed
everywhere, then used, then the old one is removed. A node that is down
meanwhile fetches the key from a master when it comes back.`), a.abortCmd(model.RingGossip))
	return cmd
}

func (a *app) abortCmd(ring model.RingName) *cobra.Command {
	return &cobra.Command{Use: "abort", Short: "Give a rotation up before anybody uses the next key", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := a.turn(cmd.Context(), api.TrustRequest{Ring: ring, Step: command.StepAbort})
			return err
		}}
}

func (a *app) turn(ctx context.Context, req api.TrustRequest) (api.Trust, error) {
	var out api.Trust
	c, err := a.client()
	if err != nil {
		return out, err
	}
	return out, c.Post(ctx, "/trust", req, &out)
}

func (a *app) rotateCmd(ring model.RingName, use, long string) *cobra.Command {
	var risk string
	var detach bool
	short := map[model.RingName]string{model.RingCA: "Move to a new CA", model.RingGossip: "Move to a new gossip key", model.RingSeal: "Seal all secrets with a new key"}[ring]
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := api.TrustRequest{Ring: ring, Step: command.StepBegin, Risk: risk}
			if risk != "" {
				req.Step = command.StepLeave
			}
			t, err := a.turn(cmd.Context(), req)
			if err != nil {
				return err
			}
			if !detach {
				if t, err = a.awaitRing(cmd.Context(), ring); err != nil {
					return err
				}
			}
			return a.show(t, func(p *ui.Printer) { printRings(p, t, ring) })
		}}
	if ring == model.RingCA {
		cmd.Example = "  appliance ca rotate\n  appliance ca rotate --accept-risk=" + api.RiskLeaveNodes
		cmd.Flags().StringVar(&risk, "accept-risk", "", `end a rotation that is under way: "`+api.RiskLeaveNodes+`" says that nodes which are down may have to join again`)
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the end")
	return cmd
}

const (
	rotationLook = 200 * time.Millisecond
	// rotationPatience is how long nodes that are down are waited for here. The
	// rotation itself waits for ever.
	rotationPatience = 20 * time.Second
)

// awaitRing follows a rotation to its end, and tells when it gets no further.
func (a *app) awaitRing(ctx context.Context, ring model.RingName) (api.Trust, error) {
	c, err := a.client()
	if err != nil {
		return api.Trust{}, err
	}
	told, moved := "", time.Now()
	for failures := 0; ; {
		var t api.Trust
		err := c.Get(ctx, "/trust", &t)
		if err != nil {
			if failures++; failures > 50 || ctx.Err() != nil {
				return t, err
			}
		} else {
			failures = 0
			r := ringOf(t, ring)
			if r.Phase == model.PhaseSteady {
				return t, nil
			}
			line := progressOf(r)
			if line != told {
				told, moved = line, time.Now()
				fmt.Fprintln(a.errOut, line)
			}
			if down := onlyDown(r); down != "" && time.Since(moved) > rotationPatience {
				return t, stuck(down)
			}
		}
		select {
		case <-ctx.Done():
			return t, model.Errorf(model.CodeUnavailable, "the rotation goes on in the background").Try("see how far it is: appliance ca")
		case <-time.After(rotationLook):
		}
	}
}

func stuck(down string) error {
	e := model.Errorf(model.CodeUnavailable, "the rotation waits for nodes that are down:%s", down).
		Because("with certificates of the old CA they could not come back after it")
	return e.Try("start them, it goes on by itself; or let them join again later: appliance ca rotate --accept-risk=%s", api.RiskLeaveNodes)
}

// onlyDown names the nodes that hold the rotation up if all of them are down.
func onlyDown(r api.RingView) string {
	names := ""
	for _, l := range r.Lacks {
		if !l.Waits {
			continue
		}
		if l.Status != model.NodeDown {
			return ""
		}
		names += " " + l.Name
	}
	return names
}

func ringOf(t api.Trust, name model.RingName) api.RingView {
	for _, r := range t.Rings {
		if r.Name == name {
			return r
		}
	}
	return api.RingView{Name: name}
}

var phaseWords = map[model.Phase]string{
	model.PhaseKey:    "the leader makes the next key",
	model.PhaseSpread: "every node gets the next key",
	model.PhaseSwitch: "every node goes over to the next key",
}

func progressOf(r api.RingView) string {
	line := phaseWords[r.Phase]
	var waits []string
	for _, l := range r.Lacks {
		if l.Waits {
			waits = append(waits, l.Name)
		}
	}
	if len(waits) > 8 {
		waits = append(waits[:8], fmt.Sprintf("and %d more", len(waits)-8))
	}
	if len(waits) > 0 {
		line += "; waiting for " + strings.Join(waits, ", ")
	}
	return line
}

func printRings(p *ui.Printer, t api.Trust, name model.RingName) {
	r := ringOf(t, name)
	p.Row("KEY", "USE", "ADDED", "EXPIRES")
	for _, k := range r.Keys {
		id, expires := k.ID, "never"
		if name == model.RingCA {
			id, expires = "sha256:"+k.ID, k.Expires.Local().Format(time.DateOnly)
		}
		p.Row(id, k.Use, ui.Since(k.Added), expires)
	}
	if r.Phase != model.PhaseSteady {
		p.Line("")
		p.Line("rotation: %s, since %s", phaseWords[r.Phase], ui.Since(r.Since))
	}
	if len(r.Lacks) > 0 {
		p.Row("NODE", "STATUS", "LACKS", "WAITED FOR")
		for _, l := range r.Lacks {
			p.Row(l.Name, l.Status, l.What, map[bool]string{true: "yes", false: "no"}[l.Waits])
		}
	}
	if name == model.RingSeal {
		p.Line("%s", ui.Count(r.Secrets, "secret")+" sealed")
	}
	if len(r.Lost) > 0 {
		p.Line("sealed with another key: %s", strings.Join(r.Lost, ", "))
	}
}
