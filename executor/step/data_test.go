package step

import (
	"fmt"
	"maps"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestLoadData(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string // a file of that name, or inline
		params     params
		columns    []any
		format     string
		data       string
	}{
		"types": {
			"t.csv", "i,f,b,s,mixed\n1,1.5,true,x,1\n-2,2,FALSE,,y\n", nil,
			[]any{"i", "f", "b", "s", "mixed"},
			"csv",
			`[{"b":true,"f":1.5,"i":1,"mixed":"1","s":"x"},{"b":false,"f":2.0,"i":-2,"mixed":"y","s":""}]`,
		},
		"what is not a number": {
			"t.csv", "zip,phone,hex,inf,under,big,date,v\n01234,+49,0x1,inf,1_0,9223372036854775808,2024-01-02,1.2.3\n", nil,
			[]any{"zip", "phone", "hex", "inf", "under", "big", "date", "v"},
			"csv",
			`[{"big":"9223372036854775808","date":"2024-01-02","hex":"0x1","inf":"inf","phone":"+49","under":"1_0","v":"1.2.3","zip":"01234"}]`,
		},
		"empty cells":       {"t.csv", "n,s,e\n1,,\n,a,\n", nil, []any{"n", "s", "e"}, "csv", `[{"e":"","n":1,"s":""},{"e":"","n":null,"s":"a"}]`},
		"numbers":           {"t.csv", "a,b\n1e3,-0.5\n.5,0\n", nil, []any{"a", "b"}, "csv", `[{"a":1000.0,"b":-0.5},{"a":0.5,"b":0.0}]`},
		"bom, crlf, quotes": {"t.csv", "\ufeffa,b\r\n\"x, \"\"y\"\"\",\"two\r\nlines\"\r\n", nil, []any{"a", "b"}, "csv", `[{"a":"x, \"y\"","b":"two\nlines"}]`},
		"semicolons":        {"t.csv", "a;b;c,d\n1;2;3\n", nil, []any{"a", "b", "c,d"}, "csv", `[{"a":1,"b":2,"c,d":3}]`},
		"bars":              {"t.csv", "a|b\n1|2\n", nil, []any{"a", "b"}, "csv", `[{"a":1,"b":2}]`},
		"quoted delimiter":  {"t.csv", "\"a;;;\",b\n1,2\n", nil, []any{"a;;;", "b"}, "csv", `[{"a;;;":1,"b":2}]`},
		"given delimiter":   {"t.csv", "a:b\n1:2\n", params{"delimiter": ":"}, []any{"a", "b"}, "csv", `[{"a":1,"b":2}]`},
		"one column":        {"t.csv", "a\n1\n\n2\n", nil, []any{"a"}, "csv", `[{"a":1},{"a":2}]`},
		"header only":       {"t.csv", "a,b\n", nil, []any{"a", "b"}, "csv", `[]`},
		"no header":         {"t.csv", "1,x\n", params{"header": false}, []any{"column_1", "column_2"}, "csv", `[{"column_1":1,"column_2":"x"}]`},
		"nameless column":   {"t.csv", ",a\n1,2\n", nil, []any{"column_1", "a"}, "csv", `[{"a":2,"column_1":1}]`},
		"tsv":               {"t.tsv", "a,x\tb\n1\t2\n", nil, []any{"a,x", "b"}, "tsv", `[{"a,x":1,"b":2}]`},
		"json":              {"t.json", `[{"b": 1}, {"a": 2.0}]`, nil, []any{"a", "b"}, "json", `[{"b":1},{"a":2.0}]`},
		"json, one map":     {"", ` {"a": [1]}`, nil, []any{"a"}, "json", `[{"a":[1]}]`},
		"json lines":        {"t.ndjson", "{\"a\":1}\n\n{\"a\":2}", nil, []any{"a"}, "jsonl", `[{"a":1},{"a":2}]`},
		"json lines inline": {"", "{\"a\":1}\n{\"a\":2}\n", nil, []any{"a"}, "jsonl", `[{"a":1},{"a":2}]`},
		"csv inline":        {"", "a,b\n1,2\n", nil, []any{"a", "b"}, "csv", `[{"a":1,"b":2}]`},
		"other extension":   {"t.txt", "[]", nil, []any{}, "json", `[]`},
		"format is given":   {"t.json", "a\n1\n", params{"format": "csv"}, []any{"a"}, "csv", `[{"a":1}]`},
	} {
		t.Run(name, func(t *testing.T) {
			env, _ := testEnv(t)
			p := params{"source": c.text}
			if c.file != "" {
				script(t, env, c.file, c.text, 0o600)
				p["source"] = c.file
			}
			maps.Copy(p, c.params)
			v, err := run(t, Config{}, env, "load_data", p)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(pipeline.EncodeValue(field(t, v, "data"))); got != c.data {
				t.Errorf("got  %s\nwant %s", got, c.data)
			}
			same(t, field(t, v, "columns"), c.columns)
			if field(t, v, "format") != c.format {
				t.Errorf("format %v", field(t, v, "format"))
			}
		})
	}
}

