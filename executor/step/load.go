package step

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const loadDoc = `Reads a table: a list of maps, one for each row.

    - id: weather
      action: load_data
      parameters: {source: data/weather.csv}

source is a file of the workspace, or the data itself: a text of several lines, a text that begins with [ or {, or a list of maps. The format follows from the file's extension or from the content: csv, tsv, json (a list of maps, or one map), jsonl (a map on each line), yaml (as json), parquet, xlsx (the first sheet, or the one that sheet names by name or by number from 1).

In csv the first row names the columns; the delimiter is the one that the first row has most of: comma, semicolon, tab or bar. A column is of integers, numbers or booleans (true, false) only where every cell that is not empty agrees; empty cells of such a column are null. Everything else stays text: dates, 007, numbers beyond 64 bits. A row with too few or too many cells fails the step.

In xlsx the first row that is not empty names the columns. Cells have the kinds that the file gives them; dates and times become texts as in 2024-05-31 and 2024-05-31T08:30:00, errors such as #N/A null. Of parquet, columns of scalars and of lists of scalars are read, a field of a group as group.field; dates and times become such texts too, and decimals numbers.

sampling_strategy keeps only some of the rows: "first 100" (or head, with limit), "random 100", "random 10%" (or sample, with limit). A random sample is the same for the same data and seed, and keeps the rows' order. The whole source is read in any case, and its limits hold: 16 MiB and 250,000 rows.`

const (
	maxSource = 16 << 20 // bytes of a table's source
	maxRows   = 250_000
)

// LoadData names where a table is and what it looks like.
type LoadData struct {
	Source           any    `param:"required" doc:"a file, or the data itself"`
	Format           string `default:"\"auto\"" doc:"auto, csv, tsv, json, jsonl, yaml, parquet or xlsx; default: auto, found out"`
	Delimiter        string `doc:"of csv, one character; default: found out"`
	Header           bool   `default:"true" doc:"of csv and xlsx; false: the first row is data, and the columns are named column_1, column_2 and so on"`
	Sheet            any    `doc:"of xlsx: the sheet's name, or its number from 1; default: the first"`
	SamplingStrategy string `default:"\"full\"" doc:"full, first N, random N or random N%"`
	Limit            int64  `default:"1000" doc:"how many rows to keep, where the strategy does not say it"`
	Seed             int64  `doc:"of a random sample; default 0"`
}

type loadResult struct {
	Data      []any    `doc:"the rows, each a map from column to value"`
	Columns   []string `doc:"the columns, of csv, parquet and xlsx in their order, else sorted"`
	Rows      int64    `doc:"how many"`
	TotalRows int64    `doc:"how many the source has"`
	Format    string   `doc:"csv, tsv, json, jsonl, yaml, parquet or xlsx"`
}

func loadDataAction() executor.Action {
	return executor.NewAction[LoadData](executor.Describe{
		Workspace: true,
		Name:      "load_data", Doc: loadDoc, Effect: pipeline.EffectIdempotent, Returns: loadResult{},
	})
}

// loaded is a table that was read.
type loaded struct {
	data    []any // maps
	columns []string
	format  string
}

// Run reads and types the table.
func (l LoadData) Run(_ context.Context, env executor.Env) (executor.Output, error) {
	keep, err := l.sampling()
	if err != nil {
		return executor.Output{}, err
	}
	t, err := l.read(env)
	if err != nil {
		return executor.Output{}, err
	}
	data := keep.of(t.data)
	return executor.Output{Value: map[string]any{
		"data": data, "columns": anyList(t.columns), "rows": int64(len(data)),
		"total_rows": int64(len(t.data)), "format": t.format,
	}}, nil
}

func (l LoadData) read(env executor.Env) (*loaded, error) {
	format, err := formatName("format", l.Format)
	if err != nil {
		return nil, err
	}
	if rows, ok := l.Source.([]any); ok {
		return tableOf("the source", rows, "json")
	}
	s, ok := l.Source.(string)
	if !ok {
		return nil, invalid("parameter source is a file, a text or a list of maps, not %s", kindOf(l.Source))
	}
	name := "the text"
	text := []byte(s)
	if !inline(s) {
		name = s
		if text, err = readSource(env, s); err != nil {
			return nil, err
		}
		if format == "auto" {
			format = formatOf[strings.ToLower(filepath.Ext(s))]
		}
	}
	if len(text) > maxSource {
		return nil, tooLarge("%s is larger than %s", name, size(maxSource))
	}
	if format == "auto" || format == "" {
		format = detect(text)
	}
	switch format {
	case "parquet":
		return readParquet(name, text)
	case "xlsx":
		return l.xlsx(name, text)
	}
	return l.text(name, text, format)
}

