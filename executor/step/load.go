package step

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const loadDoc = `Reads a table: a list of maps, one for each row.

    - id: weather
      action: load_data
      parameters: {source: data/weather.csv}

source is a file of the workspace, or the data itself: a text of several lines, a text that begins with [ or {, or a list of maps. The format follows from the file's extension or from the content: csv, tsv, json (a list of maps, or one map), jsonl (a map on each line).

In csv the first row names the columns; the delimiter is the one that the first row has most of: comma, semicolon, tab or bar. A column is of integers, numbers or booleans (true, false) only where every cell that is not empty agrees; empty cells of such a column are null. Everything else stays text: dates, 007, numbers beyond 64 bits. A row with too few or too many cells fails the step.`

const (
	maxSource = 16 << 20 // bytes of a table's source
	maxRows   = 250_000
)

// LoadData names where a table is and what it looks like.
type LoadData struct {
	Source    any    `param:"required" doc:"a file, or the data itself"`
	Format    string `default:"\"auto\"" enum:"auto,csv,tsv,json,jsonl" doc:"default: found out"`
	Delimiter string `doc:"of csv, one character; default: found out"`
	Header    bool   `default:"true" doc:"false: the first row is data, and the columns are named column_1, column_2 and so on"`
}

type loadResult struct {
	Data    []any    `doc:"the rows, each a map from column to value"`
	Columns []string `doc:"the columns, of csv in their order, else sorted"`
	Rows    int64    `doc:"how many"`
	Format  string   `doc:"csv, tsv, json or jsonl"`
}

func loadDataAction() executor.Action {
	return executor.NewAction[LoadData](executor.Describe{
		Workspace: true,
		Name:      "load_data", Doc: loadDoc, Effect: pipeline.EffectIdempotent, Returns: loadResult{},
	})
}

