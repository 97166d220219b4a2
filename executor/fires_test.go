package executor

import (
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/trigger"
)

// hour is a moment of one day.
func hour(h, m int) time.Time { return time.Date(2026, 5, 4, h, m, 0, 0, time.UTC) }

func shown(times []time.Time) string {
	var texts []string
	for _, t := range times {
		texts = append(texts, t.Format("15:04"))
	}
	return strings.Join(texts, " ")
}

func TestCatchUpWindow(t *testing.T) {
	for _, test := range []struct {
		name      string
		cron      string
		catchUp   string
		window    time.Duration
		next, now time.Time
		want      string
		then      string
	}{
		{"nothing is due", "0 * * * *", "latest", time.Hour, hour(6, 0), hour(5, 59), "", "06:00"},
		{"on time", "0 * * * *", "none", time.Hour, hour(6, 0), hour(6, 0), "06:00", "07:00"},
		{"a minute late is on time", "0 * * * *", "none", 0, hour(6, 0), hour(6, 1), "06:00", "07:00"},
		{"later is missed", "0 * * * *", "none", time.Hour, hour(6, 0), hour(6, 2), "", "07:00"},
		{"all of an outage within the window", "0 * * * *", "all", 3 * time.Hour, hour(1, 0), hour(6, 30), "04:00 05:00 06:00", "07:00"},
		{"the edge of the window counts", "0 * * * *", "all", 3 * time.Hour, hour(1, 0), hour(6, 0), "03:00 04:00 05:00 06:00", "07:00"},
		{"the latest of an outage", "0 * * * *", "latest", 3 * time.Hour, hour(1, 0), hour(6, 30), "06:00", "07:00"},
		{"the latest is too old", "0 * * * *", "latest", 20 * time.Minute, hour(1, 0), hour(6, 30), "", "07:00"},
		{"the latest does not replace what is on time", "* * * * *", "latest", time.Hour, hour(5, 0), hour(6, 0), "05:59 06:00", "06:01"},
		{"a fire on time takes the place of missed ones", "0 * * * *", "latest", 3 * time.Hour, hour(1, 0), hour(6, 0), "06:00", "07:00"},
		{"without a window, all is what is on time", "0 * * * *", "all", 0, hour(1, 0), hour(6, 0), "06:00", "07:00"},
		{"an outage of years costs no more", "* * * * *", "none", 0, hour(6, 0).AddDate(-5, 0, 0), hour(6, 0), "05:59 06:00", "06:01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cron, err := trigger.ParseCron([]string{test.cron}, "")
			if err != nil {
				t.Fatal(err)
			}
			s := &pipeline.Schedule{CatchUp: test.catchUp, CatchUpFrom: test.window, Next: test.next}
			times, next := dueFires(s, cron, test.now)
			if shown(times) != test.want || next.Format("15:04") != test.then {
				t.Errorf("it fires at %q and then at %s, not at %q and then at %s", shown(times), next.Format("15:04"), test.want, test.then)
			}
		})
	}
}

// TestCatchUpIsBounded holds that a long outage is made up piece by piece, in order
// and without a gap.
func TestCatchUpIsBounded(t *testing.T) {
	cron, err := trigger.ParseCron([]string{"* * * * *"}, "")
	if err != nil {
		t.Fatal(err)
	}
	now := hour(12, 0)
	s := &pipeline.Schedule{CatchUp: pipeline.CatchUpAll, CatchUpFrom: 5 * time.Hour, Next: hour(1, 0)}
	want := hour(7, 0)
	for s.Next.Before(now) {
		times, next := dueFires(s, cron, now)
		if len(times) == 0 || len(times) > maxFires {
			t.Fatalf("%d fires at once", len(times))
		}
		for _, at := range times {
			if !at.Equal(want) {
				t.Fatalf("%s comes where %s is due", at, want)
			}
			want = want.Add(time.Minute)
		}
		s.Next = next
	}
	if want.Before(now) {
		t.Errorf("it stops at %s", want)
	}
}

func TestBoundsOfASchedule(t *testing.T) {
	cron, err := trigger.ParseCron([]string{"0 * * * *"}, "")
	if err != nil {
		t.Fatal(err)
	}
	s := &pipeline.Schedule{CatchUp: pipeline.CatchUpAll, CatchUpFrom: 24 * time.Hour, Start: hour(4, 0), End: hour(6, 0)}
	if got := trigger.NextFire(s, cron, hour(1, 30)); !got.Equal(hour(4, 0)) {
		t.Errorf("the first fire is at %s", got)
	}
	s.Next = hour(4, 0)
	times, next := dueFires(s, cron, hour(12, 0))
	if shown(times) != "04:00 05:00 06:00" || !next.IsZero() {
		t.Errorf("it fires at %s and then at %s", shown(times), next)
	}
}

func TestOverlapPolicies(t *testing.T) {
	pending, buffered := pipeline.Fire{State: pipeline.FirePending, Open: true}, pipeline.Fire{State: pipeline.FireBuffered, Open: true}
	for _, test := range []struct {
		name    string
		overlap string
		due     int
		open    []pipeline.Fire
		busy    bool
		want    string
	}{
		{"skip, nothing runs", "skip", 1, nil, false, "pending"},
		{"skip, the run before goes on", "skip", 2, nil, true, "skipped skipped"},
		{"skip, made-up fires follow one another", "skip", 3, nil, false, "pending skipped skipped"},
		{"skip, one was decided before a crash", "skip", 1, []pipeline.Fire{pending}, false, "skipped"},
		{"queue, nothing runs", "queue", 3, nil, false, "pending buffered skipped"},
		{"queue, the run before goes on", "queue", 2, nil, true, "buffered skipped"},
		{"queue, one waits already", "queue", 1, []pipeline.Fire{buffered}, true, "skipped"},
		{"queue, the one that waits starts now", "queue", 2, []pipeline.Fire{buffered}, false, "buffered skipped"},
		{"queue, one was decided before a crash and one waits", "queue", 1, []pipeline.Fire{buffered, pending}, false, "skipped"},
		{"allow", "allow", 3, []pipeline.Fire{pending}, true, "pending pending pending"},
		{"cancel_previous", "cancel_previous", 1, nil, true, "pending"},
		{"cancel_previous, only the newest of several", "cancel_previous", 3, nil, true, "skipped skipped pending"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var times []time.Time
			for i := range test.due {
				times = append(times, hour(i, 0))
			}
			var got []string
			for _, f := range decideFires(test.overlap, times, test.open, test.busy) {
				got = append(got, string(f.State))
				if f.Open == (f.State == pipeline.FireSkipped) || f.Open == (f.Reason != "") {
					t.Errorf("a fire is %+v", f)
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("the fires are %v, not %s", got, test.want)
			}
		})
	}
}
