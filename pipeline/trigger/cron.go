// Package trigger is what begins runs without a person: the times of schedules,
// and the signatures and contents of webhooks. It is pure; the caller brings the
// clock, the secrets and the request.
//
//	c, err := trigger.ParseCron([]string{"30 2 * * 1-5"}, "Europe/Berlin")
//	next := c.Next(now)
package trigger

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on every machine

	"github.com/adhocore/gronx"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Cron is the times of one or more cron expressions in a time zone. It may be
// used concurrently.
//
// An expression whose minutes are * or */n, or whose hours are *, is an interval:
// it matches the clock on the wall, minute by minute, as time really passes, so
// that an hour that comes twice has its times twice and an hour that is left out
// has none. Any other expression is a time of the day: it comes once a day, also
// where the clock is put back, and a time that the clock leaves out comes at the
// moment at which the clock jumps.
type Cron struct {
	texts []string
	zone  *time.Location
	list  []expression
}

// expression is one cron expression in five fields.
type expression struct {
	fields   string // as gronx reads it
	interval bool
}

// CronError is the error of an expression, or of a time zone.
type CronError struct {
	Expression int    // its index; -1: it is the zone
	Text       string // what is wrong
	Hint       string // what to write instead; may be empty
}

func (e *CronError) Error() string {
	if e.Hint == "" {
		return e.Text
	}
	return e.Text + " (" + e.Hint + ")"
}

// MaxExpressions is how many expressions a schedule may have.
const MaxExpressions = 20

var aliases = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// cronField is one of the five fields of an expression.
type cronField struct {
	name  string
	low   int
	high  int
	names []string // of low and the numbers after it
}

