package spec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompareNamesStepsAndKeysWithTheirLines(t *testing.T) {
	a := `id: p
inputs: {n: 1}
steps:
  - id: fetch
    run: echo one # a comment
  - {id: old, run: 'true'}
  - id: each
    for: {items: '{{ range(3) }}', variable: i}
    steps:
      - {id: work, action: debug, with: {ids: [{id: 1}], n: 1}}
`
	b := `id: p
inputs: {n: 2}
steps:
  - {id: new, run: 'true'}
  - id: fetch
    timeout: 5s
    run: "echo two"
  - id: each
    for:
      items: '{{ range(3) }}'
      variable: i
    steps:
      - {id: work, action: debug, with: {ids: [{id: 2}], n: 1}}
`
	want := []Change{
		{Kind: ChangeChanged, Key: "inputs", LineA: 2, LineB: 2, TextA: "inputs: {n: 1}", TextB: "inputs: {n: 2}"},
		{Kind: ChangeAdded, Step: "new", LineB: 4, TextB: "- {id: new, run: 'true'}"},
		{Kind: ChangeAdded, Step: "fetch", Key: "timeout", LineB: 6, TextB: "timeout: 5s"},
		{Kind: ChangeChanged, Step: "fetch", Key: "run", LineA: 5, LineB: 7, TextA: "run: echo one # a comment", TextB: `run: "echo two"`},
		{
			Kind: ChangeChanged, Step: "each/work", Key: "with", LineA: 10, LineB: 13,
			TextA: "- {id: work, action: debug, with: {ids: [{id: 1}], n: 1}}", TextB: "- {id: work, action: debug, with: {ids: [{id: 2}], n: 1}}",
		},
		{Kind: ChangeRemoved, Step: "old", LineA: 6, TextA: "- {id: old, run: 'true'}"},
	}
	if d := cmp.Diff(want, Compare([]byte(a), []byte(b))); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
	if got := Compare([]byte(a), []byte(a)); len(got) > 0 {
		t.Errorf("a source differs from itself: %v", got)
	}
	if got := Compare([]byte("steps: ["), []byte("id: x")); len(got) != 1 || got[0].Key != "id" {
		t.Errorf("a source that cannot be read: %v", got)
	}
}
