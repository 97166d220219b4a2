package step

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const (
	maxInflated = 64 << 20 // bytes of a compressed source, once it is inflated
	maxCells    = 4_000_000
)

// parquetColumn is a leaf of the file's schema that becomes a column.
type parquetColumn struct {
	name string
	list bool
	deep int // the definition level of a value that is there
	read func(parquet.Value) any
}

// readParquet reads a file of flat columns and lists of scalars. The library
// panics on some damaged files; that is a failure like any other.
func readParquet(name string, b []byte) (t *loaded, err error) {
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, invalid("%s is not sound parquet: %v", name, r)
		}
	}()
	if len(b) < 12 || int64(binary.LittleEndian.Uint32(b[len(b)-8:])) > int64(len(b)-12) { // the library would make room for it
		return nil, invalid("%s is not sound parquet: its footer is longer than it is", name)
	}
	f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, invalid("%s is not sound parquet: %v", name, err)
	}
	if f.NumRows() > maxRows {
		return nil, tooManyRows(name)
	}
	if err := checkPages(name, b, f.Metadata()); err != nil {
		return nil, err
	}
	columns, err := parquetColumns(name, f.Schema())
	if err != nil {
		return nil, err
	}
	t = &loaded{data: []any{}, format: "parquet"}
	for _, c := range columns {
		t.columns = append(t.columns, c.name)
	}
	left := maxValue
	for _, g := range f.RowGroups() {
		if err := readRowGroup(name, g, columns, t, &left); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// checkPages walks the headers of all pages, before the library makes room for
// what they say that they hold.
func checkPages(name string, b []byte, m *format.FileMetaData) error {
	left := int64(maxInflated)
	for _, g := range m.RowGroups {
		for i := range g.Columns {
			c := &g.Columns[i].MetaData
			at := c.DataPageOffset
			if d := c.DictionaryPageOffset; d > 0 && d < at {
				at = d
			}
			end := at + c.TotalCompressedSize
			if at < 0 || c.TotalCompressedSize < 0 || end > int64(len(b)) {
				return invalid("%s is not sound parquet: a column lies outside the file", name)
			}
			for at < end {
				r := bytes.NewReader(b[at:end])
				var h format.PageHeader
				if err := thrift.NewDecoder(new(thrift.CompactProtocol).NewReader(r)).Decode(&h); err != nil {
					return invalid("%s is not sound parquet: %v", name, err)
				}
				at = end - int64(r.Len()) + int64(h.CompressedPageSize)
				values := h.DataPageHeader.V.NumValues + h.DataPageHeaderV2.V.NumValues + h.DictionaryPageHeader.V.NumValues
				if h.CompressedPageSize < 0 || at > end || h.UncompressedPageSize < 0 || values < 0 {
					return invalid("%s is not sound parquet: a page has no possible size", name)
				}
				if left -= int64(h.UncompressedPageSize) + int64(values); left < 0 {
					return tooLarge("%s holds more than %s; let a command pick what is needed", name, size(maxInflated))
				}
			}
		}
	}
	return nil
}

func readRowGroup(name string, g parquet.RowGroup, columns []parquetColumn, t *loaded, left *int) error {
	rows := g.Rows()
	defer rows.Close()
	batch := make([]parquet.Row, 64)
	for {
		n, err := rows.ReadRows(batch)
		for _, row := range batch[:n] {
			m := make(map[string]any, len(columns))
			for _, c := range columns {
				m[c.name] = nil
			}
			for _, v := range row {
				i := v.Column()
				if i < 0 || i >= len(columns) {
					return invalid("%s is not sound parquet: a value of column %d", name, i)
				}
				columns[i].put(m, v)
			}
			t.data = append(t.data, m)
			if *left -= weight(m, *left); *left < 0 {
				return tooLarge("%s is larger than %s as a list of maps; let a command pick what is needed", name, size(maxValue))
			}
		}
		if len(t.data) > maxRows {
			return tooManyRows(name)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return invalid("%s is not sound parquet: %v", name, err)
		case n == 0:
			return invalid("%s is not sound parquet: it ends early", name)
		}
	}
}

func (c parquetColumn) put(m map[string]any, v parquet.Value) {
	if !c.list {
		if !v.IsNull() {
			m[c.name] = c.read(v)
		}
		return
	}
	list, _ := m[c.name].([]any)
	switch {
	case !v.IsNull():
		list = append(list, c.read(v))
	case v.DefinitionLevel() == 0:
		return // no list
	case v.DefinitionLevel() == c.deep-1 && list != nil:
		list = append(list, nil)
	case list == nil:
		list = []any{}
	}
	m[c.name] = list
}

func parquetColumns(name string, s *parquet.Schema) ([]parquetColumn, error) {
	var columns []parquetColumn
	seen := map[string]bool{}
	for _, path := range s.Columns() {
		leaf, ok := s.Lookup(path...)
		if !ok {
			return nil, invalid("%s is not sound parquet: no column %s", name, strings.Join(path, "."))
		}
		c := parquetColumn{list: leaf.MaxRepetitionLevel > 0, deep: leaf.MaxDefinitionLevel}
		if leaf.MaxRepetitionLevel > 1 {
			return nil, invalid("%s: column %s holds lists of lists, which are not read", name, strings.Join(path, "."))
		}
		if n := len(path); c.list && n > 2 && (path[n-2] == "list" || path[n-2] == "bag" || path[n-2] == "array") {
			path = path[:n-2] // of a list's three levels only the first has a name of its own
		}
		c.name = strings.Join(path, ".")
		if seen[c.name] || !utf8.ValidString(c.name) {
			return nil, invalid("%s has two columns %q", name, c.name)
		}
		seen[c.name] = true
		c.read = parquetReader(leaf.Node.Type())
		columns = append(columns, c)
	}
	return columns, nil
}

// parquetReader turns the values of a type into values of the language.
func parquetReader(t parquet.Type) func(parquet.Value) any {
	if l := t.LogicalType(); l != nil {
		switch l := l.Value.(type) {
		case *format.DateType:
			return func(v parquet.Value) any { return dateText(int64(v.Int32())) }
		case *format.TimestampType:
			if unit := l.Unit.Value; unit != nil {
				return func(v parquet.Value) any { return stampText(v.Int64(), unit.Duration(), l.IsAdjustedToUTC) }
			}
		case *format.TimeType:
			if unit := l.Unit.Value; unit != nil {
				return func(v parquet.Value) any { return clockText(integerOf(v), unit.Duration()) }
			}
		case *format.DecimalType:
			return func(v parquet.Value) any { return decimal(v, l.Scale) }
		case *format.UUIDType:
			return func(v parquet.Value) any {
				b := v.ByteArray()
				if len(b) != 16 {
					return nil
				}
				return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
			}
		case *format.IntType:
			if !l.IsSigned {
				return func(v parquet.Value) any {
					u := v.Uint64()
					if v.Kind() == parquet.Int32 {
						u = uint64(v.Uint32())
					}
					if u > math.MaxInt64 {
						return float64(u)
					}
					return int64(u)
				}
			}
		}
	}
	return parquetScalar
}

func parquetScalar(v parquet.Value) any {
	switch v.Kind() {
	case parquet.Boolean:
		return v.Boolean()
	case parquet.Int32:
		return int64(v.Int32())
	case parquet.Int64:
		return v.Int64()
	case parquet.Int96:
		return int96Text(v.Int96())
	case parquet.Float: // by its shortest decimal: 0.1 stays 0.1
		return finite(shortest(v.Float()))
	case parquet.Double:
		return finite(v.Double())
	case parquet.ByteArray, parquet.FixedLenByteArray:
		content, _ := textOrBase64(v.ByteArray())
		return content
	}
	return nil
}

func shortest(f float32) float64 {
	d, _, err := big.ParseFloat(fmt.Sprint(f), 10, 53, big.ToNearestEven)
	if err != nil {
		return float64(f)
	}
	wide, _ := d.Float64()
	return wide
}

func integerOf(v parquet.Value) int64 {
	if v.Kind() == parquet.Int32 {
		return int64(v.Int32())
	}
	return v.Int64()
}

func decimal(v parquet.Value, scale int32) any {
	whole := new(big.Int)
	switch v.Kind() {
	case parquet.Int32, parquet.Int64:
		whole.SetInt64(integerOf(v))
	default:
		b := v.ByteArray()
		whole.SetBytes(b)
		if len(b) > 0 && b[0] >= 0x80 { // two's complement
			whole.Sub(whole, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
		}
	}
	if scale < 0 || scale > 400 || whole.BitLen() > 2000 {
		return nil
	}
	f, _ := new(big.Rat).SetFrac(whole, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)).Float64()
	return finite(f)
}

func dateText(days int64) any {
	return time.Unix(0, 0).UTC().AddDate(0, 0, int(days)).Format(time.DateOnly)
}

func stampText(n int64, unit time.Duration, utc bool) any {
	var at time.Time
	switch unit {
	case time.Millisecond:
		at = time.UnixMilli(n)
	case time.Microsecond:
		at = time.UnixMicro(n)
	default:
		at = time.Unix(0, n)
	}
	if utc {
		return at.UTC().Format("2006-01-02T15:04:05.999999999Z")
	}
	return at.UTC().Format("2006-01-02T15:04:05.999999999")
}

func clockText(n int64, unit time.Duration) any {
	if n < 0 || n >= int64(24*time.Hour/unit) {
		return nil
	}
	return time.Unix(0, n*int64(unit)).UTC().Format("15:04:05.999999999")
}

// int96Text reads the old form of a time: nanoseconds of a Julian day.
func int96Text(v deprecated.Int96) any {
	nanos, day := int64(v[1])<<32|int64(v[0]), int64(v[2])
	const epoch = 2440588 // the Julian day of 1970-01-01
	return time.Unix((day-epoch)*86400, nanos).UTC().Format("2006-01-02T15:04:05.999999999")
}

// writeParquet stores a table, columns in the order of their names. A column is
// of integers, numbers or booleans where all its values are, else of texts.
func writeParquet(rows []map[string]any, columns []string) (b []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, invalid("the table cannot be written as parquet: %v", r)
		}
	}()
	if len(columns) == 0 {
		return nil, invalid("a table without columns cannot be written as parquet")
	}
	columns = slices.Sorted(slices.Values(columns))
	root := parquet.Group{}
	value := make([]func(any) parquet.Value, len(columns))
	for i, c := range columns {
		var node parquet.Node
		node, value[i] = parquetNode(rows, c)
		root[c] = parquet.Optional(parquet.Compressed(node, &parquet.Snappy))
	}
	var out bytes.Buffer
	w := parquet.NewWriter(&out, parquet.NewSchema("table", root), parquet.CreatedBy("orchestrator", "1", ""))
	for _, row := range rows {
		r := make(parquet.Row, len(columns))
		for i, c := range columns {
			if v := row[c]; v != nil {
				r[i] = value[i](v).Level(0, 1, i)
			} else {
				r[i] = parquet.NullValue().Level(0, 0, i)
			}
		}
		if _, err := w.WriteRows([]parquet.Row{r}); err != nil {
			return nil, invalid("the table cannot be written as parquet: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, invalid("the table cannot be written as parquet: %v", err)
	}
	return out.Bytes(), nil
}

func parquetNode(rows []map[string]any, column string) (parquet.Node, func(any) parquet.Value) {
	switch kindOfColumn(rows, column) {
	case kindInteger:
		return parquet.Int(64), func(v any) parquet.Value { return parquet.ValueOf(v) }
	case kindNumber:
		return parquet.Leaf(parquet.DoubleType), func(v any) parquet.Value { return parquet.DoubleValue(toFloat(v)) }
	case kindBoolean:
		return parquet.Leaf(parquet.BooleanType), func(v any) parquet.Value { return parquet.ValueOf(v) }
	case kindList, kindMap:
		return parquet.JSON(), func(v any) parquet.Value { return parquet.ByteArrayValue(pipeline.EncodeValue(v)) }
	}
	return parquet.String(), func(v any) parquet.Value { return parquet.ByteArrayValue([]byte(expr.Text(v))) }
}
