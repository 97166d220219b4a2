package cassette

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// recordInto tells a process of the test which cassette it records into, and as whom.
const recordInto = "CASSETTE_TEST_RECORD_INTO"

const recordedByEach = 25

// TestRecordingProcess is not a test by itself: it is what the processes do of the test
// below.
func TestRecordingProcess(t *testing.T) {
	file := os.Getenv(recordInto)
	if file == "" {
		t.Skip("only for TestProcessesRecordIntoOneFile")
	}
	who := os.Getenv(recordInto + "_AS")
	p, err := Open(file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range recordedByEach {
		r := &model.Request{Step: pipeline.Path(who), Messages: []model.Message{model.UserText(fmt.Sprint(who, i))}}
		if err := p.Keep(t.Context(), r, &model.Response{Message: model.AssistantText(fmt.Sprint("answer of ", who, i))}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcessesRecordIntoOneFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shared.cassette.yaml")
	var all errgroup.Group
	const processes = 3
	for i := range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestRecordingProcess$", "-test.timeout", "10m") //nolint:gosec // this test itself
		cmd.Env = append(os.Environ(), recordInto+"="+file, recordInto+fmt.Sprint("_AS=p", i, "-"))
		all.Go(func() error {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	p, err := Open(file, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.list) != processes*recordedByEach {
		t.Errorf("%d recordings of %d", len(p.list), processes*recordedByEach)
	}
	for i := range processes {
		for k := range recordedByEach {
			who := fmt.Sprint("p", i, "-", k)
			s, err := p.Call(t.Context(), &model.Request{Messages: []model.Message{model.UserText(who)}})
			if err != nil {
				t.Fatal(err)
			}
			if a, err := model.Drain(s, nil); err != nil || a.Text() != "answer of "+who {
				t.Errorf("%s: %v, %v", who, a, err)
			}
		}
	}
}
