package web

import (
	"net/url"
	"slices"
)

// screen is what of a run is on the screen, as the page's address says it. The
// page and its live feed read the same address, so both show the same.
type screen struct {
	Run    string
	Tab    string
	Step   string // path of the step whose drawer is open
	At     int32  // steps: the first row; definition: the first line
	Top    int32  // events: the newest to show; 0: the newest there is
	Status string // steps: only these
	Under  string // steps: only those of this node of the plan and in it
	Query  string // steps: only those whose path holds this
}

// tabs of a run's page, the first is shown when the address names none.
var tabs = []struct{ ID, Title string }{
	{"graph", "Graph"},
	{"timeline", "Timeline"},
	{"steps", "Steps"},
	{"events", "Events"},
	{"logs", "Logs"},
	{"artifacts", "Artifacts"},
	{"outputs", "Outputs"},
	{"definition", "Definition"},
}

func readScreen(run string, q url.Values) screen {
	sc := screen{
		Run: run, Tab: q.Get("tab"), Step: q.Get("step"), At: number(q.Get("at")), Top: number(q.Get("top")),
		Status: q.Get("status"), Under: q.Get("under"), Query: q.Get("q"),
	}
	if !slices.ContainsFunc(tabs, func(t struct{ ID, Title string }) bool { return t.ID == sc.Tab }) {
		sc.Tab = tabs[0].ID
	}
	return sc
}

func (sc screen) values() url.Values {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" {
			q.Set(k, v)
		}
	}
	if sc.Tab != tabs[0].ID {
		set("tab", sc.Tab)
	}
	set("step", sc.Step)
	if sc.At > 0 {
		set("at", itoa(sc.At))
	}
	if sc.Top > 0 {
		set("top", itoa(sc.Top))
	}
	set("status", sc.Status)
	set("under", sc.Under)
	set("q", sc.Query)
	return q
}

// with is the address of this screen with some things changed; changing the
// tab forgets what only the old one means.
func (sc screen) with(pairs ...string) string {
	q := sc.values()
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == "tab" && pairs[i+1] != sc.Tab {
			for _, k := range []string{"at", "top", "status", "under", "q"} {
				q.Del(k)
			}
		}
		q.Del(pairs[i])
		if pairs[i+1] != "" && !(pairs[i] == "tab" && pairs[i+1] == tabs[0].ID) {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return pathOfRun(sc.Run)
	}
	return pathOfRun(sc.Run) + "?" + q.Encode()
}

// feed is the address of this screen's live feed, without its start.
func (sc screen) feed() string {
	q := sc.values()
	q.Set("run", sc.Run)
	q.Set("tab", sc.Tab)
	return "/live?" + q.Encode()
}
