package containerd

import (
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/sirupsen/logrus"
)

var serverLog atomic.Pointer[slog.Logger]

// captureLogs sends what the server logs, which it does through logrus'
// global logger, to log at debug level: the driver reports what matters by
// errors, and the server is chatty at shutdown.
func captureLogs(log *slog.Logger) {
	if serverLog.Swap(log) != nil {
		return
	}
	logrus.SetOutput(io.Discard)
	logrus.SetLevel(logrus.WarnLevel)
	logrus.AddHook(hook{})
}

type hook struct{}

func (hook) Levels() []logrus.Level { return logrus.AllLevels[:logrus.WarnLevel+1] }

func (hook) Fire(e *logrus.Entry) error {
	attrs := []any{"level", e.Level.String()}
	for k, v := range e.Data {
		attrs = append(attrs, k, v)
	}
	serverLog.Load().Debug("containerd: "+e.Message, attrs...)
	return nil
}
