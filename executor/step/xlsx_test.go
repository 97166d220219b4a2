package step

import (
	"archive/zip"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// testdata/orders.xlsx was written by openpyxl: dates in two styles of which one
// is its own, percentages, texts with all kinds of characters, and a second
// sheet with a table that does not begin in its corner.
func TestXLSXOfAnotherProgram(t *testing.T) {
	b, err := os.ReadFile("testdata/orders.xlsx")
	if err != nil {
		t.Fatal(err)
	}
	env, _ := testEnv(t)
	script(t, env, "orders.xlsx", string(b), 0o600)
	for _, c := range []struct {
		p       params
		columns []any
		data    string
	}{
		{
			params{},
			[]any{"id", "when", "at", "price", "paid", "note", "share"},
			`[{"at":"2024-05-31T08:30:00","id":1,"note":"a & b \u003cc>","paid":true,"price":1.5,"share":0.25,"when":"2024-05-31"},` +
				`{"at":"1999-12-31T23:59:59","id":2,"note":null,"paid":false,"price":3.0,"share":0.5,"when":"1900-01-01"},` +
				`{"at":null,"id":3,"note":"ünïcode\nline","paid":null,"price":null,"share":null,"when":null}]`,
		},
		{params{"sheet": "second"}, []any{"column_1", "x", "y", "column_4"}, `[{"column_1":null,"column_4":"stray","x":7,"y":null}]`},
		{params{"sheet": 2, "format": ".XLSX"}, []any{"column_1", "x", "y", "column_4"}, `[{"column_1":null,"column_4":"stray","x":7,"y":null}]`},
		{
			params{"sheet": 2, "header": false},
			[]any{"column_1", "column_2", "column_3", "column_4"},
			`[{"column_1":null,"column_2":"x","column_3":"y","column_4":null},{"column_1":null,"column_2":7,"column_3":null,"column_4":"stray"}]`,
		},
	} {
		c.p["source"] = "orders.xlsx"
		v, err := run(t, Config{}, env, "load_data", c.p)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(pipeline.EncodeValue(field(t, v, "data"))); got != c.data {
			t.Errorf("%v: got  %s\nwant %s", c.p, got, c.data)
		}
		same(t, field(t, v, "columns"), c.columns)
		same(t, field(t, v, "format"), "xlsx")
	}
	for sheet, text := range map[any]string{"Third": "has no sheet Third; it has Orders, Second", 0: "no sheet 0", 3: "no sheet 3", -1 << 62: "no sheet -", true: "sheet is a boolean"} {
		_, err := run(t, Config{}, env, "load_data", params{"source": "orders.xlsx", "sheet": sheet})
		failed(t, err, pipeline.CategoryValidation, text)
	}
}

// workbookOf zips parts into a workbook; what is given replaces what we write.
func workbookOf(t *testing.T, parts map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name, text string) {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range xlsxParts {
		if _, ok := parts[p.name]; !ok {
			add(p.name, p.text)
		}
	}
	for name, text := range parts {
		if text != "" {
			add(name, text)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const sheet1 = "xl/worksheets/sheet1.xml"

func TestXLSXCells(t *testing.T) {
	b := workbookOf(t, map[string]string{
		"xl/sharedStrings.xml": `<sst><si><t>name</t></si><si><r><t>ri</t></r><r><t>ch</t></r><rPh><t>no</t></rPh></si></sst>`,
		"xl/styles.xml": `<styleSheet><numFmts><numFmt numFmtId="200" formatCode="&quot;dd&quot;0.0"/><numFmt numFmtId="201" formatCode="[h]:mm"/></numFmts>` +
			`<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="200"/><xf numFmtId="201"/></cellXfs></styleSheet>`,
		sheet1: `<worksheet><sheetData>
			<row><c t="s"><v>0</v></c><c t="inlineStr"><is><t>b</t></is></c></row><row/>
			<row><c t="s"><v>1</v></c><c t="e"><v>#N/A</v></c></row>
			<row><c t="str"><f>A1&amp;"x"</f><v>formula</v></c><c s="1"><v>60.5</v></c></row>
			<row><c s="1"><v>59</v></c><c s="2"><v>59</v></c></row>
			<row><c s="3"><v>0.75</v></c><c s="1"><v>-1</v></c></row>
			<row><c r="B7" t="d"><v>2024-01-01</v></c></row></sheetData></worksheet>`,
	})
	got, err := LoadData{Header: true}.xlsx("x", b)
	if err != nil {
		t.Fatal(err)
	}
	same(t, got.data, []any{
		params{"name": "rich", "b": nil},
		params{"name": "formula", "b": "1900-02-28T12:00:00"},
		params{"name": "1900-02-28", "b": 59.0},
		params{"name": "18:00:00", "b": -1.0},
		params{"name": nil, "b": "2024-01-01"},
	})
}

func TestXLSXRefusals(t *testing.T) {
	row := func(cells string) string {
		return "<worksheet><sheetData><row>" + cells + "</row></sheetData></worksheet>"
	}
	for name, c := range map[string]struct {
		bytes          []byte
		category, text string
	}{
		"no zip":         {[]byte("PK\x03\x04 and no more"), "validation", "x is not xlsx"},
		"no workbook":    {workbookOf(t, map[string]string{"xl/workbook.xml": ""}), "validation", "it has no xl/workbook.xml"},
		"no sheet":       {workbookOf(t, nil), "validation", "it has no xl/worksheets/sheet1.xml"},
		"broken xml":     {workbookOf(t, map[string]string{sheet1: "<worksheet><row>"}), "validation", "XML syntax error"},
		"shared text":    {workbookOf(t, map[string]string{sheet1: row(`<c t="s"><v>7</v></c>`)}), "validation", `no shared text "7"`},
		"no number":      {workbookOf(t, map[string]string{sheet1: row(`<c><v>NaN</v></c>`)}), "validation", `"NaN" is not a number`},
		"bad reference":  {workbookOf(t, map[string]string{sheet1: row(`<c r="7A"><v>1</v></c>`)}), "validation", `no cell "7A"`},
		"far column":     {workbookOf(t, map[string]string{sheet1: row(`<c r="ZZZZZZZZZZ1"><v>1</v></c>`)}), "validation", "no cell"},
		"wide":           {workbookOf(t, map[string]string{sheet1: row(`<c r="ZZZ1"><v>1</v></c>`)}), "validation", "more than 16384 columns"},
		"sparse":         {workbookOf(t, map[string]string{sheet1: row(strings.Repeat(`<c r="XFD1"><v>1</v></c></row><row>`, 300))}), "failed", "more than 4000000 cells"},
		"two columns":    {workbookOf(t, map[string]string{sheet1: row(`<c><v>1</v></c><c><v>1</v></c>`)}), "validation", `two columns "1"`},
		"inflates":       {workbookOf(t, map[string]string{sheet1: row(strings.Repeat(" ", maxInflated+1))}), "failed", "holds more than 64 MiB"},
		"many rows":      {workbookOf(t, map[string]string{sheet1: row(strings.Repeat(`<c><v>1</v></c></row><row>`, maxRows+2))}), "failed", "more than 250000 rows"},
		"entity of many": {workbookOf(t, map[string]string{sheet1: `<!DOCTYPE x [<!ENTITY a "b">]>` + row(`<c t="str"><v>&a;</v></c>`)}), "validation", "invalid character entity"},
	} {
		_, err := LoadData{Header: true}.xlsx("x", c.bytes)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		failed(t, err, c.category, c.text)
	}
}

func TestDateFormats(t *testing.T) {
	for code, want := range map[string]bool{
		"General": false, "0.00": false, "yyyy-mm-dd": true, "d/m/yy": true, "h:mm AM/PM": true, "[h]:mm:ss": true, `"day" 0`: false,
		`\d0`: false, "[Red]0": false, "0;[Red]yyyy": false, "[$-409]d-mmm": true, "_d0": false, "#,##0 [$€-407]": false, "[": false, `"`: false,
	} {
		if got := dateFormat(code); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
}
