// Package replica starts, kills and looks at a real `orchestrator serve`
// process and gives it a database of its own. Measuring (bench) and torture
// (scripts/torture) share it; it owns the process and the database, and ends
// both.
//
//	db, err := replica.NewDatabase(ctx, os.Getenv("TEST_DATABASE_URL"), "bench")
//	defer db.Drop()
//	r, err := replica.Start(ctx, replica.Config{Binary: "bin/orchestrator", DatabaseURL: db.URL, Home: dir})
//	defer r.Kill()
package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// Config says which server to start.
type Config struct {
	Binary      string
	DatabaseURL string   // empty: the embedded store in Home
	Home        string   // ORCHESTRATOR_HOME; must exist
	Addr        string   // host:port; empty: a free port on 127.0.0.1
	Environ     []string // added to the environment
	Log         io.Writer
}

// Replica is a running server process.
type Replica struct {
	Addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of the process; read after done
}

// FreeAddr is an address on 127.0.0.1 that nobody listens on now.
func FreeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Start starts a server and returns when it says that it is ready.
func Start(ctx context.Context, c Config) (*Replica, error) {
	if c.Addr == "" {
		addr, err := FreeAddr(ctx)
		if err != nil {
			return nil, err
		}
		c.Addr = addr
	}
	binary, err := filepath.Abs(c.Binary)
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--listen", c.Addr}
	if c.DatabaseURL != "" {
		args = append(args, "--database-url", c.DatabaseURL)
	}
	cmd := exec.Command(binary, args...) //nolint:gosec,noctx // it outlives the start; Kill ends it
	cmd.Env = append(os.Environ(), "ORCHESTRATOR_HOME="+c.Home)
	cmd.Env = append(cmd.Env, c.Environ...)
	cmd.Dir = c.Home
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &Replica{Addr: c.Addr, cmd: cmd, done: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		close(r.done)
	}()
	if err := r.ready(ctx); err != nil {
		r.Kill()
		return nil, err
	}
	return r, nil
}

// ready waits until the server takes requests.
func (r *Replica) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	var last error
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		last = err
		select {
		case <-r.done:
			return fmt.Errorf("the server ended before it was ready: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("the server at %s is not ready: %w", r.Addr, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the process at once, as kill -9 does, and waits until it is gone.
func (r *Replica) Kill() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// Stop asks the process to end and waits for it.
func (r *Replica) Stop(ctx context.Context) error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		r.Kill()
		return ctx.Err()
	}
}

// Done is closed when the process has ended.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Dial connects to the API of the server at addr, now or as soon as it is there.
func Dial(addr string) (*grpc.ClientConn, error) {
	again := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
}

// Memory is the resident memory of the process in bytes, now and at its peak.
// Where /proc is missing, both are 0.
func (r *Replica) Memory() (now, peak int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	kib := func(key string) int64 {
		_, rest, _ := strings.Cut(string(text), key+":")
		n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), "kB")), 10, 64)
		return n << 10
	}
	return kib("VmRSS"), kib("VmHWM")
}

// CPU is the processor time that the process has used. Where /proc is missing,
// it is 0.
func (r *Replica) CPU() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the command's name may hold blanks
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64 // hundredths of a second: utime and stime, fields 14 and 15 of proc(5)
	for _, f := range fields[11:13] {
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Signal sends the process a signal.
func (r *Replica) Signal(s os.Signal) error { return r.cmd.Process.Signal(s) }
