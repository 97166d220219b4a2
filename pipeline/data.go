package pipeline

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// AppendData appends d as a JSON object that holds only what is set. The keys
// are part of the stored format: they are added, never renamed.
func AppendData(b []byte, d *Data) []byte {
	o := begun(b)
	o.text("kind", string(d.Kind))
	o.text("action", d.Action)
	o.value("parameters", d.Parameters)
	if d.Items != nil {
		o.value("items", d.Items)
	}
	if d.Branch != nil {
		o.value("branch", int64(*d.Branch))
	}
	o.mapping("vars", d.Vars)
	o.versions("consumed", d.Consumed)
	o.text("worker", d.Worker)
	o.truth("remote", d.Remote)
	o.truth("adopted", d.Adopted)
	if d.Waiting != nil {
		o.key("waiting")
		o.b = appendWaiting(o.b, d.Waiting)
	}
	o.text("status", string(d.Status))
	o.value("output", d.Output)
	o.mapping("state", d.State)
	o.versions("published", d.Published)
	o.number("rule", int64(d.Rule))
	if d.Error != nil {
		o.marshal("error", d.Error)
	}
	o.time("due", d.Due)
	o.text("reason", d.Reason)
	o.text("run_status", string(d.RunStatus))
	o.mapping("outputs", d.Outputs)
	o.value("collected", d.Collected)
	o.truth("done", d.Done)
	o.truth("pass", d.Pass)
	o.mapping("answers", d.Answers)
	o.text("uploads", string(d.Uploads))
	if d.Fork != nil {
		o.marshal("fork", d.Fork)
	}
	if d.Trace != nil {
		o.marshal("trace", d.Trace)
	}
	if a := d.Auto; a != nil {
		o.key("auto")
		in := begun(o.b)
		in.text("key", a.Key)
		in.value("value", a.Value)
		in.text("from", a.From)
		in.text("model", a.Model)
		in.text("kind", a.Kind)
		in.text("content", string(a.Content))
		if a.Usage != nil {
			in.marshal("usage", a.Usage)
		}
		o.b = in.end()
	}
	if d.Decision != nil {
		o.key("decision")
		o.b = AppendDecision(o.b, d.Decision)
	}
	o.text("signal", d.Signal)
	o.value("value", d.Value)
	o.text("actor", d.Actor)
	o.text("child", string(d.Child))
	if d.Call != nil {
		o.key("call")
		o.b = appendInvocation(o.b, d.Call)
	}
	o.text("model", d.Model)
	if d.Usage != nil {
		o.marshal("usage", d.Usage)
	}
	o.truth("cached", d.Cached)
	if d.Reused != nil {
		o.marshal("reused", d.Reused)
	}
	o.text("given", string(d.Given))
	if s := d.Snapshot; s != nil {
		o.key("snapshot")
		in := begun(o.b)
		in.number("covers", int64(s.Covers))
		in.number("size", s.Size)
		in.marshal("parts", s.Parts)
		o.b = in.end()
	}
	if d.Workspace != nil {
		o.marshal("workspace", d.Workspace)
	}
	return o.end()
}

func appendWaiting(b []byte, w *Waiting) []byte {
	o := begun(b)
	o.text("for", w.For)
	o.time("due", w.Due)
	o.text("signal", w.Signal)
	o.text("files", w.Files)
	o.number("count", int64(w.Count))
	o.number("poll", int64(w.Poll))
	o.text("approval", string(w.Approval))
	if len(w.Approvals) > 0 {
		o.marshal("approvals", w.Approvals)
	}
	if len(w.Labels) > 0 {
		o.marshal("labels", w.Labels)
	}
	return o.end()
}

// object appends a JSON object that holds only what is set.
type object struct {
	b     []byte
	empty bool
}

func begun(b []byte) object { return object{append(b, '{'), true} }

func (o *object) end() []byte { return append(o.b, '}') }

func (o *object) key(k string) {
	if !o.empty {
		o.b = append(o.b, ',')
	}
	o.empty = false
	o.b = append(o.b, '"')
	o.b = append(o.b, k...)
	o.b = append(o.b, '"', ':')
}

