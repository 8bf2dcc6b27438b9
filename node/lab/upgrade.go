package lab

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
)

// Upgrade gives a machine another binary, as an operator does: the service is stopped in order, the file
// replaced, the service started. Containers go on.
func (l *Lab) Upgrade(ctx context.Context, machine, file string) error {
	s, err := l.state()
	if err != nil {
		return err
	}
	if _, _, err := s.machine(machine); err != nil {
		return err
	}
	if err := l.Stop(ctx, machine); err != nil {
		return err
	}
	if err := copyFile(file, filepath.Join(l.dir, machine, "bin", binary)); err != nil {
		return fmt.Errorf("the binary of %s: %w (its service is stopped: appliance lab start %s)", machine, err, machine)
	}
	return l.Start(ctx, machine)
}

func upgradeVerb() Verb {
	var file string
	v := each("upgrade", "Stop machines in order, give them another binary and start them", "runs the other binary",
		func(f *flag.FlagSet) { f.StringVar(&file, "binary", "", "the executable; required") },
		func(ctx context.Context, l *Lab, m string) error {
			if file == "" {
				return fmt.Errorf("which binary? say --binary FILE")
			}
			return l.Upgrade(ctx, m, file)
		})
	v.Example = "appliance lab upgrade mm1 --binary bin/appliance-next"
	return v
}
