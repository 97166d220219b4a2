package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// evidenceCalls is how many calls of a run are written with their whole prompts:
// an agent's prompts grow with every turn.
const evidenceCalls = 200

// writeEvidence writes what a run can be judged by into a folder, each in a file
// of its own: report.md, run.json, steps/PATH.json, calls/PATH/N.txt with the
// composed prompt, its parts and the answer, and artifacts/NAME-vN. Files of an
// earlier time are replaced.
func (c *cli) writeEvidence(ctx context.Context, cl *client, id, dir string) error {
	a, err := cl.account(ctx, id)
	if err != nil {
		return err
	}
	e := &evidence{dir: dir}
	var b bytes.Buffer
	if err := writeMarkdown(&b, a); err != nil {
		return err
	}
	e.write("report.md", b.Bytes())
	b.Reset()
	to := *c
	to.out = &b
	if err := to.printRunJSON(a.Run, nil); err != nil {
		return err
	}
	e.write("run.json", b.Bytes())
	for _, s := range a.Steps {
		b.Reset()
		if err := to.printJSON(s); err != nil {
			return err
		}
		e.write(filepath.Join("steps", filepath.FromSlash(s.GetPath())+".json"), b.Bytes())
	}
	for i, x := range a.Calls {
		if i == evidenceCalls {
			e.write(filepath.Join("calls", "more.txt"), fmt.Appendf(nil, "%d more calls: %s\n", len(a.Calls)-i, c.again("runs calls "+id)))
			break
		}
		one, err := cl.calls.GetCall(ctx, &api.GetCallRequest{Id: id, Step: x.GetStep(), N: x.GetN()})
		if err != nil {
			return err
		}
		b.Reset()
		printCall(&b, one)
		e.write(filepath.Join("calls", filepath.FromSlash(x.GetStep()), strconv.Itoa(int(x.GetN()))+".txt"), b.Bytes())
	}
	for _, x := range a.Artifacts {
		got, err := cl.artifacts.GetArtifact(ctx, &api.GetArtifactRequest{RunId: id, Artifact: x.GetArtifact(), Version: x.GetVersion()})
		if err != nil {
			return err
		}
		content := got.GetContent()
		if x.GetDigest() == "" {
			content = []byte(x.GetValue() + "\n")
		}
		e.write(filepath.Join("artifacts", fmt.Sprintf("%s-v%d", x.GetArtifact(), x.GetVersion())), content)
	}
	return e.err
}

// evidence writes files below a folder, and nowhere else, until one cannot be.
type evidence struct {
	dir string
	err error
}

func (e *evidence) write(name string, content []byte) {
	if e.err != nil {
		return
	}
	if !filepath.IsLocal(name) {
		e.err = &failure{code: exitRefused, what: "cannot write " + name, why: "it would lie outside " + e.dir}
		return
	}
	file := filepath.Join(e.dir, name)
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	if err != nil {
		e.err = &failure{code: exitInvalid, what: "cannot write " + file, why: cause(err)}
	}
}

// evidenceDir is where what a run can be judged by is kept.
func (c *cli) evidenceDir(id string) string { return filepath.Join(c.home(), "runs", id) }

// keepEvidence does so for a run of this process that has asked models, once it
// is over. The run has its result all the same.
func (c *cli) keepEvidence(ctx context.Context, cl *client, run *api.Run) (dir string) {
	if cl.house == nil || !finished(run) {
		return ""
	}
	if page, err := cl.calls.ListCalls(ctx, &api.ListCallsRequest{Id: run.GetId(), PageSize: 1}); err != nil || len(page.GetCalls()) == 0 {
		return ""
	}
	dir = c.evidenceDir(run.GetId())
	if err := c.writeEvidence(ctx, cl, run.GetId(), dir); err != nil {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", "the prompts and answers were not written: "+err.Error()))
		return ""
	}
	return dir
}