func (o *object) text(k, v string) {
	if v != "" {
		o.key(k)
		o.b = AppendString(o.b, v)
	}
}

func (o *object) value(k string, v any) {
	if v != nil {
		o.key(k)
		o.b = AppendValue(o.b, v)
	}
}

func (o *object) mapping(k string, v map[string]any) {
	if v != nil {
		o.value(k, v)
	}
}

func (o *object) number(k string, v int64) {
	if v != 0 {
		o.key(k)
		o.b = strconv.AppendInt(o.b, v, 10)
	}
}

func (o *object) truth(k string, v bool) {
	if v {
		o.key(k)
		o.b = append(o.b, "true"...)
	}
}

func (o *object) time(k string, t time.Time) {
	if !t.IsZero() {
		o.key(k)
		o.b = t.UTC().AppendFormat(append(o.b, '"'), time.RFC3339Nano)
		o.b = append(o.b, '"')
	}
}

// marshal appends one of our own structs, which cannot fail.
func (o *object) marshal(k string, v any) {
	j, err := json.Marshal(v)
	if err != nil {
		j = []byte("null")
	}
	o.key(k)
	o.b = append(o.b, j...)
}

func (o *object) versions(k string, list []Version) {
	if list == nil {
		return
	}
	o.key(k)
	o.b = append(o.b, '[')
	for i := range list {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		v := &list[i]
		in := begun(o.b)
		in.text("artifact", v.Artifact)
		in.number("version", int64(v.Version))
		in.text("producer", string(v.Producer))
		in.value("value", v.Value)
		in.text("blob", string(v.Blob))
		in.number("size", v.Size)
		o.b = in.end()
	}
	o.b = append(o.b, ']')
}

// storedData is the decoding form of Data.
type storedData struct {
	Kind       Kind              `json:"kind"`
	Action     string            `json:"action"`
	Parameters json.RawMessage   `json:"parameters"`
	Items      json.RawMessage   `json:"items"`
	Branch     *int              `json:"branch"`
	Vars       json.RawMessage   `json:"vars"`
	Consumed   []storedVersion   `json:"consumed"`
	Worker     string            `json:"worker"`
	Remote     bool              `json:"remote"`
	Adopted    bool              `json:"adopted"`
	Waiting    *storedWaiting    `json:"waiting"`
	Status     StepStatus        `json:"status"`
	Output     json.RawMessage   `json:"output"`
	State      json.RawMessage   `json:"state"`
	Published  []storedVersion   `json:"published"`
	Rule       int32             `json:"rule"`
	Error      *Failure          `json:"error"`
	Due        time.Time         `json:"due"`
	Reason     string            `json:"reason"`
	RunStatus  RunStatus         `json:"run_status"`
	Outputs    json.RawMessage   `json:"outputs"`
	Collected  json.RawMessage   `json:"collected"`
	Done       bool              `json:"done"`
	Pass       bool              `json:"pass"`
	Answers    json.RawMessage   `json:"answers"`
	Uploads    Digest            `json:"uploads"`
	Fork       *Fork             `json:"fork"`
	Trace      *Trace            `json:"trace"`
	Auto       *storedAnswer     `json:"auto"`
	Decision   json.RawMessage   `json:"decision"`
	Signal     string            `json:"signal"`
	Value      json.RawMessage   `json:"value"`
	Actor      string            `json:"actor"`
	Child      RunID             `json:"child"`
	Call       *storedInvocation `json:"call"`
	Model      string            `json:"model"`
	Usage      *Usage            `json:"usage"`
	Cached     bool              `json:"cached"`
	Reused     *Reused           `json:"reused"`
	Given      Digest            `json:"given"`
	Snapshot   *storedSnapshot   `json:"snapshot"`
	Workspace  *WorkspaceRef     `json:"workspace"`
}

type storedSnapshot struct {
	Covers int32    `json:"covers"`
	Size   int64    `json:"size"`
	Parts  []Digest `json:"parts"`
}

