//go:build unix

package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests of the e2e files start the real program as its users do and speak
// to it from outside: over HTTP and gRPC, through a browser, by signals. They
// wait for what happens, each wait no longer than patience.
const patience = 90 * time.Second

// binary builds the program once and returns where it stands. It stands in the
// cache of the checkout, so that an unchanged one is not linked again.
var binary = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(here)))
	dir := filepath.Join(root, ".cache", "e2e")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "orchestrator")
	build := exec.Command("go", "build", "-o", path, "./cmd/orchestrator") //nolint:noctx // it belongs to no test
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
})

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced when something is written
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

func (o *output) now() (text string, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.text.String(), o.more
}

func (o *output) String() string {
	text, _ := o.now()
	return text
}

// process is a running orchestrator.
type process struct {
	t        testing.TB
	cmd      *exec.Cmd
	out, err output
	ended    chan struct{} // closed when the process has ended
}

// launch says how to start the program.
type launch struct {
	args []string
	home string   // ORCHESTRATOR_HOME
	dir  string   // the current directory; default: home
	env  []string // added to a bare environment
}

// start starts the program. If it still runs at the end of the test, it is
// killed; what it wrote is shown when the test has failed.
func start(t testing.TB, l launch) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(path, l.args...), ended: make(chan struct{})} //nolint:noctx // the clean-up ends it
	p.cmd.Dir = l.dir
	if l.dir == "" {
		p.cmd.Dir = l.home
	}
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		"ORCHESTRATOR_HOME=" + l.home, "ORCHESTRATOR_EXECUTION_GRACE=1s",
	}, l.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C at the test is not its
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state tells
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("orchestrator %s wrote\n%s\n%s", strings.Join(l.args, " "), tail(p.out.String()), tail(p.err.String()))
		}
	})
	return p
}

// tail is the end of a text that may be long.
func tail(text string) string {
	const most = 6000
	if len(text) > most {
		return "[...]" + text[len(text)-most:]
	}
	return text
}

// signal sends a signal.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal %s: %v", s, err)
	}
}

// kill ends the process as kill -9 does and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// wait returns the exit code once the process has ended by itself.
func (p *process) wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("the process has not ended within %s", within)
		return 0
	}
}

// wrote waits until the process has written something that fits, and returns
// the submatches.
func (p *process) wrote(o *output, form string) []string {
	p.t.Helper()
	re := regexp.MustCompile(form)
	late := time.After(patience)
	for {
		text, more := o.now()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-more:
		case <-p.ended:
			if re.MatchString(o.String()) {
				continue
			}
			p.t.Fatalf("the process ended with code %d and has not written %q", p.cmd.ProcessState.ExitCode(), form)
		case <-late:
			p.t.Fatalf("the process has not written %q", form)
		}
	}
}

// run runs a command of the program to its end.
func run(t testing.TB, l launch) (code int, stdout, stderr string) {
	t.Helper()
	p := start(t, l)
	code = p.wait(patience)
	return code, p.out.String(), p.err.String()
}

// server is a running orchestrator serve.
type server struct {
	*process
	*site

	how    launch
	listen string
}

// serve starts a server on a free port, with the home that is given, and waits
// until it is ready.
func serve(t testing.TB, home string, env ...string) *server {
	t.Helper()
	return serveOn(t, "127.0.0.1:0", home, env...)
}

func serveOn(t testing.TB, listen, home string, env ...string) *server {
	t.Helper()
	how := launch{args: []string{"serve", "--listen", listen}, home: home, env: env}
	s := &server{process: start(t, how), how: how}
	url := s.wrote(&s.out, `dashboard +(http://\S+)`)[1]
	s.listen = strings.TrimPrefix(url, "http://")
	s.site = &site{t: t, url: url}
	s.ready()
	return s
}

// again starts the server anew after its end, at the same address.
func (s *server) again() *server {
	s.process.t.Helper()
	<-s.ended
	return serveOn(s.process.t, s.listen, s.how.home, s.how.env...)
}

// stop ends the server in good order.
func (s *server) stop() {
	s.process.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.wait(patience); code != 0 {
		s.process.t.Errorf("after SIGTERM the server exited with %d", code)
	}
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	within(t, patience, what, holds)
}

func within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(limit)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// touch makes an empty file.
func touch(t testing.TB, parts ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(parts...), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// save writes a file of a test.
func save(t testing.TB, text string, parts ...string) string {
	t.Helper()
	name := filepath.Join(parts...)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// lines are the lines of a file that may not exist yet. A line that is being
// written does not count.
func lines(t testing.TB, parts ...string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(parts...))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(string(b), "\n")
	return all[:len(all)-1]
}

// proxy forwards TCP to a server until it is cut; it can be mended.
type proxy struct {
	t      testing.TB
	addr   string
	target string

	mu    sync.Mutex // guards what follows
	down  bool
	conns map[net.Conn]bool
}

// between starts a proxy in front of an address.
func between(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, addr: l.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.forward(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		all.Wait()
	})
	return p
}

// hold notes a connection, or closes it while the line is cut.
func (p *proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) forward(c net.Conn) {
	if !p.hold(c) {
		return
	}
	s, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		c.Close()
		return
	}
	if !p.hold(s) {
		return
	}
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // a cut ends it
		to.Close()
		from.Close()
	}
	both.Go(func() { one(s, c) })
	one(c, s)
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	delete(p.conns, s)
}

// cut closes every connection and takes no new ones.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		c.Close()
	}
}

// mend takes connections again.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}
