package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/migrations"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A backup is a tar of parts, each the zstd of some rows of one table, then
// manifest.json, which names them with their digests, and last sum, the SHA-256 of
// all that stands before it. A row is, for each column, a byte 0 for NULL, or 1 and
// the value: numbers as varints, floats as 8 bytes, keys as 16, all else with its
// length before it.

const (
	// BackupFormat is the version of the format.
	BackupFormat = 1
	// partSize is how many bytes of rows a part gathers before it is written.
	partSize     = 4 << 20
	manifestName = "manifest.json"
	sumName      = "sum"
	// tailSize is what the entry of the sum takes at the end: its header, its content
	// and the two blocks that end a tar.
	tailSize = 4 * 512
)

// Manifest says what a backup holds.
type Manifest struct {
	Format int             `json:"format"`
	Schema int64           `json:"schema"` // the version of the store's tables
	MadeAt time.Time       `json:"made_at"`
	Epoch  int64           `json:"epoch"` // the newest of a lane
	Tables []ManifestTable `json:"tables"`
	Parts  []ManifestPart  `json:"parts"`
}

// ManifestTable is a table in a backup.
type ManifestTable struct {
	Name    string   `json:"name"`
	Columns []Column `json:"columns"`
	Rows    int64    `json:"rows"`
}

// ManifestPart is a file in a backup.
type ManifestPart struct {
	Name   string `json:"name"`
	Table  string `json:"table"`
	Rows   int64  `json:"rows"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Rows is how many rows of a table the backup holds.
func (m *Manifest) Rows(table string) int64 {
	for _, t := range m.Tables {
		if t.Name == table {
			return t.Rows
		}
	}
	return 0
}

// WriteBackup writes the whole content of a store, as one moment has seen it.
// progress, if not nil, hears of every part.
func WriteBackup(ctx context.Context, s Archive, w io.Writer, progress func(table string, rows, size int64)) (*Manifest, error) {
	latest, err := migrations.Latest(migrations.SQLite) // both children have the same versions
	if err != nil {
		return nil, err
	}
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	defer zip.Close()
	sum := sha256.New()
	b := &backupWriter{
		tar: tar.NewWriter(io.MultiWriter(w, sum)), zip: zip, progress: progress,
		m: Manifest{Format: BackupFormat, Schema: latest, MadeAt: time.Now().UTC().Truncate(time.Second)},
	}
	at := map[*Table]int{}
	for i, t := range Tables {
		at[t] = i
		b.m.Tables = append(b.m.Tables, ManifestTable{Name: t.Name, Columns: t.Columns})
	}
	b.m.Epoch, err = s.Dump(ctx, func(t *Table, row []any) error { return b.row(at[t], row) })
	if err == nil {
		err = b.flush()
	}
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(&b.m)
	if err == nil {
		err = b.entry(manifestName, text)
	}
	if err == nil {
		err = b.tar.Flush() // what the sum is of
	}
	if err == nil {
		err = b.entry(sumName, []byte(hex.EncodeToString(sum.Sum(nil))))
	}
	if err == nil {
		err = b.tar.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	return &b.m, nil
}

// backupWriter gathers rows into parts.
type backupWriter struct {
	tar      *tar.Writer
	zip      *zstd.Encoder
	m        Manifest
	progress func(string, int64, int64)

	table  int // of the rows in buf
	rows   int64
	buf    []byte
	packed []byte
}

func (b *backupWriter) row(table int, row []any) error {
	if table != b.table || len(b.buf) >= partSize {
		if err := b.flush(); err != nil {
			return err
		}
		b.table = table
	}
	var err error
	b.buf, err = appendRow(b.buf, b.m.Tables[table].Columns, row)
	b.rows++
	return err
}

func (b *backupWriter) flush() error {
	if b.rows == 0 {
		return nil
	}
	t := &b.m.Tables[b.table]
	b.packed = b.zip.EncodeAll(b.buf, b.packed[:0])
	sum := sha256.Sum256(b.packed)
	part := ManifestPart{
		Name:  fmt.Sprintf("%s/%06d", t.Name, len(b.m.Parts)+1),
		Table: t.Name, Rows: b.rows, Size: int64(len(b.packed)), SHA256: hex.EncodeToString(sum[:]),
	}
	t.Rows += b.rows
	b.m.Parts = append(b.m.Parts, part)
	if b.progress != nil {
		b.progress(t.Name, t.Rows, part.Size)
	}
	b.rows, b.buf = 0, b.buf[:0]
	return b.entry(part.Name, b.packed)
}

func (b *backupWriter) entry(name string, content []byte) error {
	err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content)), ModTime: b.m.MadeAt, Format: tar.FormatUSTAR})
	if err == nil {
		_, err = b.tar.Write(content)
	}
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

func appendRow(buf []byte, columns []Column, row []any) ([]byte, error) {
	for i, c := range columns {
		v := row[i]
		if v == nil {
			buf = append(buf, 0)
			continue
		}
		buf = append(buf, 1)
		switch v := v.(type) {
		case string:
			buf = append(binary.AppendUvarint(buf, uint64(len(v))), v...)
		case []byte:
			buf = append(binary.AppendUvarint(buf, uint64(len(v))), v...)
		case [16]byte:
			buf = append(buf, v[:]...)
		case int64:
			buf = binary.AppendVarint(buf, v)
		case float64:
			buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(v))
		default:
			return buf, fmt.Errorf("back up column %s: a value of type %T", c.Name, v)
		}
	}
	return buf, nil
}

// readRow takes a row from the front of buf.
func readRow(buf []byte, columns []Column, row []any) (rest []byte, ok bool) {
	for i, c := range columns {
		if len(buf) == 0 || buf[0] > 1 {
			return nil, false
		}
		is := buf[0] == 1
		buf = buf[1:]
		if !is {
			row[i] = nil
			continue
		}
		switch c.Kind {
		case KeyColumn:
			if len(buf) < 16 {
				return nil, false
			}
			row[i], buf = [16]byte(buf), buf[16:]
		case FloatColumn:
			if len(buf) < 8 {
				return nil, false
			}
			row[i], buf = math.Float64frombits(binary.LittleEndian.Uint64(buf)), buf[8:]
		case IntColumn, BoolColumn, TimeColumn, DayColumn:
			v, n := binary.Varint(buf)
			if n <= 0 {
				return nil, false
			}
			row[i], buf = v, buf[n:]
		case TextColumn, JSONColumn, BytesColumn:
			size, n := binary.Uvarint(buf)
			if n <= 0 || size > uint64(len(buf)-n) {
				return nil, false
			}
			v := buf[n : n+int(size)]
			if row[i] = string(v); c.Kind == BytesColumn {
				row[i] = bytes.Clone(v)
				if len(v) == 0 {
					row[i] = []byte{}
				}
			}
			buf = buf[n+int(size):]
		default:
			return nil, false
		}
	}
	return buf, true
}

// StoreInUse is the error of a restore while lanes are open.
func StoreInUse() error {
	return &pipeline.Error{Kind: pipeline.Conflict, Reason: "store_in_use", Text: "a server works on the store; stop it, then restore"}
}

// StoreNotEmpty is the error of a restore where there is something already.
func StoreNotEmpty(table string) error {
	return &pipeline.Error{
		Kind: pipeline.Conflict, Reason: "store_not_empty",
		Text: fmt.Sprintf("the store is not empty: its table %s has rows; restore into an empty one", table),
	}
}
