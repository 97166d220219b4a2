package web

import (
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"golang.org/x/sync/errgroup"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// pipelinesPage is how many pipelines a page of the list holds.
const pipelinesPage = 50

// pipelinesData is what the list of pipelines shows.
type pipelinesData struct {
	Pipelines []*api.Pipeline
	Next      string // address of the next page, or empty
	First     string // address of the first page, or empty when this is it
	Now       time.Time
}

func (s *site) pipelineList(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("page")
	list, err := s.pipelines.ListPipelines(r.Context(), &api.ListPipelinesRequest{PageSize: pipelinesPage, PageToken: token}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	d := pipelinesData{Pipelines: list.GetPipelines(), Now: time.Now()}
	if next := list.GetNextPageToken(); next != "" {
		d.Next = link("/pipelines", "page", next)
	}
	if token != "" {
		d.First = "/pipelines"
	}
	s.show(w, r, http.StatusOK, page{"Pipelines", "pipelines", pipelinesListPage(d)})
}

// pipelineData is one registered pipeline.
type pipelineData struct {
	Pipeline *api.Pipeline
	Versions []*api.Pipeline
	Runs     []*api.Run
	Graph    drawing
	Lines    []sourceLine
	Left     int
	Now      time.Time
}

func (s *site) pipeline(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	d := pipelineData{Now: time.Now()}
	g, ctx := errgroup.WithContext(r.Context())
	g.Go(func() (err error) {
		d.Pipeline, err = s.pipelines.GetPipeline(ctx, &api.GetPipelineRequest{Name: id, Version: r.URL.Query().Get("version")}, bigAnswers)
		return err
	})
	g.Go(func() error {
		list, err := s.pipelines.ListVersions(ctx, &api.ListVersionsRequest{Name: id}, bigAnswers)
		d.Versions = list.GetVersions()
		return err
	})
	g.Go(func() error {
		list, err := s.runs.ListRuns(ctx, &api.ListRunsRequest{Filter: "pipeline:" + id, PageSize: homeList}, bigAnswers)
		d.Runs = list.GetRuns()
		return err
	})
	if err := g.Wait(); err != nil {
		s.fail(w, r, err)
		return
	}
	d.Graph = preview(d.Pipeline.GetGraph())
	d.Lines, d.Left = source(d.Pipeline.GetSource())
	s.show(w, r, http.StatusOK, page{d.Pipeline.GetId(), "pipelines", pipelinePage(d)})
}
