package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Keeper lets go of what is old and tells what the store takes. Runs go by days,
// those of their ids in UTC.
type Keeper interface {
	// Sweep removes what the cut says, and whatever has expired. One process does it
	// at a time: the report of another is Busy. It may be stopped at any moment; the
	// next one goes on. What was locked by others for too long stands in Later.
	Sweep(ctx context.Context, c Cut) (SweepReport, error)
	// Growth tells what the store takes, and which runs keep days before the given
	// one; a zero time asks for none.
	Growth(ctx context.Context, before time.Time) (Growth, error)
}

// Cut is what may go. Zero times mean: nothing.
type Cut struct {
	// Days before this one go with all their runs, logs and content, once all runs
	// have finished and no unfinished run needs theirs.
	Drop time.Time
	// Of days before this one that must stay, the finished runs go. It is not later
	// than Drop.
	Thin time.Time
}

// SweepReport is what a sweep has removed.
type SweepReport struct {
	Busy       bool        // another process sweeps, or a backup is made: nothing was done
	Days       []time.Time // that went as a whole
	Later      []time.Time // that could not go now, for others held their locks
	Runs       int         // that went with their days
	Thinned    int         // finished runs of days that stay
	Stragglers []Straggler // the days that would have gone but for these runs

	Keys, Cached, Approvals, Fires, Plans, Bundles int
}

// Empty reports whether the sweep has found nothing to remove.
func (r *SweepReport) Empty() bool {
	return len(r.Days)+len(r.Later)+r.Thinned+r.Keys+r.Cached+r.Approvals+r.Fires+r.Plans+r.Bundles == 0
}

// Straggler is a day that unfinished runs keep.
type Straggler struct {
	Day   time.Time
	Count int              // of the runs
	Runs  []pipeline.RunID // the oldest of them, at most StragglersShown
}

// StragglersShown is how many runs of a straggler's day are named.
const StragglersShown = 10

// Growth is what a store takes on its disk.
type Growth struct {
	Days       []DayGrowth   // the oldest first
	Shared     []TableGrowth // what belongs to no day
	Bytes      int64         // of the whole store, with what it keeps free for later
	PerDay     int64         // bytes: the mean of the last full days, at most seven
	Stragglers []Straggler
}

// DayGrowth is what the runs of one day take.
type DayGrowth struct {
	Day    time.Time
	Bytes  int64
	Tables []TableGrowth
}

// TableGrowth is what one table takes, with its indexes. Rows of large tables are
// estimates.
type TableGrowth struct {
	Table string
	Rows  int64
	Bytes int64
}

// DayTables are the tables that are kept by days.
var DayTables = []string{"run", "step_log", "blob", "log_chunk"}

const (
	// UseKept is how long a plan or a bundle that nothing names is kept after it was
	// put: a submission may be about to name it.
	UseKept = 24 * time.Hour
	// UseFresh is how long putting it again writes nothing.
	UseFresh = 12 * time.Hour
	// SweepBatch is how many rows a sweep deletes in one transaction.
	SweepBatch = 2000
)

// Today is the day of now.
func Today(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) }

// Guarded is the cut without what can never be: the days that still get runs.
func (c Cut) Guarded(now time.Time) Cut {
	least := Today(now).AddDate(0, 0, -1)
	if c.Drop.After(least) {
		c.Drop = least
	}
	if c.Thin.After(c.Drop) {
		c.Thin = c.Drop
	}
	return c
}

// FirstKey is the least key that a run of a day can have.
func FirstKey(day time.Time) (key [16]byte) {
	if ms := day.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(key[:8], uint64(ms)<<16)
	}
	return key
}

// UnusedBefore is the time such that plans and bundles that were put last before
// it serve no run: every run has put its own, and those it will begin, when it was
// submitted. Oldest is the day of the oldest run; zero: there is none.
func UnusedBefore(now, oldest time.Time) time.Time {
	if oldest.IsZero() || oldest.After(now) {
		oldest = now
	}
	return oldest.Add(-UseKept)
}

// BundleOf is the digest of the files that a compiled plan names; empty: none.
func BundleOf(compiled []byte) (pipeline.Digest, error) {
	var p struct {
		Bundle pipeline.Digest `json:"bundle"`
	}
	if err := json.Unmarshal(compiled, &p); err != nil {
		return "", fmt.Errorf("read the plan: %w", err)
	}
	return p.Bundle, nil
}

// Sum fills in what follows from the days.
func (g *Growth) Sum(now time.Time) {
	slices.SortFunc(g.Days, func(a, b DayGrowth) int { return a.Day.Compare(b.Day) })
	var sum, n int64
	today := Today(now)
	for i := range g.Days {
		d := &g.Days[i]
		for _, t := range d.Tables {
			d.Bytes += t.Bytes
		}
		if d.Day.Before(today) && !d.Day.Before(today.AddDate(0, 0, -7)) {
			sum, n = sum+d.Bytes, n+1
		}
	}
	if n > 0 {
		g.PerDay = sum / n
	}
}