type storedWaiting struct {
	For       string        `json:"for"`
	Due       time.Time     `json:"due"`
	Signal    string        `json:"signal"`
	Files     string        `json:"files"`
	Count     int           `json:"count"`
	Poll      time.Duration `json:"poll"`
	Approval  ApprovalID    `json:"approval"`
	Approvals []ApprovalID  `json:"approvals"`
	Labels    []string      `json:"labels"`
}

type storedAnswer struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	From  string          `json:"from"`
	Model string          `json:"model"`

	Kind    string `json:"kind"`
	Content Digest `json:"content"`
	Usage   *Usage `json:"usage"`
}

type storedVersion struct {
	Artifact string          `json:"artifact"`
	Version  int32           `json:"version"`
	Producer Path            `json:"producer"`
	Value    json.RawMessage `json:"value"`
	Blob     Digest          `json:"blob"`
	Size     int64           `json:"size"`
}

// DecodeData reads what AppendData wrote.
func DecodeData(b []byte) (Data, error) {
	if len(b) == 0 || string(b) == "{}" {
		return Data{}, nil
	}
	var s storedData
	if err := json.Unmarshal(b, &s); err != nil {
		return Data{}, fmt.Errorf("read event data: %w", err)
	}
	d := Data{
		Kind: s.Kind, Action: s.Action, Branch: s.Branch, Worker: s.Worker, Remote: s.Remote, Adopted: s.Adopted,
		Waiting: (*Waiting)(s.Waiting), Status: s.Status,
		Rule: s.Rule, Error: s.Error, Due: s.Due, Reason: s.Reason, RunStatus: s.RunStatus, Done: s.Done, Pass: s.Pass,
		Uploads: s.Uploads, Signal: s.Signal, Actor: s.Actor, Child: s.Child, Model: s.Model, Usage: s.Usage, Cached: s.Cached,
		Fork: s.Fork, Trace: s.Trace, Reused: s.Reused, Given: s.Given,
		Snapshot: (*SnapshotRef)(s.Snapshot), Workspace: s.Workspace,
	}
	var r reader
	d.Parameters = r.value(s.Parameters)
	d.Items, _ = r.value(s.Items).([]any)
	d.Vars = r.mapping(s.Vars)
	d.Consumed = r.versions(s.Consumed)
	d.Output = r.value(s.Output)
	d.State = r.mapping(s.State)
	d.Published = r.versions(s.Published)
	d.Outputs = r.mapping(s.Outputs)
	d.Collected = r.value(s.Collected)
	d.Answers = r.mapping(s.Answers)
	d.Value = r.value(s.Value)
	if a := s.Auto; a != nil {
		d.Auto = &Answer{Key: a.Key, Value: r.value(a.Value), From: a.From, Model: a.Model, Kind: a.Kind, Content: a.Content, Usage: a.Usage}
	}
	if s.Call != nil {
		d.Call = s.Call.invocation(&r)
	}
	if len(s.Decision) > 0 && r.err == nil {
		d.Decision, r.err = DecodeDecision(s.Decision)
	}
	if r.err != nil {
		return Data{}, fmt.Errorf("read event data: %w", r.err)
	}
	return d, nil
}

// reader decodes values and keeps the first error.
type reader struct{ err error }

func (r *reader) value(raw json.RawMessage) any {
	if len(raw) == 0 || r.err != nil {
		return nil
	}
	var v any
	v, r.err = DecodeValue(raw)
	return v
}

func (r *reader) mapping(raw json.RawMessage) map[string]any {
	m, _ := r.value(raw).(map[string]any)
	return m
}

func (r *reader) versions(list []storedVersion) []Version {
	if list == nil {
		return nil
	}
	out := make([]Version, len(list))
	for i, v := range list {
		out[i] = Version{Artifact: v.Artifact, Version: v.Version, Producer: v.Producer, Value: r.value(v.Value), Blob: v.Blob, Size: v.Size}
	}
	return out
}
