package web

import (
	"strings"
	"testing"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestAReusedStepSaysSo(t *testing.T) {
	for reused, want := range map[bool]bool{true: true, false: false} {
		var b strings.Builder
		row := stepRow{instance: instance{Path: "a", Status: api.Step_COMPLETED, Reused: reused}, Name: "a"}
		if err := stepLine(row, stepsData{}).Render(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), `<span class="label">reused</span>`); got != want {
			t.Errorf("reused is %v, and the row says %s", reused, b.String())
		}
	}
}
