package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

// identity adds the flags that init and join share.
func identity(cmd *cobra.Command, c *node.Config) {
	f := cmd.Flags()
	f.StringVar(&c.Name, "name", "", "name of this node (default: the host name)")
	f.StringVar(&c.Advertise, "advertise", "", "IP address at which the others reach this node (default: the only one it has)")
	f.StringVar(&c.Runtime, "runtime", "", "docker, containerd or embedded (default: Docker if its socket answers, else embedded)")
	f.StringToStringVar(&c.Attributes, "attribute", nil, "attributes of this node, for example env=test")
	f.StringVar(&c.VIP, "vip", "", "virtual IP address that masters share for incoming traffic")
	f.StringVar(&c.Interface, "interface", "", "network interface of the virtual address (default: that of --advertise)")
	f.BoolVar(&c.Ingress, "ingress", true, "serve HTTP for apps on port 80")
	f.BoolVar(&c.DNS53, "dns", true, "answer DNS on port 53 too, if it is free")
	f.Float64Var(&c.CPUs, "cpus", 0, "CPUs offered to apps (default: all)")
	f.Float64Var(&c.MemoryMB, "memory", 0, "MiB of memory offered to apps (default: all)")
	f.StringVar(&c.Data, "data", node.DefaultData, "data directory")
	_ = f.MarkHidden("data") // for tests; the verbs find a node at the default place
}

func (a *app) initCmd() *cobra.Command {
	c := node.Config{Run: node.DefaultRun}
	var o node.InitOptions
	var noStart bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make this machine the first master of a new cluster",
		Long: `Make this machine the first master of a new cluster.

It prints the commands with which other machines join, and an API token for
use from other machines. Both are shown once.`,
		Example: "  appliance init --advertise 192.168.56.11 --vip 192.168.56.100",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := node.NeedRoot(); err != nil {
				return err
			}
			if err := c.Detect(); err != nil {
				return err
			}
			f, err := node.Init(c, o)
			if err != nil {
				return err
			}
			if !noStart {
				if err := a.startService(cmd.Context()); err != nil {
					return err
				}
			}
			return a.show(f, func(p *ui.Printer) { printFounded(p, f, noStart) })
		},
	}
	identity(cmd, &c)
	f := cmd.Flags()
	f.StringVar(&o.Cluster, "cluster", "appliance", "name of the cluster")
	f.StringSliceVar(&o.Environments, "environment", []string{"test", "production"}, "environments to begin with")
	f.DurationVar(&o.TokenTTL, "token-ttl", 24*time.Hour, "how long the join tokens are valid")
	f.BoolVar(&noStart, "no-start", false, "do not start the service; run it with: appliance run")
	return cmd
}

func printFounded(p *ui.Printer, f node.Founded, noStart bool) {
	p.Line("cluster %s is founded on %s", f.Cluster, f.Name)
	if noStart {
		p.Line("start it with: appliance run")
	}
	p.Line("")
	p.Line("join two more masters (three can lose one):")
	p.Line("  appliance join %s --token %s", f.Address, f.Join["master"])
	p.Line("join agents, which run the apps:")
	p.Line("  appliance join %s --token %s --attribute env=test", f.Address, f.Join["agent"])
	p.Line("the tokens are valid until %s", f.Expires.Local().Format(time.DateTime))
	p.Line("")
	p.Line("API token of the operator, for use from other machines (shown once):")
	p.Line("  %s", f.APIToken)
}

func (a *app) joinCmd() *cobra.Command {
	c := node.Config{Run: node.DefaultRun}
	var token, role string
	var noStart bool
	cmd := &cobra.Command{
		Use:     "join MASTER --token TOKEN",
		Short:   "Make this machine a node of a cluster",
		Long:    "Make this machine a node of a cluster. MASTER is the address of any master; the token says whether\nthis machine becomes a master or an agent, and which cluster to trust.",
		Example: "  appliance join 192.168.56.11 --token APPL1-agent-... --attribute env=test",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if token == "" {
				return model.Errorf(model.CodeInvalid, "a machine needs a token to join").Try("appliance init printed one; make another with: appliance token create --role agent")
			}
			if err := node.NeedRoot(); err != nil {
				return err
			}
			c.Role = model.Role(role)
			if err := c.Detect(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			j, err := node.Join(ctx, c, token, args[0])
			if err != nil {
				return err
			}
			if !noStart {
				if err := a.startService(cmd.Context()); err != nil {
					return err
				}
			}
			return a.show(j, func(p *ui.Printer) {
				p.Line("%s has joined as %s %s", j.Name, article(j.Role), j.Role)
				if j.Replaced != "" {
					p.Line("notice: it takes the place of the former node of that name (%s)", j.Replaced)
				}
				if noStart {
					p.Line("start it with: appliance run")
				}
			})
		},
	}
	identity(cmd, &c)
	cmd.Flags().StringVar(&token, "token", "", "join token")
	cmd.Flags().StringVar(&role, "role", "", "master or agent (default: what the token is for)")
	cmd.Flags().BoolVar(&noStart, "no-start", false, "do not start the service; run it with: appliance run")
	return cmd
}

