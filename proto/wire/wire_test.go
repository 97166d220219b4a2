package wire

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestMarshalShowsEveryFieldInItsOwnForm(t *testing.T) {
	run := &orchestratorv1.Run{
		Id:        "01",
		Status:    orchestratorv1.Run_COMPLETED,
		Inputs:    `{"n":9007199254740993,"x":1.0}`,
		Labels:    map[string]string{"b": "2", "a": "<1>"},
		CreatedAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)),
		Usage:     &orchestratorv1.Usage{InputTokens: 3, CostUsd: 0.25},
	}
	want := `{"id":"01","pipeline":"","version":"","plan_digest":"","status":"COMPLETED","reason":"",` +
		`"inputs":{"n":9007199254740993,"x":1.0},"outputs":null,"error":null,"labels":{"a":"\u003c1>","b":"2"},` +
		`"created_at":"2026-01-02T03:04:05.0000006Z","started_at":null,"finished_at":null,"parent_run":"","forked_from":"",` +
		`"usage":{"input_tokens":3,"output_tokens":0,"cost_usd":0.25,"steps":0,"unpriced_calls":0,"estimated":false},"priority":0,"fork_seq":0,"queue":"","fair_key":"","concurrency_key":""}`
	got, err := Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	list, err := Marshal(&orchestratorv1.ListRunsResponse{})
	if err != nil || string(list) != `{"runs":[],"next_page_token":""}` {
		t.Errorf("empty list: %s, %v", list, err)
	}
	none, err := Marshal((*orchestratorv1.Run)(nil))
	if err != nil || string(none) != "null" {
		t.Errorf("nil message: %s, %v", none, err)
	}
}

func TestMarshalKeepsAMessageOnOneLine(t *testing.T) {
	got, err := Marshal(&orchestratorv1.Event{Data: "{\n \"a\" : \"x\\ny\",\r\n\"n\": 9007199254740993}"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(got), "\n\r") || !strings.Contains(string(got), `"n":9007199254740993`) {
		t.Errorf("got %s", got)
	}
}

func TestMarshalRefusesBrokenJSONText(t *testing.T) {
	for _, text := range []string{"{", `{"a":1}}`, "\n", "1 2", `"`} {
		if got, err := Marshal(&orchestratorv1.Event{Data: text}); err == nil {
			t.Errorf("%q was written as %s", text, got)
		}
	}
}

func TestUnmarshalKeepsTheExactTextOfValues(t *testing.T) {
	var req orchestratorv1.CreateRunRequest
	err := Unmarshal([]byte(`{"source": "a: 1", "inputs": {"n": 9007199254740993, "f": 1.50}, "labels": {"k": "v"}, "priority": 3.0, "version": null}`), &req)
	if err != nil {
		t.Fatal(err)
	}
	if req.GetInputs() != `{"n": 9007199254740993, "f": 1.50}` || req.GetSource() != "a: 1" || req.GetLabels()["k"] != "v" || req.GetPriority() != 3 {
		t.Errorf("got %v", &req)
	}
}

func TestUnmarshalSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ in, field, text string }{
		{`{"sorce": ""}`, "", `unknown field "sorce"; did you mean "source"?`},
		{`{"idempotencyKey": ""}`, "", `unknown field "idempotencyKey"; did you mean "idempotency_key"?`},
		{`{"zzzzzzzzzz": 1}`, "", `unknown field "zzzzzzzzzz"`},
		{`{"priority": 1.5}`, "priority", "must be a whole number"},
		{`{"priority": "1"}`, "priority", "must be a whole number"},
		{`{"priority": 3000000000}`, "priority", "is out of range"},
		{`{"labels": {"a": 1}}`, "labels.a", "must be text"},
		{`{"labels": []}`, "labels", "must be a JSON object"},
		{`{"source": 1}`, "source", "must be text"},
		{`{"source": "a", "source": "b"}`, "source", "stands there twice"},
		{`{"inputs": {]}`, "", "not JSON: line 1, column 13: invalid character ']'"},
		{`{"inputs": {}`, "", "the JSON text ends too early"},
		{`{} {}`, "", "more follows"},
		{`[]`, "", "must be a JSON object"},
		{``, "", "the JSON text ends too early"},
		{"{\"source\": \"\xff\"}", "", "not UTF-8"},
	} {
		err := Unmarshal([]byte(c.in), &orchestratorv1.CreateRunRequest{})
		var we *Error
		if !errors.As(err, &we) {
			t.Errorf("%s: got %v", c.in, err)
			continue
		}
		if we.Field != c.field || !strings.Contains(we.Text, c.text) {
			t.Errorf("%s: got field %q, text %q", c.in, we.Field, we.Text)
		}
	}
	err := Unmarshal([]byte(`{"status": "FAILD"}`), &orchestratorv1.Run{})
	if err == nil || !strings.Contains(err.Error(), `did you mean "FAILED"?`) {
		t.Errorf("enum: %v", err)
	}
	err = Unmarshal([]byte(`{"created_at": "yesterday"}`), &orchestratorv1.Run{})
	if err == nil || !strings.HasPrefix(err.Error(), "created_at: must be a time") {
		t.Errorf("time: %v", err)
	}
}

