package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"sync"

	"appliance/node/api"
	"appliance/node/model"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// logFlags are the choices of one look at logs.
type logFlags struct {
	env            string
	follow, stderr bool
	tail           int
}

func (a *app) logsCmd() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "logs TASK | NAME --env ENV",
		Short: "Show the output of an instance, or of all instances of an app",
		Long: `Show the output of an instance, or of all instances of an app. Of several
instances each line begins with the task that wrote it. Ended tasks keep their
output until they are forgotten; name them one by one ("appliance ps --all").`,
		Example: "  appliance logs notejam --env test --follow\n  appliance logs test_notejam.5zljp7pu --stderr",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if f.env != "" {
				return a.appLogs(cmd.Context(), c, fullID(args[0], f.env), f)
			}
			body, err := c.Stream(cmd.Context(), f.path(args[0]))
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(a.out, body)
			return err
		},
	}
	cmd.Flags().StringVarP(&f.env, "env", "e", "", "environment of the app")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with new output")
	cmd.Flags().BoolVar(&f.stderr, "stderr", false, "standard error instead of standard output")
	cmd.Flags().IntVarP(&f.tail, "tail", "n", 0, "start that many lines before the end (default: all)")
	return cmd
}

func (f logFlags) path(task string) string {
	q := url.Values{"tail": {fmt.Sprint(f.tail)}, "stream": {"stdout"}}
	if f.stderr {
		q.Set("stream", "stderr")
	}
	if f.follow {
		q.Set("follow", "1")
	}
	return "/logs/" + url.PathEscape(task) + "?" + q.Encode()
}

// appLogs shows the output of the instances that an app has now.
func (a *app) appLogs(ctx context.Context, c *Client, id string, f logFlags) error {
	var tasks []api.TaskView
	if err := c.Get(ctx, "/tasks?app="+url.QueryEscape(id), &tasks); err != nil {
		return err
	}
	if len(tasks) == 0 {
		return model.Errorf(model.CodeNotFound, "%s has no instances", id).Try("see: appliance apps, appliance ps --all")
	}
	group, ctx := errgroup.WithContext(ctx)
	var out sync.Mutex
	for _, t := range tasks {
		group.Go(func() error {
			body, err := c.Stream(ctx, f.path(t.ID))
			if err != nil {
				return err
			}
			defer body.Close()
			return prefixLines(a.out, &out, t.ID+" ", body)
		})
	}
	return group.Wait()
}

// maxLogLine is where a longer line is cut in two.
const maxLogLine = 64 << 10

// prefixLines copies in to w line by line; lock keeps lines whole.
func prefixLines(w io.Writer, lock *sync.Mutex, prefix string, in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxLogLine)
	for {
		line, _, err := lines.ReadLine()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		lock.Lock()
		_, err = fmt.Fprintf(w, "%s%s\n", prefix, line)
		lock.Unlock()
		if err != nil {
			return err
		}
	}
}
