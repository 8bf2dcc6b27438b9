package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"
	"appliance/raft/archive"
	"appliance/raft/state"

	"github.com/spf13/cobra"
)

// snapshotTimeout bounds the transfer of a snapshot file in either direction.
const snapshotTimeout = 5 * time.Minute

func (a *app) snapshotCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "snapshot", Short: "Save, inspect and restore the cluster's state",
		Long: `Save, inspect and restore the cluster's state: apps, releases, keys, tokens,
services and the index of images, not what is inside images and volumes.
Masters also save one every six hours into the directory "snapshots" of their
data directory. A file holds hashes of tokens and what apps keep in keys: keep
it as such. Values of secrets are in it only as sealed: to restore them, masters
need the seal key of that time, which their data directories keep below pki/keys
and no snapshot has.`}
	cmd.AddCommand(a.snapshotSaveCmd(), a.snapshotInspectCmd(), a.snapshotRestoreCmd())
	return cmd
}

func (a *app) snapshotSaveCmd() *cobra.Command {
	return &cobra.Command{Use: "save FILE", Short: "Save the state as it is now", Args: cobra.ExactArgs(1),
		Example: "  appliance snapshot save cluster.snapshot",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), snapshotTimeout)
			defer cancel()
			body, err := c.Stream(ctx, "/snapshot")
			if err != nil {
				return err
			}
			defer body.Close()
			h, err := receive(args[0], body)
			if err != nil {
				return err
			}
			return a.show(h, func(p *ui.Printer) {
				p.Line("saved the state at index %d in %s", h.Index, args[0])
				if n := h.Tables[state.Secrets.Name]; n > 0 {
					p.Line("%s in it can be opened only with the key %s of the masters", ui.Count(n, "secret"), strings.Join(a.sealKeys(args[0]), ", "))
				}
			})
		}}
}

