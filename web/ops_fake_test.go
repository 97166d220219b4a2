package web

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// operations is what the fake knows of queues, schedules, workers, and of what
// was asked of runs.
type operations struct {
	api.UnimplementedQueuesServer
	api.UnimplementedSchedulesServer
	api.UnimplementedWorkersServer

	f         *fake
	queues    []*api.Queue
	schedules []*api.Schedule
	fires     map[string][]*api.Fire // newest first
	workers   []*api.Worker
	causes    map[string][]*api.Cause // by run
	asked     []proto.Message         // what changed something, in order
	previews  []*api.PreviewForkRequest
}

// asks notes a request that changes something.
func (o *operations) asks(m proto.Message) {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	o.asked = append(o.asked, m)
}

// last is what was asked last, as text.
func (o *operations) last() string {
	o.f.mu.Lock()
	defer o.f.mu.Unlock()
	if len(o.asked) == 0 {
		return ""
	}
	m := o.asked[len(o.asked)-1]
	// The text form of messages varies its blanks on purpose.
	return strings.Join(strings.Fields(string(m.ProtoReflect().Descriptor().Name())+" "+fmt.Sprint(m)), " ")
}

func (o *operations) queueAt(name string) *api.Queue {
	for i, q := range o.queues {
		if q.Name == name {
			o.queues[i] = proto.CloneOf(q)
			return o.queues[i]
		}
	}
	o.queues = append(o.queues, &api.Queue{Name: name, Weight: 1})
	return o.queues[len(o.queues)-1]
}

func (o *operations) ListQueues(context.Context, *api.ListQueuesRequest) (*api.ListQueuesResponse, error) {
	return &api.ListQueuesResponse{Queues: o.queues}, nil
}

func (o *operations) GetQueue(_ context.Context, r *api.GetQueueRequest) (*api.Queue, error) {
	for _, q := range o.queues {
		if q.Name == r.GetName() {
			return q, nil
		}
	}
	return &api.Queue{Name: r.GetName(), Weight: 1}, nil
}

func (o *operations) SetQueue(_ context.Context, r *api.SetQueueRequest) (*api.Queue, error) {
	if r.GetRate() == "often" {
		return nil, status.Error(codes.InvalidArgument, `the rate "often" is not a number of starts in a time, as in 10/m`)
	}
	o.asks(r)
	q := o.queueAt(r.GetName())
	q.MaxRunning, q.Rate, q.Burst, q.Weight = r.GetMaxRunning(), r.GetRate(), r.GetBurst(), r.GetWeight()
	return q, nil
}

func (o *operations) PauseQueue(_ context.Context, r *api.PauseQueueRequest) (*api.Queue, error) {
	o.asks(r)
	q := o.queueAt(r.GetName())
	q.Paused, q.PausedAt, q.PausedBy = true, timestamppb.Now(), "local"
	return q, nil
}

func (o *operations) ResumeQueue(_ context.Context, r *api.ResumeQueueRequest) (*api.Queue, error) {
	o.asks(r)
	q := o.queueAt(r.GetName())
	q.Paused = false
	return q, nil
}

func (o *operations) scheduleAt(id string) (int, error) {
	i := slices.IndexFunc(o.schedules, func(c *api.Schedule) bool { return c.Id == id })
	if i < 0 {
		return 0, status.Errorf(codes.NotFound, "there is no schedule %s", id)
	}
	return i, nil
}

func (o *operations) ListSchedules(_ context.Context, r *api.ListSchedulesRequest) (*api.ListSchedulesResponse, error) {
	out := &api.ListSchedulesResponse{}
	for _, c := range o.schedules {
		if r.GetPipeline() == "" || c.Pipeline == r.GetPipeline() {
			out.Schedules = append(out.Schedules, c)
		}
	}
	return out, nil
}

func (o *operations) GetSchedule(_ context.Context, r *api.GetScheduleRequest) (*api.Schedule, error) {
	i, err := o.scheduleAt(r.GetId())
	if err != nil {
		return nil, err
	}
	return o.schedules[i], nil
}