func article(role string) string {
	if strings.HasPrefix(role, "a") {
		return "an"
	}
	return "a"
}

func (a *app) runCmd() *cobra.Command {
	var data, logLevel string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the node in the foreground (what the service does)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return node.Start(cmd.Context(), data, node.DefaultRun, a.version, logLevel)
		},
	}
	cmd.Flags().StringVar(&data, "data", node.DefaultData, "data directory")
	cmd.Flags().StringVar(&logLevel, "log", "info", "debug, info, warn or error")
	_ = cmd.Flags().MarkHidden("data")
	return cmd
}

func (a *app) leaveCmd() *cobra.Command {
	var risk string
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take this machine out of the cluster and remove its data",
		Long:  "Take this machine out of the cluster: its instances move, the service stops, and its copy of images and\nvolumes is removed. Say so by --accept-risk=lose-local-data. Without systemd stop the service first.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if risk != "lose-local-data" {
				return model.Errorf(model.CodeDenied, "leaving removes this machine's data").
					Because("volumes that only this machine holds are lost").Try("if that is right: appliance leave --accept-risk=lose-local-data")
			}
			if os.Geteuid() != 0 {
				return model.Errorf(model.CodeDenied, "only root can do that").Try("run it with sudo")
			}
			a.sayGoodbye(cmd.Context())
			if err := a.stopService(cmd.Context()); err != nil {
				return err
			}
			return node.Leave(node.DefaultData, node.DefaultRun)
		},
	}
	cmd.Flags().StringVar(&risk, "accept-risk", "", "lose-local-data")
	return cmd
}

// sayGoodbye tells the cluster that this node leaves. A cluster that cannot
// be reached notices by itself, later.
func (a *app) sayGoodbye(ctx context.Context) {
	c, err := NewClient("unix://"+DefaultSocket, "")
	if err == nil {
		err = c.Post(ctx, "/leave", struct{}{}, &struct{}{})
	}
	if err != nil {
		fmt.Fprintln(a.errOut, "note: the cluster was not told; it will notice that this node is gone:", err)
	}
}

// unit is the service on machines with systemd. Containers outlive it: only
// its own process is stopped.
const unit = `[Unit]
Description=appliance node
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=%s run
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
RuntimeDirectory=appliance
RuntimeDirectoryPreserve=yes

[Install]
WantedBy=multi-user.target
`

const unitFile = "/etc/systemd/system/appliance.service"

func hasSystemd() bool {
	_, err := os.Stat("/run/systemd/system")
	return err == nil
}

// startService installs and starts the systemd unit and waits until the node
// answers.
func (a *app) startService(ctx context.Context) error {
	if !hasSystemd() {
		return model.Errorf(model.CodeUnavailable, "this machine is a node now, but nothing runs it").
			Because("there is no systemd here").Try("have your service manager run: appliance run")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.WriteFile(unitFile, fmt.Appendf(nil, unit, self), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", "--now", "appliance"}} {
		if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return a.awaitNode(ctx)
}

// startTime bounds the first start of a node, runtime included.
const startTime = 60 * time.Second

func (a *app) awaitNode(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	c, err := NewClient("unix://"+filepath.Join(node.DefaultRun, "api.sock"), "")
	if err != nil {
		return err
	}
	for {
		var st struct{ Fresh bool }
		if err = c.Get(ctx, "/status?stale", &st); err == nil && st.Fresh {
			return nil
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.CodeUnavailable, "the node was started but does not answer").Because("%v", err).Try("look at: journalctl -u appliance")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (a *app) stopService(ctx context.Context) error {
	if !hasSystemd() {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "systemctl", "disable", "--now", "appliance").CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl disable --now appliance: %w: %s", err, out)
	}
	return os.Remove(unitFile)
}
