// Orchestrator runs AI pipelines durably: this command is its engine, its
// server with the dashboard, and the client of both.
//
// Every verb is a client of one API. Without a server, the API, the engine and
// the embedded store live inside the command's own process for as long as the
// verb takes (wire.go joins them); with --server the same calls go over the
// network. config.go reads the settings, progress.go folds a run's events, and
// tree.go and plain.go show them; each other file is a verb.
//
//	orchestrator run hello.yaml -i name=World
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"charm.land/fang/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/mattn/go-isatty"
)

func main() {
	c := &cli{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		environ:  os.Environ(),
		terminal: isTerminal(os.Stdout),
		keyboard: isTerminal(os.Stdin),
	}
	if isTerminal(os.Stderr) && os.Getenv("TERM") != "dumb" {
		c.tty = os.Stderr
	}
	c.log = &logWriter{w: c.err}
	os.Exit(c.main(os.Args[1:]))
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()) }

// cli is what the verbs share: the world they speak to, and the flags that
// every verb has.
type cli struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	terminal bool     // out is one
	tty      *os.File // err, if that is one and can be painted on
	keyboard bool     // in is one: somebody may be there to answer

	server     string // the flag --server, or ORCHESTRATOR_SERVER
	configFile string // the flag --config
	asJSON     bool   // the flag --json of the verb that runs
	entered    bool   // a verb has begun: errors are no longer those of usage
	signals    *signals
	log        *logWriter
	lines      <-chan string // what is typed, once somebody was asked
}

// main runs a command line and returns the exit code.
func (c *cli) main(args []string) (code int) {
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	ctx, stop := c.catchSignals()
	defer stop()
	ctx = c.placed(ctx)
	defer func() {
		if p := recover(); p != nil {
			code = c.crashed(p)
		}
	}()
	_ = fang.Execute(ctx, root, // the handler tells the error
		fang.WithVersion(version),
		fang.WithColorSchemeFunc(fang.AnsiColorScheme),
		fang.WithErrorHandler(func(_ io.Writer, _ fang.Styles, err error) { code = c.tell(err) }),
	)
	return code
}

// crashed tells of a fault of this program. The details are for those who mend
// it, and go to a file.
func (c *cli) crashed(p any) int {
	what := &failure{code: exitFailed, what: "this command has a fault and had to stop", fix: []string{"please report it, with what you did"}}
	f, err := os.CreateTemp("", "orchestrator-crash-*.txt")
	if err == nil {
		fmt.Fprintf(f, "orchestrator %s\n%v\n\n%s", version, p, debug.Stack())
		if f.Close() == nil {
			what.fix = []string{"please report it, with what you did and the file " + f.Name()}
		}
	}
	return c.tell(what)
}

// signals turns SIGINT and SIGTERM into steps: the first asks, the second
// leaves.
type signals struct {
	first  chan struct{} // closed by the first signal
	second context.CancelFunc
}

// catchSignals returns a context that ends with the second signal. A verb that
// cannot make use of the first one calls endOnSignal.
func (c *cli) catchSignals() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c.signals = &signals{first: make(chan struct{}), second: cancel}
	heard := make(chan os.Signal, 2)
	signal.Notify(heard, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-heard:
			}
			switch n {
			case 0:
				close(c.signals.first)
			case 1:
				cancel()
			default:
				os.Exit(exitInterrupted) // it hangs while leaving
			}
		}
	}()
	return ctx, func() {
		signal.Stop(heard)
		close(done)
		<-ended
		cancel()
	}
}

// endOnSignal is ctx for verbs that end with the first signal.
func (c *cli) endOnSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-c.signals.first:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// interrupted reports whether a signal has come.
func (c *cli) interrupted() bool {
	select {
	case <-c.signals.first:
		return true
	default:
		return false
	}
}

// env is a variable of the environment.
func (c *cli) env(name string) (string, bool) {
	for _, kv := range slices.Backward(c.environ) {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v, true
		}
	}
	return "", false
}

// painted is a writer that leaves out the colours that w does not show.
func (c *cli) painted(w io.Writer) io.Writer { return colorprofile.NewWriter(w, c.environ) }

// colourful reports whether w shows colours.
func (c *cli) colourful(w io.Writer) bool {
	return colorprofile.Detect(w, c.environ) > colorprofile.Ascii
}

// tell prints an error, if it is to be printed, and returns the exit code.
func (c *cli) tell(err error) int {
	var f *failure
	if !errors.As(err, &f) {
		f = c.explainError(err)
	}
	if f.what == "" {
		return f.code
	}
	w := c.painted(c.err)
	fmt.Fprintf(w, "%s %s\n", lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true).Render("Error:"), f.what)
	if f.why != "" {
		fmt.Fprintln(w, indent(f.why))
	}
	for _, fix := range f.fix {
		for line := range strings.SplitSeq(fix, "\n") {
			fmt.Fprintln(w, lipgloss.NewStyle().Foreground(lipgloss.Cyan).Render("  "+line))
		}
	}
	return f.code
}

// indent sets a text off by two columns.
func indent(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "  " + l
		}
	}
	return strings.Join(lines, "\n")
}
