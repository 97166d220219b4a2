package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/pipeline/trigger"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// schedules serves orchestrator.v1.Schedules. It says when; the executors start
// the runs.
type schedules struct {
	orchestratorv1.UnimplementedSchedulesServer
	*Server
}

var _ orchestratorv1.SchedulesServer = schedules{}

// scheduleRequest is what requests to create and to change a schedule have in common.
type scheduleRequest interface {
	GetName() string
	GetPipeline() string
	GetVersion() string
	GetInputs() string
	GetLabels() map[string]string
	GetPriority() int32
	GetCron() []string
	GetTimezone() string
	GetOverlap() string
	GetCatchUp() string
	GetCatchUpWindow() string
	GetJitter() string
	GetStart() *timestamppb.Timestamp
	GetEnd() *timestamppb.Timestamp
}

// CreateSchedule checks everything that can be known now: a schedule that never
// fires, or whose inputs do not fit, is refused.
func (s schedules) CreateSchedule(ctx context.Context, req *orchestratorv1.CreateScheduleRequest) (*orchestratorv1.Schedule, error) {
	sch, err := s.readSchedule(ctx, scheduleID(req), req)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.CreateSchedule(ctx, sch); err != nil {
		return nil, err
	}
	return fromSchedule(sch), nil
}

// scheduleID is the id that a request gives, or one made of what it says.
func scheduleID(req *orchestratorv1.CreateScheduleRequest) string {
	switch {
	case req.GetId() != "":
		return req.GetId()
	case req.GetName() != "":
		return spec.Slug(req.GetName())
	}
	return req.GetPipeline()
}

// readSchedule makes a schedule of a request, with the time of its first fire.
func (s schedules) readSchedule(ctx context.Context, id string, req scheduleRequest) (*pipeline.Schedule, error) {
	var bad []violation
	add := func(field, reason, format string, args ...any) {
		bad = append(bad, violation{Field: field, Reason: reason, Text: fmt.Sprintf(format, args...)})
	}
	sch := &pipeline.Schedule{
		ID: id, Name: req.GetName(), Pipeline: req.GetPipeline(), Version: req.GetVersion(), Labels: req.GetLabels(), Priority: req.GetPriority(),
		Cron: req.GetCron(), Zone: req.GetTimezone(), Overlap: req.GetOverlap(), CatchUp: req.GetCatchUp(), CatchUpFrom: pipeline.DefaultCatchUpWindow,
	}
	switch {
	case id == "" && sch.Pipeline == "": // said below
	case !spec.IsID(id):
		add("id", "invalid_id", "%s cannot be a schedule's id: letters, digits, dots, _ and -, beginning with a letter or digit; at most 100", short(id))
	case strings.HasPrefix(id, pipeline.OwnedPrefix):
		add("id", "reserved_id", "ids that begin with %s belong to the schedules that pipelines ask for with on", pipeline.OwnedPrefix)
	}
	if len(sch.Name) > maxLabelValue || !printable(sch.Name) {
		add("name", "invalid_name", "must be at most %d bytes of printable text", maxLabelValue)
	}
	if sch.Pipeline == "" {
		add("pipeline", "required", "name a registered pipeline")
	}
	bad = append(bad, badLabels(sch.Labels)...)
	oneOf := func(field string, v *string, words []string) {
		if *v == "" {
			*v = words[0]
		}
		if !slices.Contains(words, *v) {
			add(field, "invalid_"+field, "%s is not one of %s", short(*v), strings.Join(words, ", "))
		}
	}
	oneOf("overlap", &sch.Overlap, pipeline.Overlaps)
	oneOf("catch_up", &sch.CatchUp, pipeline.CatchUps)
	length := func(field, text string, to *time.Duration, most time.Duration, words string) {
		if text == "" {
			return
		}
		d, ok := spec.Duration(text)
		if *to = d; !ok || d > most {
			add(field, "invalid_duration", "must be a duration such as 90s or 1h30m, at most %s", words)
		}
	}
	length("catch_up_window", req.GetCatchUpWindow(), &sch.CatchUpFrom, pipeline.MaxCatchUpWindow, "7d")
	length("jitter", req.GetJitter(), &sch.Jitter, pipeline.MaxJitter, "1h")
	sch.Start, sch.End = toTime(req.GetStart()), toTime(req.GetEnd())
	if !sch.Start.IsZero() && !sch.End.IsZero() && sch.End.Before(sch.Start) {
		add("end", "invalid_end", "must not be before start")
	}
	cron, err := trigger.ParseCron(sch.Cron, sch.Zone)
	if wrong, ok := errors.AsType[*trigger.CronError](err); ok {
		field := "cron"
		if wrong.Expression < 0 {
			field = "timezone"
		}
		add(field, "invalid_"+field, "%s", wrong)
	}
	if bad != nil {
		return nil, &refusal{reason: "invalid_request", violations: bad}
	}
	if n := len(req.GetInputs()); n > s.cfg.Limits.Inputs {
		return nil, fault(pipeline.TooLarge, "inputs_too_large", "the inputs are %d bytes; at most %d are allowed", n, s.cfg.Limits.Inputs)
	}
	if sch.Inputs, err = jsonObject("inputs", req.GetInputs()); err != nil {
		return nil, err
	}
	c, err := s.registered(ctx, sch.Pipeline, sch.Version)
	if err != nil {
		return nil, err
	}
	if _, err := checkInputs(c.plan, sch.Inputs); err != nil {
		return nil, err
	}
	return sch, s.setNext(ctx, sch, cron)
}

