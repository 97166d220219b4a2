package web

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// eventsPage is how many events a page shows, the newest first.
const eventsPage = 100

// eventRow is one event in the list.
type eventRow struct {
	*api.Event
	Href  string // of its step
	State state  // of the run or step after it
	Note  string // the cause, if it carries one
	Data  string // what it carries, indented and cut
	More  int    // bytes that were cut
}

// eventsData is a page of a run's events.
type eventsData struct {
	Rows   []eventRow
	Last   int32 // number of the newest event of the run
	Newer  string
	Older  string
	Follow bool // the newest page, to which new events are added
}

func (s *site) eventsData(ctx context.Context, v *view, sc screen) (eventsData, error) {
	last, err := v.newest(ctx, s.runs)
	if err != nil {
		return eventsData{}, err
	}
	top := sc.Top
	if top == 0 || top > last {
		top = last
	}
	d := eventsData{Last: last, Follow: sc.Top == 0}
	after := max(0, top-eventsPage)
	for at := after; at < top; { // an answer may be cut short when events are large
		page, err := s.runs.ListEvents(ctx, &api.ListEventsRequest{Id: sc.Run, After: at, PageSize: top - at}, bigAnswers)
		if err != nil {
			return d, err
		}
		if len(page.GetEvents()) == 0 {
			break
		}
		for _, e := range page.GetEvents() {
			d.Rows = append(d.Rows, eventOf(e, sc))
			at = e.GetSeq()
		}
	}
	slices.Reverse(d.Rows)
	if top < last {
		next := top + eventsPage
		if next >= last {
			next = 0 // the newest page, which follows
		}
		d.Newer = sc.with("top", zeroEmpty(next))
	}
	if after > 0 {
		d.Older = sc.with("top", itoa(after))
	}
	return d, nil
}

// eventData bounds what the list shows of what an event carries.
const eventData = 2000

func eventOf(e *api.Event, sc screen) eventRow {
	row := eventRow{Event: e}
	if e.GetPath() != "" {
		row.Href = sc.with("step", e.GetPath())
	}
	row.Data, row.More = pretty(e.GetData(), eventData)
	if row.Data == "{}" {
		row.Data = ""
	}
	var brief eventBrief
	if json.Unmarshal([]byte(e.GetData()), &brief) == nil {
		row.State = lowered(cmp.Or(brief.Step.Status, brief.Run.Status))
		row.Note = summary(e, &brief)
	}
	return row
}
