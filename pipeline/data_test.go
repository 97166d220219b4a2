package pipeline_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// fill sets everything that v holds to something that is not its zero value.
// n makes each value a different one.
func fill(t *testing.T, v reflect.Value, n *int64) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("a\u2028<%d\"é", *n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(*n)
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	case reflect.Interface:
		v.Set(reflect.ValueOf([]any{*n + 1<<53, 3.0, nil, "x", map[string]any{"k": false}}))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]any{"one": *n, "none": nil}))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(*n, 7).UTC()))
			return
		}
		for _, f := range v.Fields() {
			fill(t, f, n)
		}
	default:
		t.Fatalf("a field of kind %s: say here how it is filled", v.Kind())
	}
}

func roundTrip(t *testing.T, d pipeline.Data) {
	t.Helper()
	got, err := pipeline.DecodeData(pipeline.AppendData(nil, &d))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryFieldOfDataSurvivesItsCodec(t *testing.T) {
	var all pipeline.Data
	n := int64(0)
	fill(t, reflect.ValueOf(&all).Elem(), &n)
	roundTrip(t, all)
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		t.Run(v.Type().Field(i).Name, func(t *testing.T) {
			var one pipeline.Data
			reflect.ValueOf(&one).Elem().Field(i).Set(v.Field(i))
			roundTrip(t, one)
		})
	}
}

func TestEmptyValuesOfDataSurviveItsCodec(t *testing.T) {
	zero := 0
	roundTrip(t, pipeline.Data{})
	roundTrip(t, pipeline.Data{
		Parameters: map[string]any{}, Items: []any{}, Branch: &zero, Vars: map[string]any{}, Consumed: []pipeline.Version{},
		Waiting: &pipeline.Waiting{}, Output: []any{}, State: map[string]any{}, Published: []pipeline.Version{{}}, Error: &pipeline.Failure{},
		Outputs: map[string]any{}, Collected: false, Answers: map[string]any{}, Auto: &pipeline.Answer{}, Value: "", Usage: &pipeline.Usage{},
	})
}

func TestDataOfNoSenseIsRefused(t *testing.T) {
	for _, text := range []string{`[]`, `{"due":"x"}`, `{"decision":{"at":"never"}}`, `{"decision":3}`, `{"output":1e999}`, `{"auto":{"value":1e999}}`} {
		if d, err := pipeline.DecodeData([]byte(text)); err == nil {
			t.Errorf("%s is read as %+v", text, d)
		}
	}
}
