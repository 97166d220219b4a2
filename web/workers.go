package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// attemptsInList is how many attempts a row of the workers names.
const attemptsInList = 4

// workersData is what the list of workers shows.
type workersData struct {
	Workers []*api.Worker
	Label   string // only those that have it; or empty
	Refused string
	Now     time.Time
}

func (d workersData) active() bool {
	return slices.ContainsFunc(d.Workers, func(w *api.Worker) bool { return w.GetBusy() > 0 })
}

func (s *site) workerList(w http.ResponseWriter, r *http.Request) {
	s.showWorkers(w, r, http.StatusOK, "")
}

func (s *site) showWorkers(w http.ResponseWriter, r *http.Request, code int, refused string) {
	d := workersData{Label: r.URL.Query().Get("label"), Refused: refused, Now: time.Now()}
	req := &api.ListWorkersRequest{}
	if d.Label != "" {
		req.Labels = []string{d.Label}
	}
	list, err := s.workers.ListWorkers(r.Context(), req, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Workers = list.GetWorkers()
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"workers", workersTable(d)})
		return
	}
	s.show(w, r, code, page{"Workers", "workers", workersPage(d)})
}

func (s *site) drainWorker(w http.ResponseWriter, r *http.Request) {
	_, err := s.workers.DrainWorker(r.Context(), &api.DrainWorkerRequest{Name: named(r, "name")}, bigAnswers)
	if err == nil {
		http.Redirect(w, r, "/workers", http.StatusSeeOther)
		return
	}
	p, code := describe(err)
	if code >= http.StatusInternalServerError {
		s.fail(w, r, err)
		return
	}
	s.showWorkers(w, r, code, p.Text)
}

// workerState is the state whose icon and colour a worker's status has.
func workerState(w *api.Worker) state {
	switch w.GetStatus() {
	case "connected":
		return "completed"
	case "draining":
		return "waiting"
	case "lost":
		return "failed"
	}
	return "unknown"
}

// resource is one resource of a worker: how much is taken, of how much.
type resource struct {
	Name      string
	Used, All string
}

func resourcesOf(w *api.Worker) []resource {
	var out []resource
	add := func(name, unit string, used, all float64) {
		if all > 0 {
			out = append(out, resource{name, amount(used), amount(all) + unit})
		}
	}
	all, used := w.GetResources(), w.GetUsed()
	add("CPU", "", used.GetCpu(), all.GetCpu())
	add("memory", " GB", used.GetMemoryGb(), all.GetMemoryGb())
	add("GPU", "", used.GetGpu(), all.GetGpu())
	return out
}

// amount is a number with one digit behind the point, where it needs one.
func amount(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// actionsOf names what a worker can carry out.
func actionsOf(w *api.Worker) []string {
	out := slices.Clone(w.GetRuns())
	for _, a := range w.GetActions() {
		out = append(out, a.GetName())
	}
	return out
}