func TestLoadDataTakesRows(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "load_data", params{"source": []any{params{"b": 1}, params{"a": 2}}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"data": []any{params{"b": 1}, params{"a": 2}}, "columns": []any{"a", "b"}, "rows": 2, "total_rows": 2, "format": "json"})
}

func TestLoadDataRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		text           string
		params         params
		category, want string
	}{
		"empty":          {"", nil, "validation", "t.csv is empty"},
		"blank":          {"\ufeff\r\n \n", nil, "validation", "t.csv is empty"},
		"ragged, short":  {"a,b\n1,2\n3\n", nil, "validation", "t.csv, line 3: the row has 1 cells, the table 2 columns"},
		"ragged, long":   {"a,b\n\"1\n\",2,3\n", nil, "validation", "t.csv, line 2: the row has 3 cells"},
		"bare quote":     {"a,b\n1,x\"y\n", nil, "validation", "t.csv, line 2: bare \""},
		"open quote":     {"a,b\n1,\"xy\n", nil, "validation", "t.csv, line "},
		"same names":     {"a,b,a\n", nil, "validation", `two columns "a"`},
		"binary":         {"a\n\xff\n", nil, "validation", "not text in UTF-8"},
		"json scalar":    {"[1]", params{"format": "json"}, "validation", "item 0 is a number"},
		"json text":      {`"a"`, params{"format": "json"}, "validation", "holds a text"},
		"broken json":    {`[{"a":`, params{"format": "json"}, "validation", "t.csv: read JSON value"},
		"broken lines":   {"{\"a\":1}\n{\"a\"\n", params{"format": "jsonl"}, "validation", "t.csv, line 2:"},
		"long delimiter": {"a\n", params{"delimiter": "ab"}, "validation", "must be one character"},
		"quote as such":  {"a\n", params{"delimiter": `"`}, "validation", "must be one character"},
		"format":         {"a\n", params{"format": "sav"}, "validation", `parameter format is "sav"; it can be auto, csv, tsv, json`},
		"too wide":       {strings.Repeat("c", 1<<20) + "\n" + strings.Repeat("1\n", 20), nil, "failed", "as a list of maps"},
		"too long":       {"a\n" + strings.Repeat("1\n", maxRows+1), nil, "failed", "more than 250000 rows"},
		"too large":      {strings.Repeat("x", maxSource+1), nil, "failed", "at most 16 MiB can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			env, _ := testEnv(t)
			script(t, env, "t.csv", c.text, 0o600)
			p := params{"source": "t.csv"}
			maps.Copy(p, c.params)
			_, err := run(t, Config{}, env, "load_data", p)
			failed(t, err, c.category, c.want)
		})
	}
}

func TestHugeFieldIsRead(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "t.csv", "a,b\n1,\""+strings.Repeat("x\n", 1<<20)+"\"\n", 0o600)
	v, err := run(t, Config{}, env, "load_data", params{"source": "t.csv"})
	if err != nil {
		t.Fatal(err)
	}
	row := field(t, v, "data").([]any)[0]
	if s, _ := field(t, row, "b").(string); len(s) != 2<<20 {
		t.Errorf("the field has %d bytes", len(s))
	}
}

