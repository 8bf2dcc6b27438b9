package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and revoke join tokens and API tokens"}
	cmd.AddCommand(a.tokenCreateCmd(), a.tokenRotateCmd(), look(a, "list", "List the tokens, without their secrets", at("/tokens"), func(p *ui.Printer, list []api.TokenView) {
		p.Row("ID", "KIND", "NAME", "CREATED", "EXPIRES", "LAST USED BY")
		for _, t := range list {
			expires := "never"
			if !t.Expires.IsZero() {
				expires = t.Expires.Local().Format(time.DateTime)
			}
			p.Row(t.ID, t.Kind, ui.Or(t.Name+t.Role), ui.Since(t.Created), expires, ui.Or(t.UsedBy))
		}
	}), &cobra.Command{Use: "revoke ID", Short: "Revoke a token", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return c.Delete(cmd.Context(), "/tokens/"+url.PathEscape(args[0]))
	}})
	return cmd
}

func (a *app) tokenCreateCmd() *cobra.Command {
	var req api.TokenRequest
	var role string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token (--role) or an API token (--name)",
		Example: `  appliance token create --role agent --ttl 1h
  appliance token create --name ci --deploy test --push`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/tokens/api"
			if role != "" {
				path = "/tokens/join"
			} else if req.Name == "" {
				return model.Errorf(model.CodeInvalid, "a token needs --role (to join machines) or --name (to use the API)")
			}
			req.Role, req.TTL = model.Role(role), model.Duration(ttl)
			c, err := a.client()
			if err != nil {
				return err
			}
			var out api.Token
			if err := c.Post(cmd.Context(), path, &req, &out); err != nil {
				return err
			}
			return a.show(out, func(p *ui.Printer) { p.Line("%s", out.Token) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "join token for a master or an agent")
	f.BoolVar(&req.SingleUse, "single-use", false, "a join token that works once")
	f.StringVar(&req.Name, "name", "", "API token with this name")
	f.BoolVar(&req.Policy.Operator, "operator", false, "may do everything")
	f.BoolVar(&req.Policy.Read, "read", false, "may read")
	f.StringSliceVar(&req.Policy.Deploy, "deploy", nil, "may deploy into these environments")
	f.BoolVar(&req.Policy.Push, "push", false, "may push images")
	f.DurationVar(&ttl, "ttl", 0, "how long it is valid (default: join tokens 24h, API tokens for ever)")
	return cmd
}

func (a *app) tokenRotateCmd() *cobra.Command {
	var req api.RotateTokenRequest
	var role string
	var ttl, grace time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new join token of a role and end the others of it",
		Long: `Make a new join token of a role and revoke all others of that role, or let them
work for a while yet (--grace). The new one is printed, this once. Machines that
have joined are not concerned.`,
		Example: "  appliance token rotate --role agent\n  appliance token rotate --role agent --grace 1h",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Role, req.TTL, req.Grace = model.Role(role), model.Duration(ttl), model.Duration(grace)
			c, err := a.client()
			if err != nil {
				return err
			}
			var out api.RotatedToken
			if err := c.Post(cmd.Context(), "/tokens/join/rotate", &req, &out); err != nil {
				return err
			}
			if !a.json && len(out.Revoked) > 0 {
				when := "revoked"
				if grace > 0 {
					when = "valid until " + time.Now().Add(grace).Format(time.DateTime) + " at most"
				}
				fmt.Fprintf(a.errOut, "%s: %s\n", when, strings.Join(out.Revoked, " "))
			}
			return a.show(out, func(p *ui.Printer) { p.Line("%s", out.Token.Token) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "for a master or an agent")
	f.BoolVar(&req.SingleUse, "single-use", false, "the new token works once")
	f.DurationVar(&ttl, "ttl", 0, "how long the new token is valid (default 24h)")
	f.DurationVar(&grace, "grace", 0, "how long the old tokens still work")
	return cmd
}

func (a *app) envCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "List and make environments"}
	var e model.Environment
	create := &cobra.Command{
		Use: "create NAME", Short: "Make or change an environment", Args: cobra.ExactArgs(1),
		Example: "  appliance env create staging --selector env=staging",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			e.Name = args[0]
			var out model.Environment
			return c.Post(cmd.Context(), "/environments", &e, &out)
		},
	}
	create.Flags().StringToStringVar(&e.Selector, "selector", nil, "attributes that its nodes have (default env=NAME)")
	create.Flags().BoolVar(&e.RequireReceipt, "require-receipt", false, "take promotions only with a passing receipt")
	cmd.AddCommand(create, look(a, "list", "List the environments", at("/environments"), func(p *ui.Printer, list []model.Environment) {
		p.Row("ENVIRONMENT", "NODES WITH", "NEEDS RECEIPT")
		for _, e := range list {
			receipt := "no"
			if e.RequireReceipt {
				receipt = "yes"
			}
			p.Row(e.Name, attributes(e.Selector), receipt)
		}
	}))
	return cmd
}

