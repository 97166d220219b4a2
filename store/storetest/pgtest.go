package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresEnv names the variable with the address of a server to test against.
const PostgresEnv = "TEST_DATABASE_URL"

const noPostgres = `no Postgres server to test against: set ` + PostgresEnv + `, or install one (on Debian and Ubuntu: sudo apt-get install -y postgresql)`

// Postgres gives the address of a fresh, empty database, which is dropped at
// the end of the test. The server is that of EnsurePostgres.
func Postgres(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	server, err := EnsurePostgres(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return newDatabase(t, server, "template0")
}

func newDatabase(t testing.TB, server, template string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The hour in the name lets a later run drop what a killed one has left.
	name := fmt.Sprintf("test_%d_%s", time.Now().Unix()/3600, strings.ToLower(rand.Text()[:12]))
	if err := admin(ctx, server, `CREATE DATABASE `+name+` TEMPLATE `+template); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := admin(ctx, server, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("address of the test server: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func admin(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// EnsurePostgres gives the address of a running server: the one of
// TEST_DATABASE_URL, else a throwaway cluster that all test processes of this
// user share and that is started when it does not run. It stays for the next
// tests; StopPostgres ends it. Without server binaries a container serves, and
// on Debian as root the package is installed.
func EnsurePostgres(ctx context.Context) (string, error) {
	if u := os.Getenv(PostgresEnv); u != "" {
		return u, nil
	}
	dir, err := clusterDir()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return "", fmt.Errorf("lock the shared test server: %w", err)
	}
	defer unlock()
	c := &Cluster{dir: filepath.Join(dir, "shared")}
	if c.load() == nil {
		for tries := 0; ; tries++ {
			if c.reach(ctx) == nil {
				c.dropOld(ctx)
				return c.URL, nil
			}
			if tries == 20 || !isPostmaster(c.PID, c.data()) { // a busy one may be slow, others use it
				break
			}
		}
	}
	if err := c.start(ctx); err == nil {
		return c.URL, nil
	} else if !errors.Is(err, errNoServer) {
		return "", fmt.Errorf("start a test server: %w", err)
	}
	if u, err := container(ctx); err == nil {
		return u, nil
	}
	if install(ctx) == nil {
		if err := c.start(ctx); err == nil {
			return c.URL, nil
		}
	}
	return "", errNoServer
}

// StopPostgres ends the shared cluster and removes it.
func StopPostgres(ctx context.Context) error {
	dir, err := clusterDir()
	if err != nil {
		return err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	c := &Cluster{dir: filepath.Join(dir, "shared")}
	if err := c.load(); err != nil {
		return nil // there is none
	}
	c.Kill()
	return os.RemoveAll(c.dir)
}

var errNoServer = errors.New(noPostgres)

// Cluster is a Postgres server of the tests.
type Cluster struct {
	URL  string `json:"url"`
	PID  int    `json:"pid"`
	Port int    `json:"port"`

	dir      string
	password string
}

// NewCluster starts a server for one test, which may stop it. It is removed at
// the end.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	base, err := clusterDir()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := EnsurePostgres(ctx); err != nil { // it installs one if it must
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, "own-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{dir: filepath.Join(dir, "pg")}
	t.Cleanup(func() {
		c.Kill()
		os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := c.start(ctx); err != nil {
		t.Fatalf("start a test server: %v", err)
	}
	return c
}

// Kill ends the server at once, as a crash does.
func (c *Cluster) Kill() {
	if c.PID <= 0 || !isPostmaster(c.PID, c.data()) {
		return
	}
	if p, err := os.FindProcess(c.PID); err == nil {
		quit(p)
		for range 6000 { // it ends by itself, after 5 s of those that do not hear it
			if !isPostmaster(c.PID, c.data()) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Restart starts the server again, on the same port and data.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := c.run(ctx); err != nil {
		t.Fatalf("restart the test server: %v", err)
	}
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) load() error {
	b, err := os.ReadFile(filepath.Join(c.dir, "server.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, c)
}

func (c *Cluster) save() error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.dir, "server.json"), b, 0o600)
}

func (c *Cluster) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // one that is gone refuses at once
	defer cancel()
	return admin(ctx, c.URL, `SELECT 1`)
}

// dropOld removes the databases of test processes that were killed, and the
// templates of days gone by.
func (c *Cluster) dropOld(ctx context.Context) {
	conn, err := pgx.Connect(ctx, c.URL)
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT datname::text FROM pg_database WHERE datname LIKE 'test\_%' OR datname LIKE 'template\_%'`)
	if err != nil {
		return
	}
	names, _ := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range names {
		part := strings.Split(name, "_")
		hour, err := strconv.ParseInt(part[1], 10, 64)
		hours := time.Now().Unix()/3600 - hour
		if err == nil && (hours > 2 && part[0] == "test" || hours > 48) {
			_, _ = conn.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`)
		}
	}
}

// start makes the cluster anew and runs it.
func (c *Cluster) start(ctx context.Context) error {
	bin, err := serverBinaries()
	if err != nil {
		return err
	}
	c.Kill()
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.data(), 0o700); err != nil {
		return err
	}
	if err := giveToServer(c.dir, c.data()); err != nil {
		return err
	}
	c.password = rand.Text()
	secret := filepath.Join(c.dir, "password")
	if err := os.WriteFile(secret, []byte(c.password), 0o600); err != nil {
		return err
	}
	if err := giveToServer(secret); err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", c.data(), "-U", "orchestrator",
		"--pwfile="+secret, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.Dir = c.dir
	asServer(initdb)
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	os.Remove(secret)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	c.URL = (&url.URL{
		Scheme: "postgres", User: url.UserPassword("orchestrator", c.password), Host: fmt.Sprintf("127.0.0.1:%d", c.Port),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}).String()
	return c.run(ctx)
}

// run starts the server process, detached from this one, and waits for it.
func (c *Cluster) run(ctx context.Context) error {
	bin, err := serverBinaries()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", c.data(), "-p", strconv.Itoa(c.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300",
		"-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB", "-c", "log_min_messages=warning")
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	asServer(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	c.PID = cmd.Process.Pid
	ended := make(chan struct{})
	go func() { // reaps it when it ends before this process
		_ = cmd.Wait()
		close(ended)
	}()
	for {
		err := c.reach(ctx)
		if err == nil {
			return c.save()
		}
		select {
		case <-ended:
			out, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("the server ended: %s", out[max(0, len(out)-2000):])
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serverBinaries finds the folder of initdb and postgres.
func serverBinaries() (string, error) {
	var dirs []string
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql*/bin", "/usr/local/opt/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin"} {
		found, _ := filepath.Glob(pattern)
		slices.Reverse(found) // newest first, more or less
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		_, err1 := os.Stat(filepath.Join(dir, "initdb"))
		_, err2 := os.Stat(filepath.Join(dir, "postgres"))
		if err1 == nil && err2 == nil {
			return dir, nil
		}
	}
	return "", errNoServer
}

const containerName = "orchestrator-test-postgres"

// container runs the server by Docker; it is shared like the cluster.
func container(ctx context.Context) (string, error) {
	const password = "orchestrator-test" // reachable from this machine only
	docker := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "docker", args...).Output()
		return strings.TrimSpace(string(out)), err
	}
	if _, err := docker("inspect", containerName); err != nil {
		if _, err := docker("run", "-d", "--rm", "--name", containerName, "-e", "POSTGRES_PASSWORD="+password,
			"-p", "127.0.0.1::5432", "postgres:17", "-c", "max_connections=300"); err != nil {
			return "", err
		}
	}
	for {
		addr, err := docker("port", containerName, "5432/tcp")
		if err != nil {
			return "", err
		}
		u := "postgres://postgres:" + password + "@" + strings.Split(addr, "\n")[0] + "/postgres?sslmode=disable"
		if err := admin(ctx, u, `SELECT 1`); err == nil {
			return u, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// install gets the server from Debian's archive.
func install(ctx context.Context) error {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return errNoServer
	}
	for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", "postgresql"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}
