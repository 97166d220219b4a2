package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

// initializing is the newest version of the protocol that begins by initialize,
// which all servers know.
const initializing = "2025-11-25"

// partingTime is how long a connection has to end in good order.
const partingTime = 6 * time.Second

// link is one connection with a server. It ends by lose, from whichever side.
type link struct {
	s      *session
	ctx    context.Context //nolint:containedctx // the life of the connection
	cancel context.CancelCauseFunc
	opened chan struct{} // closed once open has returned
	over   chan struct{} // closed once nothing of it is left
	stale  chan struct{} // capacity 1: its tools have changed
	heard  atomic.Int64  // nanoseconds since epoch: when it gave a sign of life
	logged atomic.Int64  // bytes of its log

	client *sdk.ClientSession
	proc   *process // of stdio
	last   tail     // of its standard error
	idle   func()   // closes sockets that are kept
	ending sync.Once
	tasks  sync.WaitGroup
}

func (s *session) newLink() *link {
	l := &link{s: s, opened: make(chan struct{}), over: make(chan struct{}), stale: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancelCause(s.pool.life)
	s.pool.tasks.Add(1) // until over
	l.touch()
	return l
}

func (l *link) touch()               { l.heard.Store(time.Now().UnixNano()) }
func (l *link) quiet() time.Duration { return time.Since(time.Unix(0, l.heard.Load())) }
func (l *link) works() bool          { return l.ctx.Err() == nil }

// open connects.
func (l *link) open(legacy bool) error {
	s := l.s
	var transport sdk.Transport
	switch s.server.Transport {
	case stdio:
		proc, messages, err := s.pool.start(l.ctx, &s.server, s.place, func(line string) {
			l.last.add(line)
			l.keep("stderr", line)
		})
		if err != nil {
			return err
		}
		l.proc = proc
		transport = &sdk.IOTransport{Reader: messages, Writer: proc.in, MaxLineLength: maxMessage}
	case streamable, sse:
		c, err := newCarrier(l.ctx, &s.server, s.pool.cfg.Logins)
		if err != nil {
			return err
		}
		c.fail = l.lose
		l.idle = c.base.CloseIdleConnections
		client := &http.Client{Transport: c}
		if s.server.Transport == sse {
			transport = &sdk.SSEClientTransport{Endpoint: s.server.URL, HTTPClient: client, MaxEventSize: maxMessage}
		} else {
			transport = &sdk.StreamableClientTransport{Endpoint: s.server.URL, HTTPClient: client, MaxEventSize: maxMessage}
		}
	default:
		return fmt.Errorf("there is no transport %q", s.server.Transport)
	}
	opts := &sdk.ClientSessionOptions{}
	if legacy {
		opts.ProtocolVersion = initializing
	}
	client, err := l.newClient().Connect(l.ctx, transport, opts)
	if err != nil {
		return err
	}
	l.client = client
	l.touch()
	l.tasks.Go(func() { l.lose(ended(client.Wait())) })
	l.tasks.Go(l.refresh)
	if init := client.InitializeResult(); init != nil && init.Capabilities != nil && init.Capabilities.Logging != nil && init.ProtocolVersion <= initializing { //nolint:staticcheck // as below
		_ = client.SetLoggingLevel(l.ctx, &sdk.SetLoggingLevelParams{Level: "info"}) //nolint:staticcheck // servers of those versions have no other way
	}
	return nil
}

func ended(err error) error {
	if err == nil {
		return errors.New("it has ended the connection")
	}
	return fmt.Errorf("the connection has ended: %w", err)
}

func (l *link) newClient() *sdk.Client {
	s := l.s
	caps := &sdk.ClientCapabilities{
		Elicitation: &sdk.ElicitationCapabilities{Form: &sdk.FormElicitationCapabilities{}, URL: &sdk.URLElicitationCapabilities{}},
	}
	opts := &sdk.ClientOptions{
		Logger: slog.New(slog.DiscardHandler), Capabilities: caps,
		ElicitationHandler:          l.elicit,
		ToolListChangedHandler:      l.toolsChanged,
		LoggingMessageHandler:       l.message, //nolint:staticcheck // servers use it for as long as it is in the protocol
		ProgressNotificationHandler: l.progress,
	}
	if s.pool.cfg.Models != nil {
		opts.CreateMessageHandler = l.sample //nolint:staticcheck // servers use it for as long as it is in the protocol
	}
	local := s.server.Transport == stdio
	if local { // a server elsewhere has nothing of a path here
		caps.RootsV2 = &sdk.RootCapabilities{} //nolint:staticcheck // as above
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "orchestrator", Version: s.pool.cfg.Version}, opts)
	if local {
		u := url.URL{Scheme: "file", Path: filepath.ToSlash(s.place.Workspace)}
		client.AddRoots(&sdk.Root{URI: u.String(), Name: "workspace"}) //nolint:staticcheck // as above
	}
	return client
}

// lose ends the connection, once; over tells when nothing is left of it.
func (l *link) lose(err error) {
	l.ending.Do(func() {
		l.s.lost(l, err)
		go l.end(err)
	})
}

func (l *link) end(err error) {
	defer l.s.pool.tasks.Done()
	defer close(l.over)
	select {
	case <-l.opened:
	default:
		l.cancel(err)
		<-l.opened
	}
	if l.client != nil {
		late := time.AfterFunc(partingTime, func() { l.cancel(err) })
		if l.proc != nil { // it ends when its input does; and what is stuck in writing to it goes on
			_ = l.proc.in.Close()
		}
		_ = l.client.Close()
		late.Stop()
	} else if l.proc != nil { // it was never a server
		l.proc.running.Kill()
	}
	l.cancel(err)
	if l.proc != nil {
		l.proc.stop()
	}
	if l.idle != nil {
		l.idle()
	}
	l.tasks.Wait()
}

// why explains the end of a connection by what the server's program said last.
func (l *link) why(err error) error {
	if cause := context.Cause(l.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if said := l.last.text(); said != "" && !errors.Is(err, errClosed) {
		return fmt.Errorf("%w; it said: %s", err, l.s.server.blot(said))
	}
	return err
}

// answers reports whether the server still does.
func (l *link) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, min(5*time.Second, l.s.pool.cfg.Connect))
	defer cancel()
	err := l.client.Ping(ctx, nil)
	var refused *jsonrpc.Error
	if err == nil || errors.As(err, &refused) { // that is an answer too
		l.touch()
		return true
	}
	return false
}

// keep puts a line into the step's log, up to a bound.
func (l *link) keep(stream, line string) {
	n := l.logged.Add(int64(len(line)) + 1)
	switch {
	case n <= maxLog:
		l.s.log(stream, line)
	case n-int64(len(line))-1 <= maxLog:
		l.s.log("system", fmt.Sprintf("it has said more than %d KiB; the rest is not kept", maxLog>>10))
	}
}

// tail is the end of what a program said.
type tail struct {
	mu    sync.Mutex
	lines []string
}

const tailLines, tailBytes = 12, 1000

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.Join(t.lines, " | ")
	return s[max(0, len(s)-tailBytes):]
}
