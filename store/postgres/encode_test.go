package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// BenchmarkEncode is what a commit of 500 events costs before it is sent.
func BenchmarkEncode(b *testing.B) {
	batch := new(store.Batch)
	for range 50 {
		a := store.Append{Run: pipeline.NewRunID()}
		for i := range int32(10) {
			a.Events = append(a.Events, pipeline.Event{
				Seq: i + 1, Type: pipeline.StepFinished, Path: pipeline.Path(fmt.Sprintf("loop[%d]/work", i)), Attempt: 1, At: time.Now(),
				Data: pipeline.Data{Status: pipeline.StepCompleted, Output: map[string]any{"text": "done", "n": int64(i)}},
			})
		}
		batch.Append = append(batch.Append, a)
	}
	w := new(batchWriter)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.encode(1, batch); err != nil {
			b.Fatal(err)
		}
	}
}
