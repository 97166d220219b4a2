package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// runsPage is how many runs a page of the list holds.
const runsPage = 50

// runsData is what the list of runs shows.
type runsData struct {
	Filter  string
	Refused string // what the API says of the filter
	Chips   []chip
	Runs    []*api.Run
	Older   string // address of the next page, or empty
	Newest  string // address of the first page, or empty when this is it
	Live    bool   // the first page refreshes itself
	Active  bool
	Now     time.Time
}

// chip is a link that sets or clears the status in the filter.
type chip struct {
	State state
	Href  string
	On    bool
}

// chipStates are the statuses by which runs can be filtered at a click.
var chipStates = []state{"queued", "running", "waiting", "paused", "completed", "failed", "cancelled"}

func (s *site) runList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	filter, token := strings.TrimSpace(q.Get("filter")), q.Get("page")
	if looksLikeID(filter) {
		http.Redirect(w, r, pathOfRun(filter), http.StatusSeeOther) //nolint:gosec // begins with /runs/
		return
	}
	d := runsData{Filter: filter, Chips: chips(filter), Live: token == "", Now: time.Now()}
	if token != "" {
		d.Newest = link("/runs", "filter", filter)
	}
	list, err := s.runs.ListRuns(r.Context(), &api.ListRunsRequest{
		Filter: asFilter(filter), PageSize: runsPage, PageToken: token,
	}, bigAnswers)
	code := http.StatusOK
	if err != nil {
		var p problem
		if p, code = describe(err); code != http.StatusBadRequest {
			s.fail(w, r, err)
			return
		}
		d.Refused, d.Live = p.Text, false
	}
	d.Runs = list.GetRuns()
	d.Active = slices.ContainsFunc(d.Runs, func(run *api.Run) bool { return !finalRun(run.GetStatus()) })
	if next := list.GetNextPageToken(); next != "" {
		d.Older = link("/runs", "filter", filter, "page", next)
	}
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"runs", runsTable(d)})
		return
	}
	s.show(w, r, code, page{"Runs", "runs", runsListPage(d)})
}

// looksLikeID reports whether somebody put a whole run id into the search.
func looksLikeID(s string) bool {
	return len(s) == 36 && strings.Count(s, "-") == 4 && !strings.ContainsAny(s, " :/")
}

// asFilter makes a lone word mean a pipeline's name.
func asFilter(s string) string {
	if s != "" && !strings.ContainsAny(s, ":= \t") {
		return "pipeline:" + s
	}
	return s
}

// chips builds the status links: each keeps the rest of the filter.
func chips(filter string) []chip {
	var rest []string
	var on []string
	for term := range strings.FieldsSeq(filter) {
		if v, ok := strings.CutPrefix(term, "status:"); ok {
			on = strings.Split(strings.ToLower(v), ",")
			continue
		}
		rest = append(rest, term)
	}
	others := strings.Join(rest, " ")
	out := make([]chip, 0, len(chipStates))
	for _, st := range chipStates {
		c := chip{State: st, On: slices.Contains(on, string(st))}
		if c.On {
			c.Href = link("/runs", "filter", others)
		} else {
			c.Href = link("/runs", "filter", strings.TrimSpace("status:"+string(st)+" "+others))
		}
		out = append(out, c)
	}
	return out
}

// labelFilter is the filter that finds the runs with that label.
func labelFilter(name, value string) string {
	if strings.ContainsFunc(value, unicode.IsSpace) || strings.HasPrefix(value, `"`) {
		value = strconv.Quote(value)
	}
	return "label." + name + "=" + value
}
