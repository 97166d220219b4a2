package server

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// storage serves orchestrator.v1.Storage.
type storage struct {
	orchestratorv1.UnimplementedStorageServer
	*Server
}

var _ orchestratorv1.StorageServer = storage{}

// GetStorage reads what the store takes, one caller at a time: it may have much to
// count.
func (s storage) GetStorage(ctx context.Context, _ *orchestratorv1.GetStorageRequest) (*orchestratorv1.StorageReport, error) {
	select {
	case s.counting <- struct{}{}:
		defer func() { <-s.counting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var before time.Time
	if days := s.cfg.RetentionDays; days > 0 {
		before = store.Today(s.cfg.Now()).AddDate(0, 0, -days)
	}
	g, err := s.cfg.Store.Growth(ctx, before)
	if err != nil {
		return nil, err
	}
	r := &orchestratorv1.StorageReport{
		Bytes: float64(g.Bytes), BytesPerDay: float64(g.PerDay), RetentionDays: int32(s.cfg.RetentionDays), //nolint:gosec // days of people
		Shared: fromTables(g.Shared),
	}
	for _, d := range slices.Backward(g.Days) {
		day := &orchestratorv1.StorageDay{Day: timestamppb.New(d.Day), Bytes: float64(d.Bytes), Tables: fromTables(d.Tables)}
		for _, t := range d.Tables {
			if t.Table == "run" {
				day.Runs = float64(t.Rows)
			}
		}
		r.Days = append(r.Days, day)
	}
	for _, one := range g.Stragglers {
		ids := make([]string, len(one.Runs))
		for i, id := range one.Runs {
			ids[i] = string(id)
		}
		r.Stragglers = append(r.Stragglers, &orchestratorv1.StorageStraggler{Day: timestamppb.New(one.Day), Count: int32(one.Count), RunIds: ids}) //nolint:gosec // of runs
	}
	return r, nil
}

func fromTables(list []store.TableGrowth) []*orchestratorv1.StorageTable {
	var out []*orchestratorv1.StorageTable
	for _, t := range list {
		out = append(out, &orchestratorv1.StorageTable{Name: t.Table, Rows: float64(t.Rows), Bytes: float64(t.Bytes)})
	}
	return out
}
