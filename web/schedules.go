package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of the pages of schedules.
const (
	schedulesPage = 50
	firesPage     = 50
	firesAhead    = 5
)

// overlaps and catchUps are what a schedule may say, the default first, with its
// meaning in words.
var (
	overlaps = []member{
		{"skip the fire", "skip"}, {"wait for its end", "queue"}, {"run both", "allow"}, {"cancel that run", "cancel_previous"},
	}
	catchUps = []member{{"make up the newest one", "latest"}, {"make up all", "all"}, {"make up none", "none"}}
)

// schedulesData is what the list of schedules shows.
type schedulesData struct {
	Schedules []*api.Schedule
	Pipeline  string // only of this one; or empty
	Refused   string
	Next      string // address of the next page, or empty
	First     string // address of the first page, or empty when this is it
	Now       time.Time
}

// scheduleForm is what the form of a new schedule holds, as typed.
type scheduleForm struct {
	Pipeline, ID, Cron, Timezone, Inputs, Overlap, CatchUp, Jitter string
}

// newScheduleData is the page of a new schedule.
type newScheduleData struct {
	Form      scheduleForm
	Pipelines []*api.Pipeline // that can be chosen
	Refused   string
}

// backfillForm is what the form of a backfill holds, as typed.
type backfillForm struct{ From, To, Parallel string }

// scheduleData is the page of one schedule.
type scheduleData struct {
	Schedule *api.Schedule
	Fires    []*api.Fire // newest first
	Ahead    []time.Time
	Older    string // address of older fires, or empty
	Newest   string
	Form     backfillForm
	Refused  string // what the API said of the backfill
	Told     string // what a backfill has done
	Now      time.Time
}

func pathOfSchedule(id string) string { return "/schedules/" + url.PathEscape(id) }

// inZone is a moment as the clocks of a schedule show it.
func inZone(t time.Time, zone string) string {
	at, err := time.LoadLocation(zone)
	if err != nil || zone == "" {
		zone, at = "UTC", time.UTC
	}
	return t.In(at).Format("Mon 2006-01-02 15:04") + " " + zone
}

func (s *site) scheduleList(w http.ResponseWriter, r *http.Request) {
	s.showSchedules(w, r, http.StatusOK, "")
}

func (s *site) showSchedules(w http.ResponseWriter, r *http.Request, code int, refused string) {
	q := r.URL.Query()
	d := schedulesData{Pipeline: q.Get("pipeline"), Refused: refused, Now: time.Now()}
	list, err := s.schedules.ListSchedules(r.Context(), &api.ListSchedulesRequest{
		Pipeline: d.Pipeline, PageSize: schedulesPage, PageToken: q.Get("page"),
	}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Schedules = list.GetSchedules()
	if next := list.GetNextPageToken(); next != "" {
		d.Next = link("/schedules", "pipeline", d.Pipeline, "page", next)
	}
	if q.Get("page") != "" {
		d.First = link("/schedules", "pipeline", d.Pipeline)
	}
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"schedules", schedulesTable(d)})
		return
	}
	s.show(w, r, code, page{"Schedules", "schedules", schedulesListPage(d)})
}

func (s *site) schedule(w http.ResponseWriter, r *http.Request) {
	d := scheduleData{}
	if n := r.URL.Query().Get("added"); n != "" {
		d.Told = plural(number(n), "fire gets a run", "fires get a run") + ", oldest first."
	}
	s.showSchedule(w, r, http.StatusOK, d)
}

func (s *site) showSchedule(w http.ResponseWriter, r *http.Request, code int, d scheduleData) {
	ctx, id, token := r.Context(), named(r, "id"), r.URL.Query().Get("page")
	var err error
	if d.Schedule, err = s.schedules.GetSchedule(ctx, &api.GetScheduleRequest{Id: id}, bigAnswers); err != nil {
		s.fail(w, r, err)
		return
	}
	fires, err := s.schedules.ListFires(ctx, &api.ListFiresRequest{Id: id, PageSize: firesPage, PageToken: token, Next: firesAhead}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Fires, d.Now = fires.GetFires(), time.Now()
	for _, t := range fires.GetNext() {
		d.Ahead = append(d.Ahead, t.AsTime())
	}
	if next := fires.GetNextPageToken(); next != "" {
		d.Older = link(pathOfSchedule(id), "page", next)
	}
	if token != "" {
		d.Newest = pathOfSchedule(id)
	}
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"schedule", scheduleFacts(d)}, fragment{"fires", firesTable(d)})
		return
	}
	s.show(w, r, code, page{"Schedule " + id, "schedules", schedulePage(d)})
}

// pauseSchedule pauses a schedule or lets it fire again.
func (s *site) pauseSchedule(pause bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, id := r.Context(), named(r, "id")
		var err error
		if pause {
			_, err = s.schedules.PauseSchedule(ctx, &api.PauseScheduleRequest{Id: id}, bigAnswers)
		} else {
			_, err = s.schedules.ResumeSchedule(ctx, &api.ResumeScheduleRequest{Id: id}, bigAnswers)
		}
		if err == nil {
			http.Redirect(w, r, backTo(r.FormValue("back"), "/schedules", pathOfSchedule(id)), http.StatusSeeOther) //nolint:gosec // a page of schedules
			return
		}
		p, code := describe(err)
		if code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		s.showSchedules(w, r, code, p.Text)
	}
}

