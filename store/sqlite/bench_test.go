package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func BenchmarkLife(b *testing.B) {
	for _, runs := range []int{1, 16, 256, 1000} {
		b.Run(fmt.Sprint(runs), func(b *testing.B) {
			storetest.Benchmark(b, open(b, filepath.Join(b.TempDir(), "store.db")), runs)
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	open(b, path)
	for b.Loop() {
		if err := open(b, path).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
