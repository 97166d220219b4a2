package web

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// GetStorage tells of a store with one day, and an older one that a run keeps.
func (f *fake) GetStorage(context.Context, *api.GetStorageRequest) (*api.StorageReport, error) {
	day := func(n int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC))
	}
	return &api.StorageReport{
		Bytes: 3 << 30, BytesPerDay: 5 << 20, RetentionDays: 30,
		Days: []*api.StorageDay{{Day: day(4), Bytes: 7 << 20, Runs: 1234, Tables: []*api.StorageTable{
			{Name: "run", Rows: 1234, Bytes: 1 << 20}, {Name: "step_log", Rows: 9000, Bytes: 2 << 20}, {Name: "blob", Bytes: 3 << 20}, {Name: "log_chunk", Bytes: 1 << 20},
		}}},
		Shared:     []*api.StorageTable{{Name: "plan", Rows: 3, Bytes: 4096}},
		Stragglers: []*api.StorageStraggler{{Day: day(1), Count: 1, RunIds: []string{idOf(4)}}},
	}, nil
}

func TestStorageIsTold(t *testing.T) {
	doc, _, _ := get(t, serve(t, demo()).URL+"/storage")
	if got := textOf(byID(t, doc, "storage-days")); !strings.Contains(got, "2026-03-04") || !strings.Contains(got, "7.0 MiB") {
		t.Errorf("the days are %q", got)
	}
	if got := textOf(byID(t, doc, "stragglers")); !strings.Contains(got, "2026-03-01") || !strings.Contains(got, idOf(4)) {
		t.Errorf("the old days are %q", got)
	}
}