func FuzzLoadData(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "[{}]", "{}\n{}", "\"\n", "a\tb\n", "\ufeff,\n1,\n"} {
		f.Add(s, "auto")
	}
	f.Fuzz(func(t *testing.T, text, format string) {
		out, err := LoadData{Source: text + "\n.", Format: format, Header: true}.Run(t.Context(), executor.Env{})
		if err == nil && out.Value == nil {
			t.Error("neither a table nor an error")
		}
	})
}

var people = []any{
	params{"name": "Ada", "age": 36, "city": "London", "tags": []any{"x", 1}},
	params{"name": "Bob", "age": 50.5, "city": "Paris", "tags": []any{}},
	params{"name": "Cy", "age": nil, "city": "paris", "tags": nil},
}

func TestFilter(t *testing.T) {
	cond := func(column, op string, value any) params { return params{"column": column, "op": op, "value": value} }
	for _, c := range []struct {
		where any
		match string
		want  string
	}{
		{params{"name": "Ada"}, "", "Ada"},
		{params{"name": []any{"Ada", "Cy"}}, "", "Ada Cy"},
		{params{"age": 36.0, "city": "London"}, "", "Ada"},
		{params{"age": nil}, "", "Cy"},
		{[]any{cond("age", ">", 36)}, "", "Bob"},
		{[]any{cond("age", "ge", 36)}, "", "Ada Bob"},
		{[]any{cond("age", "<", 50.5)}, "", "Ada"},
		{[]any{cond("age", "<=", 50.5)}, "", "Ada Bob"},
		{[]any{cond("age", "!=", 36)}, "", "Bob Cy"},
		{[]any{cond("name", "<", "Bob")}, "", "Ada"},
		{[]any{cond("age", "in", []any{36.0, nil})}, "", "Ada Cy"},
		{[]any{cond("age", "not_in", []any{36})}, "", "Bob Cy"},
		{[]any{cond("city", "contains", "aris")}, "", "Bob Cy"},
		{[]any{cond("tags", "contains", 1.0)}, "", "Ada"},
		{[]any{cond("name", "starts_with", "B")}, "", "Bob"},
		{[]any{cond("city", "ends_with", "s")}, "", "Bob Cy"},
		{[]any{cond("city", "matches", "(?i)^PAR")}, "", "Bob Cy"},
		{[]any{cond("age", "is_null", nil)}, "", "Cy"},
		{[]any{cond("age", "not_null", nil)}, "", "Ada Bob"},
		{[]any{cond("age", ">", 40), cond("name", "==", "Ada")}, "", ""},
		{[]any{cond("age", ">", 40), cond("name", "==", "Ada")}, "any", "Ada Bob"},
		{[]any{params{"column": "name", "value": "Cy"}}, "", "Cy"},
	} {
		env, _ := testEnv(t)
		p := params{"data": people, "where": c.where}
		if c.match != "" {
			p["match"] = c.match
		}
		v, err := run(t, Config{}, env, "data.filter", p)
		if err != nil {
			t.Errorf("%v: %v", c.where, err)
			continue
		}
		var got []string
		for _, r := range field(t, v, "data").([]any) {
			got = append(got, field(t, r, "name").(string))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: got %v, want %s", c.where, got, c.want)
		}
		if field(t, v, "rows") != int64(len(got)) || field(t, v, "dropped") != int64(3-len(got)) {
			t.Errorf("%v: counts %v", c.where, v)
		}
	}
}

func TestFilterRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, where := range map[string]any{
		`no row has the column "nam"; there are age, city, name, tags`: params{"nam": "x"},
		"holds no condition":                           []any{},
		"not a text":                                   "age > 5",
		"where[0] is a text":                           []any{"x"},
		`where[0] has a key "operator"`:                []any{params{"column": "age", "operator": ">"}},
		`where[0].op is "~"; it can be == !=`:          []any{params{"column": "age", "op": "~"}},
		"where[0] names no column":                     []any{params{"op": "=="}},
		"where[0].column must be a text":               []any{params{"column": 5}},
		"in needs a list":                              []any{params{"column": "age", "op": "in", "value": 5}},
		"matches needs a text":                         []any{params{"column": "name", "op": "matches", "value": 5}},
		"not a regular expression":                     []any{params{"column": "name", "op": "matches", "value": "("}},
		"> needs a number or a text":                   []any{params{"column": "age", "op": ">"}},
		"row 0, column age: a number and a text have":  []any{params{"column": "age", "op": ">", "value": "36"}},
		"row 0, column age: starts_with needs a text":  []any{params{"column": "age", "op": "starts_with", "value": "3"}},
		"row 0, column age: contains looks for a text": []any{params{"column": "age", "op": "contains", "value": "3"}},
	} {
		_, err := run(t, Config{}, env, "data.filter", params{"data": people, "where": where})
		failed(t, err, pipeline.CategoryValidation, text)
	}
	_, err := run(t, Config{}, env, "data.filter", params{"data": []any{1}, "where": params{"a": 1}})
	failed(t, err, pipeline.CategoryValidation, "item 0 is a number")
	if _, err := run(t, Config{}, env, "data.filter", params{"data": []any{}, "where": params{"a": 1}}); err != nil {
		t.Errorf("no rows: %v", err)
	}
}

func TestAggregate(t *testing.T) {
	column := func(values ...any) []any {
		rows := make([]any, len(values))
		for i, v := range values {
			rows[i] = params{"v": v}
		}
		return rows
	}
	for _, c := range []struct {
		data []any
		op   string
		want any
	}{
		{column(1, nil, 3), "count", 2},
		{column(1, 1.0, "1", nil), "distinct", 2},
		{column(1, 2, 3), "sum", 6},
		{column(1, 2.5), "sum", 3.5},
		{column(1e100, 1.0, -1e100), "sum", 1.0},
		{column(math.MaxInt64, 1, -1), "sum", math.MaxInt64},
		{column(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "sum", 1.0},
		{column(1, 2), "mean", 1.5},
		{column(math.MaxInt64, math.MaxInt64), "mean", float64(math.MaxInt64)},
		{column(math.MaxFloat64, math.MaxFloat64), "mean", math.MaxFloat64},
		{column(3, 1.5, 2), "min", 1.5},
		{column("b", "a", "c"), "max", "c"},
		{column(true, false), "min", false},
		{column(3, 1, 2), "median", 2},
		{column(4, 1, 2, 3), "median", 2.5},
		{column(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), "p90", 10},
		{column(1, 2, 3, 4), "p25", 1.75},
		{column(3, 1, 2), "p0", 1},
		{column(3, 1, 2), "p100", 3},
		{column(7), "p33", 7},
		{column(2, 4, 4, 4, 5, 5, 7, 9), "variance", 32.0 / 7},
		{column(1e9+4, 1e9+7, 1e9+13, 1e9+16), "variance", 30.0},
		{column(1e15+0.25, 1e15+0.75), "variance", 0.125},
		{column(1, 1, 1), "stddev", 0.0},
		{column(5), "stddev", nil},
		{column(nil, 3, "x", nil), "first", 3},
		{column(nil, 3, "x", nil), "last", "x"},
		{column(nil), "sum", nil},
		{column(nil), "count", 0},
		{column(nil), "distinct", 0},
		{column(nil), "max", nil},
		{column(), "mean", nil},
	} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, "data.aggregate", params{"data": c.data, "metrics": params{"m": params{"column": "v", "op": c.op}}})
		if err != nil {
			t.Errorf("%s of %v: %v", c.op, c.data, err)
			continue
		}
		same(t, v, params{"data": []any{params{"m": c.want}}, "rows": 1})
	}
}

func TestAggregateGroups(t *testing.T) {
	env, _ := testEnv(t)
	data := []any{
		params{"g": "b", "h": 1, "v": 1},
		params{"g": "a", "h": 10, "v": 2},
		params{"g": "a", "h": 9.0, "v": 3},
		params{"g": "a", "h": 9, "v": 5},
		params{"g": nil, "h": 1},
		params{"g": 5, "h": true},
	}
	metrics := params{"n": params{"op": "count"}, "sum": params{"column": "v", "op": "sum"}}
	v, err := run(t, Config{}, env, "data.aggregate", params{"data": data, "group_by": []any{"g", "h"}, "metrics": metrics})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "data"), []any{
		params{"g": nil, "h": 1, "n": 1, "sum": nil},
		params{"g": 5, "h": true, "n": 1, "sum": nil},
		params{"g": "a", "h": 9.0, "n": 2, "sum": 8},
		params{"g": "a", "h": 10, "n": 1, "sum": 2},
		params{"g": "b", "h": 1, "n": 1, "sum": 1},
	})
	v, err = run(t, Config{}, env, "data.aggregate", params{"data": []any{}, "group_by": "g", "metrics": metrics})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"data": []any{}, "rows": 0})
}