// messages draws any message of the API.
func messages(t *rapid.T) proto.Message {
	all := []proto.Message{
		&orchestratorv1.Run{}, &orchestratorv1.Step{}, &orchestratorv1.Event{}, &orchestratorv1.LogLine{},
		&orchestratorv1.CreateRunRequest{}, &orchestratorv1.Pipeline{}, &orchestratorv1.Graph{},
		&orchestratorv1.ListRunsResponse{}, &orchestratorv1.ValidatePipelineResponse{}, &orchestratorv1.Schema{},
		&orchestratorv1.Approval{}, &orchestratorv1.DecideApprovalRequest{}, &orchestratorv1.ArtifactContent{}, &orchestratorv1.DryRunResponse{},
	}
	m := all[rapid.IntRange(0, len(all)-1).Draw(t, "type")].ProtoReflect().New()
	fill(t, m, 3)
	return m.Interface()
}

func fill(t *rapid.T, m protoreflect.Message, depth int) {
	if m.Descriptor().FullName() == "google.protobuf.Timestamp" {
		ts := timestamppb.New(time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "s"), rapid.Int64Range(0, 999999999).Draw(t, "ns")))
		proto.Merge(m.Interface(), ts)
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if rapid.Bool().Draw(t, "skip") || (fd.Message() != nil && depth == 0) {
			continue
		}
		switch {
		case fd.IsMap():
			for k, v := range rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "map") {
				value := protoreflect.ValueOfString(v)
				if fd.MapValue().Kind() == protoreflect.BytesKind {
					value = protoreflect.ValueOfBytes([]byte(v))
				}
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString(k).MapKey(), value)
			}
		case fd.IsList():
			for range rapid.IntRange(0, 3).Draw(t, "length") {
				m.Mutable(fd).List().Append(scalar(t, fd, m.Mutable(fd).List().NewElement, depth))
			}
		default:
			m.Set(fd, scalar(t, fd, func() protoreflect.Value { return m.NewField(fd) }, depth))
		}
	}
}

func scalar(t *rapid.T, fd protoreflect.FieldDescriptor, fresh func() protoreflect.Value, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		v := fresh()
		fill(t, v.Message(), depth-1)
		return v
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(0, 9).Draw(t, "enum")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.DoubleKind:
		x := rapid.Float64().Filter(func(x float64) bool { return !math.IsInf(x, 0) && !math.IsNaN(x) }).Draw(t, "double")
		return protoreflect.ValueOfFloat64(x)
	default:
		if isJSON(fd) {
			return protoreflect.ValueOfString(rapid.SampledFrom([]string{
				`{}`, `[1, 2.50 ,{"a" : 9007199254740993}]`, `"x"`, `0`, `false`, `-1e400`, `{"a":{"b":null}}`,
			}).Draw(t, "json"))
		}
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	}
}

func TestEveryMessageSurvivesTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := messages(t)
		b, err := Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Fatalf("not JSON: %s", b)
		}
		back := m.ProtoReflect().New().Interface()
		if err := Unmarshal(b, back); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if !proto.Equal(m, back) {
			t.Fatalf("%s\ncame back as %v", b, back)
		}
		again, err := Marshal(back)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%s\nsecond time %s %v", b, again, err)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"source":"a","inputs":{"a":[1,2]},"labels":{"x":"y"},"priority":1e2}`))
	f.Add([]byte(`{"id":"x","status":"FAILED","usage":{"cost_usd":1e-9},"created_at":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"a`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&orchestratorv1.CreateRunRequest{}, &orchestratorv1.Run{}, &orchestratorv1.Graph{}} {
			if err := Unmarshal(data, m); err != nil {
				if _, ok := errors.AsType[*Error](err); !ok {
					t.Fatalf("%T is not a wire error: %v", err, err)
				}
				continue
			}
			b, err := Marshal(m)
			if err != nil {
				t.Fatalf("%q was read but not written: %v", data, err)
			}
			back := m.ProtoReflect().New().Interface()
			if err := Unmarshal(b, back); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
	})
}

func BenchmarkMarshalEvent(b *testing.B) {
	e := &orchestratorv1.Event{
		RunId: "0197", Seq: 4, Type: "step_finished", Path: "a/b", Attempt: 1, At: timestamppb.Now(),
		Data: `{"step":{"path":"a/b","output":{"text":"` + strings.Repeat("x", 400) + `"}}}`,
	}
	var buf []byte
	for b.Loop() {
		buf, _ = Append(buf[:0], e)
	}
}
