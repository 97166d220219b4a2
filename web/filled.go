package web

import (
	"context"
	"regexp"
	"strings"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// filledShown bounds how many values of <AUTO> tags a page lists.
const filledShown = 200

// filledList is what the <AUTO> tags of a run, or of one step, were filled in with.
type filledList struct {
	Run     string
	Answers []*api.Answer
	More    bool // than are listed
}

func (s *site) filledData(ctx context.Context, run, step string) (filledList, error) {
	got, err := s.calls.ListAnswers(ctx, &api.ListAnswersRequest{Id: run, Step: step, PageSize: filledShown}, bigAnswers)
	return filledList{Run: run, Answers: got.GetAnswers(), More: got.GetNextPageToken() != ""}, err
}

// filledBy says where a value came from.
func filledBy(a *api.Answer) string {
	who := strings.TrimSpace("model " + a.GetModel())
	if a.GetScripted() {
		who = "scripted model"
	}
	switch a.GetFrom() {
	case "answer":
		return "answered beforehand"
	case "model":
		return who
	case "cache":
		return "from the cache, " + who
	}
	return human.Phrase(a.GetFrom())
}

// pathOfEdit is where a recorded value is changed.
func pathOfEdit(run string, a *api.Answer) string {
	return link(pathOfFork(run), "auto", a.GetKey())
}

// numbered are the passes and visits in the path of a step.
var numbered = regexp.MustCompile(`\[\d+\]|~\d+`)

// stepOf is the step of the plan that a tag's key, or the path of an instance, is of.
func stepOf(key string) string {
	path, _, _ := strings.Cut(key, ".")
	return numbered.ReplaceAllString(path, "")
}

// hasHole reports whether <AUTO> tags stand in the step of the instance.
func hasHole(holes []*api.Hole, path string) bool {
	for _, h := range holes {
		if stepOf(h.GetKey()) == stepOf(path) {
			return true
		}
	}
	return false
}

// instanceHoles adds fields for the answers that are given for one pass of a loop.
func instanceHoles(holes []*api.Hole, answers map[string]string) []*api.Hole {
	known := map[string]*api.Hole{}
	for _, h := range holes {
		known[h.GetKey()] = h
	}
	for _, key := range sortedKeys(answers) {
		_, param, _ := strings.Cut(key, ".")
		if h := known[stepOf(key)+"."+param]; h != nil && known[key] == nil {
			holes = append(holes, &api.Hole{Key: key, Type: h.GetType(), Prompt: h.GetPrompt(), Fallback: h.GetFallback(), Line: h.GetLine()})
		}
	}
	return holes
}

// recorded are the values that a run's tags were filled in with, by key; that of
// the tag in focus is among them, however many there are.
func (s *site) recorded(ctx context.Context, run, focus string) (map[string]*api.Answer, error) {
	list, err := s.filledData(ctx, run, "")
	if err != nil {
		return nil, err
	}
	out := map[string]*api.Answer{}
	for _, a := range list.Answers {
		out[a.GetKey()] = a
	}
	if path, _, ok := strings.Cut(focus, "."); ok && out[focus] == nil && list.More {
		if list, err = s.filledData(ctx, run, path); err != nil {
			return nil, err
		}
		for _, a := range list.Answers {
			out[a.GetKey()] = a
		}
	}
	return out, nil
}

// costOfAnswer is what an answer has cost the run; empty: nothing.
func costOfAnswer(a *api.Answer) string {
	return cost(a.GetUsage().GetCostUsd(), int64(a.GetUsage().GetUnpricedCalls()))
}