// setNext sets the next fire of a schedule, from now on.
func (s *Server) setNext(ctx context.Context, sch *pipeline.Schedule, cron *trigger.Cron) error {
	now, err := s.cfg.Store.Clock(ctx)
	if err != nil {
		return err
	}
	sch.Next = trigger.NextFire(sch, cron, now)
	if sch.Next.IsZero() {
		return refuse("end", "never_fires", "the schedule does not fire before its end")
	}
	sch.Due = sch.DueAt()
	return nil
}

// GetSchedule reads one schedule.
func (s schedules) GetSchedule(ctx context.Context, req *orchestratorv1.GetScheduleRequest) (*orchestratorv1.Schedule, error) {
	sch, err := s.cfg.Store.Schedule(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return fromSchedule(sch), nil
}

// ListSchedules pages through the schedules by keyset.
func (s schedules) ListSchedules(ctx context.Context, req *orchestratorv1.ListSchedulesRequest) (*orchestratorv1.ListSchedulesResponse, error) {
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list := "schedules " + req.GetPipeline()
	after, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	found, err := s.cfg.Store.Schedules(ctx, store.ScheduleQuery{Pipeline: req.GetPipeline(), After: after, Limit: size + 1})
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListSchedulesResponse{}
	if len(found) > size {
		found = found[:size]
		resp.NextPageToken = pageToken(list, found[size-1].ID)
	}
	for _, sch := range found {
		resp.Schedules = append(resp.Schedules, fromSchedule(sch))
	}
	return resp, nil
}

// UpdateSchedule replaces what a schedule says. Its fires go on from now.
func (s schedules) UpdateSchedule(ctx context.Context, req *orchestratorv1.UpdateScheduleRequest) (*orchestratorv1.Schedule, error) {
	revision, err := strconv.ParseInt(req.GetRevision(), 10, 64)
	if err != nil && req.GetRevision() != "" {
		return nil, refuse("revision", "invalid_revision", "must be what reading the schedule gave")
	}
	old, err := s.own(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	if req.GetRevision() != "" && revision != old.Revision {
		return nil, store.ScheduleChanged(old.ID)
	}
	sch, err := s.readSchedule(ctx, old.ID, req)
	if err != nil {
		return nil, err
	}
	if sch.Paused = old.Paused; sch.Paused {
		sch.Due = time.Time{}
	}
	return s.replace(ctx, sch, old)
}

// own reads a schedule that is no pipeline's.
func (s schedules) own(ctx context.Context, id string) (*pipeline.Schedule, error) {
	sch, err := s.cfg.Store.Schedule(ctx, id)
	if err == nil && sch.Owned {
		err = fault(pipeline.Conflict, "schedule_owned", "schedule %s follows on of the pipeline %s: change it there and register the new version, or pause it", sch.ID, sch.Pipeline)
	}
	return sch, err
}

// replace stores a changed schedule in place of the one that was read.
func (s *Server) replace(ctx context.Context, sch, old *pipeline.Schedule) (*orchestratorv1.Schedule, error) {
	sch.Revision = old.Revision
	if err := s.cfg.Store.UpdateSchedule(ctx, sch); err != nil {
		return nil, err
	}
	sch, err := s.cfg.Store.Schedule(ctx, sch.ID)
	if err != nil {
		return nil, err
	}
	return fromSchedule(sch), nil
}

// DeleteSchedule removes a schedule.
func (s schedules) DeleteSchedule(ctx context.Context, req *orchestratorv1.DeleteScheduleRequest) (*orchestratorv1.DeleteScheduleResponse, error) {
	if _, err := s.own(ctx, req.GetId()); err != nil {
		return nil, err
	}
	if err := s.cfg.Store.DeleteSchedule(ctx, req.GetId()); err != nil {
		return nil, err
	}
	return &orchestratorv1.DeleteScheduleResponse{}, nil
}

// PauseSchedule keeps a schedule and lets it fire no more; pausing it twice
// changes nothing.
func (s schedules) PauseSchedule(ctx context.Context, req *orchestratorv1.PauseScheduleRequest) (*orchestratorv1.Schedule, error) {
	return s.change(ctx, req.GetId(), func(sch *pipeline.Schedule) error {
		sch.Paused, sch.Due = true, time.Time{}
		return nil
	})
}

// ResumeSchedule lets a schedule fire again. What it would have fired meanwhile is
// not made up; a backfill does that.
func (s schedules) ResumeSchedule(ctx context.Context, req *orchestratorv1.ResumeScheduleRequest) (*orchestratorv1.Schedule, error) {
	return s.change(ctx, req.GetId(), func(sch *pipeline.Schedule) error {
		if !sch.Paused {
			return nil
		}
		cron, err := trigger.ParseCron(sch.Cron, sch.Zone)
		if err != nil {
			return err
		}
		sch.Paused = false
		return s.setNext(ctx, sch, cron)
	})
}

// change makes a small change, however often others come between.
func (s schedules) change(ctx context.Context, id string, f func(*pipeline.Schedule) error) (*orchestratorv1.Schedule, error) {
	for try := 0; ; try++ {
		sch, err := s.cfg.Store.Schedule(ctx, id)
		if err != nil {
			return nil, err
		}
		old := *sch
		if err := f(sch); err != nil {
			return nil, err
		}
		out, err := s.replace(ctx, sch, &old)
		if pipeline.KindOf(err) != pipeline.Conflict || try == 5 {
			return out, err
		}
	}
}

// BackfillSchedule enters the fires of a stretch of time; the executors start them.
func (s schedules) BackfillSchedule(ctx context.Context, req *orchestratorv1.BackfillScheduleRequest) (*orchestratorv1.BackfillScheduleResponse, error) {
	sch, err := s.cfg.Store.Schedule(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	now, err := s.cfg.Store.Clock(ctx)
	if err != nil {
		return nil, err
	}
	from, to := toTime(req.GetFrom()), toTime(req.GetTo())
	if to.IsZero() {
		to = now
	}
	parallel := max(int(req.GetMaxParallel()), 1)
	switch {
	case from.IsZero():
		return nil, refuse("from", "required", "say from when on, as in 2026-01-31T00:00:00Z")
	case now.Sub(from) > pipeline.BackfillReach:
		return nil, refuse("from", "too_old", "must be at most 366 days ago: what fired before is forgotten, and might be repeated")
	case to.After(now):
		return nil, refuse("to", "in_the_future", "must not be in the future: the schedule itself fires then")
	case to.Before(from):
		return nil, refuse("to", "invalid_to", "must not be before from")
	case req.GetMaxParallel() < 0 || parallel > pipeline.MaxBackfillParallel:
		return nil, refuse("max_parallel", "out_of_range", "must be from 1 to %d", pipeline.MaxBackfillParallel)
	}
	cron, err := trigger.ParseCron(sch.Cron, sch.Zone)
	if err != nil {
		return nil, err
	}
	times := cron.Between(from.Add(-time.Nanosecond), to, pipeline.MaxBackfill+1)
	if len(times) > pipeline.MaxBackfill {
		return nil, refuse("to", "too_many", "between from and to lie more than %d fires; the first %d end at %s", pipeline.MaxBackfill, pipeline.MaxBackfill, times[pipeline.MaxBackfill-1].Format(time.RFC3339))
	}
	resp := &orchestratorv1.BackfillScheduleResponse{Fires: clamp(len(times))}
	if len(times) == 0 {
		return resp, nil
	}
	added, err := s.cfg.Store.Backfill(ctx, sch.ID, times, parallel)
	resp.Added = clamp(added)
	return resp, err
}

// The bounds of a preview.
const (
	defaultPreview = 5
	maxPreview     = 100
)

// ListFires pages through the past and tells what comes.
func (s schedules) ListFires(ctx context.Context, req *orchestratorv1.ListFiresRequest) (*orchestratorv1.ListFiresResponse, error) {
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	preview := int(req.GetNext())
	if preview == 0 {
		preview = defaultPreview
	}
	if preview < 0 || preview > maxPreview {
		return nil, refuse("next", "out_of_range", "must be from 1 to %d", maxPreview)
	}
	sch, err := s.cfg.Store.Schedule(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	list := "fires " + sch.ID
	place, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	q := store.FireQuery{Schedule: sch.ID, Limit: size + 1}
	if place != "" {
		if q.Before, err = time.Parse(time.RFC3339Nano, place); err != nil {
			return nil, store.BadPage()
		}
	}
	fires, err := s.cfg.Store.Fires(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListFiresResponse{}
	if len(fires) > size {
		fires = fires[:size]
		resp.NextPageToken = pageToken(list, fires[size-1].At.Format(time.RFC3339Nano))
	}
	for i := range fires {
		f := &fires[i]
		resp.Fires = append(resp.Fires, &orchestratorv1.Fire{At: fromTime(f.At), State: string(f.State), Backfill: f.Backfill, RunId: string(f.Run), Reason: f.Reason})
	}
	if sch.Paused {
		return resp, nil
	}
	cron, err := trigger.ParseCron(sch.Cron, sch.Zone)
	if err != nil {
		return nil, err
	}
	for t := sch.Next; !t.IsZero() && len(resp.GetNext()) < preview; t = trigger.NextFire(sch, cron, t) {
		resp.Next = append(resp.Next, fromTime(t))
	}
	return resp, nil
}

// follow makes the schedule of a pipeline what its newest version asks for.
func (s *Server) follow(ctx context.Context, plan *pipeline.Plan) error {
	newest, err := s.cfg.Store.Pipeline(ctx, plan.ID, "")
	if err != nil || newest.Version != plan.Version {
		return err
	}
	id := pipeline.OwnedID(plan.ID)
	for try := 0; ; try++ {
		old, err := s.cfg.Store.Schedule(ctx, id)
		if pipeline.KindOf(err) == pipeline.NotFound {
			old, err = nil, nil
		}
		if err != nil {
			return err
		}
		if plan.On == nil || plan.On.Cron == nil {
			if old == nil {
				return nil
			}
			if err := s.cfg.Store.DeleteSchedule(ctx, id); pipeline.KindOf(err) != pipeline.NotFound {
				return err
			}
			return nil
		}
		sch := pipeline.ScheduleOf(plan)
		cron, err := trigger.ParseCron(sch.Cron, sch.Zone)
		if err != nil {
			return err
		}
		if err := s.setNext(ctx, sch, cron); err != nil {
			return err
		}
		if old == nil {
			err = s.cfg.Store.CreateSchedule(ctx, sch)
		} else {
			if slices.Equal(old.Cron, sch.Cron) && old.Zone == sch.Zone {
				sch.Next = old.Next // a fire that is due is not lost
			}
			sch.Paused = old.Paused
			sch.Due = sch.DueAt()
			_, err = s.replace(ctx, sch, old)
		}
		if kind := pipeline.KindOf(err); kind != pipeline.Conflict && kind != pipeline.NotFound || try == 5 {
			return err
		}
	}
}

func toTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func fromSchedule(s *pipeline.Schedule) *orchestratorv1.Schedule {
	return &orchestratorv1.Schedule{
		Id: s.ID, Name: s.Name, Pipeline: s.Pipeline, Version: s.Version, Inputs: fromObject(s.Inputs), Labels: s.Labels, Priority: s.Priority,
		Cron: s.Cron, Timezone: s.Zone, Overlap: s.Overlap, CatchUp: s.CatchUp, CatchUpWindow: fromDuration(s.CatchUpFrom), Jitter: fromDuration(s.Jitter),
		Start: fromTime(s.Start), End: fromTime(s.End), Paused: s.Paused, Owned: s.Owned, NextFire: fromTime(s.Next), LastFire: fromTime(s.LastFire),
		LastRun: string(s.LastRun), Revision: strconv.FormatInt(s.Revision, 10), CreatedAt: fromTime(s.CreatedAt), UpdatedAt: fromTime(s.UpdatedAt),
	}
}

// fromDuration writes a duration as the language reads it.
func fromDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	text := strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
	if d%time.Second == 0 {
		text = d.String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
	}
	return text
}