// Run reads and types the table.
func (l LoadData) Run(_ context.Context, env executor.Env) (executor.Output, error) {
	if rows, ok := l.Source.([]any); ok {
		return rowsOutput(rows, "json")
	}
	s, ok := l.Source.(string)
	if !ok {
		return executor.Output{}, invalid("parameter source is a file, a text or a list of maps, not %s", kindOf(l.Source))
	}
	name := "the text"
	format := l.Format
	text := []byte(s)
	if !inline(s) {
		var err error
		name = s
		if text, err = readSource(env, s); err != nil {
			return executor.Output{}, err
		}
		if format == "auto" {
			format = formatOf[strings.ToLower(filepath.Ext(s))]
		}
	}
	if len(text) > maxSource {
		return executor.Output{}, tooLarge("%s is larger than %s", name, size(maxSource))
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if !utf8.Valid(text) {
		return executor.Output{}, invalid("%s is not text in UTF-8", name)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return executor.Output{}, invalid("%s is empty", name)
	}
	if format == "auto" || format == "" {
		format = detect(text)
	}
	switch format {
	case "json":
		v, err := pipeline.DecodeValue(text)
		if err != nil {
			return executor.Output{}, invalid("%s: %v", name, err)
		}
		if m, ok := v.(map[string]any); ok {
			v = []any{m}
		}
		rows, ok := v.([]any)
		if !ok {
			return executor.Output{}, invalid("%s holds %s; a table is a list of maps", name, kindOf(v))
		}
		return rowsOutput(rows, format)
	case "jsonl":
		rows, err := jsonLines(name, text)
		if err != nil {
			return executor.Output{}, err
		}
		return rowsOutput(rows, format)
	}
	return l.csv(name, text, format)
}

var formatOf = map[string]string{
	".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
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
	switch t := bytes.TrimSpace(text); t[0] {
	case '[':
		return "json"
	case '{':
		if _, err := pipeline.DecodeValue(t); err != nil {
			return "jsonl"
		}
		return "json"
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

func rowsOutput(list []any, format string) (executor.Output, error) {
	rows, err := table("source", list)
	if err != nil {
		return executor.Output{}, err
	}
	if len(rows) > maxRows {
		return executor.Output{}, tooManyRows("the source")
	}
	return executor.Output{Value: map[string]any{
		"data": list, "columns": anyList(columnsOf(rows)), "rows": int64(len(rows)), "format": format,
	}}, nil
}

// csv reads rows of cells and gives each column the type that all its cells have.
func (l LoadData) csv(name string, text []byte, format string) (executor.Output, error) {
	comma, err := l.comma(text, format)
	if err != nil {
		return executor.Output{}, err
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma = comma
	r.FieldsPerRecord = -1 // counted here, with a better message
	var columns []string
	var cells [][]string
	bytesOut := 0
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if p, ok := errors.AsType[*csv.ParseError](err); ok {
				return executor.Output{}, invalid("%s, line %d: %v", name, p.Line, p.Err)
			}
			return executor.Output{}, invalid("%s: %v", name, err)
		}
		if columns == nil {
			if columns, err = l.columns(name, row); err != nil {
				return executor.Output{}, err
			}
			if l.Header {
				continue
			}
		}
		if len(row) != len(columns) {
			line, _ := r.FieldPos(0)
			return executor.Output{}, invalid("%s, line %d: the row has %d cells, the table %d columns", name, line, len(row), len(columns))
		}
		for i, cell := range row {
			bytesOut += len(cell) + len(columns[i]) + 6
		}
		if cells = append(cells, row); len(cells) > maxRows {
			return executor.Output{}, tooManyRows(name)
		}
		if bytesOut > maxValue {
			return executor.Output{}, tooLarge("%s is larger than %s as a list of maps; let a command pick what is needed", name, size(maxValue))
		}
	}
	data := make([]any, len(cells))
	for i := range cells {
		data[i] = make(map[string]any, len(columns))
	}
	for c, column := range columns {
		read := columnType(cells, c)
		for i, row := range cells {
			if m, ok := data[i].(map[string]any); ok {
				m[column] = read(row[c])
			}
		}
	}
	return executor.Output{Value: map[string]any{
		"data": data, "columns": anyList(columns), "rows": int64(len(cells)), "format": format,
	}}, nil
}

func (l LoadData) columns(name string, first []string) ([]string, error) {
	columns := make([]string, len(first))
	seen := map[string]bool{}
	for i, cell := range first {
		c := strings.TrimSpace(cell)
		if !l.Header || c == "" {
			c = "column_" + strconv.Itoa(i+1)
		}
		if seen[c] {
			return nil, invalid("%s has two columns %q", name, c)
		}
		seen[c] = true
		columns[i] = c
	}
	return columns, nil
}

func (l LoadData) comma(text []byte, format string) (rune, error) {
	if l.Delimiter != "" {
		r, n := utf8.DecodeRuneInString(l.Delimiter)
		if n != len(l.Delimiter) || strings.ContainsRune("\"\r\n\ufffd", r) {
			return 0, invalid("parameter delimiter is %q; it must be one character, and no quote or newline", l.Delimiter)
		}
		return r, nil
	}
	if format == "tsv" {
		return '\t', nil
	}
	best, most := ',', 0
	count := map[rune]int{}
	quoted := false
	for _, r := range string(text[:min(len(text), 64<<10)]) {
		if r == '"' {
			quoted = !quoted
		}
		if r == '\n' && !quoted && len(count) > 0 {
			break
		}
		if !quoted {
			count[r]++
		}
	}
	for _, r := range ",;\t|" {
		if count[r] > most {
			best, most = r, count[r]
		}
	}
	return best, nil
}

// columnType finds the reading that fits all cells of a column.
func columnType(cells [][]string, c int) func(string) any {
	some, ints, floats, bools := false, true, true, true
	for _, row := range cells {
		s := strings.TrimSpace(row[c])
		if s == "" {
			continue
		}
		some = true
		if ints {
			_, ints = cellInt(s)
		}
		if floats {
			_, floats = cellFloat(s)
		}
		if bools {
			_, bools = cellBool(s)
		}
		if !ints && !floats && !bools {
			break
		}
	}
	typed := func(read func(string) (any, bool)) func(string) any {
		return func(cell string) any {
			v, ok := read(strings.TrimSpace(cell))
			if !ok {
				return nil
			}
			return v
		}
	}
	switch {
	case !some:
	case ints:
		return typed(cellInt)
	case floats:
		return typed(cellFloat)
	case bools:
		return typed(cellBool)
	}
	return func(cell string) any { return cell }
}

func cellInt(s string) (any, bool) {
	if !plainNumber(s) {
		return nil, false
	}
	i, err := strconv.ParseInt(s, 10, 64)
	return i, err == nil
}

func cellFloat(s string) (any, bool) {
	if !plainNumber(s) || !strings.ContainsAny(s, ".eE") && len(strings.TrimLeft(s, "-")) > 15 {
		return nil, false // a long integer would lose digits
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// plainNumber refuses what Go reads as a number and people do not: 0x1p4, 1_0,
// inf, +49 and 007.
func plainNumber(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789.eE+-") != "" || digits[0] == '+' || digits[0] == 'e' || digits[0] == 'E' {
		return false
	}
	return len(digits) < 2 || digits[0] != '0' || digits[1] < '0' || digits[1] > '9'
}

func cellBool(s string) (any, bool) {
	switch s {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	return nil, false
}
