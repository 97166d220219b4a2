package store

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/migrations"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxPart bounds a part in memory: a little more than the largest row.
const maxPart = 256 << 20

// Backup is a backup whose bytes are known to be whole.
type Backup struct {
	Manifest Manifest

	from io.ReaderAt
	at   map[string]int64 // where the parts begin
	zip  *zstd.Decoder
}

func damaged(format string, args ...any) error {
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "backup_damaged", Text: "the backup is damaged: " + fmt.Sprintf(format, args...)}
}

// OpenBackup checks the sum of a backup and reads what it holds. It must be closed.
func OpenBackup(ctx context.Context, from io.ReaderAt, size int64) (*Backup, error) {
	if err := checkSum(ctx, from, size); err != nil {
		return nil, err
	}
	b := &Backup{from: from, at: map[string]int64{}}
	all := io.NewSectionReader(from, 0, size)
	t := tar.NewReader(all)
	var text []byte
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, damaged("its list of files cannot be read: %v", err)
		}
		if h.Name == manifestName {
			if text, err = io.ReadAll(t); err != nil {
				return nil, damaged("its manifest cannot be read: %v", err)
			}
			continue
		}
		if b.at[h.Name], err = all.Seek(0, io.SeekCurrent); err != nil {
			return nil, damaged("%v", err)
		}
	}
	if text == nil || json.Unmarshal(text, &b.Manifest) != nil {
		return nil, damaged("it has no manifest")
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	var err error
	if b.zip, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPart)); err != nil {
		return nil, fmt.Errorf("open the backup: %w", err)
	}
	return b, nil
}

// Close frees what reading it took.
func (b *Backup) Close() { b.zip.Close() }

// checkSum reads the whole file once.
func checkSum(ctx context.Context, from io.ReaderAt, size int64) error {
	if size < tailSize || size%512 != 0 {
		return damaged("it is cut off, or no backup at all")
	}
	h := sha256.New()
	head := io.NewSectionReader(from, 0, size-tailSize)
	buf := make([]byte, 1<<20)
	for {
		n, err := head.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
	}
	tail := make([]byte, tailSize)
	if _, err := from.ReadAt(tail, size-tailSize); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the backup: %w", err)
	}
	want := hex.EncodeToString(h.Sum(nil))
	zeros := !slices.ContainsFunc(tail[512+len(want):], func(c byte) bool { return c != 0 })
	if string(tail[512:512+len(want)]) != want || !zeros {
		return damaged("its bytes are not those that were written")
	}
	return nil
}

// check refuses what this version cannot read.
func (b *Backup) check() error {
	newer := func(what string) error {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: "backup_newer", Text: "the backup was made by a newer version: " + what + " is not known here"}
	}
	latest, err := migrations.Latest(migrations.SQLite)
	if err != nil {
		return err
	}
	if b.Manifest.Format != BackupFormat || b.Manifest.Schema > latest {
		return newer(fmt.Sprintf("its format %d with schema %d", b.Manifest.Format, b.Manifest.Schema))
	}
	rows := map[string]int64{}
	for _, p := range b.Manifest.Parts {
		if _, ok := b.at[p.Name]; !ok {
			return damaged("%s is missing", p.Name)
		}
		rows[p.Table] += p.Rows
	}
	for _, t := range b.Manifest.Tables {
		i := slices.IndexFunc(Tables, func(k *Table) bool { return k.Name == t.Name })
		if i < 0 {
			return newer("the table " + t.Name)
		}
		for _, c := range t.Columns {
			if !slices.ContainsFunc(Tables[i].Columns, func(k Column) bool { return k.Name == c.Name && k.Kind == c.Kind }) {
				return newer("the column " + t.Name + "." + c.Name)
			}
		}
		if rows[t.Name] != t.Rows {
			return damaged("the table %s has %d rows instead of %d", t.Name, rows[t.Name], t.Rows)
		}
	}
	return nil
}

