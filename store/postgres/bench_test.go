package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func BenchmarkLife(b *testing.B) {
	for _, runs := range []int{1, 16, 256, 1000} {
		b.Run(fmt.Sprint(runs), func(b *testing.B) {
			storetest.Benchmark(b, open(b, storetest.Migrated(b), 0), runs)
		})
	}
}

// BenchmarkHeartbeat is what one heartbeat costs a database that many replicas
// share, each with two lanes and a presence. The others are rows and locks of
// one connection; what a heartbeat sees of them is the same.
func BenchmarkHeartbeat(b *testing.B) {
	for _, replicas := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(replicas), func(b *testing.B) {
			s := open(b, storetest.Migrated(b), 0)
			l, err := s.OpenLane(b.Context(), "measured")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Release(b.Context()) }()
			others, err := pgx.Connect(b.Context(), s.URL())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = others.Close(b.Context()) }()
			for _, sql := range []string{
				`INSERT INTO lane_lease (lane, replica, presence, expires_at)
					SELECT 1000 + g, 'other ' || g / 2, -g / 2, clock_timestamp() + interval '1 hour' FROM generate_series(1, $1::integer) g`,
				`SELECT count(*) FROM (SELECT pg_advisory_lock(-g / 2) FROM generate_series(1, $1::integer) g) l`,
			} {
				if _, err := others.Exec(b.Context(), sql, 2*(replicas-1)); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := others.Exec(b.Context(), `ANALYZE lane_lease`); err != nil {
				b.Fatal(err)
			}
			var p store.Pulse
			for b.Loop() {
				if p, err = s.Heartbeat(b.Context(), "measured"); err != nil {
					b.Fatal(err)
				}
			}
			if p.Expired {
				b.Fatal("living replicas are held to be dead")
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)*float64(replicas)/3e6, "busy/all") // if all beat every 3 s
		})
	}
}

// BenchmarkBell is what it costs until one bell has been heard by all listeners of
// a database, each with a connection of its own.
func BenchmarkBell(b *testing.B) {
	for _, listeners := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(listeners), func(b *testing.B) {
			url := storetest.Migrated(b)
			heard := make(chan error, listeners)
			var all sync.WaitGroup
			ctx, cancel := context.WithCancel(b.Context())
			defer all.Wait()
			defer cancel()
			for range listeners {
				conn, err := pgx.Connect(ctx, url)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := conn.Exec(ctx, `LISTEN orchestrator_bell`); err != nil {
					b.Fatal(err)
				}
				all.Go(func() {
					defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
					for {
						_, err := conn.WaitForNotification(ctx)
						if ctx.Err() != nil {
							return
						}
						heard <- err
					}
				})
			}
			ringer, err := pgx.Connect(ctx, url)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = ringer.Close(context.WithoutCancel(ctx)) }()
			for b.Loop() {
				if _, err := ringer.Exec(ctx, `SELECT pg_notify('orchestrator_bell', 'nobody .r0123456789012345678901')`); err != nil {
					b.Fatal(err)
				}
				for range listeners {
					if err := <-heard; err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(listeners)/1e3, "us/listener")
		})
	}
}
