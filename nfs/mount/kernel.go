package mount

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// errNoKernelClient sends the caller to FUSE.
var errNoKernelClient = errors.New("this kernel has no usable NFS client")

// Where Linux takes the unique part of its NFSv4 client identifier from.
var identifierFiles = []string{
	"/sys/fs/nfs/net/nfs_client/identifier", // per network namespace, since 5.3
	"/sys/module/nfs/parameters/nfs4_unique_id",
}

// mountKernel uses mount(2) without any helper program.
func mountKernel(s Spec) error {
	host, port, err := net.SplitHostPort(s.KernelEndpoint)
	if err != nil {
		return fmt.Errorf("kernel endpoint: %w", err)
	}
	if !haveNFS() {
		return errNoKernelClient
	}
	if err := setIdentifier(s.ClientID); err != nil {
		return fmt.Errorf("%w: %w", errNoKernelClient, err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if s.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	err = unix.Mount(host+":/", s.Target, "nfs4", flags, kernelOptions(host, port))
	if err == unix.ENODEV || err == unix.EPROTONOSUPPORT {
		return errNoKernelClient
	}
	return err
}

// kernelOptions: hard, or a restart of the server becomes I/O errors; lookupcache=positive, or a
// host that cached "no journal" reads another's half-written SQLite transaction; a short attribute
// cache, or changes by other hosts show up only after a minute.
func kernelOptions(host, port string) string {
	return strings.Join([]string{"vers=4.1", "proto=tcp", "sec=sys", "addr=" + host, "clientaddr=" + host, "port=" + port,
		"hard", "timeo=50", "retrans=2", "lookupcache=positive", "actimeo=3", "rsize=1048576", "wsize=1048576"}, ",")
}

func haveNFS() bool {
	registered := func() bool {
		b, _ := os.ReadFile("/proc/filesystems")
		return strings.Contains(string(b), "\tnfs4\n")
	}
	if registered() {
		return true
	}
	exec.Command("modprobe", "nfsv4").Run() // no module, no program: the check below tells
	return registered()
}

// setIdentifier must come before the first mount: Linux names itself by its host name otherwise,
// and cloned machines share that.
func setIdentifier(id string) error {
	var errs []error
	for _, f := range identifierFiles {
		old, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(old)) == id {
			return nil
		}
		if err == nil {
			err = os.WriteFile(f, []byte(id), 0o644)
		}
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("cannot set the NFS client identifier: %w", errors.Join(errs...))
}
