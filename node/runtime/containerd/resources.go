package containerd

import (
	"context"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"

	"appliance/node/runtime"
)

// withResources sets the limits and keeps the default device list.
func withResources(res runtime.Resources) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
		lim := linuxResources(res)
		if s.Linux.Resources != nil {
			lim.Devices = s.Linux.Resources.Devices
		}
		s.Linux.Resources = lim
		return nil
	}
}
