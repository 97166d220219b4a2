package web

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// homeList is how many runs each part of the home page shows.
const homeList = 10

// homeData is what the home page shows; each list is newest first.
type homeData struct {
	Open     []*api.Approval // what people are asked
	Running  []*api.Run
	Waiting  []*api.Run // waiting, paused or queued
	Failed   []*api.Run
	Finished []*api.Run // completed or cancelled
	Server   string     // the address to reach us at
	Now      time.Time
}

// The statuses of each part of the page, as the filter of the list says them.
const (
	running  = "running"
	waiting  = "waiting,paused,queued"
	failed   = "failed"
	finished = "completed,cancelled"
)

func (d homeData) empty() bool {
	return len(d.Running)+len(d.Waiting)+len(d.Failed)+len(d.Finished) == 0
}

// poll is how soon the page looks again, in milliseconds: often while
// something goes on, else now and then.
func poll(active bool) string {
	if active {
		return "3000"
	}
	return "15000"
}

func (s *site) home(w http.ResponseWriter, r *http.Request) {
	d, err := s.homeData(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d.Server = address(r)
	if wantsFrame(r) {
		s.sendFrame(w, r, fragment{"home", homeLists(d)}, fragment{"nav-approvals", navApprovals(s.openApprovals(r.Context()), false)})
		return
	}
	s.show(w, r, http.StatusOK, page{"", "home", homePage(d)})
}

func (s *site) homeData(ctx context.Context) (homeData, error) {
	g, ctx := errgroup.WithContext(ctx)
	read := func(into *[]*api.Run, statuses string) {
		g.Go(func() error {
			page, err := s.runs.ListRuns(ctx, &api.ListRunsRequest{Filter: "status:" + statuses, PageSize: homeList}, bigAnswers)
			*into = page.GetRuns()
			return err
		})
	}
	d := homeData{Now: time.Now()}
	g.Go(func() error {
		list, err := s.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", PageSize: homeList}, bigAnswers)
		d.Open = list.GetApprovals()
		return err
	})
	read(&d.Running, running)
	read(&d.Waiting, waiting)
	read(&d.Failed, failed)
	read(&d.Finished, finished)
	return d, g.Wait()
}

// address is where the reader's browser reached us, for commands to copy.
func address(r *http.Request) string {
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
