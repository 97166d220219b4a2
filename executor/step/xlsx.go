package step

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// The widest sheet has columns A to XFD.
const maxXLSXColumns = 16384

// workbook is an xlsx file that is being read: a zip of XML parts (ECMA-376).
type workbook struct {
	name    string
	parts   map[string]*zip.File
	left    int64 // bytes that may still be inflated
	shared  []string
	dates   []bool // for each cell style, whether its numbers are dates
	epoch04 bool   // days count from 1904
}

// xlsx reads one sheet as a table.
func (l LoadData) xlsx(name string, b []byte) (*loaded, error) {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, invalid("%s is not xlsx: %v", name, err)
	}
	w := &workbook{name: name, parts: map[string]*zip.File{}, left: maxInflated}
	for _, f := range z.File {
		w.parts[f.Name] = f
	}
	sheet, err := w.sheet(l.Sheet)
	if err != nil {
		return nil, err
	}
	if err := w.readShared(); err != nil {
		return nil, err
	}
	if err := w.readStyles(); err != nil {
		return nil, err
	}
	rows, err := w.cells(sheet)
	if err != nil {
		return nil, err
	}
	return l.sheetTable(name, rows)
}

// walk hands each element's start and end, and texts, to f.
func (w *workbook) walk(part string, f func(d *xml.Decoder, t xml.Token) error) error {
	file := w.parts[part]
	if file == nil {
		return invalid("%s is not xlsx: it has no %s", w.name, part)
	}
	r, err := file.Open()
	if err != nil {
		return invalid("%s: %s: %v", w.name, part, err)
	}
	defer r.Close()
	limited := &io.LimitedReader{R: r, N: w.left + 1}
	d := xml.NewDecoder(limited)
	for {
		t, err := d.Token()
		if limited.N <= 0 {
			return tooLarge("%s holds more than %s; let a command pick what is needed", w.name, size(maxInflated))
		}
		if errors.Is(err, io.EOF) {
			w.left = limited.N - 1
			return nil
		}
		if err != nil {
			return invalid("%s: %s: %v", w.name, part, err)
		}
		if err := f(d, t); err != nil {
			return err
		}
	}
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// sheet finds the part of the sheet that is asked for.
func (w *workbook) sheet(which any) (string, error) {
	var names, ids []string
	err := w.walk("xl/workbook.xml", func(_ *xml.Decoder, t xml.Token) error {
		e, ok := t.(xml.StartElement)
		switch {
		case !ok:
		case e.Name.Local == "sheet":
			names = append(names, attr(e, "name"))
			ids = append(ids, attr(e, "id"))
		case e.Name.Local == "workbookPr":
			w.epoch04 = attr(e, "date1904") == "1" || attr(e, "date1904") == "true"
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	at := 0
	switch s := which.(type) {
	case nil:
	case int64:
		at = int(max(min(s, 1<<20), 0)) - 1
	case string:
		at = -1
		for i, n := range names {
			if strings.EqualFold(n, s) {
				at = i
			}
		}
	default:
		return "", invalid("parameter sheet is %s; it can be a sheet's name or number", kindOf(which))
	}
	if at < 0 || at >= len(names) {
		return "", invalid("%s has no sheet %s; it has %s", w.name, expr.Text(which), strings.Join(names, ", "))
	}
	target := ""
	err = w.walk("xl/_rels/workbook.xml.rels", func(_ *xml.Decoder, t xml.Token) error {
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "Relationship" && attr(e, "Id") == ids[at] {
			target = attr(e, "Target")
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if abs, ok := strings.CutPrefix(target, "/"); ok {
		return abs, nil
	}
	return path.Join("xl", target), nil
}

func (w *workbook) readShared() error {
	if w.parts["xl/sharedStrings.xml"] == nil {
		return nil
	}
	return w.walk("xl/sharedStrings.xml", func(d *xml.Decoder, t xml.Token) error {
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "si" {
			s, err := w.runs(d)
			w.shared = append(w.shared, s)
			return err
		}
		return nil
	})
}

// runs reads the text of an element to its end; rich text comes in runs, and
// what is said of its pronunciation is left out.
func (w *workbook) runs(d *xml.Decoder) (string, error) {
	var b strings.Builder
	text, silent := false, 0
	for depth := 1; depth > 0; {
		t, err := d.Token()
		if err != nil {
			return "", invalid("%s: %v", w.name, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
			if t.Name.Local == "rPh" {
				silent = depth
			}
			text = t.Name.Local == "t" && silent == 0
		case xml.EndElement:
			if silent == depth {
				silent = 0
			}
			depth--
			text = false
		case xml.CharData:
			if text {
				b.Write(t)
			}
		}
	}
	return b.String(), nil
}

// readStyles finds the cell styles whose numbers are dates.
func (w *workbook) readStyles() error {
	if w.parts["xl/styles.xml"] == nil {
		return nil
	}
	custom := map[string]bool{}
	inCells := false
	return w.walk("xl/styles.xml", func(_ *xml.Decoder, t xml.Token) error {
		switch e := t.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "numFmt":
				custom[attr(e, "numFmtId")] = dateFormat(attr(e, "formatCode"))
			case "cellXfs":
				inCells = true
			case "xf":
				if inCells {
					id := attr(e, "numFmtId")
					n, err := strconv.Atoi(id)
					w.dates = append(w.dates, custom[id] || err == nil && (n >= 14 && n <= 22 || n >= 27 && n <= 36 || n >= 45 && n <= 47 || n >= 50 && n <= 58))
				}
			}
		case xml.EndElement:
			if e.Name.Local == "cellXfs" {
				inCells = false
			}
		}
		return nil
	})
}

// dateFormat reports whether a number format shows a date or time: it has a
// letter of one outside quotes, brackets and escapes.
func dateFormat(code string) bool {
	quoted, bracket := false, false
	for i := 0; i < len(code); i++ {
		switch c := code[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '\\' || c == '_' || c == '*':
			i++
		case c == '[':
			bracket = true
			if end := strings.IndexByte(code[i:], ']'); end > 0 && strings.Trim(strings.ToLower(code[i+1:i+end]), "hms") == "" && end > 1 {
				return true // [h] is a span of hours
			}
		case c == ']':
			bracket = false
		case bracket:
		case c == ';':
			return false // what follows is for negative numbers
		case strings.IndexByte("dmyhsDMYHS", c) >= 0:
			return true
		}
	}
	return false
}

// cells reads the rows of a sheet that are not empty.
func (w *workbook) cells(part string) ([][]any, error) {
	var rows [][]any
	var row []any
	n, next, left := 0, 0, maxValue
	err := w.walk(part, func(d *xml.Decoder, t xml.Token) error {
		switch e := t.(type) {
		case xml.StartElement:
			switch e.Name.Local {
			case "row":
				row, next = nil, 0
			case "c":
				at := next
				if ref := attr(e, "r"); ref != "" {
					var ok bool
					if at, ok = columnOf(ref); !ok {
						return invalid("%s: %s: there is no cell %q", w.name, part, head(ref, 20))
					}
				}
				next = at + 1
				v, err := w.cell(d, e)
				if err != nil || v == nil {
					return err
				}
				if at >= maxXLSXColumns {
					return invalid("%s: %s: a row has more than %d columns", w.name, part, maxXLSXColumns)
				}
				if n += max(1, at+1-len(row)); n > maxCells {
					return tooLarge("%s has more than %d cells; let a command pick what is needed", w.name, maxCells)
				}
				for len(row) <= at {
					row = append(row, nil)
				}
				row[at] = v
				if left -= weight(v, left); left < 0 {
					return tooLarge("%s is larger than %s as a list of maps; let a command pick what is needed", w.name, size(maxValue))
				}
			}
		case xml.EndElement:
			if e.Name.Local == "row" && len(row) > 0 {
				if rows = append(rows, row); len(rows) > maxRows+1 {
					return tooManyRows(w.name)
				}
				row = nil
			}
		}
		return nil
	})
	return rows, err
}

// columnOf reads the letters of a reference such as AB12.
func columnOf(ref string) (int, bool) {
	n := 0
	for i := range len(ref) {
		c := ref[i]
		if c >= '0' && c <= '9' && i > 0 {
			break
		}
		if c < 'A' || c > 'Z' || n > maxXLSXColumns {
			return 0, false
		}
		n = n*26 + int(c-'A') + 1
	}
	return n - 1, n > 0
}

// cell reads one cell to its end; nil is an empty one.
func (w *workbook) cell(d *xml.Decoder, e xml.StartElement) (any, error) {
	kind, style := attr(e, "t"), attr(e, "s")
	value := ""
	for {
		t, err := d.Token()
		if err != nil {
			return nil, invalid("%s: %v", w.name, err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			switch t.Name.Local {
			case "v":
				if err := d.DecodeElement(&value, &t); err != nil {
					return nil, invalid("%s: %v", w.name, err)
				}
			case "is":
				if value, err = w.runs(d); err != nil {
					return nil, err
				}
			default:
				if err := d.Skip(); err != nil {
					return nil, invalid("%s: %v", w.name, err)
				}
			}
		case xml.EndElement:
			return w.typed(kind, style, value)
		}
	}
}

func (w *workbook) typed(kind, style, value string) (any, error) {
	switch kind {
	case "s":
		i, err := strconv.Atoi(strings.TrimSpace(value))
		if err != nil || i < 0 || i >= len(w.shared) {
			return nil, invalid("%s is not sound xlsx: there is no shared text %q", w.name, head(value, 20))
		}
		return cellText(w.shared[i]), nil
	case "inlineStr", "str":
		return cellText(value), nil
	case "b":
		return strings.TrimSpace(value) == "1", nil
	case "e":
		return nil, nil
	case "d":
		return cellText(value), nil
	}
	value = strings.TrimSpace(value)
	if value == "" {
		return nil, nil
	}
	f, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, invalid("%s is not sound xlsx: %q is not a number", w.name, head(value, 20))
	}
	if i, err := strconv.Atoi(style); err == nil && i >= 0 && i < len(w.dates) && w.dates[i] {
		return w.date(f), nil
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), nil
	}
	return f, nil
}

func cellText(s string) any {
	if s == "" {
		return nil
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// date reads a count of days. In the count from 1900 day 60 is 29 February 1900,
// which was none; days before it are one later than they seem.
func (w *workbook) date(days float64) any {
	if days < 0 || days >= 2958466 { // 31 December 9999
		return days
	}
	start := time.Date(1899, 12, 30, 0, 0, 0, 0, time.UTC)
	switch {
	case w.epoch04:
		start = time.Date(1904, 1, 1, 0, 0, 0, 0, time.UTC)
	case days < 60:
		start = start.AddDate(0, 0, 1)
	}
	whole, part := math.Modf(days)
	at := start.AddDate(0, 0, int(whole)).Add(time.Duration(math.Round(part*86400e3)) * time.Millisecond)
	switch {
	case whole == 0 && part > 0:
		return at.Format("15:04:05.999")
	case part == 0:
		return at.Format(time.DateOnly)
	}
	return at.Format("2006-01-02T15:04:05.999")
}

// sheetTable names the columns and gives each row all of them. Whole numbers in
// a column that also has others become floats, as in csv.
func (l LoadData) sheetTable(name string, rows [][]any) (*loaded, error) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r))
	}
	var first []string
	for i := range width {
		cell := ""
		if len(rows) > 0 && i < len(rows[0]) && rows[0][i] != nil {
			cell = expr.Text(rows[0][i])
		}
		first = append(first, cell)
	}
	columns, err := l.columns(name, first)
	if err != nil {
		return nil, err
	}
	if l.Header && len(rows) > 0 {
		rows = rows[1:]
	}
	if len(rows) > maxRows {
		return nil, tooManyRows(name)
	}
	heads := 0
	for _, c := range columns {
		heads += len(c) + 6
	}
	if heads*len(rows) > maxValue {
		return nil, tooLarge("%s is larger than %s as a list of maps; let a command pick what is needed", name, size(maxValue))
	}
	t := &loaded{data: make([]any, len(rows)), columns: columns, format: "xlsx"}
	floats := make([]bool, width)
	for _, r := range rows {
		for c, v := range r {
			if _, ok := v.(float64); ok {
				floats[c] = true
			}
		}
	}
	for i, r := range rows {
		m := make(map[string]any, width)
		for c, column := range columns {
			m[column] = nil
			if c < len(r) {
				m[column] = r[c]
			}
			if n, ok := m[column].(int64); ok && floats[c] {
				m[column] = float64(n)
			}
		}
		t.data[i] = m
	}
	return t, nil
}

// The parts of a workbook that do not depend on what is in it.
var xlsxParts = []struct{ name, text string }{
	{"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">` +
		`<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>` +
		`<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>` +
		`<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>`},
	{"_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">` +
		`<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>`},
	{"xl/workbook.xml", `<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">` +
		`<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>`},
	{"xl/_rels/workbook.xml.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">` +
		`<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>`},
}

// writeXLSX gives a table as a workbook of one sheet. The same table gives the
// same bytes.
func writeXLSX(rows []map[string]any, columns []string) ([]byte, error) {
	const maxXLSXRows, maxXLSXText = 1 << 20, 32767
	if len(rows) >= maxXLSXRows || len(columns) > maxXLSXColumns {
		return nil, invalid("a sheet of xlsx has at most %d columns and %d rows", maxXLSXColumns, maxXLSXRows)
	}
	var s bytes.Buffer
	s.WriteString(`<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>`)
	line := func(value func(i int) any) error {
		s.WriteString("<row>")
		for i := range columns {
			switch v := value(i).(type) {
			case nil:
				s.WriteString("<c/>")
			case int64, float64:
				fmt.Fprintf(&s, "<c><v>%s</v></c>", expr.Text(v))
			case bool:
				fmt.Fprintf(&s, `<c t="b"><v>%d</v></c>`, boolInt(v))
			default:
				t := expr.Text(v)
				if len(t) > maxXLSXText {
					return invalid("a cell of xlsx holds at most %d characters; column %s has more", maxXLSXText, columns[i])
				}
				s.WriteString(`<c t="inlineStr"><is><t xml:space="preserve">`)
				_ = xml.EscapeText(&s, []byte(t)) // a buffer takes everything
				s.WriteString("</t></is></c>")
			}
		}
		s.WriteString("</row>")
		return nil
	}
	if err := line(func(i int) any { return columns[i] }); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if err := line(func(i int) any { return row[columns[i]] }); err != nil {
			return nil, err
		}
	}
	s.WriteString("</sheetData></worksheet>")
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, p := range append(slices.Clip(xlsxParts), struct{ name, text string }{"xl/worksheets/sheet1.xml", s.String()}) {
		f, err := z.Create(p.name)
		if err == nil {
			_, err = io.WriteString(f, xml.Header+p.text)
		}
		if err != nil {
			return nil, fmt.Errorf("write xlsx: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("write xlsx: %w", err)
	}
	return out.Bytes(), nil
}
