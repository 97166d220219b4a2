package web

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestPromptReadsAsAConversation(t *testing.T) {
	d, err := promptOf("r", &api.Call{
		Kind: "model", Prompt: `{"system":"Be brief.","tools":[{"name":"look","description":"Looks.","schema":{"type":"object"}}],"messages":[
			{"role":"user","blocks":[{"kind":"text","text":"How many?"},{"kind":"image"}]},
			{"role":"assistant","blocks":[{"kind":"reasoning","text":"Hm."},{"kind":"tool_use","tool_use":{"name":"look","arguments":"{}"}}]},
			{"role":"user","blocks":[{"kind":"tool_result","tool_result":{"name":"look","content":[{"kind":"text","text":"seven"},{"kind":"text","text":"eight"}]}}]}]}`,
		Response: `{"message":{"role":"assistant","blocks":[{"kind":"text","text":"Seven."}]}}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []promptWords{
		{"User", []promptText{{"", "How many?"}, {"image", "not shown here"}}},
		{"Model", []promptText{{"reasoning", "Hm."}, {"calls look", "{}"}}},
		{"Tools", []promptText{{"result of look", "seven\neight"}}},
	}
	if diff := cmp.Diff(want, d.Messages); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(promptWords{"Answer", []promptText{{"", "Seven."}}}, d.Answer); diff != "" {
		t.Error(diff)
	}
}

func TestLongPromptIsCutInTheMiddle(t *testing.T) {
	var b strings.Builder
	for i := range promptShown + 50 {
		b.WriteString(`,{"role":"user","blocks":[{"kind":"text","text":"` + strconv.Itoa(i) + `"}]}`)
	}
	d, err := promptOf("r", &api.Call{Kind: "model", Prompt: `{"messages":[` + b.String()[1:] + `]}`})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Messages) != promptShown || d.Between != 50 || d.Messages[0].Parts[0].Text != "0" || d.Messages[1].Parts[0].Text != "51" {
		t.Errorf("%d messages, %d between, then %v", len(d.Messages), d.Between, d.Messages[1])
	}
}

// What a nested agent did stands behind the call that asked it, in the order of
// the calls.
func TestNestedCallsStandBehindTheirCall(t *testing.T) {
	var list []talkEntry
	for _, x := range [][2]int32{{1, 0}, {2, 0}, {3, 0}, {4, 2}, {5, 3}, {6, 2}, {7, 0}, {8, 99}} {
		list = append(list, talkEntry{Call: &api.Call{N: x[0], Parent: x[1]}})
	}
	var got [][2]int
	for _, e := range nested(list) {
		got = append(got, [2]int{int(e.GetN()), e.Depth})
	}
	if diff := cmp.Diff([][2]int{{1, 0}, {2, 0}, {4, 1}, {6, 1}, {3, 0}, {5, 1}, {7, 0}, {8, 0}}, got); diff != "" {
		t.Error(diff)
	}
}

// An attempt that was laid down until people had decided has not failed.
func TestAttemptThatAskedPeopleHasNotFailed(t *testing.T) {
	step := func(status api.Step_Status, attempt int32) *api.Step {
		return &api.Step{Status: status, Attempt: attempt}
	}
	list := tried(nil, &api.Event{Type: "step_started"}, step(api.Step_RUNNING, 1))
	list = tried(list, &api.Event{Type: "step_waiting"}, step(api.Step_WAITING, 1))
	list = tried(list, &api.Event{Type: "step_retrying"}, step(api.Step_WAITING, 1))
	list = tried(list, &api.Event{Type: "step_started"}, step(api.Step_RUNNING, 2))
	if len(list) != 2 || !list[0].Asked || list[1].Asked {
		t.Errorf("%+v", list)
	}
}
