package server

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// queues serves orchestrator.v1.Queues.
type queues struct {
	orchestratorv1.UnimplementedQueuesServer
	*Server
}

var _ orchestratorv1.QueuesServer = queues{}

// ListQueues lists all queues with what stands in them.
func (s queues) ListQueues(ctx context.Context, _ *orchestratorv1.ListQueuesRequest) (*orchestratorv1.ListQueuesResponse, error) {
	list, err := s.cfg.Store.Queues(ctx)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListQueuesResponse{Queues: make([]*orchestratorv1.Queue, len(list))}
	for i := range list {
		resp.Queues[i] = fromQueue(&list[i])
	}
	return resp, nil
}

// GetQueue reads one queue.
func (s queues) GetQueue(ctx context.Context, req *orchestratorv1.GetQueueRequest) (*orchestratorv1.Queue, error) {
	return answerQueue(s.cfg.Store.Queue(ctx, req.GetName()))
}

// SetQueue changes limits and weights.
func (s queues) SetQueue(ctx context.Context, req *orchestratorv1.SetQueueRequest) (*orchestratorv1.Queue, error) {
	c := store.QueueChange{MaxRunning: req.MaxRunning, Weight: req.Weight, Actor: localUser}
	if req.Rate != nil {
		c.Rate = &store.Rate{}
		if req.GetRate() != "" {
			r, err := store.ParseRate(req.GetRate())
			if err != nil {
				return nil, err
			}
			if req.GetBurst() != 0 {
				r.Burst = req.GetBurst()
			}
			c.Rate = &r
		}
	} else if req.GetBurst() != 0 {
		return nil, refuse("burst", "ambiguous", "a burst needs a rate")
	}
	if len(req.GetWeights()) > 0 {
		c.Weights = make(map[string]int, len(req.GetWeights()))
		for key, w := range req.GetWeights() {
			c.Weights[key] = int(w)
		}
	}
	return answerQueue(s.cfg.Store.SetQueue(ctx, req.GetName(), c))
}

// PauseQueue lets no run of the queue start.
func (s queues) PauseQueue(ctx context.Context, req *orchestratorv1.PauseQueueRequest) (*orchestratorv1.Queue, error) {
	paused := true
	return answerQueue(s.cfg.Store.SetQueue(ctx, req.GetName(), store.QueueChange{Paused: &paused, Actor: localUser}))
}

// ResumeQueue lets them start again.
func (s queues) ResumeQueue(ctx context.Context, req *orchestratorv1.ResumeQueueRequest) (*orchestratorv1.Queue, error) {
	paused := false
	return answerQueue(s.cfg.Store.SetQueue(ctx, req.GetName(), store.QueueChange{Paused: &paused, Actor: localUser}))
}

// PausePipeline lets no queued run of a pipeline start.
func (s queues) PausePipeline(ctx context.Context, req *orchestratorv1.PausePipelineRequest) (*orchestratorv1.PipelinePause, error) {
	return s.pausePipeline(ctx, req.GetName(), true)
}

// ResumePipeline lets them start again.
func (s queues) ResumePipeline(ctx context.Context, req *orchestratorv1.ResumePipelineRequest) (*orchestratorv1.PipelinePause, error) {
	return s.pausePipeline(ctx, req.GetName(), false)
}

func (s queues) pausePipeline(ctx context.Context, id string, paused bool) (*orchestratorv1.PipelinePause, error) {
	if paused { // a name with a slip would pause nothing, and nobody would know
		if _, err := s.cfg.Store.Pipeline(ctx, id, ""); err != nil {
			return nil, err
		}
	}
	p, err := s.cfg.Store.PausePipeline(ctx, id, paused, localUser)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.PipelinePause{Name: id}
	if p != nil {
		resp.Paused, resp.PausedAt, resp.PausedBy = true, fromTime(p.At), p.By
	}
	return resp, nil
}

func answerQueue(q *store.Queue, err error) (*orchestratorv1.Queue, error) {
	if err != nil {
		return nil, err
	}
	return fromQueue(q), nil
}

func fromQueue(q *store.Queue) *orchestratorv1.Queue {
	out := &orchestratorv1.Queue{
		Name: q.Name, MaxRunning: q.MaxRunning, Rate: q.Rate.String(), Burst: q.Rate.Burst, Weight: q.Weight,
		Waiting: q.Waiting, Held: q.Held, Running: q.Running, Oldest: fromTime(q.Oldest), NextStart: fromTime(q.NextStart),
		Weights: make(map[string]int32, len(q.Weights)),
	}
	if p := q.Paused; p != nil {
		out.Paused, out.PausedAt, out.PausedBy = true, fromTime(p.At), p.By
	}
	for key, w := range q.Weights {
		out.Weights[key] = int32(w) //nolint:gosec // at most store.MaxWeight
	}
	for _, k := range q.Keys {
		out.Keys = append(out.Keys, &orchestratorv1.QueueKey{Key: k.Key, Waiting: k.Waiting, Weight: k.Weight})
	}
	return out
}

// queueGauges tell of all queues together: the label of a queue would take as many
// values as its users like. They are read when they are asked for, but not more
// often than every few seconds, however many ask.
type queueGauges struct {
	s            *Server
	waiting, age *prometheus.Desc

	mu   sync.Mutex
	read time.Time
	list []store.Queue
}

// gaugesAge is how old the figures of queues may be.
const gaugesAge = 10 * time.Second

func newQueueGauges(s *Server) *queueGauges {
	return &queueGauges{
		s:       s,
		waiting: prometheus.NewDesc("orchestrator_queue_waiting", "Runs that wait for their start, in all queues, counted up to 100,000.", nil, nil),
		age:     prometheus.NewDesc("orchestrator_queue_oldest_seconds", "How long the oldest of them has waited.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (g *queueGauges) Describe(out chan<- *prometheus.Desc) {
	out <- g.waiting
	out <- g.age
}

// Collect implements prometheus.Collector. Without an answer of the store there
// are no figures.
func (g *queueGauges) Collect(out chan<- prometheus.Metric) {
	list, err := g.queues()
	if err != nil {
		return
	}
	waiting, age := 0.0, 0.0
	for i := range list {
		waiting += float64(list[i].Waiting)
		if !list[i].Oldest.IsZero() {
			age = max(age, sinceSeconds(list[i].Oldest))
		}
	}
	out <- prometheus.MustNewConstMetric(g.waiting, prometheus.GaugeValue, waiting)
	out <- prometheus.MustNewConstMetric(g.age, prometheus.GaugeValue, age)
}

func (g *queueGauges) queues() ([]store.Queue, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.read) < gaugesAge {
		return g.list, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	list, err := g.s.cfg.Store.Queues(ctx)
	if err == nil {
		g.list, g.read = list, time.Now()
	}
	return list, err
}
