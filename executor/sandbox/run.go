package sandbox

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Result is what a program gave that was run to its end.
type Result struct {
	Stdout, Stderr string // valid UTF-8
	Cut            bool   // whether it wrote more than was kept
	Exit           Exit
	Level          Level
	Took           time.Duration
}

// Run runs a program to its end, with stdin as its input, and keeps at most limit
// bytes of each of its streams; what it writes beyond is read and dropped. At the
// end of ctx everything of it is killed, and the error says why, beside what it
// had written. The error is a *pipeline.Failure; an exit code other than 0 is none.
func (s *Set) Run(ctx context.Context, want *pipeline.Sandbox, place Spec, p Program, stdin string, limit int) (Result, error) {
	in, err := Input(stdin)
	if err != nil {
		return Result{}, pipeline.Failuref(pipeline.CategoryResource, "prepare the standard input: %v", err)
	}
	stdout, err := newSink(limit)
	if err != nil {
		in.Close()
		return Result{}, err
	}
	stderr, err := newSink(limit)
	if err != nil {
		in.Close()
		stdout.w.Close()
		stdout.r.Close()
		return Result{}, err
	}
	var drains sync.WaitGroup
	drains.Go(stdout.drain)
	drains.Go(stderr.drain)
	begun := time.Now()
	p.Stdin, p.Stdout, p.Stderr = in, stdout.w, stderr.w
	r, err := s.Start(ctx, want, place, p)
	if err != nil {
		drains.Wait()
		return Result{}, err
	}
	stop := context.AfterFunc(ctx, r.Kill)
	<-r.Done()
	early := stop()
	exit, err := r.Wait()
	took := time.Since(begun)
	// Nothing of the program is left but, on a bare host, what has fled from it.
	for _, k := range []*sink{stdout, stderr} {
		_ = k.r.SetReadDeadline(time.Now().Add(time.Second))
	}
	drains.Wait()
	if err == nil && !early {
		err = ended(ctx)
	}
	return Result{
		Stdout: stdout.text(), Stderr: stderr.text(), Cut: stdout.cut || stderr.cut,
		Exit: exit, Level: r.Level(), Took: took,
	}, err
}

// sink reads a stream to its end and keeps the beginning.
type sink struct {
	r, w  *os.File
	limit int
	kept  []byte
	cut   bool
}

func newSink(limit int) (*sink, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryResource, "open pipes: %v", err)
	}
	return &sink{r: r, w: w, limit: limit}, nil
}

func (k *sink) drain() {
	defer k.r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := k.r.Read(buf)
		fits := min(n, k.limit-len(k.kept))
		k.kept = append(k.kept, buf[:fits]...)
		k.cut = k.cut || fits < n
		if err != nil {
			return
		}
	}
}

func (k *sink) text() string { return strings.ToValidUTF8(string(k.kept), "\ufffd") }
