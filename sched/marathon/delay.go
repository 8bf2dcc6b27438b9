package marathon

import (
	"net/http"

	"appliance/raft/command"
	"appliance/raft/state"
)

// endDelay lets the tasks of a failing app try at once.
func (c *call) endDelay(id string) error {
	if state.Apps.Get(c.snap, id) == nil {
		return notFound("Application %s not found in tasks queue.", id)
	}
	if _, err := c.propose(&command.SetBackoff{App: id}); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
