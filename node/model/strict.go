package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// DecodeStrict reads one JSON document into v and refuses fields that v has
// not; UnknownField tells that error from others.
func DecodeStrict(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if len(bytes.TrimSpace(raw[dec.InputOffset():])) > 0 {
		return errors.New("something follows the JSON document")
	}
	return nil
}

// UnknownField returns the quoted name of the field that DecodeStrict refused.
// encoding/json has no type for it, only the text.
func UnknownField(err error) (string, bool) {
	if err == nil {
		return "", false
	}
	return strings.CutPrefix(err.Error(), "json: unknown field ")
}
