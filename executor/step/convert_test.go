package step

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestConvertToText(t *testing.T) {
	source := "b,a\n1,\"x, \"\"y\"\"\"\n2.5,\n"
	for to, want := range map[string]string{
		"CSV":    "b,a\n1.0,\"x, \"\"y\"\"\"\n2.5,\n",
		"tsv":    "b\ta\n1.0\t\"x, \"\"y\"\"\"\n2.5\t\n",
		"json":   "[\n  {\n    \"a\": \"x, \\\"y\\\"\",\n    \"b\": 1.0\n  },\n  {\n    \"a\": \"\",\n    \"b\": 2.5\n  }\n]\n",
		"jsonl":  "{\"a\":\"x, \\\"y\\\"\",\"b\":1.0}\n{\"a\":\"\",\"b\":2.5}\n",
		".yaml":  "- a: x, \"y\"\n  b: 1.0\n- a: \"\"\n  b: 2.5\n",
		"ndjson": "{\"a\":\"x, \\\"y\\\"\",\"b\":1.0}\n{\"a\":\"\",\"b\":2.5}\n",
	} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, "data.convert", params{"source": source, "to": to})
		if err != nil {
			t.Fatal(err)
		}
		if got := field(t, v, "content"); got != want {
			t.Errorf("%s: got %q\nwant %q", to, got, want)
		}
		same(t, []any{field(t, v, "rows"), field(t, v, "path"), field(t, v, "encoding")}, []any{2, nil, "text"})
	}
}

func TestConvertFiles(t *testing.T) {
	env, _ := testEnv(t)
	data := []any{params{"n": 1, "s": "a", "b": true}, params{"n": nil, "s": "ü\n\"", "b": false}}
	last := any(data)
	for _, file := range []string{"out/t.xlsx", "t.parquet", "deep/er/t.yaml", "t.jsonl", "t.json", "t.tsv", "t.csv"} {
		v, err := run(t, Config{}, env, "data.convert", params{"source": last, "path": file})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(env.Workspace, file))
		if err != nil || field(t, v, "size") != info.Size() || field(t, v, "path") != file || field(t, v, "content") != nil {
			t.Errorf("%s: %v, %v", file, v, err)
		}
		last = file
	}
	v, err := run(t, Config{}, env, "load_data", params{"source": "t.csv"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "data"), data)
}

func TestXLSXContentIsBase64(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "data.convert", params{"source": []any{params{"a": []any{1}, "b": "<&>"}}, "to": "Excel"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(field(t, v, "content").(string))
	if err != nil || field(t, v, "encoding") != "base64" {
		t.Fatal(err)
	}
	got, err := LoadData{Header: true}.xlsx("x", b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got.data, []any{params{"a": "[1]", "b": "<&>"}})
}

func TestConvertRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		"parameter to is missing; it can be csv": {"path": "t.txt"},
		`parameter to is "pdf"`:                  {"to": "pdf"},
		`parameter format is "pdf"`:              {"to": "csv", "from": "pdf"},
		"outside the workspace":                  {"path": "../t.csv"},
		"must be one character":                  {"to": "csv", "delimiter": "ab"},
		"there is no file t.xlsx":                {"to": "csv", "source": "t.xlsx"},
		"at most 32767 characters":               {"to": "xlsx", "source": []any{params{"a": string(make([]byte, 40000))}}},
	} {
		if p["source"] == nil {
			p["source"] = []any{params{"a": 1}}
		}
		_, err := run(t, Config{}, env, "data.convert", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}

func TestCSVComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := []any{}
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			rows = append(rows, map[string]any{
				"a": rapid.StringMatching(`[a-z,;"\n ]{0,6}x`).Draw(t, "a"), "b": rapid.Int64().Draw(t, "b"),
			})
		}
		b, err := writeCSV(mustTable(rows), []string{"a", "b"}, ',')
		if err != nil {
			t.Fatal(err)
		}
		out, err := LoadData{Source: string(b), Format: "csv", Header: true, SamplingStrategy: "full", Delimiter: ","}.Run(t.Context(), executor.Env{})
		if err != nil {
			t.Fatal(err)
		}
		got, want := pipeline.EncodeValue(out.Value.(map[string]any)["data"]), pipeline.EncodeValue(rows)
		if string(got) != string(want) {
			t.Fatalf("got %s\nwant %s", got, want)
		}
	})
}

func mustTable(rows []any) []map[string]any {
	list := make([]map[string]any, len(rows))
	for i, r := range rows {
		list[i], _ = r.(map[string]any)
	}
	return list
}