func TestAggregateRefusals(t *testing.T) {
	env, _ := testEnv(t)
	data := []any{params{"v": "x", "n": math.MaxInt64, "w": 1}, params{"v": 1, "n": 1, "w": 2}}
	m := func(column, op string) params { return params{"m": params{"column": column, "op": op}} }
	for text, p := range map[string]params{
		"column v holds a text, and sum needs numbers":       {"metrics": m("v", "sum")},
		"column v holds a text and a number":                 {"metrics": m("v", "max")},
		"does not fit into 64 bits":                          {"metrics": m("n", "sum")},
		`metrics.m.op is "average"; it can be count`:         {"metrics": m("w", "average")},
		`metrics.m.op is "p101"`:                             {"metrics": m("w", "p101")},
		`metrics.m.op is "p05"`:                              {"metrics": m("w", "p05")},
		`metrics.m.op is ""`:                                 {"metrics": params{"m": params{"column": "w"}}},
		"metrics.m names no column":                          {"metrics": params{"m": params{"op": "sum"}}},
		`metrics.m has a key "of"`:                           {"metrics": params{"m": params{"of": "w"}}},
		"metrics.m is a text":                                {"metrics": params{"m": "sum"}},
		"metrics.m.op must be a text":                        {"metrics": params{"m": params{"op": 1}}},
		"parameter metrics holds none":                       {"metrics": params{}},
		`no row has the column "x"; there are n, v, w`:       {"metrics": m("x", "sum")},
		`no row has the column "y"`:                          {"metrics": m("w", "sum"), "group_by": "y"},
		"parameter group_by is a column or a list":           {"metrics": m("w", "sum"), "group_by": 5},
		"metrics.w has the name of a column of group_by":     {"metrics": params{"w": params{"op": "count"}}, "group_by": "w"},
		`a list of different columns; it holds "w"`:          {"metrics": m("w", "sum"), "group_by": []any{"w", "w"}},
		"the sum of column f is beyond the range of numbers": {"metrics": m("f", "sum"), "data": []any{params{"f": 1.7e308}, params{"f": 1.7e308}}},
	} {
		if p["data"] == nil {
			p["data"] = data
		}
		_, err := run(t, Config{}, env, "data.aggregate", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}

// Figures are those of exact arithmetic, rounded once.
func TestFiguresAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfN(rapid.OneOf(
			rapid.Custom(func(t *rapid.T) any { return rapid.Int64().Draw(t, "int") }),
			rapid.Custom(func(t *rapid.T) any { return rapid.Float64Range(-1e150, 1e150).Draw(t, "float") }),
		), 2, 20).Draw(t, "numbers")
		n := big.NewRat(int64(len(numbers)), 1)
		sum := new(big.Rat)
		for _, v := range numbers {
			sum.Add(sum, rat(v))
		}
		middle := new(big.Rat).Quo(sum, n)
		squares := new(big.Rat)
		for _, v := range numbers {
			d := new(big.Rat).Sub(rat(v), middle)
			squares.Add(squares, d.Mul(d, d))
		}
		wantMean, _ := middle.Float64()
		if got := mean(numbers); got != wantMean {
			t.Fatalf("mean %v, want %v", got, wantMean)
		}
		want, _ := squares.Quo(squares, n.Sub(n, big.NewRat(1, 1))).Float64()
		if got := variance(numbers); math.Abs(got-want) > 1e-15*math.Abs(want) {
			t.Fatalf("variance %v, want %v", got, want)
		}
	})
}

func rat(v any) *big.Rat {
	switch v := v.(type) {
	case int64:
		return new(big.Rat).SetInt64(v)
	case float64:
		return new(big.Rat).SetFloat64(v)
	}
	panic(fmt.Sprintf("%T", v))
}