func (a *app) drainCmd() *cobra.Command {
	var off bool
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move all instances off a node and keep new ones away", Args: cobra.ExactArgs(1),
		Example: "  appliance drain ms1\n  appliance drain ms1 --off",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var n model.Node
			if err := c.Post(cmd.Context(), "/drain", api.DrainRequest{Node: args[0], Drain: !off}, &n); err != nil {
				return err
			}
			return a.show(n, func(p *ui.Printer) {
				if off {
					p.Line("%s takes instances again", n.Name)
				} else {
					p.Line("%s is draining; watch it with: appliance ps --node %s", n.Name, n.Name)
				}
			})
		},
	}
	cmd.Flags().BoolVar(&off, "off", false, "take instances again")
	return cmd
}

// kvCmd speaks the Consul dialect, which the API socket answers too.
func (a *app) kvCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "kv", Short: "Read and write the key-value store"}
	// call sends one request about the key that args begin with.
	call := func(cmd *cobra.Command, method, query string, args []string, in io.Reader) ([]byte, error) {
		c, err := a.client()
		if err != nil {
			return nil, err
		}
		key := strings.TrimPrefix(args[0], "/")
		out, err := c.consul(cmd.Context(), method, "/v1/kv/"+(&url.URL{Path: key}).EscapedPath()+query, in)
		if model.CodeOf(err) == model.CodeNotFound {
			return nil, model.Errorf(model.CodeNotFound, "there is no key %s", key).Try("list them with: appliance kv list PREFIX")
		}
		return out, err
	}
	cmd.AddCommand(
		&cobra.Command{Use: "get KEY", Short: "Print the value of a key as it is", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				out, err := call(cmd, http.MethodGet, "?raw", args, nil)
				if err == nil && ui.IsTerminal(a.out) {
					out = append(out, '\n')
				}
				if err == nil {
					_, err = a.out.Write(out)
				}
				return err
			}},
		&cobra.Command{Use: "put KEY VALUE", Short: "Set a key; VALUE - reads standard input", Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				var in io.Reader = strings.NewReader(args[1])
				if args[1] == "-" {
					in = os.Stdin
				}
				_, err := call(cmd, http.MethodPut, "", args, in)
				return err
			}},
		&cobra.Command{Use: "rm KEY", Short: "Remove a key", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				_, err := call(cmd, http.MethodDelete, "", args, nil)
				return err
			}},
		&cobra.Command{Use: "list PREFIX", Short: "List the keys below a prefix", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				out, err := call(cmd, http.MethodGet, "?keys", args, nil)
				if err != nil {
					return err
				}
				var keys []string
				if err := json.Unmarshal(out, &keys); err != nil {
					return err
				}
				return a.show(keys, func(p *ui.Printer) {
					for _, k := range keys {
						p.Line("%s", k)
					}
				})
			}},
	)
	return cmd
}
