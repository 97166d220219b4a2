package web

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// fake is an API that tells stories: its runs are written by the tests.
type fake struct {
	api.UnimplementedRunsServer
	api.UnimplementedPipelinesServer
	api.UnimplementedApprovalsServer
	api.UnimplementedArtifactsServer
	api.UnimplementedStorageServer

	mu        sync.Mutex
	runs      map[string]*story
	pipelines []*api.Pipeline // newest version first
	created   []*api.CreateRunRequest
	dry       []*api.CreateRunRequest
	approvals []*api.Approval // oldest first
	decided   []*api.DecideApprovalRequest
	signals   []*api.SendSignalRequest
	blobs     map[string]string // content by digest
	calls     map[string]int
	ops       *operations
	minds     *minds
	// create, if set, answers CreateRun instead.
	create func(*api.CreateRunRequest) (*api.Run, error)
}

// story is one run of the fake: what has happened, and who waits for more.
type story struct {
	f          *fake
	run        *api.Run
	steps      []*api.Step
	index      map[string]int
	events     []*api.Event
	live       []*api.Event // what is only live, and is shown to one viewer
	logs       []*api.LogLine
	graph      *api.Graph
	definition *api.Definition
	changed    chan struct{} // closed and replaced at each change
}

// epoch is when the fake's stories begin.
var epoch = time.Now().Add(-5 * time.Minute).Truncate(time.Second)

func newFake() *fake {
	f := &fake{runs: map[string]*story{}, calls: map[string]int{}, blobs: map[string]string{}}
	f.ops = &operations{f: f}
	f.minds = demoMinds(f)
	return f
}

// dial serves f over memory and returns the connection to it.
func dial(t testing.TB, f *fake) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		f.mu.Lock()
		f.calls[info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]]++
		f.mu.Unlock()
		return h(ctx, req)
	}))
	api.RegisterRunsServer(srv, f)
	api.RegisterPipelinesServer(srv, f)
	api.RegisterApprovalsServer(srv, f)
	api.RegisterArtifactsServer(srv, f)
	api.RegisterStorageServer(srv, f)
	f.register(srv)
	api.RegisterQueuesServer(srv, f.ops)
	api.RegisterSchedulesServer(srv, f.ops)
	api.RegisterWorkersServer(srv, f.ops)
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		srv.Stop()
		<-done
	})
	return conn
}

// idOf is the n-th id: ids sort by time.
func idOf(n int) string { return fmt.Sprintf("019aa3f2-%04x-7abc-8def-0123456789ab", n) }

// begin adds a run of the given plan.
func (f *fake) begin(n int, pipeline string, g *api.Graph, source string) *story {
	s := &story{
		f: f, graph: g, index: map[string]int{}, changed: make(chan struct{}),
		run: &api.Run{
			Id: idOf(n), Pipeline: pipeline, Version: "1.2.0", PlanDigest: "sha256:" + strings.Repeat("4f", 32),
			Status: api.Run_QUEUED, Inputs: `{"repo":"acme/site","depth":"shallow"}`, CreatedAt: timestamppb.New(epoch), Usage: &api.Usage{},
		},
		definition: &api.Definition{File: pipeline + ".yaml", Source: source, PlanDigest: "sha256:" + strings.Repeat("4f", 32)},
	}
	f.mu.Lock()
	f.runs[s.run.Id] = s
	f.mu.Unlock()
	s.tell("run_created", "", epoch)
	return s
}

// tell adds an event that carries the run, or the step at path, as it is now.
func (s *story) tell(typ, path string, at time.Time) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	e := &api.Event{RunId: s.run.Id, Seq: int32(len(s.events) + 1), Type: typ, Path: path, At: timestamppb.New(at)}
	name, m := "run", proto.Message(s.run)
	if path != "" {
		st := s.steps[s.index[path]]
		name, m, e.Attempt = "step", st, st.Attempt
	}
	b, err := wire.Marshal(m)
	if err != nil {
		panic(err)
	}
	e.Data = `{"` + name + `":` + string(b) + `}`
	if typ == "step_started" && path == "each_issue" {
		e.Data = `{"items":[` + strings.Repeat(`1,`, 19) + `1],"` + name + `":` + string(b) + `}`
	}
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

// do changes the run under the lock.
func (s *story) do(f func(r *api.Run)) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.run = proto.CloneOf(s.run)
	f(s.run)
}

func (s *story) start(at time.Time) {
	s.do(func(r *api.Run) { r.Status, r.StartedAt = api.Run_RUNNING, timestamppb.New(at) })
	s.tell("run_started", "", at)
}

func (s *story) finish(st api.Run_Status, at time.Time, change func(r *api.Run)) {
	s.do(func(r *api.Run) {
		r.Status, r.FinishedAt = st, timestamppb.New(at)
		if change != nil {
			change(r)
		}
	})
	s.tell("run_finished", "", at)
}

