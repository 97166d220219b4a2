package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// maxMessage bounds an answer: a page of steps carries their output.
const maxMessage = 1 << 30

// client is the API, wherever it is.
type client struct {
	runs      api.RunsClient
	approvals api.ApprovalsClient
	artifacts api.ArtifactsClient
	pipelines api.PipelinesClient
	workers   api.WorkersClient
	models    api.ModelsClient
	tools     api.ToolsClient
	calls     api.CallsClient
	skills    api.SkillsClient
	schedules api.SchedulesClient
	queues    api.QueuesClient
	budgets   api.BudgetsClient
	storage   api.StorageClient
	house     *house // nil: the API is another process's
	close     func()
}

func newClient(conn grpc.ClientConnInterface) *client {
	return &client{
		runs: api.NewRunsClient(conn), approvals: api.NewApprovalsClient(conn), artifacts: api.NewArtifactsClient(conn),
		pipelines: api.NewPipelinesClient(conn), workers: api.NewWorkersClient(conn), models: api.NewModelsClient(conn), schedules: api.NewSchedulesClient(conn), tools: api.NewToolsClient(conn), calls: api.NewCallsClient(conn), skills: api.NewSkillsClient(conn), queues: api.NewQueuesClient(conn), budgets: api.NewBudgetsClient(conn), storage: api.NewStorageClient(conn), close: func() {},
	}
}

// remote reports whether the verb speaks to a server.
func (c *cli) remote() bool { return c.server != "" }

// dial connects to the server that was named. Nothing is sent yet.
func (c *cli) dial() (*client, error) {
	u, err := address(c.server)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	port := "80"
	if u.Scheme == "https" {
		creds, port = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), "443"
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), port)
	}
	conn, err := grpc.NewClient("dns:///"+host, grpc.WithTransportCredentials(creds), grpc.WithUserAgent("orchestrator/"+version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, usage("write it like http://127.0.0.1:8080", "%q is not the address of a server", c.server)
	}
	cl := newClient(conn)
	cl.close = func() { _ = conn.Close() } // nothing is left to lose
	return cl, nil
}

// compiler is the API for verbs that only look at a pipeline's source: no
// store is opened for them.
func (c *cli) compiler(ctx context.Context) (*client, error) {
	if c.remote() {
		return c.dial()
	}
	return c.embed(ctx, plan{bare: true})
}

// reader is the API for verbs that read runs and write to them: the server's,
// or one over the embedded store that executes nothing.
func (c *cli) reader(ctx context.Context) (*client, error) {
	if c.remote() {
		return c.dial()
	}
	cl, err := c.embed(ctx, plan{})
	if err != nil {
		return nil, err
	}
	// What a dead process left behind is said to be queued, not running.
	if _, err := cl.house.store.Reclaim(ctx); err != nil {
		cl.close()
		return nil, err
	}
	return cl, nil
}

// embed is the API in this process, over the embedded store.
func (c *cli) embed(ctx context.Context, p plan) (*client, error) {
	if p.cfg == nil {
		cfg, err := c.embeddedConfig()
		if err != nil {
			return nil, err
		}
		p.cfg = cfg
	}
	if p.env == nil {
		p.env = c.env
	}
	if p.log == nil {
		p.log = logger(c.log, p.cfg, false)
	}
	p.home = c.home()
	p.grace = 300 * time.Millisecond // its only client is this verb
	h, err := build(ctx, p)
	if err != nil {
		return nil, err
	}
	cl := newClient(h.conn())
	cl.house, cl.close = h, h.close
	return cl, nil
}

// embeddedConfig is the settings for work in this process. Its store is always
// the file in the home: DATABASE_URL is a common name, and may mean any
// database of the caller's.
func (c *cli) embeddedConfig() (*config, error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return nil, err
	}
	cfg.Storage.Backend = "sqlite"
	if cfg.Monitoring.LogLevel == "info" {
		cfg.Monitoring.LogLevel = "warn"
	}
	return cfg, nil
}

// findRun completes what people write for a run: an id, or last.
func (cl *client) findRun(ctx context.Context, text string) (string, error) {
	if text != "last" {
		return text, nil
	}
	list, err := cl.runs.ListRuns(ctx, &api.ListRunsRequest{PageSize: 1})
	if err != nil {
		return "", err
	}
	if len(list.GetRuns()) == 0 {
		return "", &failure{code: exitRefused, what: "there are no runs yet", fix: []string{"start one with: orchestrator run FILE"}}
	}
	return list.GetRuns()[0].GetId(), nil
}

// orphaned reports whether the run waits in the embedded store for a process
// that continues it.
func (cl *client) orphaned(run *api.Run) bool {
	return cl.house != nil && run.GetStatus() == api.Run_QUEUED
}

// steps reads all steps of a run.
func (cl *client) steps(ctx context.Context, run string) ([]*api.Step, error) {
	var steps []*api.Step
	for token := ""; ; {
		page, err := cl.runs.ListSteps(ctx, &api.ListStepsRequest{Id: run, PageSize: 500, PageToken: token})
		if err != nil {
			return nil, err
		}
		steps = append(steps, page.GetSteps()...)
		if token = page.GetNextPageToken(); token == "" {
			return steps, nil
		}
	}
}

// engine is the API in this process with an engine for one run.
func (c *cli) engine(ctx context.Context, p plan) (*client, error) {
	p.lanes, p.environ, p.secret = true, executor.Callers(c.environ), c.secret
	if p.cfg == nil {
		cfg, err := c.embeddedConfig()
		if err != nil {
			return nil, err
		}
		p.cfg = cfg
	}
	p.cfg.Execution.Grace = time.Millisecond // it is closed early only to leave at once
	cl, err := c.embed(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := cl.house.ready(ctx); err != nil {
		cl.close()
		return nil, err
	}
	return cl, nil
}

// secret finds a secret in the caller's environment, under its name for
// secrets or its own.
func (c *cli) secret(name string) (string, bool) {
	if v, ok := executor.EnvSecret(name); ok {
		return v, true
	}
	return c.env(name)
}

// adopt continues a run whose process has gone, in this process. It reports
// whether there was anything to continue.
func (cl *client) adopt(ctx context.Context, id string) (bool, error) {
	if _, err := cl.house.store.Reclaim(ctx); err != nil {
		return false, err
	}
	err := cl.house.engine.Resume(ctx, pipeline.RunID(id))
	if pipeline.KindOf(err) == pipeline.Conflict {
		return false, nil // it has an owner, or has finished
	}
	return err == nil, err
}

// again is another call of this command on the same runs.
func (c *cli) again(words string) string {
	env, _ := c.env("ORCHESTRATOR_SERVER")
	if c.remote() && strings.TrimRight(env, "/") != c.server {
		words += " --server " + c.server
	}
	return "orchestrator " + words
}

// idle says why a run of the embedded store does not go on.
func idle(id string) string {
	return fmt.Sprintf("no process executes this run; continue it with: orchestrator runs resume %s", id)
}
