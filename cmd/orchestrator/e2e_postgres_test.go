//go:build unix

package main_test

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// takeover is how long the runs of a dead replica may stand still: promise 4.
const takeover = 20 * time.Second

// replicas starts two servers on one fresh database.
func replicas(t *testing.T) []*server {
	t.Helper()
	db := storetest.Postgres(t)
	return []*server{serve(t, t.TempDir(), "DATABASE_URL="+db), serve(t, t.TempDir(), "DATABASE_URL="+db)}
}

// flight is runs that are under way, all in the same step.
type flight struct {
	t     testing.TB
	gate  string
	paths []string
	runs  map[string]string // ids by their folders
}

// takeOff submits runs and waits until each is in its third step, which waits.
func takeOff(t testing.TB, s *server, n int) *flight {
	t.Helper()
	source, paths := chain(6, 2)
	f := &flight{t: t, gate: "s2", paths: paths, runs: map[string]string{}}
	for range n {
		dir := t.TempDir()
		f.runs[dir] = s.submit(source, map[string]any{"dir": dir})
	}
	for dir := range f.runs {
		starts(t, dir, f.gate, 1)
	}
	return f
}

// owners splits replicas into the one that began the first run's step, and
// another.
func (f *flight) owners(all []*server) (owner, other *server) {
	f.t.Helper()
	for dir := range f.runs {
		pid := starts(f.t, dir, f.gate, 1).pid
		i := slices.IndexFunc(all, func(s *server) bool { return s.cmd.Process.Pid == pid })
		if i < 0 {
			f.t.Fatalf("no replica has the process %d", pid)
		}
		return all[i], all[1-i]
	}
	return nil, nil
}

