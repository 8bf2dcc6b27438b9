package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) secretCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Keep passwords and keys for apps, encrypted",
		Long: `Keep passwords and keys for apps. The log, snapshots and every disk hold them
encrypted with a key that only masters have; a node gets in plain what the
tasks need that it is to start, when it starts them. An app file names them:

  app:
    secrets: {DB_PASSWORD: db-password}

The app finds the value in the variable DB_PASSWORD and in the file
/run/secrets/db-password, which is in memory. A secret of the app's environment
goes before one of the same name for all environments.`}
	cmd.AddCommand(a.secretPutCmd(), a.secretListCmd(), a.secretRemoveCmd(),
		a.rotateCmd(model.RingSeal, "rotate-key", `Make a new key, give it to all masters, and seal all secrets with it. Values and
versions stay, and no app notices. The old key stays on the masters' disks, so
that snapshots which were made before can be restored.`))
	return cmd
}

func (a *app) secretPutCmd() *cobra.Command {
	var req api.SecretRequest
	var file string
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Set a secret; the value comes from standard input, a file or a prompt", Args: cobra.ExactArgs(1),
		Long: `Set a secret or its next version. The value is never an argument, which others
could see in the list of processes. One newline at its end is dropped, unless it
comes from --file. Running instances keep what they have until they are restarted.`,
		Example: "  appliance secret put db-password --env production\n  pwgen 32 1 | appliance secret put db-password --env test\n  appliance secret put tls-key --file key.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := a.secretValue(file)
			if err != nil {
				return err
			}
			req.Name, req.Value = args[0], value
			c, err := a.client()
			if err != nil {
				return err
			}
			var out api.SecretView
			if err := c.Post(cmd.Context(), "/secrets", &req, &out); err != nil {
				return err
			}
			return a.show(out, func(p *ui.Printer) {
				p.Line("%s has version %d", model.SecretID(out.Env, out.Name), out.Version)
				for _, id := range out.UsedBy {
					env, name := model.SplitAppID(id)
					p.Line("%s uses the former value until: appliance restart %s --env %s", id, name, env)
				}
			})
		},
	}
	cmd.Flags().StringVar(&req.Env, "env", "", "for the apps of this environment only")
	cmd.Flags().StringVar(&file, "file", "", "read the value from a file, as it is")
	return cmd
}

// secretValue reads the value from where nobody looks over the shoulder.
func (a *app) secretValue(file string) ([]byte, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, model.Errorf(model.CodeNotFound, "%s cannot be read", file).Because("%v", err)
		}
		defer f.Close()
		return limited(f)
	}
	if !ui.IsTerminal(os.Stdin) {
		value, err := limited(os.Stdin)
		return trimLine(value), err
	}
	fmt.Fprint(a.errOut, "value (not shown): ")
	value, err := ui.ReadHidden(os.Stdin)
	fmt.Fprintln(a.errOut)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(a.errOut, "again: ")
	again, err := ui.ReadHidden(os.Stdin)
	fmt.Fprintln(a.errOut)
	if err == nil && string(again) != string(value) {
		err = model.Errorf(model.CodeInvalid, "the two values differ").Try("type it again; nothing was changed")
	}
	return value, err
}

func limited(r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, model.MaxSecret+2))
	if err == nil && len(trimLine(value)) > model.MaxSecret {
		err = model.Errorf(model.CodeInvalid, "the value is too long").Because("a secret may have %d bytes", model.MaxSecret)
	}
	if err == nil && len(value) == 0 {
		err = errors.New("the value is empty")
	}
	return value, err
}

func trimLine(b []byte) []byte {
	return []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"))
}

func (a *app) secretListCmd() *cobra.Command {
	return look(a, "list", "List the secrets and who uses them, never their values", at("/secrets"), func(p *ui.Printer, list []api.SecretView) {
		p.Row("SECRET", "ENVIRONMENT", "VERSION", "CHANGED", "USED BY")
		for _, s := range list {
			env := s.Env
			if env == "" {
				env = "all"
			}
			p.Row(s.Name, env, s.Version, ui.Since(s.Updated), ui.Or(strings.Join(s.UsedBy, " ")))
		}
	})
}

func (a *app) secretRemoveCmd() *cobra.Command {
	var env string
	cmd := &cobra.Command{Use: "rm NAME", Short: "Remove a secret that no app uses", Args: cobra.ExactArgs(1),
		Example: "  appliance secret rm db-password --env test",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			return c.Delete(cmd.Context(), "/secrets/"+url.PathEscape(args[0])+"?env="+url.QueryEscape(env))
		}}
	cmd.Flags().StringVar(&env, "env", "", "that of this environment")
	return cmd
}