func (l LoadData) text(name string, text []byte, format string) (*loaded, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return nil, invalid("%s is not text in UTF-8", name)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, invalid("%s is empty", name)
	}
	var v any
	var err error
	switch format {
	case "json":
		v, err = pipeline.DecodeValue(text)
	case "yaml":
		v, err = decodeYAML(text)
	case "jsonl":
		rows, err := jsonLines(name, text)
		if err != nil {
			return nil, err
		}
		return tableOf(name, rows, format)
	default:
		return l.csv(name, text, format)
	}
	if err != nil {
		return nil, invalid("%s: %v", name, err)
	}
	if m, ok := v.(map[string]any); ok {
		v = []any{m}
	}
	rows, ok := v.([]any)
	if !ok {
		return nil, invalid("%s holds %s; a table is a list of maps", name, kindOf(v))
	}
	return tableOf(name, rows, format)
}

var formatOf = map[string]string{
	".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
	".yaml": "yaml", ".yml": "yaml", ".parquet": "parquet", ".pq": "parquet", ".xlsx": "xlsx", ".xlsm": "xlsx",
}

var formats = []string{"csv", "tsv", "json", "jsonl", "yaml", "parquet", "xlsx"}

// formatWords are other names of the formats.
var formatWords = map[string]string{
	"": "auto", "detect": "auto", "auto_detect": "auto", "autodetect": "auto", "yml": "yaml", "ndjson": "jsonl",
	"json_lines": "jsonl", "jsonlines": "jsonl", "excel": "xlsx", "xls_x": "xlsx", "tab": "tsv",
}

// formatName reads a format as people spell it: CSV, .csv, JSON lines.
func formatName(param, s string) (string, error) {
	w := strings.TrimPrefix(word(s), ".")
	if known, ok := formatWords[w]; ok {
		w = known
	}
	if w != "auto" && !slices.Contains(formats, w) {
		return "", invalid("parameter %s is %q; it can be auto, %s", param, head(s, 80), strings.Join(formats, ", "))
	}
	return w, nil
}

// inline reports whether a source is the data itself.
func inline(s string) bool {
	t := strings.TrimSpace(s)
	return strings.ContainsRune(t, '\n') || strings.HasPrefix(t, "[") || strings.HasPrefix(t, "{")
}

func readSource(env executor.Env, name string) ([]byte, error) {
	root, rel, err := openWorkspace(env, name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readRegular(root, rel, maxSource)
}

// detect tells the format by the content.
func detect(text []byte) string {
	switch {
	case bytes.HasPrefix(text, []byte("PAR1")):
		return "parquet"
	case bytes.HasPrefix(text, []byte("PK\x03\x04")):
		return "xlsx"
	}
	t := bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))
	switch {
	case bytes.HasPrefix(t, []byte("[")):
		return "json"
	case bytes.HasPrefix(t, []byte("{")):
		if _, err := pipeline.DecodeValue(t); err != nil {
			return "jsonl"
		}
		return "json"
	case bytes.HasPrefix(t, []byte("---\n")), bytes.HasPrefix(t, []byte("- ")):
		return "yaml"
	}
	return "csv"
}

func jsonLines(name string, text []byte) ([]any, error) {
	rows := []any{}
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		v, err := pipeline.DecodeValue(line)
		if err != nil {
			return nil, invalid("%s, line %d: %v", name, n, err)
		}
		if rows = append(rows, v); len(rows) > maxRows {
			return nil, tooManyRows(name)
		}
	}
	return rows, nil
}

func tooManyRows(name string) error {
	return tooLarge("%s has more than %d rows; let a command pick what is needed", name, maxRows)
}

func tableOf(name string, list []any, format string) (*loaded, error) {
	rows, err := table("source", list)
	if err != nil {
		return nil, err
	}
	if len(rows) > maxRows {
		return nil, tooManyRows(name)
	}
	return &loaded{data: list, columns: columnsOf(rows), format: format}, nil
}
