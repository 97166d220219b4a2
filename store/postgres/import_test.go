package postgres_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestARunTravelsFromSQLiteAndBack(t *testing.T) {
	first, second, third := storetest.Open(t), open(t, storetest.Migrated(t), 15*time.Second), storetest.Open(t)
	run := storetest.Finished(t, first, 101)
	carry := func(from, to store.Store) {
		t.Helper()
		var file bytes.Buffer
		if err := store.ExportRun(t.Context(), from, run.ID, &file); err != nil {
			t.Fatal(err)
		}
		a, err := store.OpenRunArchive(bytes.NewReader(file.Bytes()), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := store.ImportRun(t.Context(), to, "importer", a); err != nil {
			t.Fatal(err)
		}
	}
	told := func(s store.Store) (*pipeline.Run, []pipeline.Event) {
		t.Helper()
		r, err := s.Run(t.Context(), run.ID)
		if err != nil {
			t.Fatal(err)
		}
		delete(r.Labels, store.LabelImported)
		var list []pipeline.Event
		for e, err := range s.Events(t.Context(), run.ID, 0) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
		return r, list
	}
	carry(first, second)
	carry(second, third)
	wantRun, wantLog := told(first)
	for name, s := range map[string]store.Store{"Postgres": second, "SQLite again": third} {
		r, list := told(s)
		if d := cmp.Diff(wantRun, r, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("the run on %s differs (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(wantLog, list, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("its log on %s differs (-want +got):\n%s", name, d)
		}
	}
}
