package human

import (
	"testing"
	"time"
)

func TestSpansHaveAtMostTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 0: "0 ms", 999 * time.Millisecond: "999 ms", 9990 * time.Millisecond: "9.9 s", 59 * time.Second: "59 s",
		61 * time.Second: "1 m 01 s", 3*time.Hour + 5*time.Minute: "3 h 05 m", 50 * time.Hour: "2 d 02 h",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v reads %q and not %q", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		d    time.Duration
		want string
	}{{-time.Minute, "just now"}, {4 * time.Second, "just now"}, {59 * time.Second, "59 s ago"}, {time.Hour, "1 h ago"}, {72 * time.Hour, "3 d ago"}, {40 * 24 * time.Hour, "2025-12-22"}} {
		if got := Ago(now.Add(-c.d), now); got != c.want {
			t.Errorf("%v reads %q and not %q", c.d, got, c.want)
		}
	}
	if got := Ago(time.Time{}, now); got != "-" {
		t.Errorf("a time that is missing reads %q", got)
	}
}
