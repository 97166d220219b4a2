package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (c *cli) runsWatchCommand() *cobra.Command {
	after := int32(0)
	cmd := &cobra.Command{
		Use:   "watch RUN",
		Short: "Follow a run to its end",
		Long:  `Shows a run as run does, from its beginning to its end, wherever it is executed. Ctrl-C only stops watching. The exit code is that of the run: 0 when it completed, 1 when it failed or was cancelled, 3 when it waits for a person.`,
		Example: `
orchestrator runs watch last
orchestrator runs watch last --json | jq .type`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs watch last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error { return c.watchRun(ctx, cl, args[0], after) })
		},
	}
	cmd.Flags().Int32Var(&after, "after", 0, "with --json: only events after this number")
	c.jsonFlag(cmd, "print each event as a line of JSON")
	return cmd
}

func (c *cli) watchRun(ctx context.Context, cl *client, arg string, after int32) error {
	id, err := cl.findRun(ctx, arg)
	if err != nil {
		return err
	}
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return err
	}
	if cl.orphaned(run) {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", idle(run.GetId())))
	}
	if c.asJSON {
		stream, err := cl.runs.WatchRun(ctx, &api.WatchRunRequest{Id: id, After: after})
		if err != nil {
			return err
		}
		if err := jsonLines(c.out, stream.Recv); err != nil {
			return err
		}
	} else {
		f, err := c.newFollower(ctx, cl, id, false, time.Time{})
		if err != nil {
			return err
		}
		run, err := f.follow(ctx, c.reporter(false))
		if err != nil {
			return err
		}
		if run.GetStatus() == api.Run_WAITING {
			c.tellQuestions(c.painted(c.err), f)
		}
	}
	run, err = cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return err
	}
	if !c.asJSON {
		tellOutcome(c.painted(c.err), run)
	}
	if code := outcome(run); code != 0 {
		return quiet(code)
	}
	return nil
}

// jsonLines prints messages as lines of JSON until there are no more.
func jsonLines[M proto.Message](w io.Writer, recv func() (M, error)) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := wire.Marshal(m)
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
	}
}

func (c *cli) runsLogsCommand() *cobra.Command {
	req := &api.ReadLogsRequest{}
	cmd := &cobra.Command{
		Use:   "logs RUN",
		Short: "Print what the steps have printed",
		Example: `
orchestrator runs logs last
orchestrator runs logs last --step 'test_loop[2]/run_tests' --tail 50
orchestrator runs logs last --follow`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs logs last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				req.Id = id
				return c.printLogs(ctx, cl, req)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&req.Step, "step", "", "only this step, by its path as in test_loop[2]/run_tests")
	fl.BoolVarP(&req.Follow, "follow", "f", false, "go on until the run has finished")
	fl.Int32Var(&req.Tail, "tail", 0, "only the last so many pieces; 0 is all")
	c.jsonFlag(cmd, "print each piece as a line of JSON")
	return cmd
}

func (c *cli) printLogs(ctx context.Context, cl *client, req *api.ReadLogsRequest) error {
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: req.GetId()})
	if err != nil {
		return err
	}
	stream, err := cl.runs.ReadLogs(ctx, req)
	if err != nil {
		return err
	}
	if c.asJSON {
		return jsonLines(c.out, stream.Recv)
	}
	w := c.out // elsewhere than on a terminal the text stays as it is
	if c.terminal {
		w = c.painted(c.out)
	}
	p := &logPrinter{w: w, safe: c.terminal, bare: req.GetStep() != ""}
	for {
		l, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.flush()
			return err
		}
		p.print(l)
	}
	p.flush()
	if !p.any && !req.GetFollow() {
		text := "the steps have printed nothing"
		if req.GetStep() != "" {
			text = "step " + req.GetStep() + " has printed nothing; orchestrator runs get " + run.GetId() + " lists the steps"
		}
		fmt.Fprintln(c.painted(c.err), dim(text))
	}
	return nil
}

// logPrinter prints pieces of logs as whole lines, with their step in front
// where there may be several.
type logPrinter struct {
	w    io.Writer
	safe bool // w is a terminal: foreign escape sequences stay out
	bare bool // one step only
	any  bool
	key  string // whose unfinished line stands in rest
	rest string
	path string
	err  bool
}

func (p *logPrinter) print(l *api.LogLine) {
	p.any = true
	key := l.GetPath() + "\x00" + l.GetStream()
	if key != p.key {
		p.flush()
		p.key, p.path, p.err = key, l.GetPath(), l.GetStream() == "stderr"
	}
	p.rest += l.GetText()
	for {
		before, after, ok := strings.Cut(p.rest, "\n")
		if !ok {
			return
		}
		p.line(before)
		p.rest = after
	}
}

func (p *logPrinter) flush() {
	if p.rest != "" {
		p.line(p.rest)
	}
	p.rest = ""
}

func (p *logPrinter) line(text string) {
	text = strings.TrimSuffix(text, "\r")
	if p.safe {
		text = harmlessLine(text)
		if p.err {
			text = lipgloss.NewStyle().Foreground(lipgloss.Red).Render(text)
		}
	}
	if !p.bare {
		name := p.path + " |"
		if p.safe {
			name = dim(name)
		}
		text = name + " " + text
	}
	fmt.Fprintln(p.w, text)
}