// sealKeys are the ids of the keys that the secrets of a file are sealed with.
func (a *app) sealKeys(path string) []string {
	file, size, err := openSnapshot(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	_, store, err := archive.Load(file, size)
	if err != nil {
		return nil
	}
	return sealKeysOf(store)
}

func sealKeysOf(store *state.Store) []string {
	ids := map[string]bool{}
	for s := range state.Secrets.All(store.Snapshot()) {
		ids[s.Key] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// receive writes a snapshot to path, which is there only if it is whole.
func receive(path string, body io.Reader) (archive.Header, error) {
	tmp := path + ".tmp"
	file, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return archive.Header{}, unwritable(path, err)
	}
	defer os.Remove(tmp) // gone after the rename
	defer file.Close()
	size, err := io.Copy(file, body)
	if err != nil {
		return archive.Header{}, unwritable(path, err)
	}
	h, err := archive.Verify(file, size)
	if err != nil {
		return h, model.Errorf(model.CodeUnavailable, "the snapshot did not arrive as a whole").Because("%v", err).Try("try again, or another node with --address")
	}
	if err := errors.Join(file.Sync(), os.Rename(tmp, path), syncParent(path)); err != nil {
		return h, unwritable(path, err)
	}
	return h, nil
}

func syncParent(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func unwritable(path string, err error) error {
	return model.Errorf(model.CodeInvalid, "the snapshot cannot be written to %s", path).Because("%v", err).Try("use another file")
}

func (a *app) snapshotInspectCmd() *cobra.Command {
	return &cobra.Command{Use: "inspect FILE", Short: "Check a snapshot and show what is in it, without a cluster", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file, size, err := openSnapshot(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			h, store, err := archive.Load(file, size)
			if err != nil {
				return inFile(args[0], err)
			}
			return a.show(h, func(p *ui.Printer) {
				p.Row("cluster", fmt.Sprintf("%s (%s)", ui.Or(h.Name), h.Cluster))
				p.Row("index", h.Index)
				p.Row("term", h.Term)
				p.Row("time", h.Time.Local().Format(time.DateTime))
				p.Row("version", ui.Or(h.Version))
				p.Row("bytes", size)
				if keys := sealKeysOf(store); len(keys) > 0 {
					p.Row("sealed with", strings.Join(keys, ", "))
				}
				p.Line("")
				p.Row("TABLE", "ROWS")
				for _, t := range slices.Sorted(maps.Keys(h.Tables)) {
					if h.Tables[t] > 0 {
						p.Row(t, h.Tables[t])
					}
				}
			})
		}}
}

// inFile is err with the name of the file that it is about.
func inFile(path string, err error) error {
	var e *model.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", path, err)
	}
	named := *e
	named.What = e.What + ": " + path
	return &named
}

func openSnapshot(path string) (*os.File, int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, model.Errorf(model.CodeNotFound, "the snapshot %s cannot be read", path).Because("%v", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func (a *app) snapshotRestoreCmd() *cobra.Command {
	var risk string
	cmd := &cobra.Command{Use: "restore FILE", Short: "Replace the state of the whole cluster by a snapshot", Args: cobra.ExactArgs(1),
		Long: `Replace the state of the whole cluster by a snapshot of it. All nodes take it at
the same moment, or none. What was changed since the snapshot is lost: tasks
that it does not know are stopped, those that are missing are started. Nodes,
join tokens, the places of volumes, the history and the audit log stay.

If all masters of a cluster are lost, its newest snapshot goes into a new one:
appliance init on a machine, then restore there with
--accept-risk=other-cluster, while that is empty. It takes apps, environments,
keys, API tokens, secrets and the index of images. The new cluster keeps its
own identity, CA and nodes. Machines of the lost one are not part of it: they
join again (appliance leave, then appliance join). Sessions and their locks
end, volumes begin empty, images have to be pushed again, and secrets can be
opened only with the seal key of that time.`,
		Example: "  appliance snapshot restore cluster.snapshot --accept-risk=replace-state\n" +
			"  appliance snapshot restore lost.snapshot --accept-risk=other-cluster",
		RunE: func(cmd *cobra.Command, args []string) error {
			file, size, err := openSnapshot(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			if _, err := archive.Verify(file, size); err != nil {
				return inFile(args[0], err)
			}
			if risk != api.RiskReplaceState && risk != api.RiskOtherCluster {
				return model.Errorf(model.CodeInvalid, "a restore replaces what the cluster runs and knows").
					Because("all changes since the snapshot are lost").Try("if that is meant: --accept-risk=%s", api.RiskReplaceState)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			var out api.RestoredSnapshot
			if err := c.upload(cmd.Context(), "/snapshot/restore?accept-risk="+risk, io.NewSectionReader(file, 0, size), &out); err != nil {
				return err
			}
			return a.show(out, func(p *ui.Printer) {
				if risk == api.RiskOtherCluster {
					printAdopted(p, out)
					return
				}
				p.Line("the cluster is back at the state of %s (index %d, now %d)", out.Header.Time.Local().Format(time.DateTime), out.Header.Index, out.Index)
			})
		}}
	cmd.Flags().StringVar(&risk, "accept-risk", "", `"replace-state" says that all changes since the snapshot may be lost, "other-cluster" that a new cluster takes the state of a lost one`)
	return cmd
}

// printAdopted tells what of a lost cluster is not as it was.
func printAdopted(p *ui.Printer, r api.RestoredSnapshot) {
	p.Line("this cluster has the state of %s at %s (index %d there, now %d)", ui.Or(r.Header.Name), r.Header.Time.Local().Format(time.DateTime), r.Header.Index, r.Index)
	p.Line("its machines are not part of this cluster: on each run appliance leave --accept-risk=lose-local-data, then appliance join")
	if len(r.SealedWith) > 0 {
		p.Line("secrets sealed with %s cannot be opened: copy %s from a lost master's data directory to pki/keys of each master here, or put them again",
			strings.Join(r.SealedWith, ", "), "pki/keys/"+strings.Join(r.SealedWith, ".key, pki/keys/")+".key")
	}
	if len(r.Volumes) > 0 {
		p.Line("volumes begin empty, as their data was on the lost masters: %s", strings.Join(r.Volumes, ", "))
	}
	if r.Header.Tables[state.Tags.Name] > 0 {
		p.Line("images have to be pushed again: the snapshot has only their index")
	}
}

// upload posts a file and reads the answer into out.
func (c *Client) upload(ctx context.Context, path string, file io.Reader, out any) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	resp, err := c.do(ctx, http.MethodPost, path, file)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}
