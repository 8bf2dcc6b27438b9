package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"appliance/cmd/cli/ui"
	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
)

func (a *app) auditCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Show who changed what, and prove it",
		Long: `Show who changed what, and prove that nobody edited it: each record holds the
hash of the one before. The cluster keeps the newest 50,000; masters keep more
as JSON lines in the directory "audit" of their data directory.`}
	cmd.AddCommand(a.auditListCmd(), a.auditVerifyCmd())
	return cmd
}

func (a *app) auditListCmd() *cobra.Command {
	var limit int
	cmd := look(a, "list", "List the newest changes", func() string { return fmt.Sprintf("/audit?limit=%d", limit) }, func(p *ui.Printer, l api.AuditLog) {
		p.Row("SEQ", "TIME", "WHO", "FROM", "CHANGE", "SUBJECT", "INDEX")
		for _, r := range l.Records {
			p.Row(r.Seq, r.At.Local().Format(time.DateTime), r.Actor.Who, r.Actor.From, r.What, ui.Or(r.Subject), r.Index)
		}
	})
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "how many lines")
	return cmd
}

// verified is the answer of audit verify.
type verified struct {
	Records int    `json:"records"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Hash    string `json:"hash"` // of the last record
}

func (a *app) auditVerifyCmd() *cobra.Command {
	return &cobra.Command{Use: "verify [FILE]...", Short: "Recompute the chain of the cluster's audit log, or of files in their order", Args: cobra.ArbitraryArgs,
		Long: `Recompute the chain of the cluster's audit log, or of files in their order, and
name the first record that is not as it was written. The last hash that it
prints, noted elsewhere, also proves later that nothing was cut off before it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := a.auditLog(cmd, args)
			if err != nil {
				return err
			}
			if bad := model.VerifyAudit(log.Records, log.Bound); bad != nil {
				return model.Errorf(model.CodeConflict, "audit record %d is not as it was written", bad.Seq).Because("%s", bad.Why).
					Try("compare with the files in the data directories of the masters")
			}
			out := verified{Records: len(log.Records)}
			if out.Records > 0 {
				last := log.Records[out.Records-1]
				out.First, out.Last, out.Hash = log.Records[0].Seq, last.Seq, fmt.Sprintf("%x", last.Hash)
			}
			return a.show(out, func(p *ui.Printer) {
				if out.Records == 0 {
					p.Line("there are no records yet")
					return
				}
				p.Line("%d records, from %d to %d, are as they were written; the last hash is %s", out.Records, out.First, out.Last, out.Hash)
			})
		}}
}

// auditLog reads the records of the cluster, or of files.
func (a *app) auditLog(cmd *cobra.Command, files []string) (api.AuditLog, error) {
	var log api.AuditLog
	if len(files) == 0 {
		c, err := a.client()
		if err != nil {
			return log, err
		}
		return log, c.Get(cmd.Context(), "/audit", &log)
	}
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return log, model.Errorf(model.CodeNotFound, "the file %s cannot be read", path).Because("%v", err)
		}
		dec := json.NewDecoder(file)
		for {
			var r model.AuditRecord
			err = dec.Decode(&r)
			if err != nil {
				break
			}
			log.Records = append(log.Records, r)
		}
		file.Close()
		if !errors.Is(err, io.EOF) {
			return log, model.Errorf(model.CodeInvalid, "the file %s has a line that is no audit record", path).Because("line %d: %v", len(log.Records)+1, err)
		}
	}
	return log, nil
}