func (s *site) newSchedule(w http.ResponseWriter, r *http.Request) {
	s.showNewSchedule(w, r, http.StatusOK, newScheduleData{Form: scheduleForm{Pipeline: r.URL.Query().Get("pipeline")}})
}

func (s *site) showNewSchedule(w http.ResponseWriter, r *http.Request, code int, d newScheduleData) {
	list, err := s.pipelines.ListPipelines(r.Context(), &api.ListPipelinesRequest{PageSize: pipelinesPage}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Pipelines = list.GetPipelines()
	s.show(w, r, code, page{"New schedule", "schedules", newSchedulePage(d)})
}

// createSchedule stores a schedule, or shows the form again with what is wrong.
func (s *site) createSchedule(w http.ResponseWriter, r *http.Request) {
	value := func(name string) string {
		return strings.TrimSpace(strings.ReplaceAll(r.FormValue(name), "\r\n", "\n"))
	}
	f := scheduleForm{
		Pipeline: value("pipeline"), ID: value("id"), Cron: value("cron"), Timezone: value("timezone"), Inputs: value("inputs"),
		Overlap: value("overlap"), CatchUp: value("catch_up"), Jitter: value("jitter"),
	}
	req := &api.CreateScheduleRequest{
		Pipeline: f.Pipeline, Id: f.ID, Timezone: f.Timezone, Overlap: f.Overlap, CatchUp: f.CatchUp, Jitter: f.Jitter,
	}
	for line := range strings.Lines(f.Cron) {
		if line = strings.TrimSpace(line); line != "" {
			req.Cron = append(req.Cron, line)
		}
	}
	refused, code := "", http.StatusBadRequest
	if f.Inputs != "" {
		raw, err := fromYAML(f.Inputs)
		if err != nil {
			refused = "The inputs: " + err.Error() + "."
		}
		req.Inputs = string(raw)
	}
	if refused == "" {
		made, err := s.schedules.CreateSchedule(r.Context(), req, bigAnswers)
		if err == nil {
			http.Redirect(w, r, pathOfSchedule(made.GetId()), http.StatusSeeOther)
			return
		}
		var p problem
		if p, code = describe(err); code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		refused = p.Text
	}
	s.showNewSchedule(w, r, code, newScheduleData{Form: f, Refused: refused})
}

// fieldTime is how the browser's field for a time writes one; they are in UTC.
const fieldTime = "2006-01-02T15:04"

// backfill starts the runs of a stretch of time.
func (s *site) backfill(w http.ResponseWriter, r *http.Request) {
	id := named(r, "id")
	f := backfillForm{From: r.FormValue("from"), To: r.FormValue("to"), Parallel: strings.TrimSpace(r.FormValue("max_parallel"))}
	req, refused := f.request(id)
	code := http.StatusBadRequest
	if refused == "" {
		done, err := s.schedules.BackfillSchedule(r.Context(), req, bigAnswers)
		if err == nil {
			http.Redirect(w, r, link(pathOfSchedule(id), "added", itoa(done.GetAdded())), http.StatusSeeOther) //nolint:gosec // begins with /schedules/
			return
		}
		var p problem
		if p, code = describe(err); code >= http.StatusInternalServerError || code == http.StatusNotFound {
			s.fail(w, r, err)
			return
		}
		refused = p.Text
	}
	s.showSchedule(w, r, code, scheduleData{Form: f, Refused: refused})
}

// request turns the form into the API's; refused says what cannot be read.
func (f backfillForm) request(id string) (req *api.BackfillScheduleRequest, refused string) {
	req = &api.BackfillScheduleRequest{Id: id}
	read := func(text, what string) *timestamppb.Timestamp {
		if text == "" {
			return nil
		}
		t, err := time.Parse(fieldTime, text)
		if err != nil {
			refused = what + " is not a time as in 2026-01-31T06:00."
			return nil
		}
		return timestamppb.New(t)
	}
	req.From, req.To = read(f.From, "From"), read(f.To, "To")
	if f.Parallel != "" {
		n, err := strconv.ParseInt(f.Parallel, 10, 32)
		if err != nil {
			refused = "The number of runs at once is not a whole number."
		}
		req.MaxParallel = int32(n)
	}
	return req, refused
}

// fireState is the state whose icon and colour a fire has.
func fireState(f *api.Fire) state {
	switch f.GetState() {
	case "started":
		return "completed"
	case "pending":
		return "queued"
	case "buffered":
		return "waiting"
	case "skipped", "failed":
		return state(f.GetState())
	}
	return "unknown"
}

// meaning is a word of a schedule as people read it.
func meaning(of []member, word string) string {
	for i, m := range of {
		if m.Value == word || word == "" && i == 0 {
			return m.Name
		}
	}
	return human.Phrase(word)
}
