package postgres_test

import (
	"fmt"
	"testing"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func BenchmarkLife(b *testing.B) {
	for _, runs := range []int{1, 16, 256, 1000} {
		b.Run(fmt.Sprint(runs), func(b *testing.B) {
			storetest.Benchmark(b, open(b, storetest.Migrated(b), 0), runs)
		})
	}
}
