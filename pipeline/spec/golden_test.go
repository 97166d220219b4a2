package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var update = flag.Bool("update", false, "write the golden files")

// source gives a golden input its bytes: «xx» is a byte in hexadecimal, and what
// cannot be told apart in a file has a name.
func goldenSource(b []byte) []byte {
	r := strings.NewReplacer("«TAB»", "\t", "«CR»", "\r", "«BOM»", "\ufeff", "«FF»", "\xff", "«NUL»", "\x00", "«LS»", "\u2028", "«END»\n", "")
	return []byte(r.Replace(string(b)))
}

// golden runs f on every input of the archives, and compares what it gives. Files
// in folders are what travels with them.
func golden(t *testing.T, pattern, ext string, f func(t *testing.T, src Source) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			var out []txtar.File
			bundle := bundleOf(ar)
			for _, x := range ar.Files {
				if bundle[x.Name] != nil {
					out = append(out, x)
				}
				if name, ok := strings.CutSuffix(x.Name, ext); ok {
					want[name] = string(x.Data)
				}
			}
			for _, x := range ar.Files {
				name, ok := strings.CutSuffix(x.Name, ".yaml")
				if !ok || bundle[x.Name] != nil {
					continue
				}
				got := f(t, Source{File: x.Name, Text: goldenSource(x.Data), Files: bundle})
				out = append(out, x, txtar.File{Name: name + ext, Data: []byte(got)})
				if d := cmp.Diff(want[name], got); d != "" && !*update {
					t.Errorf("%s:\n%s", x.Name, d)
				}
			}
			if *update {
				ar.Files = out
				if err := os.WriteFile(file, txtar.Format(ar), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// bundleOf is the files of an archive that stand in folders.
func bundleOf(ar *txtar.Archive) pipeline.Bundle {
	b := pipeline.Bundle{}
	for _, x := range ar.Files {
		if strings.Contains(x.Name, "/") {
			b[x.Name] = x.Data
		}
	}
	return b
}

// TestDiagnostics holds each file of testdata/diag against what Compile finds.
// The file of a code has a case in which it is found.
func TestDiagnostics(t *testing.T) {
	golden(t, "testdata/diag/*.txtar", ".out", func(t *testing.T, src Source) string {
		t.Helper()
		plan, d, err := Compile(src, catalogOf(src.File))
		var refusal *pipeline.Diagnostics
		switch {
		case err == nil && (plan == nil || d.HasErrors()):
			t.Error("accepted, but without a plan or with errors")
		case err != nil && (plan != nil || !errors.As(err, &refusal) || !refusal.HasErrors()):
			t.Errorf("refused, but with a plan or without errors: %v", err)
		}
		code, _, _ := strings.Cut(filepath.Base(t.Name()), "-")
		found := len(code) != 5 || strings.Contains(src.File, "good")
		for _, x := range d.List {
			found = found || x.Code == code
			if x.Line < 1 || x.Column < 1 || x.EndLine < x.Line || x.EndLine == x.Line && x.EndColumn <= x.Column {
				t.Errorf("%s has no place: %+v", x.Code, x)
			}
		}
		if !found {
			t.Errorf("%s does not find %s", src.File, code)
		}
		var b bytes.Buffer
		Format(&b, d, false)
		if b.Len() == 0 {
			return "no findings\n"
		}
		return b.String()
	})
}

// TestPlans holds the plans of testdata/plan against their encoding.
func TestPlans(t *testing.T) {
	golden(t, "testdata/plan/*.txtar", ".json", func(t *testing.T, src Source) string {
		t.Helper()
		plan, d, err := Compile(src, testCatalog())
		if err != nil {
			var b bytes.Buffer
			Format(&b, d, false)
			t.Fatalf("%s: %s", src.File, b.String())
		}
		enc, _, err := EncodePlan(plan)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodePlan(enc)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(plan, back); d != "" {
			t.Errorf("%s changes in its codec:\n%s", src.File, d)
		}
		var b bytes.Buffer
		if err := json.Indent(&b, enc, "", " "); err != nil {
			t.Fatal(err)
		}
		return b.String() + "\n"
	})
}
