package pipeline

import "time"

// On is what starts runs of a pipeline once it is registered.
type On struct {
	Cron    *CronTrigger    `json:"cron,omitempty"`
	Webhook *WebhookTrigger `json:"webhook,omitempty"`
}

// CronTrigger is a schedule that a pipeline asks for; zero values mean what they
// mean in Schedule.
type CronTrigger struct {
	Expressions []string       `json:"expressions"`
	Zone        string         `json:"zone,omitempty"`
	Overlap     string         `json:"overlap,omitempty"`
	CatchUp     string         `json:"catch_up,omitempty"`
	Window      *time.Duration `json:"catch_up_window,omitempty"` // nil: DefaultCatchUpWindow
	Jitter      time.Duration  `json:"jitter,omitempty"`
	Inputs      map[string]any `json:"inputs,omitempty"`
}

// The schemes by which webhooks are signed.
const (
	SchemeStandard = "standard" // Standard Webhooks (default)
	SchemeGitHub   = "github"
)

// WebhookTrigger lets other services start runs, by signed requests.
type WebhookTrigger struct {
	Secret string         `json:"secret"`           // the name of a secret of the server's
	Scheme string         `json:"scheme,omitempty"` // SchemeGitHub; empty: SchemeStandard
	Inputs map[string]any `json:"inputs,omitempty"` // their texts are templates over body and headers; nil: the body's fields
}

// ScheduleOf is the schedule that a pipeline's `on` asks for.
func ScheduleOf(p *Plan) *Schedule {
	t := p.On.Cron
	s := &Schedule{
		ID: OwnedID(p.ID), Name: p.Name, Pipeline: p.ID, Inputs: t.Inputs, Cron: t.Expressions, Zone: t.Zone,
		Overlap: t.Overlap, CatchUp: t.CatchUp, CatchUpFrom: DefaultCatchUpWindow, Jitter: t.Jitter, Owned: true,
	}
	if t.Window != nil {
		s.CatchUpFrom = *t.Window
	}
	if s.Overlap == "" {
		s.Overlap = Overlaps[0]
	}
	if s.CatchUp == "" {
		s.CatchUp = CatchUps[0]
	}
	return s
}

// OwnedPrefix begins the ids of schedules that pipelines ask for, and of no others.
const OwnedPrefix = "on."

// OwnedID is the id of the schedule that a pipeline's `on` asks for.
func OwnedID(pipeline string) string { return OwnedPrefix + pipeline }
