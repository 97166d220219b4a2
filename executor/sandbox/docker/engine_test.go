package docker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// engine speaks the Engine API as far as the driver uses it, over a real socket.
// Its containers are processes of this machine: what the driver promises of streams,
// signals and ends is tested, and what it asks for is kept; what a container holds is
// the engine's own business.
type engine struct {
	t      *testing.T
	images map[string]bool

	mu    sync.Mutex
	made  []created
	boxes map[string]*box
	asked []string // method and path, without the version
	found []container.Summary
	fail  map[string]string // path's last word -> what the engine says instead
}

// created is what a container was asked to be.
type created struct {
	container.Config
	HostConfig container.HostConfig
}

type box struct {
	want  created
	conn  net.Conn
	cmd   *exec.Cmd
	ended chan struct{}
	code  int
}

// serve starts an engine and gives the path of its socket.
func serve(t *testing.T) (*engine, string) {
	t.Helper()
	e := &engine{t: t, images: map[string]bool{"python:x": true, "node:x": true}, boxes: map[string]*box{}, fail: map[string]string{}}
	socket := filepath.Join(t.TempDir(), "engine.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.44") })
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"SecurityOptions": []string{"name=apparmor", "name=seccomp,profile=builtin"}})
	})
	mux.HandleFunc("GET /images/{name}/json", func(w http.ResponseWriter, r *http.Request) {
		if !e.images[r.PathValue("name")] {
			refuse(w, http.StatusNotFound, "No such image")
			return
		}
		answer(w, map[string]any{"Id": "sha256:1"})
	})
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, _ *http.Request) { answer(w, e.found) })
	mux.HandleFunc("POST /containers/create", e.create)
	mux.HandleFunc("POST /containers/{id}/attach", e.with((*engine).attach))
	mux.HandleFunc("POST /containers/{id}/wait", e.with(func(_ *engine, w http.ResponseWriter, r *http.Request, b *box) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-b.ended:
			answer(w, container.WaitResponse{StatusCode: int64(b.code)})
		case <-r.Context().Done():
		}
	}))
	mux.HandleFunc("POST /containers/{id}/start", e.with((*engine).start))
	mux.HandleFunc("POST /containers/{id}/kill", e.with(func(_ *engine, w http.ResponseWriter, r *http.Request, b *box) {
		b.signal(map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL}[r.URL.Query().Get("signal")])
		w.WriteHeader(http.StatusNoContent)
	}))
	mux.HandleFunc("GET /containers/{id}/json", e.with(func(_ *engine, w http.ResponseWriter, _ *http.Request, b *box) {
		answer(w, map[string]any{"Id": "x", "State": map[string]any{"OOMKilled": b.code == 137 && b.want.HostConfig.Memory == 1}})
	}))
	mux.HandleFunc("DELETE /containers/{id}", func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		b := e.boxes[r.PathValue("id")]
		delete(e.boxes, r.PathValue("id"))
		e.mu.Unlock()
		if b != nil {
			b.signal(syscall.SIGKILL)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if rest, ok := strings.CutPrefix(path, "/v1.44"); ok {
			path = rest
		}
		word := path[strings.LastIndex(path, "/")+1:]
		e.mu.Lock()
		e.asked = append(e.asked, r.Method+" "+path)
		text := e.fail[word]
		e.mu.Unlock()
		if text != "" {
			refuse(w, http.StatusInternalServerError, text)
			return
		}
		r.URL.Path, r.URL.RawPath = path, ""
		mux.ServeHTTP(w, r)
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return e, socket
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func refuse(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	answer(w, map[string]string{"message": text})
}

func (e *engine) create(w http.ResponseWriter, r *http.Request) {
	var c created
	d := json.NewDecoder(r.Body)
	if err := d.Decode(&c); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	e.mu.Lock()
	e.made = append(e.made, c)
	id := fmt.Sprintf("c%d", len(e.made))
	e.boxes[id] = &box{want: c, ended: make(chan struct{})}
	e.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	answer(w, map[string]any{"Id": id, "Warnings": []string{}})
}

// with finds the container that a request names.
func (e *engine) with(do func(*engine, http.ResponseWriter, *http.Request, *box)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		b := e.boxes[r.PathValue("id")]
		e.mu.Unlock()
		if b == nil {
			refuse(w, http.StatusNotFound, "No such container")
			return
		}
		do(e, w, r, b)
	}
}

// attach turns the connection into the container's streams.
func (e *engine) attach(w http.ResponseWriter, _ *http.Request, b *box) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.t.Error(err)
		return
	}
	e.mu.Lock()
	b.conn = conn
	e.mu.Unlock()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
}

func (e *engine) start(w http.ResponseWriter, _ *http.Request, b *box) {
	e.mu.Lock()
	conn := b.conn
	e.mu.Unlock()
	argv := append(append([]string{}, b.want.Entrypoint...), b.want.Cmd...)
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec,noctx // what the test asked for
	cmd.Dir, cmd.Env = b.want.WorkingDir, append(b.want.Env, "PATH=/usr/bin:/bin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var mu sync.Mutex
	cmd.Stdout, cmd.Stderr = frames{&mu, conn, 1}, frames{&mu, conn, 2}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		conn.Close()
		refuse(w, http.StatusBadRequest, "OCI runtime create failed: exec: \""+argv[0]+"\": executable file not found in $PATH")
		return
	}
	b.cmd = cmd
	go func() {
		_, _ = io.Copy(stdin, conn)
		stdin.Close()
	}()
	go func() {
		err := cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the namespace ends with its first process
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			if b.code = exit.ExitCode(); b.code < 0 {
				b.code = 128 + int(exit.Sys().(syscall.WaitStatus).Signal()) //nolint:forcetypeassert // on unix
			}
		}
		conn.Close()
		close(b.ended)
	}()
	w.WriteHeader(http.StatusNoContent)
}

func (b *box) signal(s syscall.Signal) {
	if b.cmd != nil {
		_ = syscall.Kill(-b.cmd.Process.Pid, s)
	}
}

// frames is one of the streams of a container, as the engine mixes them.
type frames struct {
	mu     *sync.Mutex
	w      io.Writer
	stream byte
}

func (f frames) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := binary.BigEndian.AppendUint32([]byte{f.stream, 0, 0, 0}, uint32(len(b))) //nolint:gosec // a piece of output
	if _, err := f.w.Write(append(head, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
