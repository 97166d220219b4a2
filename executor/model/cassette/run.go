package cassette

import (
	"context"
	"iter"
	"regexp"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Recorder makes cassettes of the runs of a store.
type Recorder struct {
	Store interface {
		Run(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error)
		Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error]
	}
	// Secrets are the values that must not stand in a cassette, besides what looks
	// like a key.
	Secrets func() []string
}

// Cassette is a file with the answers that models gave to a run.
func (r Recorder) Cassette(ctx context.Context, run pipeline.RunID) ([]byte, error) {
	if _, err := r.Store.Run(ctx, run); err != nil {
		return nil, err
	}
	list, err := Record(ctx, r.Store.Events(ctx, run, 0))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "nothing_recorded", Text: "run " + string(run) + " has got no answer of a model"}
	}
	var secrets []string
	if r.Secrets != nil {
		secrets = r.Secrets()
	}
	return Write(list, func(text string) string { return redacted(text, secrets) })
}

// blot takes the place of secrets.
const blot = "***"

// leastSecret is the length in bytes from which a value can be told from other
// words.
const leastSecret = 8

// keys look like this: those of the services of models, and bearers.
var keys = regexp.MustCompile(`\b(?:sk|rk|pk)-[A-Za-z0-9_-]{16,}|\bAIza[A-Za-z0-9_-]{30,}|\b(?:ghp|gho|ghs|xox[abp])[_-][A-Za-z0-9-]{16,}|(?i:\bbearer )[A-Za-z0-9._~+/-]{16,}=*`)

func redacted(text string, secrets []string) string {
	for _, s := range secrets {
		if len(s) >= leastSecret {
			text = strings.ReplaceAll(text, s, blot)
		}
	}
	return keys.ReplaceAllString(text, blot)
}
