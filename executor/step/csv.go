package step

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// csv reads rows of cells and gives each column the type that all its cells have.
func (l LoadData) csv(name string, text []byte, format string) (*loaded, error) {
	comma, err := l.comma(text, format)
	if err != nil {
		return nil, err
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
				return nil, invalid("%s, line %d: %v", name, p.Line, p.Err)
			}
			return nil, invalid("%s: %v", name, err)
		}
		if columns == nil {
			if columns, err = l.columns(name, row); err != nil {
				return nil, err
			}
			if l.Header {
				continue
			}
		}
		if len(row) != len(columns) {
			line, _ := r.FieldPos(0)
			return nil, invalid("%s, line %d: the row has %d cells, the table %d columns", name, line, len(row), len(columns))
		}
		for i, cell := range row {
			bytesOut += len(cell) + len(columns[i]) + 6
		}
		if cells = append(cells, row); len(cells) > maxRows {
			return nil, tooManyRows(name)
		}
		if bytesOut > maxValue {
			return nil, tooLarge("%s is larger than %s as a list of maps; let a command pick what is needed", name, size(maxValue))
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
	return &loaded{data: data, columns: columns, format: format}, nil
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

// writeCSV gives a table as csv: a line of names, then a line for each row. Null
// and missing values are empty cells, lists and maps their JSON.
func writeCSV(rows []map[string]any, columns []string, comma rune) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Comma = comma
	cells := make([]string, len(columns))
	copy(cells, columns)
	if err := w.Write(cells); err != nil {
		return nil, invalid("the table cannot be written as csv: %v", err)
	}
	for _, row := range rows {
		for i, c := range columns {
			cells[i] = ""
			if v := row[c]; v != nil {
				cells[i] = expr.Text(v)
			}
		}
		if len(cells) == 1 && cells[0] == "" { // a reader would take an empty line for none
			w.Flush()
			b.WriteString("\"\"\n")
			continue
		}
		if err := w.Write(cells); err != nil {
			return nil, invalid("the table cannot be written as csv: %v", err)
		}
	}
	w.Flush()
	return b.Bytes(), nil
}
