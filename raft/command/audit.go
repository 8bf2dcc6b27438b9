package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"appliance/node/model"
	"appliance/raft/state"
)

// MaxAudit bounds the audit log in the state; older records are in the files
// that masters keep. 50,000 records are about 20 MB.
const MaxAudit = 50000

const (
	maxAuditText = 256  // bytes of each text of a record
	maxEnvelope  = 2048 // what Audited adds to the size of a command
)

// Audited is a command on somebody's behalf. If it is accepted, the audit log
// gets a record in the same entry, so that neither is without the other.
type Audited struct {
	Actor model.Actor
	At    time.Time
	Inner Command
}

// auditedHead is the first line of the encoded form; the inner command follows
// as it would be encoded by itself, so that it is read once only.
type auditedHead struct {
	Actor model.Actor `json:"actor"`
	At    time.Time   `json:"at"`
	Kind  kind        `json:"kind"`
}

// Audit wraps c for the log. Texts of the actor that are too long are cut.
func Audit(c Command, by model.Actor, at time.Time) *Audited {
	for _, s := range []*string{&by.Who, &by.From, &by.Node, &by.Via} {
		*s = cut(*s)
	}
	return &Audited{Actor: by, At: at, Inner: c}
}

// encode gives the body of the log form.
func (c *Audited) encode() ([]byte, error) {
	head := auditedHead{Actor: c.Actor, At: c.At}
	var inner []byte
	if c.Inner != nil {
		var err error
		if inner, err = json.Marshal(c.Inner); err != nil {
			return nil, err
		}
		head.Kind = c.Inner.kind()
	}
	out, err := json.Marshal(head)
	return append(append(out, '\n'), inner...), err
}

// decode reads the body of the log form. A command of an unknown kind is an
// UnknownError here too.
func (c *Audited) decode(body []byte) error {
	line, rest, found := bytes.Cut(body, []byte{'\n'})
	var head auditedHead
	if err := readStrict(line, c.kind(), &head); err != nil {
		return err
	}
	c.Actor, c.At, c.Inner = head.Actor, head.At, nil
	if head.Kind == 0 {
		return nil
	}
	typ := types[head.Kind]
	if typ == nil || !found {
		return &UnknownError{Version: codecVersion, Kind: uint16(head.Kind)}
	}
	inner := reflect.New(typ).Interface().(Command)
	if _, nested := inner.(*Audited); nested {
		return nil // refused by apply
	}
	c.Inner = inner
	return readStrict(rest, head.Kind, inner)
}

func (c *Audited) apply(tx *state.Tx, index uint64) (any, *model.Error) {
	if _, nested := c.Inner.(*Audited); nested || c.Inner == nil {
		return nil, model.Errorf(model.CodeInvalid, "a change on somebody's behalf has no content")
	}
	value, refusal := c.Inner.apply(tx, index)
	if refusal != nil || failed(value) {
		return value, refusal
	}
	chain(tx, index, &model.AuditRecord{At: c.At, Actor: c.Actor, What: name(c.Inner), Subject: cut(subject(c.Inner))}, MaxAudit)
	return value, nil
}

// chain appends a record to the audit log and drops the oldest beyond keep.
func chain(tx *state.Tx, index uint64, r *model.AuditRecord, keep int) {
	r.Seq, r.Index = 1, index
	if last := state.Audit.Last(&tx.Snapshot); last != nil {
		r.Seq, r.Prev = last.Seq+1, last.Hash
	}
	r.Hash = r.Sum()
	state.Audit.Append(tx, index, r, keep)
}

// failed tells a transaction that changed nothing, which is no refusal.
func failed(value any) bool {
	res, ok := value.(*KVTxnResult)
	return ok && len(res.Errors) > 0
}

func name(c Command) string { return reflect.TypeOf(c).Elem().Name() }

// cut bounds a text at a whole character.
func cut(s string) string {
	if len(s) <= maxAuditText {
		return s
	}
	return strings.ToValidUTF8(s[:maxAuditText], "")
}

// subject names what a command is about: ids and names, never values.
func subject(c Command) string {
	switch c := c.(type) {
	case *CreateRelease:
		return c.Release.App
	case *ScaleApp:
		return fmt.Sprintf("%s to %d", c.App, c.Instances)
	case *DeleteApp:
		return c.App
	case *EndDeployment:
		return c.ID
	case *KVTxn:
		return keys(c)
	case *PutSession:
		return c.Session.ID
	case *DestroySession:
		return c.ID
	case *RegisterService:
		if c.Service != nil {
			return c.Service.Key()
		}
	case *DeregisterService:
		return fmt.Sprintf("%s/%s", c.Node, c.ID)
	case *PutManifest:
		return c.Manifest.Key() + " " + strings.Join(c.Tags, ",")
	case *DeleteManifest:
		return c.Repo + "@" + c.Digest
	case *DeleteTag:
		return c.Repo + ":" + c.Name
	case *PutEnvironment:
		return c.Environment.Name
	case *DeleteEnvironment:
		return c.Name
	case *PutAPIToken:
		return c.Token.ID + " " + c.Token.Name
	case *DeleteAPIToken:
		return c.ID
	case *PutJoinToken:
		if !c.EndOthers.IsZero() {
			return c.Token.ID + " " + string(c.Token.Role) + " ends the others"
		}
		return c.Token.ID + " " + string(c.Token.Role)
	case *DeleteJoinToken:
		return c.ID
	case *PutSecret:
		return c.Secret.ID()
	case *DeleteSecret:
		return model.SecretID(c.Env, c.Name)
	case *RotateKey:
		return string(c.Ring) + " " + c.Step
	case *SetNodeDrain:
		return fmt.Sprintf("%s %t", c.Node, c.Drain)
	case *RemoveNode:
		return c.Node
	case *PutVolume:
		return c.Volume.Name
	case *DeleteVolume:
		return c.Name
	case *StopTasks:
		return strings.Join(c.Tasks, " ")
	case *EndRestore:
		return c.ID
	}
	return "" // Actor.Via tells enough
}

func keys(c *KVTxn) string {
	if len(c.Ops) == 1 {
		return c.Ops[0].Verb + " " + c.Ops[0].Key
	}
	var out []string
	for _, op := range c.Ops {
		out = append(out, op.Verb+" "+op.Key)
		if len(out) == 8 {
			break // the text is cut anyway
		}
	}
	return strings.Join(out, ", ")
}