func (o *operations) CreateSchedule(_ context.Context, r *api.CreateScheduleRequest) (*api.Schedule, error) {
	if slices.Contains(r.GetCron(), "hourly") {
		return nil, status.Error(codes.InvalidArgument, `"hourly" is not a cron expression of five fields`)
	}
	o.asks(r)
	c := &api.Schedule{
		Id: r.GetPipeline(), Pipeline: r.GetPipeline(), Cron: r.GetCron(), Timezone: r.GetTimezone(), Inputs: r.GetInputs(),
		Overlap: r.GetOverlap(), CatchUp: r.GetCatchUp(), NextFire: timestamppb.New(time.Now().Add(time.Hour)),
	}
	o.schedules = append(o.schedules, c)
	return c, nil
}

func (o *operations) paused(id string, paused bool) (*api.Schedule, error) {
	i, err := o.scheduleAt(id)
	if err != nil {
		return nil, err
	}
	o.schedules[i] = proto.CloneOf(o.schedules[i])
	o.schedules[i].Paused = paused
	return o.schedules[i], nil
}

func (o *operations) PauseSchedule(_ context.Context, r *api.PauseScheduleRequest) (*api.Schedule, error) {
	o.asks(r)
	return o.paused(r.GetId(), true)
}

func (o *operations) ResumeSchedule(_ context.Context, r *api.ResumeScheduleRequest) (*api.Schedule, error) {
	o.asks(r)
	return o.paused(r.GetId(), false)
}

func (o *operations) BackfillSchedule(_ context.Context, r *api.BackfillScheduleRequest) (*api.BackfillScheduleResponse, error) {
	if r.GetTo() != nil && r.GetTo().AsTime().Before(r.GetFrom().AsTime()) {
		return nil, status.Error(codes.InvalidArgument, "to: must not be before from")
	}
	o.asks(r)
	return &api.BackfillScheduleResponse{Fires: 5, Added: 3}, nil
}

func (o *operations) ListFires(_ context.Context, r *api.ListFiresRequest) (*api.ListFiresResponse, error) {
	i, err := o.scheduleAt(r.GetId())
	if err != nil {
		return nil, err
	}
	out := &api.ListFiresResponse{Fires: o.fires[r.GetId()]}
	if c := o.schedules[i]; c.NextFire != nil && !c.Paused {
		for n := range r.GetNext() {
			out.Next = append(out.Next, timestamppb.New(c.NextFire.AsTime().AddDate(0, 0, int(n))))
		}
	}
	return out, nil
}

func (o *operations) ListWorkers(_ context.Context, r *api.ListWorkersRequest) (*api.ListWorkersResponse, error) {
	out := &api.ListWorkersResponse{}
	for _, w := range o.workers {
		if !slices.ContainsFunc(r.GetLabels(), func(l string) bool { return !slices.Contains(w.Labels, l) }) {
			out.Workers = append(out.Workers, w)
		}
	}
	return out, nil
}