// rows yields the rows of a table. Each is valid until the next.
func (b *Backup) rows(ctx context.Context, table string, columns []Column) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		row := make([]any, len(columns))
		var packed, raw []byte
		for _, p := range b.Manifest.Parts {
			if p.Table != table {
				continue
			}
			var err error
			if packed, raw, err = b.part(ctx, &p, packed, raw); err != nil {
				yield(nil, err)
				return
			}
			rest := raw
			for n := int64(0); n < p.Rows || len(rest) > 0; n++ {
				var ok bool
				if rest, ok = readRow(rest, columns, row); !ok || n >= p.Rows {
					yield(nil, damaged("%s has other rows than it should", p.Name))
					return
				}
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

func (b *Backup) part(ctx context.Context, p *ManifestPart, packed, raw []byte) ([]byte, []byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if p.Size < 0 || p.Size > maxPart {
		return nil, nil, damaged("%s is too large", p.Name)
	}
	packed = slices.Grow(packed[:0], int(p.Size))[:p.Size]
	if _, err := b.from.ReadAt(packed, b.at[p.Name]); err != nil {
		return nil, nil, damaged("%s cannot be read: %v", p.Name, err)
	}
	if sum := sha256.Sum256(packed); hex.EncodeToString(sum[:]) != p.SHA256 {
		return nil, nil, damaged("%s is not what was written", p.Name)
	}
	raw, err := b.zip.DecodeAll(packed, raw[:0])
	if err != nil {
		return nil, nil, damaged("%s: %v", p.Name, err)
	}
	return packed, raw, nil
}

// tables are those of the backup as this version knows them.
func (b *Backup) tables() []*Table {
	var list []*Table
	for _, t := range Tables {
		for _, m := range b.Manifest.Tables {
			if m.Name == t.Name {
				own := *t
				own.Columns = m.Columns
				list = append(list, &own)
			}
		}
	}
	return list
}

// Verify reads everything and holds what must be true of any store: the records of
// each run are numbered from 1 without gaps, content is what its hash says, plans
// and bundles can be read. progress, if not nil, hears of every table.
func (b *Backup) Verify(ctx context.Context, progress func(table string, rows int64)) error {
	for _, t := range b.tables() {
		check := b.checker(t)
		n := int64(0)
		for row, err := range b.rows(ctx, t.Name, t.Columns) {
			if err == nil {
				err = check(row)
			}
			if err != nil {
				return err
			}
			n++
		}
		if progress != nil && n > 0 {
			progress(t.Name, n)
		}
	}
	return nil
}

// checker is what must be true of the rows of a table.
func (b *Backup) checker(t *Table) func(row []any) error {
	at := func(name string) int {
		return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	}
	switch t.Name {
	case "step_log":
		var run [16]byte
		var last int64
		id, seq := at("run_id"), at("seq")
		return func(row []any) error {
			if k, _ := row[id].([16]byte); k != run {
				run, last = k, 0
			}
			if n, _ := row[seq].(int64); n != last+1 {
				return damaged("the log of run %s has no record %d", RunIDOf(run[:]), last+1)
			}
			last++
			return nil
		}
	case "blob":
		sha, size, data := at("sha"), at("size"), at("data")
		return func(row []any) error {
			want, _ := row[sha].([]byte)
			n, _ := row[size].(int64)
			packed, _ := row[data].([]byte)
			body, err := OpenBlob(packed, int(n))
			if got := sha256.Sum256(body); err != nil || int64(len(body)) != n || string(got[:]) != string(want) {
				return damaged("the content %x is not what its name says", want)
			}
			return nil
		}
	case "plan":
		digest, compiled, format := at("digest"), at("compiled"), at("format")
		return func(row []any) error {
			text, _ := row[compiled].([]byte)
			if f, _ := row[format].(int64); f == pipeline.PlanFormat && json.Unmarshal(text, new(pipeline.Plan)) != nil {
				return damaged("the plan %s cannot be read", row[digest])
			}
			return nil
		}
	case "bundle":
		digest, size, data := at("digest"), at("size"), at("data")
		return func(row []any) error {
			n, _ := row[size].(int64)
			packed, _ := row[data].([]byte)
			files, err := DecodeBundle(packed, int(n))
			if err != nil || string(files.Digest()) != row[digest] {
				return damaged("the files %s are not what their name says", row[digest])
			}
			return nil
		}
	}
	return func([]any) error { return nil }
}

// Restore fills an empty store with the backup, all of it or nothing. progress, if
// not nil, hears of every table.
func (b *Backup) Restore(ctx context.Context, s Archive, progress func(table string, rows int64)) error {
	return s.Load(ctx, b.Manifest.Epoch, b.tables(), func(t *Table) iter.Seq2[[]any, error] {
		return func(yield func([]any, error) bool) {
			n := int64(0)
			for row, err := range b.rows(ctx, t.Name, t.Columns) {
				n++
				if !yield(row, err) || err != nil {
					return
				}
			}
			if progress != nil && n > 0 {
				progress(t.Name, n)
			}
		}
	})
}
