package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// keysInList is how many fair keys a row of the list names.
const keysInList = 3

// queuesData is what the list of queues shows.
type queuesData struct {
	Queues  []*api.Queue
	Refused string // what the API said of a form on the page
	Now     time.Time
}

func (d queuesData) active() bool {
	for _, q := range d.Queues {
		if q.GetWaiting()+q.GetRunning() > 0 {
			return true
		}
	}
	return false
}

// queueForm is what the form of a queue's limits holds, as typed.
type queueForm struct {
	MaxRunning string
	Rate       string
	Burst      string
	Weight     string
	Weights    string // of fair keys: one key=weight per line
}

// queueData is the page of one queue.
type queueData struct {
	Queue   *api.Queue
	Form    queueForm
	Refused string
	Now     time.Time
}

func pathOfQueue(name string) string { return "/queues/" + url.PathEscape(name) }

// named reads a name from the address, where it may hold anything.
func named(r *http.Request, what string) string {
	text := chi.URLParam(r, what)
	if r.URL.RawPath == "" { // chi has matched the decoded path
		return text
	}
	name, err := url.PathUnescape(text)
	if err != nil {
		return text
	}
	return name
}

func (s *site) queueList(w http.ResponseWriter, r *http.Request) {
	s.showQueues(w, r, http.StatusOK, "")
}

func (s *site) showQueues(w http.ResponseWriter, r *http.Request, code int, refused string) {
	list, err := s.queues.ListQueues(r.Context(), &api.ListQueuesRequest{}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d := queuesData{Queues: list.GetQueues(), Refused: refused, Now: time.Now()}
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"queues", queuesTable(d)})
		return
	}
	s.show(w, r, code, page{"Queues", "queues", queuesPage(d)})
}

func (s *site) queue(w http.ResponseWriter, r *http.Request) {
	q, err := s.queues.GetQueue(r.Context(), &api.GetQueueRequest{Name: named(r, "name")}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showQueue(w, r, http.StatusOK, queueData{Queue: q, Form: formOf(q)})
}

func (s *site) showQueue(w http.ResponseWriter, r *http.Request, code int, d queueData) {
	d.Now = time.Now()
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"queue", queueFacts(d)})
		return
	}
	s.show(w, r, code, page{"Queue " + d.Queue.GetName(), "queues", queuePage(d)})
}

// formOf fills the form of a queue with what is set.
func formOf(q *api.Queue) queueForm {
	f := queueForm{MaxRunning: itoa(q.GetMaxRunning()), Rate: q.GetRate(), Weight: itoa(q.GetWeight())}
	if q.GetBurst() > 0 && q.GetRate() != "" {
		f.Burst = itoa(q.GetBurst())
	}
	for _, k := range sortedKeys(q.GetWeights()) {
		f.Weights += k + "=" + itoa(q.GetWeights()[k]) + "\n"
	}
	return f
}

// pauseQueue pauses a queue or lets it go on.
func (s *site) pauseQueue(pause bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, name := r.Context(), named(r, "name")
		var err error
		if pause {
			_, err = s.queues.PauseQueue(ctx, &api.PauseQueueRequest{Name: name}, bigAnswers)
		} else {
			_, err = s.queues.ResumeQueue(ctx, &api.ResumeQueueRequest{Name: name}, bigAnswers)
		}
		if err == nil {
			http.Redirect(w, r, backTo(r.FormValue("back"), "/queues", pathOfQueue(name)), http.StatusSeeOther) //nolint:gosec // a page of queues
			return
		}
		p, code := describe(err)
		if code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		s.showQueues(w, r, code, p.Text)
	}
}

// setQueue changes the limits of a queue. What is refused comes back as typed.
func (s *site) setQueue(w http.ResponseWriter, r *http.Request) {
	name := named(r, "name")
	f := queueForm{
		MaxRunning: strings.TrimSpace(r.FormValue("max_running")), Rate: strings.TrimSpace(r.FormValue("rate")), Burst: strings.TrimSpace(r.FormValue("burst")),
		Weight: strings.TrimSpace(r.FormValue("weight")), Weights: strings.ReplaceAll(r.FormValue("weights"), "\r\n", "\n"),
	}
	req, wrong := f.request(name)
	code := http.StatusBadRequest
	if wrong == "" {
		_, err := s.queues.SetQueue(r.Context(), req, bigAnswers)
		if err == nil {
			http.Redirect(w, r, pathOfQueue(name), http.StatusSeeOther) //nolint:gosec // begins with /queues/
			return
		}
		var p problem
		if p, code = describe(err); code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		wrong = p.Text
	}
	q, err := s.queues.GetQueue(r.Context(), &api.GetQueueRequest{Name: name}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showQueue(w, r, code, queueData{Queue: q, Form: f, Refused: wrong})
}

// request turns the form into the API's; wrong says what cannot be read.
func (f queueForm) request(name string) (req *api.SetQueueRequest, wrong string) {
	req = &api.SetQueueRequest{Name: name, Rate: &f.Rate, Weights: map[string]int32{}}
	whole := func(text, what string, empty int32) int32 {
		if text == "" {
			return empty
		}
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			wrong = what + " is not a whole number."
		}
		return int32(n)
	}
	limit, weight := whole(f.MaxRunning, "The number of runs", 0), whole(f.Weight, "The weight", 1)
	req.MaxRunning, req.Weight = &limit, &weight
	if f.Rate != "" {
		req.Burst = whole(f.Burst, "The burst", 0)
	}
	for line := range strings.Lines(f.Weights) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		i := strings.LastIndexByte(line, '=')
		if i < 0 {
			return nil, "The weights are lines of key=weight; this is none: " + clip(line, 60)
		}
		key := strings.TrimSpace(line[:i])
		req.Weights[key] = whole(strings.TrimSpace(line[i+1:]), "The weight of "+clip(key, 60), 1)
	}
	return req, wrong
}
