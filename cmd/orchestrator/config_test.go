package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lookup is an environment.
func lookup(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

func newCLI(t *testing.T, environ ...string) *cli {
	t.Helper()
	return &cli{environ: append([]string{"ORCHESTRATOR_HOME=" + t.TempDir()}, environ...), log: &logWriter{w: os.Stderr}}
}

func TestLaterSourcesWin(t *testing.T) {
	const file = `
orchestrator:
  storage: {pool_size: 7, connection_string: "postgres://${PGHOST:-filehost}/db"}
  execution: {grace: 30, max_concurrent_tasks: 8}
  server:
    hosts: [a.example, b.example]
  monitoring: {structured_logging: false, log_level: WARN}
`
	tests := []struct {
		name    string
		file    string
		environ []string
		want    func(*config)
	}{
		{"defaults", "", nil, func(*config) {}},
		{"an empty file", "# nothing yet\n", nil, func(*config) {}},
		{"a file without settings", "orchestrator:\n", nil, func(*config) {}},
		{"file", file, nil, func(c *config) {
			c.Storage.PoolSize, c.Storage.ConnectionString, c.Storage.Backend = 7, "postgres://filehost/db", "postgres"
			c.Execution.Grace, c.Execution.MaxConcurrentTasks, c.Execution.MaxTasksPerRun = 30*time.Second, 8, 8
			c.Server.Hosts = []string{"a.example", "b.example"}
			c.Monitoring.StructuredLogging, c.Monitoring.LogLevel = false, "warn"
		}},
		{"environment over file", file, []string{
			"ORCHESTRATOR_STORAGE_POOL_SIZE=9", "DATABASE_URL=postgres://env/db", "ORCHESTRATOR_SERVER_HOSTS=c.example, d.example",
			"ORCHESTRATOR_EXECUTION_GRACE=1m", "ORCHESTRATOR_MONITORING_LOG_LEVEL=", "ORCHESTRATOR_MONITORING_STRUCTURED_LOGGING=true",
		}, func(c *config) {
			c.Storage.PoolSize, c.Storage.ConnectionString, c.Storage.Backend = 9, "postgres://env/db", "postgres"
			c.Execution.Grace, c.Execution.MaxConcurrentTasks, c.Execution.MaxTasksPerRun = time.Minute, 8, 8
			c.Server.Hosts = []string{"c.example", "d.example"}
			c.Monitoring.LogLevel = "warn"
		}},
		{"the named variable over DATABASE_URL", "", []string{"DATABASE_URL=postgres://a/a", "ORCHESTRATOR_STORAGE_CONNECTION_STRING=postgres://b/b"}, func(c *config) {
			c.Storage.ConnectionString, c.Storage.Backend = "postgres://b/b", "postgres"
		}},
		{"a backend that is named", "", []string{"DATABASE_URL=postgres://a/a", "ORCHESTRATOR_STORAGE_BACKEND=sqlite"}, func(c *config) {
			c.Storage.ConnectionString, c.Storage.Backend = "postgres://a/a", "sqlite"
		}},
		{"variables in the file", file, []string{"PGHOST=varhost"}, func(c *config) {
			c.Storage.PoolSize, c.Storage.ConnectionString, c.Storage.Backend = 7, "postgres://varhost/db", "postgres"
			c.Execution.Grace, c.Execution.MaxConcurrentTasks, c.Execution.MaxTasksPerRun = 30*time.Second, 8, 8
			c.Server.Hosts = []string{"a.example", "b.example"}
			c.Monitoring.StructuredLogging, c.Monitoring.LogLevel = false, "warn"
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCLI(t, tt.environ...)
			if tt.file != "" {
				if err := os.WriteFile(filepath.Join(c.home(), "config.yaml"), []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want := &config{}
			want.Server.Listen = "127.0.0.1:8080"
			want.Storage = storageConfig{Backend: "sqlite", PoolSize: 20, Path: filepath.Join(c.home(), "orchestrator.db")}
			want.Execution = executionConfig{
				MaxConcurrentPipelines: 2000, MaxConcurrentTasks: 50, MaxTasksPerRun: 50,
				WorkspaceRoot: filepath.Join(c.home(), "workspaces"), Grace: 10 * time.Second,
				AdoptionGrace: 10 * time.Minute, AdoptionWait: 30 * time.Second, WorkerHeartbeat: 3 * time.Second,
			}
			want.Cache = cacheConfig{Enabled: true, MemoryCacheSize: 1000, TTLSeconds: 86400, CompressionEnabled: true}
			want.Monitoring = monitoringConfig{LogLevel: "info", StructuredLogging: true}
			want.Models, want.Sandbox = defaultConfig().Models, defaultConfig().Sandbox
			tt.want(want)
			got, err := c.loadConfig()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFaultsOfAConfigurationNameTheirPlace(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"unknown key", "orchestrator:\n  storage:\n    pol_size: 3\n", []string{`c.yaml:3:5: unknown key "storage.pol_size" (did you mean "pool_size"?)`}},
		{"unknown section", "orchestrator:\n  strage: {}\n", []string{`c.yaml:2:3: unknown key "strage" (did you mean "storage"?)`}},
		{"far from all", "orchestrator:\n  xyzzy_plugh: {}\n", []string{`c.yaml:2:3: unknown key "xyzzy_plugh"`}},
		{"outside", "storage: {}\n", []string{`c.yaml:1:1: unknown key "storage": all settings stand under the key orchestrator`}},
		{"not yet", "orchestrator:\n  security: {api_key_required: true}\n", []string{
			"c.yaml:2:14: security.api_key_required has no effect in this version; leave it out",
		}},
		{"a number", "orchestrator: {storage: {pool_size: many}}\n", []string{`c.yaml:1:37: storage.pool_size: "many" is not a whole number above 0`}},
		{"zero", "orchestrator: {storage: {pool_size: 0}}\n", []string{`c.yaml:1:37: storage.pool_size: "0" is not a whole number above 0`}},
		{"a bool", "orchestrator: {security: {allow_unauthenticated: yes}}\n", []string{`c.yaml:1:50: security.allow_unauthenticated: "yes" is neither true nor false`}},
		{"a duration", "orchestrator: {execution: {grace: soon}}\n", []string{`c.yaml:1:35: execution.grace: "soon" is not a duration: write a number of seconds, or 90s, 5m, 1h30m`}},
		{"a value", "orchestrator: {storage: {backend: mysql}}\n", []string{`c.yaml:1:35: storage.backend: "mysql" is none of its values: sqlite, postgres`}},
		{"a list for a text", "orchestrator: {storage: {path: [a]}}\n", []string{"c.yaml:1:32: storage.path must be a single value"}},
		{"a text for a map", "orchestrator: {storage: a}\n", []string{"c.yaml:1:25: orchestrator.storage must be a map"}},
		{"a list", "- a\n", []string{"c.yaml:1:1: the file must be a map with the key orchestrator"}},
		{"a variable", "orchestrator: {storage: {path: \"${NOWHERE}\"}}\n", []string{"c.yaml:1:32: storage.path: the variable NOWHERE is not set; write ${NOWHERE:-} if it may be missing"}},
		{"two", "orchestrator:\n  a: 1\n  b: 2\n", []string{`c.yaml:2:3: unknown key "a"`, `c.yaml:3:3: unknown key "b"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := defaultConfig().read("c.yaml", []byte(tt.file), lookup(nil))
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if got := defaultConfig().read("c.yaml", []byte("a: [\n"), lookup(nil)); len(got) != 1 || !strings.HasPrefix(got[0], "c.yaml: ") {
		t.Errorf("broken YAML gives %q", got)
	}
}

func TestExpand(t *testing.T) {
	env := lookup(map[string]string{"A": "1", "EMPTY": ""})
	tests := []struct{ in, want, fault string }{
		{"plain", "plain", ""},
		{"${A}", "1", ""},
		{"x${A}y${A}z", "x1y1z", ""},
		{"${B:-two}", "two", ""},
		{"${EMPTY:-two}", "two", ""},
		{"${EMPTY}", "", ""},
		{"${B:-}", "", ""},
		{"$$", "$", ""},
		{"$${A}", "${A}", ""},
		{"a$b", "a$b", ""},
		{"${B}", "", "the variable B is not set; write ${B:-} if it may be missing"},
		{"${A", "", "${A is not closed"},
	}
	for _, tt := range tests {
		got, err := expand(tt.in, env)
		fault := ""
		if err != nil {
			fault = err.Error()
		}
		if got != tt.want || fault != tt.fault {
			t.Errorf("expand(%q) = %q, %q; want %q, %q", tt.in, got, fault, tt.want, tt.fault)
		}
	}
}

func TestStrayVariablesAreNamed(t *testing.T) {
	got := defaultConfig().strayEnv([]string{
		"ORCHESTRATOR_STORAGE_POOLSIZE=3", "ORCHESTRATOR_STORAGE_POOL_SIZE=3", "ORCHESTRATOR_HOME=/x", "ORCHESTRATOR_SERVER=http://x",
		"ORCHESTRATOR_SERVER_SERVICE_HOST=10.0.0.1", "ORCHESTRATOR_SERVER_PORT_8080_TCP=x", "ORCHESTRATOR_SECRET_TOKEN=x", "OTHER=1",
	})
	want := []string{"ORCHESTRATOR_STORAGE_POOLSIZE is not a setting (did you mean ORCHESTRATOR_STORAGE_POOL_SIZE?)"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestEverySettingIsDocumented(t *testing.T) {
	reference := configReference()
	for _, s := range defaultConfig().settings() {
		if s.field.Tag.Get("key") == "" || s.field.Tag.Get("doc") == "" {
			t.Errorf("%s: needs a key and a doc", s.path)
		}
		if !strings.Contains(reference, "\n"+s.path+"\n") {
			t.Errorf("%s is not in the reference", s.path)
		}
		if slices.Contains(planned, s.path) {
			t.Errorf("%s exists and is planned", s.path)
		}
	}
}

func TestListenRefusesWhatOthersReach(t *testing.T) {
	tests := []struct {
		listen   string
		allow    bool
		open, ok bool
	}{
		{"127.0.0.1:8080", false, false, true},
		{"localhost:8080", false, false, true},
		{"[::1]:8080", false, false, true},
		{"127.9.9.9:1", false, false, true},
		{"0.0.0.0:8080", false, false, false},
		{":8080", false, false, false},
		{"[::]:8080", false, false, false},
		{"10.0.0.7:8080", false, false, false},
		{"example.com:8080", false, false, false},
		{"localhost.example.com:8080", false, false, false},
		{"0.0.0.0:8080", true, true, true},
		{"127.0.0.1:8080", true, false, true},
		{"8080", false, false, false},
		{"127.0.0.1", true, false, false},
	}
	for _, tt := range tests {
		cfg := defaultConfig()
		cfg.Server.Listen, cfg.Security.AllowUnauthenticated = tt.listen, tt.allow
		open, err := checkListen(cfg)
		if open != tt.open || (err == nil) != tt.ok {
			t.Errorf("%s, allowed %v: open %v, %v", tt.listen, tt.allow, open, err)
		}
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"postgres://u:p@h:5432/d":            "postgres://u@h:5432/d",
		"postgres://u:p@ss@h/d?password=x":   "postgres://u@h/d",
		"postgres://h/d":                     "postgres://h/d",
		"host=h password=secret user=u":      "of the connection string",
		"postgres://u@h/d?sslmode=require&x": "postgres://u@h/d",
	} {
		if got := redactURL(in); got != want {
			t.Errorf("redactURL(%q) = %q, want %q", in, got, want)
		}
	}
}
