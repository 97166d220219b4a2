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
	b = append(b, '{')
	first := true
	key := func(k string) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, k...)
		b = append(b, '"', ':')
	}
	text := func(k, v string) {
		if v != "" {
			key(k)
			b = AppendString(b, v)
		}
	}
	value := func(k string, v any) {
		if v != nil {
			key(k)
			b = AppendValue(b, v)
		}
	}
	text("kind", string(d.Kind))
	text("action", d.Action)
	value("parameters", d.Parameters)
	if d.Items != nil {
		value("items", d.Items)
	}
	if d.Branch != nil {
		key("branch")
		b = strconv.AppendInt(b, int64(*d.Branch), 10)
	}
	text("worker", d.Worker)
	text("status", string(d.Status))
	value("output", d.Output)
	if d.State != nil {
		value("state", d.State)
	}
	if d.Error != nil {
		key("error")
		j, err := json.Marshal(d.Error)
		if err != nil {
			j = []byte("null")
		}
		b = append(b, j...)
	}
	if !d.Due.IsZero() {
		key("due")
		b = d.Due.UTC().AppendFormat(append(b, '"'), time.RFC3339Nano)
		b = append(b, '"')
	}
	text("reason", d.Reason)
	text("run_status", string(d.RunStatus))
	if d.Outputs != nil {
		value("outputs", d.Outputs)
	}
	value("collected", d.Collected)
	if d.Pass {
		key("pass")
		b = append(b, "true"...)
	}
	text("signal", d.Signal)
	text("actor", d.Actor)
	text("model", d.Model)
	if d.Usage != nil {
		key("usage")
		j, err := json.Marshal(d.Usage)
		if err != nil {
			j = []byte("null")
		}
		b = append(b, j...)
	}
	if d.Cached {
		key("cached")
		b = append(b, "true"...)
	}
	return append(b, '}')
}

// storedData is the decoding form of Data.
type storedData struct {
	Kind       Kind            `json:"kind"`
	Action     string          `json:"action"`
	Parameters json.RawMessage `json:"parameters"`
	Items      json.RawMessage `json:"items"`
	Branch     *int            `json:"branch"`
	Worker     string          `json:"worker"`
	Status     StepStatus      `json:"status"`
	Output     json.RawMessage `json:"output"`
	State      json.RawMessage `json:"state"`
	Error      *Failure        `json:"error"`
	Due        time.Time       `json:"due"`
	Reason     string          `json:"reason"`
	RunStatus  RunStatus       `json:"run_status"`
	Outputs    json.RawMessage `json:"outputs"`
	Collected  json.RawMessage `json:"collected"`
	Pass       bool            `json:"pass"`
	Signal     string          `json:"signal"`
	Actor      string          `json:"actor"`
	Model      string          `json:"model"`
	Usage      *Usage          `json:"usage"`
	Cached     bool            `json:"cached"`
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
		Kind: s.Kind, Action: s.Action, Branch: s.Branch, Worker: s.Worker, Status: s.Status, Error: s.Error,
		Due: s.Due, Reason: s.Reason, RunStatus: s.RunStatus, Pass: s.Pass, Signal: s.Signal, Actor: s.Actor,
		Model: s.Model, Usage: s.Usage, Cached: s.Cached,
	}
	var err error
	read := func(raw json.RawMessage) any {
		if len(raw) == 0 || err != nil {
			return nil
		}
		var v any
		v, err = DecodeValue(raw)
		return v
	}
	d.Parameters = read(s.Parameters)
	d.Items, _ = read(s.Items).([]any)
	d.Output = read(s.Output)
	d.State, _ = read(s.State).(map[string]any)
	d.Outputs, _ = read(s.Outputs).(map[string]any)
	d.Collected = read(s.Collected)
	return d, err
}
