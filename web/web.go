// Package web is the dashboard: pages rendered on the server with templ and
// kept fresh over one WebSocket per tab. Every page works by reload without
// JavaScript; static/live.js only makes it live.
//
// The dashboard is a client of the public API like any other and knows nothing
// of the engine: it reads and changes everything through Config.Conn. What it
// keeps of a run between requests (see view) can be thrown away at any time.
//
// One page is one .templ file. Components take data and only format it; each
// part that changes while a run goes on has an id, and the live feed (live.go)
// renders the same component again and sends it to be swapped by that id.
//
//	h := web.New(web.Config{Conn: conn, Version: "1.0.0"})
//	mux.Handle("/", h)
package web

import (
	"cmp"
	"log/slog"
	"net/http"

	"github.com/a-h/templ"
	"github.com/go-chi/chi/v5"
	"google.golang.org/grpc"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Config says whose pages these are.
type Config struct {
	// Conn reaches the API; required.
	Conn grpc.ClientConnInterface
	// Version is shown on the about page and may be empty.
	Version string
	// Logger gets what went wrong on our side; default: slog.Default().
	Logger *slog.Logger
}

// maxMessage bounds an answer of the API: a page of steps carries their output,
// which may be 16 MiB each.
const maxMessage = 1 << 30

// maxForm bounds a posted form: a pipeline of 8 MiB with its inputs, escaped.
const maxForm = 32 << 20

// site serves the pages.
type site struct {
	runs      api.RunsClient
	pipelines api.PipelinesClient
	approvals api.ApprovalsClient
	artifacts api.ArtifactsClient
	storage   api.StorageClient
	calls     api.CallsClient
	models    api.ModelsClient
	tools     api.ToolsClient
	skills    api.SkillsClient
	budgets   api.BudgetsClient
	queues    api.QueuesClient
	schedules api.SchedulesClient
	workers   api.WorkersClient
	views     *views
	inbox     *inbox
	version   string
	log       *slog.Logger
}

func newSite(cfg Config) *site {
	conn := cfg.Conn
	s := &site{
		runs:      api.NewRunsClient(conn),
		pipelines: api.NewPipelinesClient(conn),
		approvals: api.NewApprovalsClient(conn),
		artifacts: api.NewArtifactsClient(conn),
		storage:   api.NewStorageClient(conn),
		calls:     api.NewCallsClient(conn),
		models:    api.NewModelsClient(conn),
		tools:     api.NewToolsClient(conn),
		skills:    api.NewSkillsClient(conn),
		budgets:   api.NewBudgetsClient(conn),
		queues:    api.NewQueuesClient(conn),
		schedules: api.NewSchedulesClient(conn),
		workers:   api.NewWorkersClient(conn),
		views:     newViews(),
		version:   cfg.Version,
		log:       cmp.Or(cfg.Logger, slog.Default()),
	}
	s.inbox = &inbox{site: s, bells: map[chan struct{}]struct{}{}}
	return s
}

// New returns the handler of all pages, to be mounted at "/".
func New(cfg Config) http.Handler {
	s := newSite(cfg)
	r := chi.NewRouter()
	r.Use(s.recovered, headers, http.NewCrossOriginProtection().Handler, limitBody)
	r.Get("/static/{name}", serveStatic)
	r.Get("/favicon.ico", serveFavicon)
	r.Get("/", s.home)
	r.Get("/runs", s.runList)
	r.Get("/runs/{id}", s.run)
	for verb, ask := range map[string]wish{
		"cancel": s.cancelRun, "pause": s.pauseRun, "resume": s.resumeRun,
		"retry": s.retryRun, "rerun": s.rerunRun, "replay": s.replayRun,
	} {
		r.Post("/runs/{id}/"+verb, s.steer(ask))
	}
	r.Post("/runs/{id}/signal", s.sendSignal)
	r.Post("/runs/{id}/steer", s.steerRun)
	r.Get("/runs/{id}/calls", s.talkPage)
	r.Get("/runs/{id}/call", s.callPage)
	r.Get("/models", s.modelList)
	r.Get("/tools", s.toolList)
	r.Get("/skills", s.skillList)
	r.Get("/skills/{name}", s.skill)
	r.Get("/runs/{id}/artifact", s.artifact)
	r.Get("/approvals", s.approvalList)
	r.Get("/approvals/{id}", s.approval)
	r.Post("/approvals/{id}", s.decide)
	r.Get("/live", s.live)
	r.Get("/new", s.newRun)
	r.Post("/new", s.submitRun)
	r.Post("/new/check", s.checkRun)
	r.Get("/pipelines", s.pipelineList)
	r.Get("/pipelines/{id}", s.pipeline)
	r.Get("/runs/{id}/fork", s.forkPlanner)
	r.Post("/runs/{id}/fork", s.submitFork)
	r.Get("/queues", s.queueList)
	r.Get("/queues/{name}", s.queue)
	r.Post("/queues/{name}/pause", s.pauseQueue(true))
	r.Post("/queues/{name}/resume", s.pauseQueue(false))
	r.Post("/queues/{name}/limits", s.setQueue)
	r.Get("/schedules", s.scheduleList)
	r.Post("/schedules", s.createSchedule)
	r.Get("/schedules/new", s.newSchedule)
	r.Get("/schedules/{id}", s.schedule)
	r.Post("/schedules/{id}/pause", s.pauseSchedule(true))
	r.Post("/schedules/{id}/resume", s.pauseSchedule(false))
	r.Post("/schedules/{id}/backfill", s.backfill)
	r.Get("/workers", s.workerList)
	r.Post("/workers/{name}/drain", s.drainWorker)
	r.Get("/about", s.about)
	r.Get("/storage", s.storagePage)
	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.notFound)
	return r
}

// headers sets what every answer carries. Scripts and styles come from our own
// files only, and nothing may frame or embed the pages.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic of a page into an error page.
func (s *site) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // recover gives the value itself
				panic(p)
			}
			s.log.ErrorContext(r.Context(), "page panicked", "path", r.URL.Path, "panic", p)
			s.complain(w, r, http.StatusInternalServerError, problem{
				Title: "Something went wrong", Text: "The server could not draw this page. Its log says why.",
			})
		}()
		next.ServeHTTP(w, r)
	})
}

// page is one page: its title, the entry of the navigation that is lit, and its
// own part.
type page struct {
	Title   string
	Section string
	Body    templ.Component
}

// show renders a whole page.
func (s *site) show(w http.ResponseWriter, r *http.Request, code int, p page) {
	open := s.openApprovals(r.Context())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	out := compressed(w, r)
	defer out.Close()
	w.WriteHeader(code)
	if err := layout(p, open).Render(r.Context(), out); err != nil && r.Context().Err() == nil {
		s.log.WarnContext(r.Context(), "page not sent", "path", r.URL.Path, "err", err)
	}
}
