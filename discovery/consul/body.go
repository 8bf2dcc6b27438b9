package consul

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-bexpr"
)

// minGzip is where compression begins to pay: below, an answer fits into one
// packet anyway.
const minGzip = 1400

func compress(body []byte) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // the level is valid
	z.Write(body)
	z.Close()
	return b.Bytes()
}

// duration reads "10s" or a number of nanoseconds, as Consul does.
type duration time.Duration

func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		if s == "" {
			*d = 0
			return nil
		}
		v, err := time.ParseDuration(s)
		*d = duration(v)
		return err
	}
	n, err := strconv.ParseFloat(string(b), 64)
	*d = duration(n)
	return err
}

func readBody(r *http.Request, limit int64) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("Request body(%d bytes) too large, max size: %d bytes.", max(r.ContentLength, limit+1), limit))
	}
	if err != nil {
		return nil, fail(http.StatusBadRequest, "Request decode failed: "+err.Error())
	}
	return raw, nil
}

// decode reads a JSON body whose keys may be CamelCase or snake_case. An empty
// body leaves v as it is.
func decode(r *http.Request, v any) error {
	raw, err := readBody(r, maxBody)
	if err != nil || len(bytes.TrimSpace(raw)) == 0 {
		return err
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return fail(http.StatusBadRequest, "Request decode failed: "+err.Error())
	}
	raw, err = json.Marshal(fold(tree))
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	if err != nil {
		return fail(http.StatusBadRequest, "Request decode failed: "+err.Error())
	}
	return nil
}

// fold removes underscores from keys, so that encoding/json's comparison
// without case matches both spellings. Keys that belong to the user stay.
func fold(tree any) any {
	switch t := tree.(type) {
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, v := range t {
			plain := strings.ReplaceAll(k, "_", "")
			switch strings.ToLower(plain) {
			case "meta", "nodemeta", "header", "taggedaddresses":
				out[plain] = v
			default:
				out[plain] = fold(v)
			}
		}
		return out
	case []any:
		for i := range t {
			t[i] = fold(t[i])
		}
	}
	return tree
}

// maxFilter bounds the text of a filter; evaluation time grows with it.
const maxFilter = 4 << 10

func createFilter(expression string) (*bexpr.Filter, error) {
	if len(expression) > maxFilter {
		return nil, fail(http.StatusBadRequest, fmt.Sprintf("The filter is longer than %d bytes", maxFilter))
	}
	f, err := bexpr.CreateFilter(expression)
	if err != nil {
		return nil, fail(http.StatusInternalServerError, "Failed to create boolean expression evaluator: "+err.Error())
	}
	return f, nil
}

// filter keeps what ?filter= selects of a slice or map, in go-bexpr's
// language.
func filter[T any](expression string, rows T) (T, error) {
	if expression == "" {
		return rows, nil
	}
	f, err := createFilter(expression)
	if err != nil {
		return rows, err
	}
	out, err := f.Execute(rows)
	if err != nil {
		return rows, fail(http.StatusInternalServerError, "Failed to evaluate filter: "+err.Error())
	}
	return out.(T), nil
}
