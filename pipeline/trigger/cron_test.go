package trigger

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustCron(t testing.TB, zone string, texts ...string) *Cron {
	t.Helper()
	c, err := ParseCron(texts, zone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// moments lists the times from one moment to another as the wall shows them,
// with the offset that tells the two passes of an hour apart.
func moments(t *testing.T, c *Cron, from, to string) string {
	t.Helper()
	at := func(s string) time.Time {
		m, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	var shown []string
	for _, m := range c.Between(at(from), at(to), 1000) {
		shown = append(shown, m.In(c.Zone()).Format("15:04-07:00"))
	}
	return strings.NewReplacer("-0", " -0", "+", " +").Replace(strings.Join(shown, ", "))
}

// The spring and the autumn of 2026: Berlin changes on 29 March and 25 October,
// New York on 8 March and 1 November, Lord Howe by half an hour on 5 April
// (back) and 4 October (forward).
func TestDaylightSaving(t *testing.T) {
	for _, test := range []struct{ name, cron, zone, from, to, want string }{
		{"a time that the clock leaves out comes when it jumps", "30 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "03:00 +02:00"},
		{"and once, however many are left out", "0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T03:10:00+02:00", "03:00 +02:00"},
		{"a time that comes twice is taken the first time", "30 2 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "02:30 +02:00"},
		{"the first moment after the repeated hour is no repetition", "0 3 * * *", "Europe/Berlin", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "03:00 +01:00"},
		{"every so many hours is a time of the day", "0 */2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T06:00:00+02:00", "03:00 +02:00, 04:00 +02:00, 06:00 +02:00"},
		{"an interval goes over the jump", "*/15 * * * *", "Europe/Berlin", "2026-03-29T01:29:00+01:00", "2026-03-29T03:20:00+02:00", "01:30 +01:00, 01:45 +01:00, 03:00 +02:00, 03:15 +02:00"},
		{"an interval goes on through the repeated hour", "*/30 * * * *", "Europe/Berlin", "2026-10-25T01:59:00+02:00", "2026-10-25T03:00:00+01:00", "02:00 +02:00, 02:30 +02:00, 02:00 +01:00, 02:30 +01:00, 03:00 +01:00"},
		{"each hour is each hour", "0 * * * *", "Europe/Berlin", "2026-10-25T01:30:00+02:00", "2026-10-25T03:00:00+01:00", "02:00 +02:00, 02:00 +01:00, 03:00 +01:00"},
		{"an interval within hours that are left out has none", "*/15 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", ""},
		{"New York, left out", "30 2 * * *", "America/New_York", "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00", "03:00 -04:00"},
		{"New York, twice", "30 1 * * *", "America/New_York", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00", "01:30 -04:00"},
		{"New York, from within the second pass", "30 1 * * *", "America/New_York", "2026-11-01T01:10:00-05:00", "2026-11-02T12:00:00-05:00", "01:30 -05:00"},
		{"Lord Howe, half an hour left out", "15 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00", "02:30 +11:00"},
		{"Lord Howe, half an hour twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30", "01:45 +11:00"},
		{"Lord Howe, an interval", "*/15 * * * *", "Australia/Lord_Howe", "2026-04-05T01:29:00+11:00", "2026-04-05T02:00:00+10:30", "01:30 +11:00, 01:45 +11:00, 01:30 +10:30, 01:45 +10:30, 02:00 +10:30"},
		{"UTC has none of this", "30 2 * * *", "", "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z", "02:30 +00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := moments(t, mustCron(t, test.zone, test.cron), test.from, test.to); got != test.want {
				t.Errorf("%s in %s comes at\n  %s\nnot at\n  %s", test.cron, test.zone, got, test.want)
			}
		})
	}
}

func TestCronExpressions(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday
	for _, test := range []struct{ cron, want string }{
		{"@hourly", "2026-01-01T01:00 2026-01-01T02:00"},
		{"@daily", "2026-01-02T00:00 2026-01-03T00:00"},
		{"@midnight", "2026-01-02T00:00 2026-01-03T00:00"},
		{"@weekly", "2026-01-04T00:00 2026-01-11T00:00"},
		{"@monthly", "2026-02-01T00:00 2026-03-01T00:00"},
		{"@Yearly", "2027-01-01T00:00 2028-01-01T00:00"},
		{"0 6 * * 1", "2026-01-05T06:00 2026-01-12T06:00"},
		{"0 6 * * MON-FRI", "2026-01-01T06:00 2026-01-02T06:00"},
		{"0 6 * * fri-sun", "2026-01-02T06:00 2026-01-03T06:00"},
		{"0 6 * * 7", "2026-01-04T06:00 2026-01-11T06:00"},
		{"5/20 * * * *", "2026-01-01T00:05 2026-01-01T00:25"},
		{"0 0 29 2 *", "2028-02-29T00:00 2032-02-29T00:00"},
		{"0 0 31 * *", "2026-01-31T00:00 2026-03-31T00:00"},
		{"0 0 13 * 5", "2026-01-02T00:00 2026-01-09T00:00"}, // either of the two
		{"0 12 1 jan,jul *", "2026-01-01T12:00 2026-07-01T12:00"},
	} {
		t.Run(test.cron, func(t *testing.T) {
			var shown []string
			for _, m := range mustCron(t, "", test.cron).Between(from, from.AddDate(10, 0, 0), 2) {
				shown = append(shown, m.Format("2006-01-02T15:04"))
			}
			if got := strings.Join(shown, " "); got != test.want {
				t.Errorf("%s comes at %s, not at %s", test.cron, got, test.want)
			}
		})
	}
}

func TestCronRefusals(t *testing.T) {
	for _, test := range []struct{ cron, zone, want string }{
		{"0 6 * *", "", "has 4 fields, not 5"},
		{"0 0 6 * * *", "", "has 6 fields, not 5"},
		{"", "", "has 0 fields, not 5"},
		{"60 * * * *", "", `the minute is "60", not a number from 0 to 59`},
		{"0 24 * * *", "", `the hour is "24"`},
		{"0 6 0 * *", "", `the day of the month is "0"`},
		{"0 6 * 13 *", "", `the month is "13"`},
		{"0 6 * * 8", "", `the day of the week is "8"`},
		{"0 6 * * mo", "", `the day of the week is "mo"`},
		{"*/0 * * * *", "", `the step "0"`},
		{"30-10 * * * *", "", "ends before it begins"},
		{"1,,2 * * * *", "", `the minute is ""`},
		{"@never", "", `no cron alias "@never"`},
		{"0 0 30 2 *", "", `"0 0 30 2 *" never comes`},
		{"0 0 31 4,6 *", "", "never comes"},
		{"0 6 * * *", "Europe/Belrin", `no time zone "Europe/Belrin"`},
		{"0 6 * * *", "Local", `no time zone "Local"`},
	} {
		t.Run(test.cron+" "+test.zone, func(t *testing.T) {
			_, err := ParseCron([]string{"@daily", test.cron}, test.zone)
			var bad *CronError
			if !errors.As(err, &bad) || !strings.Contains(bad.Error(), test.want) {
				t.Fatalf("the error is %v, not one with %q", err, test.want)
			}
			if want := 1; test.zone == "" && bad.Expression != want {
				t.Errorf("it names the expression %d, not %d", bad.Expression, want)
			}
		})
	}
}

// TestSeveralExpressionsMeet holds that a moment that two expressions share comes once.
func TestSeveralExpressionsMeet(t *testing.T) {
	c := mustCron(t, "Europe/Berlin", "0 6 * * *", "0 */6 * * *", "0 6 * * 1")
	if got, want := moments(t, c, "2026-01-05T00:00:00+01:00", "2026-01-05T12:00:00+01:00"), "06:00 +01:00, 12:00 +01:00"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestTimesOnlyGrow holds for any expression, zone and moment that Next lies after
// its argument, and that nothing is left out between the two.
func TestTimesOnlyGrow(t *testing.T) {
	exprs := []string{"*/7 * * * *", "30 2 * * *", "0 * * * *", "15 1-3 * * *", "0 0 1 * *", "59 23 * * 0", "*/20 1,2 * * *"}
	zones := []string{"", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kathmandu", "Africa/Casablanca"}
	rapid.Check(t, func(r *rapid.T) {
		c := mustCron(t, rapid.SampledFrom(zones).Draw(r, "zone"), rapid.SampledFrom(exprs).Draw(r, "expression"))
		at := time.Unix(rapid.Int64Range(1.7e9, 1.9e9).Draw(r, "at"), 0)
		next := c.Next(at)
		if !next.After(at) {
			r.Fatalf("after %s comes %s", at, next)
		}
		between := at.Add(time.Duration(rapid.Int64Range(0, int64(next.Sub(at))-1).Draw(r, "between")))
		if again := c.Next(between); !again.Equal(next) {
			r.Fatalf("after %s comes %s, but after %s, which is earlier than that, %s", at, next, between, again)
		}
	})
}