// step changes or adds the instance at path and tells of it.
func (s *story) step(path string, st api.Step_Status, at time.Time, change func(*api.Step)) {
	s.f.mu.Lock()
	i, ok := s.index[path]
	if !ok {
		i = len(s.steps)
		s.index[path] = i
		id, _, _ := place(path)
		s.steps = append(s.steps, &api.Step{
			Path: path, Id: id[strings.LastIndexByte(id, '/')+1:], Kind: "command", Attempt: 1,
			StartedAt: timestamppb.New(at), Parameters: `{"command":["make","test"]}`, Worker: "replica-1",
		})
	}
	step := proto.CloneOf(s.steps[i])
	was := step.Status
	step.Status = st
	typ := "step_started"
	switch {
	case finalStep(st):
		typ = "step_finished"
		step.FinishedAt = timestamppb.New(at)
		if !finalStep(was) {
			s.run = proto.CloneOf(s.run)
			s.run.Usage.Steps++
		}
	case st == api.Step_WAITING:
		typ = "step_retrying"
	}
	retrying := typ == "step_retrying"
	if st == api.Step_SKIPPED {
		typ = "step_skipped"
	}
	if change != nil {
		change(step)
	}
	if retrying && step.Waiting != nil {
		typ = "step_waiting"
	}
	s.steps[i] = step
	s.f.mu.Unlock()
	s.tell(typ, path, at)
}

// say prints a line.
func (s *story) say(path, stream, text string, at time.Time) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.logs = append(s.logs, &api.LogLine{Path: path, Attempt: 1, N: int32(len(s.logs) + 1), At: timestamppb.New(at), Stream: stream, Text: text})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (f *fake) story(id string) (*story, error) {
	s, ok := f.runs[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no run %s", id)
	}
	return s, nil
}

func (f *fake) GetRun(_ context.Context, r *api.GetRunRequest) (*api.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	return s.run, nil
}

func (f *fake) ListRuns(_ context.Context, r *api.ListRunsRequest) (*api.ListRunsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*api.Run
	for _, s := range f.runs {
		all = append(all, s.run)
	}
	slices.SortFunc(all, func(a, b *api.Run) int { return strings.Compare(b.Id, a.Id) })
	out := &api.ListRunsResponse{}
	for _, run := range all {
		fits := r.GetPageToken() == "" || run.Id < r.GetPageToken()
		for term := range strings.FieldsSeq(r.GetFilter()) {
			k, v, ok := strings.Cut(term, ":")
			switch {
			case k == "status" && ok:
				fits = fits && slices.Contains(strings.Split(strings.ToUpper(v), ","), run.Status.String())
			case k == "pipeline" && ok:
				fits = fits && run.Pipeline == v
			case k == "parent" && ok:
				fits = fits && run.ParentRun == v
			case k == "forked_from" && ok:
				fits = fits && run.ForkedFrom == v
			case strings.HasPrefix(term, "label."):
				k, v, _ := strings.Cut(strings.TrimPrefix(term, "label."), "=")
				fits = fits && run.Labels[k] == v
			default:
				return nil, status.Errorf(codes.InvalidArgument, "unknown filter %q (known: status, pipeline, label.NAME)", term)
			}
		}
		if !fits {
			continue
		}
		if len(out.Runs) == int(r.GetPageSize()) {
			out.NextPageToken = out.Runs[len(out.Runs)-1].Id
			break
		}
		out.Runs = append(out.Runs, run)
	}
	return out, nil
}

func (f *fake) ListSteps(_ context.Context, r *api.ListStepsRequest) (*api.ListStepsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	from := 0
	if r.GetPageToken() != "" {
		if from, err = strconv.Atoi(r.GetPageToken()); err != nil {
			return nil, status.Error(codes.InvalidArgument, "bad page token")
		}
	}
	to := min(len(s.steps), from+int(r.GetPageSize()))
	out := &api.ListStepsResponse{Steps: s.steps[from:to:to]}
	if to < len(s.steps) {
		out.NextPageToken = strconv.Itoa(to)
	}
	return out, nil
}

func (f *fake) ListEvents(_ context.Context, r *api.ListEventsRequest) (*api.ListEventsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	from := min(len(s.events), int(r.GetAfter()))
	to := min(len(s.events), from+int(r.GetPageSize()))
	out := &api.ListEventsResponse{Events: s.events[from:to:to]}
	if to < len(s.events) {
		out.NextPageToken = strconv.Itoa(to)
	}
	return out, nil
}

