package web

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// wish is what a form on a run's page asks the API for. It answers the run to
// look at next: the same one, or a new one.
type wish func(r *http.Request, id string) (*api.Run, error)

// steer carries out a wish. What is refused is said on the page that the form
// stood on.
func (s *site) steer(ask wish) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := chi.URLParam(r, "id")
		back := backTo(r.FormValue("back"), pathOfRun(id))
		run, err := ask(r, id)
		if err == nil {
			if run.GetId() != id {
				back = pathOfRun(run.GetId())
			}
			http.Redirect(w, r, back, http.StatusSeeOther) //nolint:gosec // begins with /runs/
			return
		}
		p, code := describe(err)
		u, bad := url.Parse(back)
		if bad != nil || code == http.StatusNotFound || code >= http.StatusInternalServerError {
			s.fail(w, r, err)
			return
		}
		s.showRun(w, r, code, readScreen(id, u.Query()), p.Text)
	}
}

func (s *site) cancelRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.CancelRun(r.Context(), &api.CancelRunRequest{Id: id}, bigAnswers)
}

func (s *site) pauseRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.PauseRun(r.Context(), &api.PauseRunRequest{Id: id}, bigAnswers)
}

func (s *site) resumeRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.ResumeRun(r.Context(), &api.ResumeRunRequest{Id: id}, bigAnswers)
}

func (s *site) retryRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.RetryRun(r.Context(), &api.RetryRunRequest{Id: id, IdempotencyKey: r.FormValue("key")}, bigAnswers)
}

func (s *site) rerunRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.RerunRun(r.Context(), &api.RerunRunRequest{Id: id, From: r.FormValue("from"), IdempotencyKey: r.FormValue("key")}, bigAnswers)
}

func (s *site) replayRun(r *http.Request, id string) (*api.Run, error) {
	return s.runs.ReplayRun(r.Context(), &api.ReplayRunRequest{Id: id, IdempotencyKey: r.FormValue("key")}, bigAnswers)
}

// act is one button on a run's page with its form.
type act struct {
	Run  string
	Verb string // the last part of the address
	Icon string
	Text string
	Hint string
	Back string // the page that the form stands on
	From string // of rerun: the step
	Key  string // makes a form that is sent twice start one run; empty: it starts none
}

// acts are what the run can be asked as it stands. Cancelling has a form of its
// own, which asks again.
func (h head) acts() []act {
	id, back := h.Run.GetId(), h.Screen.with()
	starts := func(a act) act {
		a.Run, a.Back, a.Key = id, back, rand.Text()
		return a
	}
	var out []act
	switch st := h.Run.GetStatus(); {
	case finalRun(st):
		if st != api.Run_COMPLETED {
			out = append(out, starts(act{Verb: "retry", Icon: "again", Text: "Retry", Hint: "A new run that keeps every result and runs the rest"}))
		}
		out = append(out, starts(act{Verb: "replay", Icon: "running", Text: "Replay", Hint: "A new run in which every step ends as it did; nothing is launched"}))
	case h.Run.GetReason() == "cancelling":
	case st == api.Run_PAUSED:
		out = append(out, act{Run: id, Verb: "resume", Icon: "running", Text: "Resume", Hint: "Let the run go on", Back: back})
	default:
		out = append(out, act{Run: id, Verb: "pause", Icon: "paused", Text: "Pause", Hint: "Begin nothing more; what runs ends", Back: back})
	}
	return out
}

// rerun is the button that runs everything from the drawer's step on again, in a
// new run.
func (d stepData) rerun() act {
	return act{
		Run: d.Screen.Run, Verb: "rerun", Icon: "again", Text: "Rerun from here", Hint: "A new run that keeps what began before this step",
		Back: d.Screen.with(), From: d.Path, Key: rand.Text(),
	}
}

// whyCauses asks why the run is where it is. The page does without the answer.
func (s *site) whyCauses(ctx context.Context, id string) []*api.Cause {
	ctx, cancel := context.WithTimeout(ctx, countWait)
	defer cancel()
	why, err := s.runs.WhyRun(ctx, &api.WhyRunRequest{Id: id}, bigAnswers)
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "causes not read", "run", id, "err", err)
	}
	return why.GetCauses()
}
