package marathon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"appliance/node/model"
	"appliance/sched"
)

// detail is one entry of a validation error.
type detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// failure is an answer with an error, in Marathon's form.
type failure struct {
	status      int
	Message     string              `json:"message"`
	Details     any                 `json:"details,omitempty"` // []detail, or a text for syntax errors
	Deployments []map[string]string `json:"deployments,omitempty"`
}

func (f *failure) Error() string { return f.Message }

var errMethod = &failure{status: http.StatusMethodNotAllowed, Message: "HTTP 405 Method Not Allowed"}

func notFound(format string, args ...any) error {
	return &failure{status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}

func noApp(id string) error { return notFound("App '%s' does not exist", id) }

func badRequest(format string, args ...any) error {
	return &failure{status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func unprocessable(format string, args ...any) error {
	return &failure{status: http.StatusUnprocessableEntity, Message: fmt.Sprintf(format, args...)}
}

func invalid(message string, details []detail) error {
	return &failure{status: http.StatusUnprocessableEntity, Message: message, Details: details}
}

// locked is the answer to a change of an app that is being deployed. Clients
// tell it from "exists" by the deployments.
func locked(deployment string) error {
	return &failure{
		status: http.StatusConflict,
		Message: "App is locked by one or more deployments. Override with the option '?force=true'. " +
			"View details at '/v2/deployments/<DEPLOYMENT_ID>'.",
		Deployments: []map[string]string{{"id": deployment}},
	}
}

// statusOf maps the cluster's codes.
var statusOf = map[model.Code]int{
	model.CodeInvalid: http.StatusUnprocessableEntity, model.CodeNotFound: http.StatusNotFound,
	model.CodeConflict: http.StatusConflict, model.CodeDenied: http.StatusForbidden,
	model.CodeUnplaceable: http.StatusUnprocessableEntity, model.CodeUnavailable: http.StatusServiceUnavailable,
	model.CodeExhausted: http.StatusServiceUnavailable,
}

func (c *call) fail(err error) {
	f := asFailure(err)
	if f.status >= http.StatusInternalServerError {
		c.Log.Warn("a Marathon request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	}
	_ = c.reply(f.status, f)
}

func asFailure(err error) *failure {
	var f *failure
	var spec *sched.InvalidSpec
	var known *model.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &spec):
		var details []detail
		for _, field := range spec.Fields {
			details = append(details, detail{field.Path, []string{field.Fault}})
		}
		return &failure{status: http.StatusUnprocessableEntity, Message: "Object is not valid", Details: details}
	case errors.As(err, &known):
		status := statusOf[known.Code]
		if status == 0 {
			status = http.StatusInternalServerError
		}
		return &failure{status: status, Message: known.Error()}
	case errors.As(err, &tooLarge):
		return &failure{status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)}
	}
	return &failure{status: http.StatusServiceUnavailable, Message: err.Error()}
}

// object reads a JSON document as it is.
func (c *call) body() (any, error) {
	dec := json.NewDecoder(c.r.Body)
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, err
		}
		return nil, &failure{status: http.StatusBadRequest, Message: "Invalid JSON", Details: err.Error()}
	}
	if dec.More() {
		return nil, &failure{status: http.StatusBadRequest, Message: "Invalid JSON", Details: "there is something behind the document"}
	}
	return v, nil
}

// object reads a JSON object.
func (c *call) object() (map[string]any, error) {
	v, err := c.body()
	if err != nil {
		return nil, err
	}
	return asObject(v)
}

func asObject(v any) (map[string]any, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("Invalid JSON", []detail{{"/", []string{"error.expected.jsobject"}}})
	}
	return m, nil
}