func (f *fake) WatchRun(r *api.WatchRunRequest, stream grpc.ServerStreamingServer[api.Event]) error {
	for at := int(r.GetAfter()); ; {
		f.mu.Lock()
		s, err := f.story(r.GetId())
		if err != nil {
			f.mu.Unlock()
			return err
		}
		fresh, live, changed := s.events[min(at, len(s.events)):], s.live, s.changed
		s.live = nil
		over := finalRun(s.run.Status) && len(s.events) > 0 && s.events[len(s.events)-1].Type == "run_finished"
		f.mu.Unlock()
		for _, e := range live {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		for _, e := range fresh {
			if err := stream.Send(e); err != nil {
				return err
			}
			at = int(e.Seq)
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (f *fake) ReadLogs(r *api.ReadLogsRequest, stream grpc.ServerStreamingServer[api.LogLine]) error {
	for at, first := 0, true; ; first = false {
		f.mu.Lock()
		s, err := f.story(r.GetId())
		if err != nil {
			f.mu.Unlock()
			return err
		}
		fresh, changed, over := slices.Clone(s.logs[at:]), s.changed, finalRun(s.run.Status)
		at = len(s.logs)
		f.mu.Unlock()
		fresh = slices.DeleteFunc(fresh, func(l *api.LogLine) bool { return r.GetStep() != "" && l.Path != r.GetStep() })
		if n := int(r.GetTail()); first && n > 0 && len(fresh) > n {
			fresh = fresh[len(fresh)-n:]
		}
		for _, l := range fresh {
			if err := stream.Send(l); err != nil {
				return err
			}
		}
		if over || !r.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (f *fake) CancelRun(_ context.Context, r *api.CancelRunRequest) (*api.Run, error) {
	f.mu.Lock()
	s, err := f.story(r.GetId())
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if finalRun(s.run.Status) {
		return nil, status.Errorf(codes.Aborted, "run %s has already finished", r.GetId())
	}
	s.do(func(r *api.Run) { r.Reason = "cancelling" })
	s.tell("signal_received", "", time.Now())
	return s.run, nil
}

func (f *fake) GetGraph(_ context.Context, r *api.GetGraphRequest) (*api.Graph, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	return s.graph, nil
}

func (f *fake) GetDefinition(_ context.Context, r *api.GetDefinitionRequest) (*api.Definition, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	return s.definition, nil
}

func (f *fake) CreateRun(_ context.Context, r *api.CreateRunRequest) (*api.Run, error) {
	f.mu.Lock()
	f.created = append(f.created, r)
	create, n := f.create, 1000+len(f.created)
	f.mu.Unlock()
	if create != nil {
		return create(r)
	}
	return f.begin(n, "made", demoGraph(), r.GetSource()).run, nil
}

// ValidatePipeline finds a flaw in each line that says "flaw" or "doubt".
func (f *fake) ValidatePipeline(_ context.Context, r *api.ValidatePipelineRequest) (*api.ValidatePipelineResponse, error) {
	out := &api.ValidatePipelineResponse{}
	for i, line := range strings.Split(r.GetSource(), "\n") {
		for word, severity := range map[string]string{"flaw": "error", "doubt": "warning"} {
			if at := strings.Index(line, word); at >= 0 {
				out.Diagnostics = append(out.Diagnostics, &api.Diagnostic{
					Code: "E0202", Severity: severity, Message: `no step named "` + word + `" (did you mean "greet"?)`, File: "pipeline.yaml",
					Line: int32(i + 1), Column: int32(at + 1), EndLine: int32(i + 1), EndColumn: int32(at + 1 + len(word)),
					Step: "greet", Path: "command[1]", Hint: "steps are named by their id",
				})
			}
		}
	}
	return out, nil
}

func (f *fake) ExplainPipeline(_ context.Context, r *api.ExplainPipelineRequest) (*api.Pipeline, error) {
	p := demoPipeline("1.2.0")
	p.Source = r.GetSource()
	if strings.Contains(r.GetSource(), "inputs: {}") {
		p.Inputs = nil
	}
	return p, nil
}

func (f *fake) ListPipelines(_ context.Context, r *api.ListPipelinesRequest) (*api.ListPipelinesResponse, error) {
	out := &api.ListPipelinesResponse{}
	seen := map[string]bool{}
	for _, p := range f.pipelines {
		if !seen[p.Id] && (r.GetPageToken() == "" || p.Id > r.GetPageToken()) {
			seen[p.Id] = true
			out.Pipelines = append(out.Pipelines, p)
		}
	}
	return out, nil
}

func (f *fake) GetPipeline(_ context.Context, r *api.GetPipelineRequest) (*api.Pipeline, error) {
	for _, p := range f.pipelines {
		if p.Id == r.GetName() && (r.GetVersion() == "" || r.GetVersion() == p.Version) {
			return p, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no pipeline %s", r.GetName())
}

func (f *fake) ListVersions(_ context.Context, r *api.ListVersionsRequest) (*api.ListVersionsResponse, error) {
	out := &api.ListVersionsResponse{}
	for _, p := range f.pipelines {
		if p.Id == r.GetName() {
			out.Versions = append(out.Versions, p)
		}
	}
	return out, nil
}
