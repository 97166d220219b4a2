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
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

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

// process is a server that is a program of ours, in a process group of its own.
type process struct {
	cmd   *exec.Cmd
	in    *os.File      // its standard input
	ended chan struct{} // closed once it is reaped and its group is gone
	pipes sync.WaitGroup
	open  []*os.File // our ends of its outputs
}

// start starts a program. messages is what it writes to its standard output, a
// message a line and nothing else; log gets the other lines, and those of its
// standard error. The process must be stopped.
func start(argv, env []string, dir string, log func(line string)) (p *process, messages io.ReadCloser, err error) {
	var ours, theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			for _, f := range ours {
				_ = f.Close()
			}
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // what the pipeline names; stop ends it
	cmd.Env, cmd.Dir, cmd.SysProcAttr = env, dir, attributes()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	p = &process{cmd: cmd, in: ours[0], open: ours[1:], ended: make(chan struct{})}
	r, w := io.Pipe()
	p.pipes.Go(func() { _ = w.CloseWithError(pass(p.open[0], w, log)) })
	p.pipes.Go(func() { drain(p.open[1], log) })
	go p.reap()
	return p, r, nil
}

// reap waits for the process, and ends what it has left behind.
func (p *process) reap() {
	_ = p.cmd.Wait()
	p.signal(syscall.SIGKILL)
	for _, f := range p.open { // whoever has left the group may hold the other ends
		_ = f.SetReadDeadline(time.Now().Add(farewell))
	}
	p.pipes.Wait()
	for _, f := range p.open {
		_ = f.Close()
	}
	_ = p.in.Close()
	close(p.ended)
}

func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// stop ends the process, at first politely, and returns when it has ended.
func (p *process) stop() {
	_ = p.in.Close()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t := time.NewTimer(farewell)
		select {
		case <-p.ended:
			t.Stop()
			return
		case <-t.C:
			p.signal(s)
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

// program finds a program by the PATH of the server's own environment, relative
// to its folder.
func program(name string, env []string, dir string) (string, error) {
	executable := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	}
	if strings.ContainsRune(name, filepath.Separator) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		if executable(name) {
			return name, nil
		}
		return "", pipeline.Failuref(pipeline.CategoryValidation, "%s is no program", name)
	}
	for _, kv := range env {
		path, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, folder := range filepath.SplitList(path) {
			if !filepath.IsAbs(folder) {
				folder = filepath.Join(dir, folder)
			}
			if full := filepath.Join(folder, name); executable(full) {
				return full, nil
			}
		}
	}
	return "", pipeline.Failuref(pipeline.CategoryValidation, "there is no program %s in its PATH", name)
}

// start starts the server's program.
func (p *Pool) start(ctx context.Context, s *Server, workspace string, log func(line string)) (*process, io.ReadCloser, error) {
	if len(s.Command) == 0 || s.Command[0] == "" {
		return nil, nil, pipeline.Failuref(pipeline.CategoryValidation, "its command is empty")
	}
	env := make([]string, 0, len(p.cfg.Environ)+len(s.Env))
	for _, kv := range p.cfg.Environ {
		if name, _, _ := strings.Cut(kv, "="); s.Env[name] == "" {
			env = append(env, kv)
		}
	}
	for name, v := range s.Env {
		env = append(env, name+"="+v)
	}
	dir := workspace
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, err
		}
	} else {
		dir = os.TempDir()
	}
	path, err := program(s.Command[0], env, dir)
	if err != nil {
		return nil, nil, err
	}
	argv := append([]string{path}, s.Command[1:]...)
	if s.Sandbox != nil {
		if p.cfg.Confine == nil {
			return nil, nil, pipeline.Failuref(pipeline.CategoryValidation, "it asks for a sandbox, and this server has none")
		}
		if workspace == "" {
			return nil, nil, pipeline.Failuref(pipeline.CategoryValidation, "it asks for a sandbox, and there is no workspace")
		}
		if argv, err = p.cfg.Confine(ctx, Confined{Argv: argv, Env: env, Workspace: dir, Sandbox: s.Sandbox}); err != nil {
			return nil, nil, err
		}
	}
	return start(argv, env, dir, log)
}
