package web

import (
	"net/url"
	"unicode"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// cause is one reason why a run is where it is, as its page tells it.
type cause struct {
	*api.Cause
	Refs []refLink
}

// refLink is something that a cause speaks of.
type refLink struct {
	Kind   string
	Text   string
	Href   string // empty: there is no page of it
	Drawer bool   // it opens in the drawer
}

// asksWhy reports whether a run in that state needs an explanation.
func asksWhy(st api.Run_Status) bool {
	return st == api.Run_QUEUED || st == api.Run_WAITING || st == api.Run_PAUSED || st == api.Run_FAILED
}

// causeTitles are the causes in a few words.
var causeTitles = map[string]string{
	"queued":          "It stands in line",
	"queue_paused":    "Its queue is paused",
	"pipeline_paused": "Its pipeline is paused",
	"concurrency":     "Its concurrency key is taken",
	"queue_full":      "Its queue is at its limit",
	"rate_limit":      "Its queue is at its rate",
	"claimable":       "It waits for a server with room",
	"replicas":        "Servers that can take it",
	"no_replica":      "No server is alive",
	"owner_died":      "Its server went away",
	"paused":          "Somebody paused it",
	"failed":          "It failed",
	"no_worker":       "No worker fits",
	"approval":        "A person has to decide",
	"signal":          "It waits for a signal",
	"files":           "It waits for files",
	"timer":           "It waits for a time",
	"retry":           "It waits for its next attempt",
	"running":         "Steps are under way",
	"child_queued":    "A run that it began stands in line",
}

// Title is the cause in a few words.
func (c cause) Title() string {
	if t, ok := causeTitles[c.GetCode()]; ok {
		return t
	}
	return sentence(human.Phrase(c.GetCode()))
}

// Icon goes with the title.
func (c cause) Icon() string {
	switch c.GetCode() {
	case "queue_paused", "pipeline_paused", "paused":
		return "paused"
	case "failed", "no_replica", "owner_died":
		return "failed"
	case "approval", "signal", "files", "retry":
		return waitIcon(&api.Waiting{For: c.GetCode()})
	case "running":
		return "running"
	case "replicas", "no_worker":
		return "info"
	}
	return "queued"
}

// Place is where something can be done about it besides what it speaks of.
func (c cause) Place() refLink {
	if c.GetCode() == "no_worker" {
		return refLink{Text: "the workers", Href: "/workers"}
	}
	return refLink{}
}

// causes are those that the page does not tell elsewhere: told are the paths of
// the steps whose waits stand below.
func causes(list []*api.Cause, told map[string]bool, sc screen) []cause {
	var out []cause
	for _, c := range list {
		line, known := cause{Cause: c}, false
		for _, ref := range c.GetRefs() {
			known = known || ref.GetKind() == "step" && told[ref.GetId()]
			line.Refs = append(line.Refs, refTo(ref, sc))
		}
		if !known || c.GetCode() == "running" {
			out = append(out, line)
		}
	}
	return out
}

func refTo(ref *api.Ref, sc screen) refLink {
	id := ref.GetId()
	l := refLink{Kind: ref.GetKind(), Text: id}
	switch ref.GetKind() {
	case "run":
		l.Text, l.Href = short(id), pathOfRun(id)
	case "approval":
		l.Text, l.Href = short(id), pathOfApproval(id)
	case "queue":
		l.Href = pathOfQueue(id)
	case "pipeline":
		l.Href = pathOfPipeline(id)
	case "worker":
		l.Href = "/workers#worker-" + url.PathEscape(id)
	case "step":
		l.Href, l.Drawer = sc.with("step", id), true
	case "replica":
		l.Text = short(id)
	}
	return l
}

// sentence begins a text with a capital letter.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
