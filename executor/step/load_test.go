package step

import (
	"encoding/json"
	"os"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestFormatsAreNamedAsPeopleDo(t *testing.T) {
	for in, want := range map[string]string{
		"": "auto", "Auto": "auto", "detect": "auto", "CSV": "csv", ".csv": "csv", " Json ": "json", "JSON Lines": "jsonl", "yml": "yaml", "Excel": "xlsx", "PARQUET": "parquet",
	} {
		if got, err := formatName("format", in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	_, err := formatName("to", "csv, json")
	failed(t, err, pipeline.CategoryValidation, `parameter to is "csv, json"; it can be auto, csv`)
}

func TestFormatIsFoundInTheContent(t *testing.T) {
	book, err := os.ReadFile("testdata/orders.xlsx")
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"xlsx": string(book), "parquet": string(parquetFile(t, parquetRow{At: time.Unix(0, 0)})), "json": "\ufeff [{}]", "jsonl": "{}\n{}",
		"yaml": "- a: 1\n- a: 2\n", "csv": "a,b\n1,2",
	} {
		env, _ := testEnv(t)
		script(t, env, "data.bin", text, 0o600)
		v, err := run(t, Config{}, env, "load_data", params{"source": "data.bin"})
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		same(t, field(t, v, "format"), want)
	}
}

func TestDataActionsGiveTheFieldsTheyPromise(t *testing.T) {
	rows := []any{params{"a": 1, "b": "x"}, params{"a": 2, "b": "y"}}
	for key, p := range map[string]params{
		"load_data":              {"source": "a\n1\n"},
		"profile_data":           {"data": rows},
		"analyze_statistics":     {"data": rows},
		"plan_visualizations":    {"data_profile": params{"columns": []any{}}},
		"create_analysis_report": {},
		"prepare_data":           {"input_data": rows},
		"data.join":              {"left": rows, "right": rows, "on": "a"},
		"data.convert":           {"source": rows, "to": "csv"},
		"validate":               {"data": 1, "schema": "integer"},
		"filesystem.copy":        {"source": "x", "destination": "y"},
		"filesystem.move":        {"source": "x", "destination": "y"},
		"filesystem.delete":      {"path": "x"},
		"execute":                {"language": "sh", "code": ":", "sandbox": "none"},
	} {
		env, _ := testEnv(t)
		script(t, env, "x", "x", 0o600)
		v, err := run(t, host, env, key, p)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		m, _ := v.(map[string]any)
		props := find(t, Config{}, key).Spec.Returns.Properties
		for _, p := range props {
			if _, ok := m[p.Name]; !ok {
				t.Errorf("%s does not give %s", key, p.Name)
			}
		}
		if len(m) != len(props) {
			t.Errorf("%s gives %d fields and promises %d", key, len(m), len(props))
		}
	}
}

// FuzzTables reads damaged files of every format. What is read must be a value
// that survives its way as JSON.
func FuzzTables(f *testing.F) {
	book, err := os.ReadFile("testdata/orders.xlsx")
	if err != nil {
		f.Fatal(err)
	}
	columns, err := writeParquet([]map[string]any{{"a": int64(1), "b": "x"}, {"a": nil, "b": "y"}}, []string{"a", "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(book, "xlsx")
	f.Add(columns, "parquet")
	f.Add([]byte("- &a {a: [*a]}\n"), "yaml")
	f.Add([]byte("- a: 1\n  b: {c: 0x1}\n"), "yaml")
	f.Add([]byte("{}\n{\"a\": 1e999}"), "jsonl")
	f.Add([]byte("a;b\n\"1\n"), "csv")
	f.Fuzz(func(t *testing.T, b []byte, format string) {
		if len(b) > 1<<16 {
			return
		}
		l := LoadData{Format: format, Header: true}
		var got *loaded
		var err error
		switch format {
		case "parquet":
			got, err = readParquet("x", b)
		case "xlsx":
			got, err = l.xlsx("x", b)
		default:
			got, err = l.text("x", b, format)
		}
		if err != nil {
			if err.Error() == "" || !utf8.ValidString(err.Error()) && utf8.Valid(b) {
				t.Errorf("the message is %q", err)
			}
			return
		}
		if _, err := table("data", got.data); err != nil || !json.Valid(pipeline.EncodeValue(got.data)) {
			t.Errorf("what was read is no table: %v", err)
		}
	})
}
