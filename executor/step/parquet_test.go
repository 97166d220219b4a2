package step

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

type parquetRow struct {
	ID     int32              `parquet:"id"`
	Big    uint64             `parquet:"big"`
	Small  float32            `parquet:"small"`
	Wide   float64            `parquet:"wide"`
	OK     bool               `parquet:"ok"`
	Name   *string            `parquet:"name,optional"`
	Blob   []byte             `parquet:"blob"`
	Day    int32              `parquet:"day,date"`
	At     time.Time          `parquet:"at,timestamp(microsecond)"`
	Old    deprecated.Int96   `parquet:"old"`
	Price  int64              `parquet:"price,decimal(2:10)"`
	UUID   [16]byte           `parquet:"uuid,uuid"`
	Tags   []string           `parquet:"tags,list"`
	Plain  []int64            `parquet:"plain"`
	Inner  struct{ X int64 }  `parquet:"inner"`
	Absent *struct{ Y int64 } `parquet:"absent,optional"`
	Clock  int32              `parquet:"clock,time(millisecond)"`
}

func parquetFile[T any](t *testing.T, rows ...T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParquetTypes(t *testing.T) {
	name := "Ada"
	b := parquetFile(t,
		parquetRow{
			ID: -7, Big: math.MaxUint64, Small: 0.1, Wide: math.NaN(), OK: true, Name: &name, Blob: []byte{0xff}, Day: 19874,
			At: time.Date(2024, 5, 31, 8, 30, 0, 123456000, time.UTC), Old: deprecated.Int96{0, 0, 2440589}, Price: -1234,
			UUID: [16]byte{1, 2, 15: 255}, Tags: []string{"a", ""}, Plain: []int64{1, 2}, Inner: struct{ X int64 }{3}, Clock: 90000,
		},
		parquetRow{At: time.Unix(0, 0)},
	)
	env, _ := testEnv(t)
	script(t, env, "t.parquet", string(b), 0o600)
	v, err := run(t, Config{}, env, "load_data", params{"source": "t.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "data"), []any{
		params{
			"id": -7, "big": float64(math.MaxUint64), "small": 0.1, "wide": nil, "ok": true, "name": "Ada", "blob": "/w==", "day": "2024-05-31",
			"at": "2024-05-31T08:30:00.123456Z", "old": "1970-01-02T00:00:00", "price": -12.34, "uuid": "01020000-0000-0000-0000-0000000000ff",
			"tags": []any{"a", ""}, "plain": []any{1, 2}, "inner.X": 3, "absent.Y": nil, "clock": "00:01:30",
		},
		params{
			"id": 0, "big": 0, "small": 0.0, "wide": 0.0, "ok": false, "name": nil, "blob": "", "day": "1970-01-01",
			"at": "1970-01-01T00:00:00Z", "old": "-4713-11-24T00:00:00", "price": 0.0, "uuid": "00000000-0000-0000-0000-000000000000",
			"tags": nil, "plain": nil, "inner.X": 0, "absent.Y": nil, "clock": "00:00:00",
		},
	})
	same(t, field(t, v, "format"), "parquet")
}

func TestParquetRefusals(t *testing.T) {
	good := parquetFile(t, parquetRow{At: time.Unix(0, 0)})
	flip := bytes.Clone(good)
	for i := 4; i < 60; i++ {
		flip[i] ^= 0x5a
	}
	for name, c := range map[string]struct {
		b              []byte
		category, text string
	}{
		"cut":           {good[:len(good)/2], "validation", "not sound parquet"},
		"magic only":    {[]byte("PAR1PAR1"), "validation", "not sound parquet"},
		"long footer":   {[]byte("PAR1\xff\xff\xff\x7fPAR1"), "validation", "not sound parquet"},
		"damaged":       {flip, "validation", "not sound parquet"},
		"lists of them": {parquetFile(t, struct{ A []struct{ B []int64 } }{[]struct{ B []int64 }{{[]int64{1}}}}), "validation", "lists of lists"},
	} {
		_, err := readParquet("x", c.b)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		failed(t, err, c.category, c.text)
	}
}

func TestParquetComesBack(t *testing.T) {
	env, _ := testEnv(t)
	data := []any{
		params{"i": math.MaxInt64, "f": 1, "b": true, "s": "x", "l": []any{1}, "m": params{"k": nil}, "mixed": 1, "none": nil},
		params{"i": nil, "f": 2.5, "b": nil, "s": "", "mixed": "a", "only": 1},
	}
	if _, err := run(t, Config{}, env, "data.convert", params{"source": data, "path": "out/t.parquet"}); err != nil {
		t.Fatal(err)
	}
	v, err := run(t, Config{}, env, "load_data", params{"source": "out/t.parquet"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "data"), []any{
		params{"i": math.MaxInt64, "f": 1.0, "b": true, "s": "x", "l": "[1]", "m": `{"k":null}`, "mixed": "1", "none": nil, "only": nil},
		params{"i": nil, "f": 2.5, "b": nil, "s": "", "l": nil, "m": nil, "mixed": "a", "none": nil, "only": 1},
	})
	_, err = run(t, Config{}, env, "data.convert", params{"source": []any{}, "to": "parquet"})
	failed(t, err, pipeline.CategoryValidation, "without columns")
}
