package executor

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	sweepFirst = time.Minute      // after the start, when the runs of the last process are taken over
	sweepSoon  = 10 * time.Minute // after a sweep that could not do all
	sweepEvery = 24 * time.Hour
	// planKept is how long a plan that was put is not put again: with the time that a
	// store does not write it again, less than it keeps one that nothing names.
	planKept = store.UseFresh / 2
)

// Retention removes what is old from a store, once a day.
type Retention struct {
	// Days is how many days of runs are kept; 0: all. What has expired goes anyway.
	Days int

	ex      *Executor
	days    prometheus.Counter
	runs    prometheus.Counter
	failed  prometheus.Counter
	kept    prometheus.Gauge
	newest  prometheus.Gauge
	waiting func(ctx context.Context, d time.Duration) bool
}

// NewRetention returns the retention of an executor's store.
func NewRetention(e *Executor, days int) *Retention {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "orchestrator_retention_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "orchestrator_retention_" + name, Help: help})
	}
	r := &Retention{
		Days: days, ex: e, waiting: sleep,
		days:   counter("days_dropped_total", "Days of runs that this process has dropped."),
		runs:   counter("runs_dropped_total", "Runs that this process has dropped."),
		failed: counter("failures_total", "Sweeps that have failed."),
		kept:   gauge("stragglers", "Days past their retention that unfinished runs keep, at the newest sweep."),
		newest: gauge("last_sweep_timestamp_seconds", "When this process has swept last."),
	}
	if reg := e.cfg.Metrics; reg != nil {
		reg.MustRegister(r.days, r.runs, r.failed, r.kept, r.newest)
	}
	return r
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Run sweeps shortly after it begins and then once a day, until ctx ends.
func (r *Retention) Run(ctx context.Context) error {
	for wait := sweepFirst; r.waiting(ctx, wait); {
		wait = sweepEvery
		if !r.sweep(ctx) {
			wait = sweepSoon
		}
	}
	return nil
}

// cut is what may go now, by the number of days that are kept.
func (r *Retention) cut(now time.Time) store.Cut {
	if r.Days <= 0 {
		return store.Cut{}
	}
	today := store.Today(now)
	return store.Cut{Drop: today.AddDate(0, 0, -r.Days), Thin: today.AddDate(0, 0, -2*r.Days)}
}

// sweep reports whether all was done that could be done.
func (r *Retention) sweep(ctx context.Context) bool {
	began := time.Now()
	r.ex.sweepWorkspaces(ctx, r.cut(r.ex.cfg.Now()).Drop)
	report, err := r.ex.cfg.Store.Sweep(ctx, r.cut(r.ex.cfg.Now()))
	r.days.Add(float64(len(report.Days)))
	r.runs.Add(float64(report.Runs + report.Thinned))
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		r.failed.Inc()
		r.ex.log.Warn("what is old was not removed; trying again", "in", sweepSoon, "err", err)
		return false
	case report.Busy:
		return false
	}
	r.kept.Set(float64(len(report.Stragglers)))
	r.newest.SetToCurrentTime()
	if !report.Empty() {
		r.ex.log.Info("old runs were removed", "days", dates(report.Days), "runs", report.Runs, "runs_of_kept_days", report.Thinned,
			"approvals", report.Approvals, "fires", report.Fires, "plans", report.Plans, "bundles", report.Bundles,
			"keys", report.Keys, "cached", report.Cached, "took", time.Since(began).Round(time.Millisecond))
	}
	for _, s := range report.Stragglers {
		r.ex.log.Warn("unfinished runs keep an old day", "day", s.Day.Format(time.DateOnly), "runs", s.Count, "oldest", s.Runs[0])
	}
	if len(report.Later) > 0 {
		r.ex.log.Warn("old days are in use and go later", "days", dates(report.Later), "in", sweepSoon)
	}
	return len(report.Later) == 0
}

func dates(days []time.Time) []string {
	list := make([]string, len(days))
	for i, d := range days {
		list[i] = d.Format(time.DateOnly)
	}
	return list
}

// lostBook is the book of a run whose source is gone, as after a sweep that came
// between the two: nothing of it can be used.
func (e *Executor) lostBook(fork *pipeline.Fork, prog *program) (*book, error) {
	b := &book{
		fork: *fork, source: &pipeline.Run{ID: fork.From}, records: map[pipeline.Path]*record{}, answers: map[pipeline.Path][]settled{},
		passes: map[pipeline.Path]*pipeline.Data{}, tags: map[string]map[string]pipeline.Digest{}, plan: newUpstream(prog.plan),
	}
	var err error
	b.is, err = e.definitions(prog, b.plan)
	return b, err
}
