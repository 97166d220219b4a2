package mcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxMessage = 16 << 20 // bytes of one message of a server
	maxNoise   = 1 << 20  // bytes of what is no message, on the standard output of one process
	maxLine    = 4 << 10  // bytes of a line of a server's log
	// farewell is how long a process has to end after its input has, and again
	// after it was told to.
	farewell  = 2 * time.Second
	maxAsides = 1000 // in a second; further messages that only tell something by the way are dropped
)

// process is a server that is a program of ours.
type process struct {
	running sandbox.Running
	in      *os.File      // its standard input
	ended   chan struct{} // closed once nothing of it is left
	pipes   sync.WaitGroup
	open    []*os.File // our ends of its outputs
}

// start starts the server's program, in a sandbox where it asks for one. messages
// is what it writes to its standard output, a message a line and nothing else;
// log gets the other lines, and those of its standard error. The process must be
// stopped.
func (p *Pool) start(ctx context.Context, s *Server, place sandbox.Spec, log func(line string)) (proc *process, messages io.ReadCloser, err error) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return nil, nil, pipeline.Failuref(pipeline.CategoryValidation, "its command is empty")
	}
	env := make([]string, 0, len(p.cfg.Environ)+len(s.Env))
	for _, kv := range p.cfg.Environ {
		name, _, _ := strings.Cut(kv, "=")
		if _, own := s.Env[name]; !own {
			env = append(env, kv)
		}
	}
	for name, v := range s.Env {
		env = append(env, name+"="+v)
	}
	if err := os.MkdirAll(place.Workspace, 0o700); err != nil {
		return nil, nil, err
	}
	var ours, theirs []*os.File
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			for _, f := range slices.Concat(ours, theirs) {
				_ = f.Close()
			}
			return nil, nil, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	program := sandbox.Program{Argv: s.Command, Environ: env, Stdin: theirs[0], Stdout: theirs[1], Stderr: theirs[2]}
	var running sandbox.Running
	if s.Sandbox != nil {
		running, err = p.cfg.Sandbox.Start(ctx, s.Sandbox, place, program)
	} else {
		running, err = sandbox.Host{Guarded: true}.Start(ctx, place, program)
	}
	if err != nil {
		for _, f := range ours {
			_ = f.Close()
		}
		return nil, nil, err
	}
	if s.Sandbox != nil {
		log("runs in the sandbox " + running.Level().String())
	}
	proc = &process{running: running, in: ours[0], open: ours[1:], ended: make(chan struct{})}
	r, w := io.Pipe()
	proc.pipes.Go(func() { _ = w.CloseWithError(pass(proc.open[0], w, log)) })
	proc.pipes.Go(func() { drain(proc.open[1], log) })
	go proc.reap()
	return proc, r, nil
}

// reap waits for the end of the program and of what it has left behind.
func (p *process) reap() {
	<-p.running.Done()
	_, _ = p.running.Wait()
	for _, f := range p.open { // on a bare host, what has fled from it may hold the other ends
		_ = f.SetReadDeadline(time.Now().Add(farewell))
	}
	p.pipes.Wait()
	for _, f := range p.open {
		_ = f.Close()
	}
	_ = p.in.Close()
	close(p.ended)
}

// stop ends the process, at first politely, and returns when it has ended.
func (p *process) stop() {
	_ = p.in.Close()
	for _, end := range []func(){p.running.Terminate, p.running.Kill} {
		t := time.NewTimer(farewell)
		select {
		case <-p.ended:
			t.Stop()
			return
		case <-t.C:
			end()
		}
	}
	<-p.ended
}

// drain reads lines until the end, however long and many they are.
func drain(r io.Reader, log func(line string)) {
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, more, err := b.ReadLine()
		if err != nil {
			return
		}
		log(string(line))
		for more && err == nil {
			_, more, err = b.ReadLine()
		}
	}
}

var errNoise = errors.New("it writes what is no message to its standard output")

// pass copies the messages of a server and keeps back everything else. It
// returns when the server's output ends, or is not to be borne.
func pass(r io.Reader, w io.Writer, log func(line string)) error {
	b := bufio.NewReaderSize(r, 64<<10)
	noise, asides, since := 0, 0, time.Now()
	var line []byte
	for {
		piece, err := b.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			if len(line) > maxMessage {
				return fmt.Errorf("a message of it has more than %d bytes", maxMessage)
			}
			continue
		case err != nil:
			return io.EOF
		}
		text := bytes.TrimSpace(line)
		message, aside := kindOf(text)
		if aside {
			if time.Since(since) > time.Second {
				asides, since = 0, time.Now()
			}
			asides++
		}
		switch {
		case len(text) == 0:
		case !message:
			if noise += len(text); noise > maxNoise {
				return errNoise
			}
			log(string(text[:min(len(text), maxLine)]))
		case aside && asides > maxAsides:
		default:
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		if line = line[:0]; cap(line) > 1<<20 {
			line = nil
		}
	}
}

// kindOf tells whether a line is a message of JSON-RPC, and one that only says
// something by the way.
func kindOf(line []byte) (message, aside bool) {
	if len(line) == 0 || line[0] != '{' && line[0] != '[' {
		return false, false
	}
	if line[0] == '[' { // a batch
		return json.Valid(line), false
	}
	var head struct {
		Method string `json:"method"`
	}
	if json.Unmarshal(line, &head) != nil {
		return false, false
	}
	return true, head.Method == "notifications/message" || head.Method == "notifications/progress"
}