func (o *operations) DrainWorker(_ context.Context, r *api.DrainWorkerRequest) (*api.Worker, error) {
	for i, w := range o.workers {
		if w.Name == r.GetName() {
			o.asks(r)
			o.workers[i] = proto.CloneOf(w)
			o.workers[i].Status = "draining"
			return o.workers[i], nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no worker %s is connected", r.GetName())
}

func (f *fake) WhyRun(_ context.Context, r *api.WhyRunRequest) (*api.WhyRunResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	return &api.WhyRunResponse{Run: s.run, Causes: f.ops.causes[r.GetId()]}, nil
}

// rest pauses a story's run, or lets it go on.
func (f *fake) rest(id string, paused bool) (*api.Run, error) {
	f.mu.Lock()
	s, err := f.story(id)
	f.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case finalRun(s.run.Status):
		return nil, status.Errorf(codes.Aborted, "run %s has already finished", id)
	}
	to, typ := api.Run_RUNNING, "run_resumed"
	if paused {
		to, typ = api.Run_PAUSED, "run_paused"
	}
	s.do(func(r *api.Run) { r.Status = to })
	s.tell(typ, "", time.Now())
	return s.run, nil
}

func (f *fake) PauseRun(_ context.Context, r *api.PauseRunRequest) (*api.Run, error) {
	f.ops.asks(r)
	return f.rest(r.GetId(), true)
}

func (f *fake) ResumeRun(_ context.Context, r *api.ResumeRunRequest) (*api.Run, error) {
	f.ops.asks(r)
	return f.rest(r.GetId(), false)
}

// born begins a run that came from another.
func (f *fake) born(from string, m proto.Message) (*api.Run, error) {
	f.mu.Lock()
	s, err := f.story(from)
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !finalRun(s.run.Status) {
		if _, fork := m.(*api.ForkRunRequest); !fork {
			return nil, status.Errorf(codes.Aborted, "run %s has not finished", from)
		}
	}
	f.ops.asks(m)
	made := f.begin(2000+len(f.ops.asked), s.run.Pipeline, s.graph, s.definition.Source)
	made.do(func(r *api.Run) { r.ForkedFrom, r.ForkSeq = from, int32(len(s.events)) })
	made.tell("run_created", "", epoch)
	return made.run, nil
}

func (f *fake) RetryRun(_ context.Context, r *api.RetryRunRequest) (*api.Run, error) {
	return f.born(r.GetId(), r)
}

func (f *fake) RerunRun(_ context.Context, r *api.RerunRunRequest) (*api.Run, error) {
	return f.born(r.GetId(), r)
}

func (f *fake) ForkRun(_ context.Context, r *api.ForkRunRequest) (*api.Run, error) {
	return f.born(r.GetId(), r)
}

func (f *fake) ReplayRun(_ context.Context, r *api.ReplayRunRequest) (*api.Run, error) {
	return f.born(r.GetId(), r)
}

func (f *fake) PreviewFork(_ context.Context, r *api.PreviewForkRequest) (*api.PreviewForkResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops.previews = append(f.ops.previews, r)
	if r.GetAt() > 900 {
		return nil, status.Errorf(codes.InvalidArgument, "there is no record %d", r.GetAt())
	}
	return &api.PreviewForkResponse{Steps: []*api.ForkStep{
		{Path: "load", Kind: "command", Decision: "reuse"},
		{Path: "profile", Kind: "action", Decision: "reuse"},
		{Path: "each_issue", Kind: "for", Decision: "rerun", Reason: "its items are not what they were"},
		{Path: "check/sample", Kind: "action", Decision: "skip", Reason: "its condition is false"},
		{Path: "report", Kind: "action", Decision: "unknown", Reason: "it needs each_issue, which runs again"},
	}}, nil
}

// operating fills a fake with queues, schedules, workers, and runs that wait for them.
func (f *fake) operating() {
	o := f.ops
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }
	in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	o.queues = []*api.Queue{
		{
			Name: "default", Weight: 1, MaxRunning: 8, Rate: "120/m", Burst: 10, Waiting: 12840, Held: 37, Running: 8, Oldest: ago(41 * time.Minute), NextStart: in(20 * time.Second),
			Keys: []*api.QueueKey{
				{Key: "team-a", Waiting: 9120, Weight: 3}, {Key: "team-b", Waiting: 3001, Weight: 1}, {Key: "nightly-triage", Waiting: 700, Weight: 1}, {Key: "odd/key", Waiting: 19, Weight: 1},
			},
			Weights: map[string]int32{"team-a": 3},
		},
		{Name: "reports", Weight: 2, Paused: true, PausedAt: ago(3 * time.Hour), PausedBy: "ada", Waiting: 4, Oldest: ago(2 * time.Hour), Keys: []*api.QueueKey{{Key: "summarise", Waiting: 4, Weight: 1}}},
		{Name: "idle", Weight: 1},
	}
	o.schedules = []*api.Schedule{
		{
			Id: "nightly-triage", Name: "Triage before work", Pipeline: "nightly-triage", Cron: []string{"0 6 * * 1-5", "0 9 * * 0,6"}, Timezone: "Europe/Berlin",
			Inputs: `{"repo":"acme/site"}`, Overlap: "skip", CatchUp: "latest", Jitter: "30s", NextFire: in(9 * time.Hour), LastFire: ago(15 * time.Hour), LastRun: idOf(5), Owned: true,
		},
		{Id: "summarise", Pipeline: "summarise", Version: "0.3.1", Cron: []string{"@daily"}, Overlap: "queue", CatchUp: "all", Paused: true, LastFire: ago(50 * time.Hour), LastRun: idOf(11)},
	}
	o.fires = map[string][]*api.Fire{"nightly-triage": {
		{At: ago(15 * time.Hour), State: "started", RunId: idOf(5)},
		{At: ago(39 * time.Hour), State: "skipped", Reason: "the run before it was still going on"},
		{At: ago(63 * time.Hour), State: "failed", Reason: "the pipeline nightly-triage refused the inputs"},
		{At: ago(87 * time.Hour), State: "started", RunId: idOf(4), Backfill: true},
		{At: ago(111 * time.Hour), State: "buffered", Backfill: true},
	}}
	o.workers = []*api.Worker{
		{
			Name: "gpu-1", Version: "1.4.0", Labels: []string{"gpu", "eu"}, Slots: 4, Busy: 3, Status: "connected", Runs: []string{"command", "http"}, Actions: []*api.WorkerAction{{Name: "render"}},
			Resources: &api.WorkerResources{Cpu: 16, MemoryGb: 64, Gpu: 2}, Used: &api.WorkerResources{Cpu: 7.5, MemoryGb: 24, Gpu: 1}, ConnectedAt: ago(26 * time.Hour), HeardAt: ago(2 * time.Second),
			Attempts: []*api.WorkerAttempt{
				{RunId: idOf(9), Path: "each_issue[12]/classify", Attempt: 1, Since: ago(40 * time.Second)}, {RunId: idOf(9), Path: "sample", Attempt: 1, Since: ago(3 * time.Minute)},
			},
		},
		{Name: "build", Version: "1.3.2", Labels: []string{"build"}, Slots: 2, Busy: 1, Status: "draining", ConnectedAt: ago(time.Hour), HeardAt: ago(time.Second)},
		{Name: "laptop of ada", Slots: 1, Status: "lost", ConnectedAt: ago(time.Hour), HeardAt: ago(2 * time.Minute)},
	}
	o.causes = map[string][]*api.Cause{
		idOf(8): {
			{Code: "queue_paused", Message: "the queue reports was paused by ada; go on with: orchestrator queues resume reports", Since: ago(3 * time.Hour), Refs: []*api.Ref{{Kind: "queue", Id: "reports"}}},
			{Code: "concurrency", Message: `at most 1 runs of the key "acme" may be under way, and as many are`, Since: ago(time.Minute), Refs: []*api.Ref{{Kind: "run", Id: idOf(9)}}},
			{Code: "rate_limit", Message: "the queue reports lets 10/m runs start", Until: in(time.Minute), Refs: []*api.Ref{{Kind: "queue", Id: "reports"}}},
		},
		idOf(10): {
			{Code: "no_worker", Message: "the step report waits for a worker with the labels gpu, us", Since: ago(time.Minute), Refs: []*api.Ref{{Kind: "step", Id: "report"}}},
			{Code: "approval", Message: "the step load waits for a person to decide", Refs: []*api.Ref{{Kind: "step", Id: "load"}, {Kind: "approval", Id: approvalID(1)}}},
		},
		idOf(14): {{Code: "paused", Message: "the run is paused; go on with: orchestrator runs resume " + idOf(14)}},
	}
	s := f.running(14)
	s.do(func(r *api.Run) { r.Status, r.Queue, r.Priority = api.Run_PAUSED, "default", 5 })
	s.tell("run_paused", "", epoch.Add(50*time.Second))
	s = f.failed(15)
	s.do(func(r *api.Run) {
		r.ForkedFrom, r.ForkSeq, r.ParentRun, r.Queue, r.ConcurrencyKey = idOf(3), 41, idOf(4), "reports", "acme"
	})
	s.tell("run_finished", "", epoch.Add(70*time.Second))
}