var cronFields = [5]cronField{
	{name: "minute", low: 0, high: 59},
	{name: "hour", low: 0, high: 23},
	{name: "day of the month", low: 1, high: 31},
	{name: "month", low: 1, high: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of the week", low: 0, high: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

const cronHint = "minute hour day-of-month month day-of-week, as in 30 6 * * 1-5, or @hourly, @daily, @weekly, @monthly, @yearly"

// ParseCron reads expressions of five fields, or aliases such as @hourly, and the
// IANA name of a time zone; empty is UTC. Each expression must come some time. The
// error is a *CronError.
func ParseCron(texts []string, zone string) (*Cron, error) {
	c := &Cron{texts: texts, zone: time.UTC}
	if zone != "" {
		loc, err := time.LoadLocation(zone)
		if err != nil || zone == "Local" {
			return nil, &CronError{Expression: -1, Text: fmt.Sprintf("there is no time zone %q", zone), Hint: "a name of the IANA list, as in Europe/Berlin or UTC"}
		}
		c.zone = loc
	}
	if len(texts) == 0 {
		return nil, &CronError{Text: "there is no cron expression", Hint: cronHint}
	}
	if len(texts) > MaxExpressions {
		return nil, &CronError{Expression: MaxExpressions, Text: fmt.Sprintf("%d expressions are more than the %d that a schedule may have", len(texts), MaxExpressions)}
	}
	for i, text := range texts {
		x, bad := parseExpression(text)
		if bad == nil && !x.comes() {
			bad = &CronError{Text: fmt.Sprintf("the cron expression %q never comes: no month has such a day", text)}
		}
		if bad != nil {
			bad.Expression = i
			return nil, bad
		}
		c.list = append(c.list, x)
	}
	return c, nil
}

func parseExpression(text string) (expression, *CronError) {
	plain := strings.ToLower(strings.TrimSpace(text))
	if strings.HasPrefix(plain, "@") {
		full, ok := aliases[plain]
		if !ok {
			return expression{}, &CronError{Text: fmt.Sprintf("there is no cron alias %q", text), Hint: cronHint}
		}
		plain = full
	}
	fields := strings.Fields(plain)
	if len(fields) != 5 {
		return expression{}, &CronError{Text: fmt.Sprintf("the cron expression %q has %s, not 5", text, fieldCount(len(fields))), Hint: cronHint}
	}
	for i, f := range fields {
		clean, problem := cronFields[i].read(f)
		if problem != "" {
			return expression{}, &CronError{Text: fmt.Sprintf("the cron expression %q: the %s %s", text, cronFields[i].name, problem), Hint: cronHint}
		}
		fields[i] = clean
	}
	return expression{
		fields:   strings.Join(fields, " "),
		interval: fields[0] == "*" || strings.HasPrefix(fields[0], "*/") || fields[1] == "*",
	}, nil
}

// read checks a field and gives it with numbers for names.
func (f cronField) read(text string) (clean, problem string) {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(part, "/")
		if stepped {
			if n, err := strconv.Atoi(step); err != nil || n < 1 || n > f.high {
				return "", fmt.Sprintf("has the step %q, which is no number from 1 to %d", step, f.high)
			}
		}
		if span != "*" {
			from, to, ranged := strings.Cut(span, "-")
			a, problem := f.number(from)
			b := a
			if problem == "" && ranged {
				b, problem = f.number(to)
			}
			if problem != "" {
				return "", problem
			}
			if ranged && f.high == 7 && b == 0 { // fri-sun
				b = 7
			}
			if b < a {
				return "", fmt.Sprintf("has the range %q, which ends before it begins", span)
			}
			span = strconv.Itoa(a)
			switch {
			case ranged:
				span += "-" + strconv.Itoa(b)
			case stepped:
				span += "-" + strconv.Itoa(f.high)
			}
		}
		if stepped {
			span += "/" + step
		}
		parts = append(parts, span)
	}
	return strings.Join(parts, ","), ""
}

func (f cronField) number(text string) (n int, problem string) {
	for i, name := range f.names {
		if text == name {
			return f.low + i, ""
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.low || n > f.high || strings.HasPrefix(text, "+") {
		return 0, fmt.Sprintf("is %q, not a number from %d to %d", text, f.low, f.high)
	}
	return n, ""
}

// horizon is where the search for a next time ends: between two 29th of February on
// one day of the week can lie 40 years.
const horizon = 41 * 366 * 24 * time.Hour

// comes reports whether the expression has any times at all.
func (x expression) comes() bool {
	_, ok := x.after(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), true)
	return ok
}

// after is the next time on a clock that is never changed, which wall is read on.
func (x expression) after(wall time.Time, incl bool) (time.Time, bool) {
	end := wall.Add(horizon)
	if s := wall.Truncate(time.Minute); !s.Equal(wall) {
		wall, incl = s.Add(time.Minute), true
	}
	for wall.Before(end) {
		next, err := gronx.NextTickAfter(x.fields, wall, incl)
		if err == nil {
			return next, !next.Before(wall)
		}
		wall, incl = wall.AddDate(1, 0, 0), true // its search has a bound of its own
	}
	return time.Time{}, false
}

// Zone is the time zone of the expressions.
func (c *Cron) Zone() *time.Location { return c.zone }

// Next is the first time after t, in UTC; zero: there is none within 40 years.
func (c *Cron) Next(t time.Time) time.Time {
	var first time.Time
	for _, x := range c.list {
		next := x.timeOfDay
		if x.interval {
			next = x.byTheClock
		}
		if n := next(t, c.zone); !n.IsZero() && (first.IsZero() || n.Before(first)) {
			first = n
		}
	}
	return first
}

// Between lists the times after from, up to and with to, at most so many.
func (c *Cron) Between(from, to time.Time, most int) []time.Time {
	var list []time.Time
	for t := c.Next(from); !t.IsZero() && !t.After(to) && len(list) < most; t = c.Next(t) {
		list = append(list, t)
	}
	return list
}

// byTheClock is the first time after t at which the clock on the wall matches.
func (x expression) byTheClock(t time.Time, zone *time.Location) time.Time {
	incl := false
	for end := t.Add(horizon); t.Before(end); incl = true {
		t = t.In(zone)
		_, change := t.ZoneBounds()
		_, offset := t.Zone()
		wall, ok := x.after(wallOf(t), incl)
		if !ok {
			break
		}
		next := wall.Add(-time.Duration(offset) * time.Second)
		if change.IsZero() || next.Before(change) {
			return next
		}
		t = change
	}
	return time.Time{}
}

// timeOfDay is the first time after t of those that come once a day.
func (x expression) timeOfDay(t time.Time, zone *time.Location) time.Time {
	wall := wallOf(t.In(zone))
	for end := wall.Add(horizon); wall.Before(end); {
		var ok bool
		if wall, ok = x.after(wall, false); !ok {
			break
		}
		if next := firstMoment(wall, zone); next.After(t) {
			return next
		}
	}
	return time.Time{}
}

// wallOf is what the clock shows, as a time on a clock that is never changed.
func wallOf(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// firstMoment is when the clock on the wall shows a time for the first time; where
// it leaves the time out, when it jumps.
func firstMoment(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, zone)
	begin, end := t.ZoneBounds()
	switch shown := wallOf(t); {
	case shown.After(wall): // it has jumped
		return begin.UTC()
	case shown.Before(wall): // it is about to
		return end.UTC()
	}
	if !begin.IsZero() {
		_, before := begin.Add(-time.Second).Zone()
		if first := wall.Add(-time.Duration(before) * time.Second); first.Before(begin) {
			return first.UTC()
		}
	}
	return t.UTC()
}

// NextFire is the first fire of a schedule after a time, within its bounds; zero:
// there is none. The schedule's own expressions are c.
func NextFire(s *pipeline.Schedule, c *Cron, after time.Time) time.Time {
	if !s.Start.IsZero() && after.Before(s.Start) {
		after = s.Start.Add(-time.Nanosecond)
	}
	next := c.Next(after)
	if !s.End.IsZero() && next.After(s.End) {
		return time.Time{}
	}
	return next
}

func fieldCount(n int) string {
	if n == 1 {
		return "1 field"
	}
	return strconv.Itoa(n) + " fields"
}