// owned are the folders of the runs that a replica executes.
func (f *flight) owned(s *server) (dirs []string) {
	f.t.Helper()
	for dir := range f.runs {
		if starts(f.t, dir, f.gate, 1).pid == s.cmd.Process.Pid {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// moved waits until another replica has begun the step of runs again.
func (f *flight) moved(dirs []string, to *server, limit time.Duration) {
	f.t.Helper()
	within(f.t, limit, "the runs go on elsewhere", func() bool {
		return !slices.ContainsFunc(dirs, func(dir string) bool {
			return !slices.ContainsFunc(ledger(f.t, dir), func(e entry) bool { return e.path == f.gate && e.pid == to.cmd.Process.Pid })
		})
	})
}

// land opens the gates and holds every run to its promises.
func (f *flight) land(s *server, viewers ...*viewer) {
	f.t.Helper()
	for dir := range f.runs {
		touch(f.t, dir, f.gate)
	}
	for dir, id := range f.runs {
		f.one(s, dir, id)
	}
	for _, v := range viewers {
		v.ends(api.Run_COMPLETED)
	}
}

func (f *flight) one(s *server, dir, id string) {
	f.t.Helper()
	s.finish(id, "COMPLETED", f.paths...)
	checkLedger(f.t, dir, f.paths, f.gate)
}

// view attaches a viewer to each run.
func (f *flight) view(s *server) (all []*viewer) {
	f.t.Helper()
	conn := dial(f.t, s)
	for _, id := range f.runs {
		all = append(all, view(f.t, conn, id))
	}
	return all
}

func TestPromises4And5RunsOfAKilledReplicaGoOnElsewhereWithoutAGap(t *testing.T) {
	t.Parallel()
	both := replicas(t)
	f := takeOff(t, both[0], 5)
	owner, other := f.owners(both)
	viewers := f.view(other)
	orphans := f.owned(owner)
	owner.kill()
	f.moved(orphans, other, takeover)
	f.land(other, viewers...)
	other.stop()
}

func TestPromise4RunsOfAStoppedReplicaAreHandedOverAtOnce(t *testing.T) {
	t.Parallel()
	both := replicas(t)
	f := takeOff(t, both[0], 5)
	owner, other := f.owners(both)
	viewers := f.view(other)
	orphans := f.owned(owner)
	owner.stop()
	f.moved(orphans, other, patience)
	f.land(other, viewers...)
	for _, dir := range orphans {
		if !slices.ContainsFunc(other.watch(f.runs[dir], 0, nil), func(e eventInfo) bool { return e.Type == "run_resumed" && e.Data.Reason == "handed_over" }) {
			t.Errorf("run %s went on, but not because it was handed over", f.runs[dir])
		}
	}
}

// A replica that is stopped and wakes up late is a zombie: others have its
// runs, and nothing that it still does counts.
func TestPromise2AZombieRecordsNothing(t *testing.T) {
	t.Parallel()
	both := replicas(t)
	f := takeOff(t, both[0], 3)
	owner, other := f.owners(both)
	viewers := f.view(other)
	orphans := f.owned(owner)
	owner.signal(syscall.SIGSTOP)
	f.moved(orphans, other, patience)
	for dir := range f.runs { // its own steps go on too, and end
		touch(t, dir, f.gate)
	}
	owner.signal(syscall.SIGCONT)
	f.land(other, viewers...)
	// It has noticed, and is a replica like any other.
	owner.ready()
	var id string
	eventually(t, "the zombie takes runs again", func() bool { // as it says: try again
		code, _, text := owner.send(http.MethodPost, "/v1/runs", request(greeting, nil))
		if code == http.StatusServiceUnavailable {
			return false
		}
		var r runInfo
		decode(t, text, &r)
		id = r.ID
		return true
	})
	owner.finish(id, "COMPLETED", "greet", "shout")
	for _, id := range f.runs {
		if a, b := toJSON(t, owner.watch(id, 0, nil)), toJSON(t, other.watch(id, 0, nil)); a != b {
			t.Errorf("the replicas tell different stories:\n%s\n%s", a, b)
		}
	}
	owner.stop()
	other.stop()
}

func TestPostgresAwayAtStart(t *testing.T) {
	t.Parallel()
	gone, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := gone.Addr().String()
	gone.Close()
	mute, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for name, addr := range map[string]string{"nobody listens": closed, "nobody answers": mute.Addr().String()} {
		begin := time.Now()
		p := start(t, launch{
			args: []string{"serve", "--listen", "127.0.0.1:0"}, home: t.TempDir(),
			env: []string{"DATABASE_URL=postgres://someone:hunter2@" + addr + "/orchestrator"},
		})
		code := p.wait(patience)
		text := p.err.String()
		if code != 4 || !strings.Contains(text, addr) || !strings.Contains(text, "Postgres") {
			t.Errorf("%s: exit code %d after %s, and it says\n%s", name, code, time.Since(begin), text)
		}
		if strings.Contains(text+p.out.String(), "hunter2") {
			t.Errorf("%s: it tells the password", name)
		}
	}
}

func TestPostgresAwayInTheMiddle(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	line := between(t, u.Host)
	u.Host = line.addr
	s := serve(t, t.TempDir(), "DATABASE_URL="+u.String())
	f := takeOff(t, s, 3)

	line.cut()
	eventually(t, "the server is not ready", func() bool { return s.code("/readyz") == http.StatusServiceUnavailable })
	_, _, text := s.send("GET", "/readyz", "")
	var why struct{ Status, Reason string }
	decode(t, text, &why)
	if why.Status != "unavailable" || why.Reason == "" {
		t.Errorf("/readyz says %s", text)
	}
	if code := s.code("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d: it would be restarted for nothing", code)
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/runs", ""},
		{"POST", "/v1/runs", request(greeting, nil)},
	} {
		code, _, text := s.send(c.method, c.path, c.body)
		var e errorInfo
		decode(t, text, &e)
		if code != http.StatusServiceUnavailable || e.Error.Message == "" || strings.Contains(text, "pgx") || strings.Contains(text, u.User.String()) {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, text)
		}
	}
	for dir := range f.runs { // the steps end, and their results have nowhere to go
		touch(t, dir, f.gate)
	}
	if _, _, text := s.send("GET", "/runs", ""); !strings.Contains(text, "Orchestrator") {
		t.Errorf("without its store the dashboard shows %.300s", text)
	}

	line.mend()
	s.ready()
	f.land(s)
	if id := s.submit(greeting, nil); id != "" {
		s.finish(id, "COMPLETED")
	}
	if n := s.runs(); n != len(f.runs)+1 {
		t.Errorf("there are %d runs", n) // a refused submission stored nothing
	}
	s.stop()
}
