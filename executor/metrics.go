package executor

import "github.com/prometheus/client_golang/prometheus"

// metrics of one executor.
type metrics struct {
	runs          *prometheus.CounterVec
	stepSeconds   *prometheus.HistogramVec
	commitSeconds prometheus.Histogram
	batchEvents   prometheus.Histogram
	active        prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "orchestrator_runs_finished_total", Help: "Runs that have finished, by status.",
		}, []string{"status"}),
		stepSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "orchestrator_step_seconds", Help: "Duration of attempts of steps, by kind.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}, []string{"kind"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "orchestrator_commit_seconds", Help: "Duration of group commits.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12),
		}),
		batchEvents: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "orchestrator_commit_events", Help: "Events per group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "orchestrator_runs_active", Help: "Runs in memory.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.runs, m.stepSeconds, m.commitSeconds, m.batchEvents, m.active)
	}
	return m
}
