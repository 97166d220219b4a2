package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// config is every setting of the server, as config.yaml spells them under the
// key orchestrator. A later source wins: the defaults here, the file, the
// environment (ORCHESTRATOR_ and the path in capitals, as in
// ORCHESTRATOR_STORAGE_POOL_SIZE; also DATABASE_URL), the flags.
//
// Fields are strings, numbers, bools, durations and lists of strings. Their tags
// are the reference: key, default, values and doc.
type config struct {
	Version     string           `key:"version" doc:"the version of your configuration; for people"`
	Environment string           `key:"environment" doc:"a name for this installation, as in production; it stands in every log line"`
	Server      serverConfig     `key:"server"`
	Storage     storageConfig    `key:"storage"`
	Execution   executionConfig  `key:"execution"`
	Models      modelsConfig     `key:"models"`
	Budgets     budgetsConfig    `key:"budgets"`
	Sandbox     sandboxConfig    `key:"sandbox"`
	Security    securityConfig   `key:"security"`
	Monitoring  monitoringConfig `key:"monitoring"`
	Cache       cacheConfig      `key:"cache"`
}

type serverConfig struct {
	Listen    string   `key:"listen" default:"127.0.0.1:8080" doc:"address and port of the API and the dashboard"`
	Hosts     []string `key:"hosts" doc:"names, without port, by which browsers and clients reach the server besides localhost; requests for others are refused"`
	Advertise string   `key:"advertise" doc:"the address by which workers reach this very server, as in http://10.0.0.7:8080; servers that share a database tell them each other's"`
}

type storageConfig struct {
	Backend          string `key:"backend" values:"sqlite,postgres" doc:"where runs are kept; default: postgres when there is a connection_string, else sqlite"`
	ConnectionString string `key:"connection_string" doc:"the URL of the Postgres database; also DATABASE_URL"`
	PoolSize         int    `key:"pool_size" default:"20" doc:"connections to Postgres"`
	RetentionDays    int    `key:"retention_days" zero:"ok" doc:"how many days of finished runs a server keeps; 0, the default: all"`
	Path             string `key:"path" doc:"the file of the sqlite backend; default: orchestrator.db in the home"`
}

type executionConfig struct {
	MaxConcurrentPipelines int           `key:"max_concurrent_pipelines" default:"2000" doc:"runs under way at once; more wait in the queue"`
	MaxConcurrentTasks     int           `key:"max_concurrent_tasks" default:"50" doc:"steps under way at once"`
	MaxTasksPerRun         int           `key:"max_tasks_per_run" doc:"steps of one run under way at once; default: max_concurrent_tasks"`
	WorkspaceRoot          string        `key:"workspace_root" doc:"where runs get a directory each; default: workspaces in the home"`
	Labels                 []string      `key:"labels" doc:"what this machine has to offer; a step with worker: [gpu] runs only where all its labels are"`
	AdoptionGrace          time.Duration `key:"adoption_grace" default:"10m" doc:"how long running steps may go on after this server has lost its runs to another one, which then takes what they give"`
	AdoptionWait           time.Duration `key:"adoption_wait" default:"30s" doc:"how long a step whose worker, or whose owner, is gone waits for it to come back, before it is begun again elsewhere"`
	WorkerHeartbeat        time.Duration `key:"worker_heartbeat" default:"3s" doc:"how often workers are to be heard of; one that leaves out three is held to be gone"`
	Grace                  time.Duration `key:"grace" default:"10s" doc:"how long running steps may take to end when the server shuts down"`
}

type modelsConfig struct {
	RegistryPath    string `key:"registry_path" doc:"the file that describes the models; default: models.yaml in the home, or the built-in ones where there is none"`
	SelectionPolicy string `key:"selection_policy" default:"default" doc:"the policy by which a model is chosen where a step names none; one of the registry's selection_policies"`
	FallbackEnabled bool   `key:"fallback_enabled" default:"true" doc:"ask another model where one fails: those of its fallback list, or the next best"`
	LocalURL        string `key:"local_url" default:"http://127.0.0.1:11434/v1" doc:"where models of the provider local are served that have no base_url of their own"`
	LocalModelsPath string `key:"local_models_path" doc:"the folder with the files of the models that servers of this machine serve, as in /opt/models: a server that calls a model by its file is understood, and where none serves it, the files are looked for; this server loads none itself"`
	Script          string `key:"script" doc:"a file of scripted answers that stands in for all models; also ORCHESTRATOR_SCRIPT"`
	Cassette        string `key:"cassette" doc:"a file of recorded answers that stands in for all models: no service is called"`
}

type budgetsConfig struct {
	Run       budgetConfig `key:"run"`
	Pipeline  budgetConfig `key:"pipeline"`
	Workspace budgetConfig `key:"workspace"`
	Day       budgetConfig `key:"day"`
}

type budgetConfig struct {
	USD    float64 `key:"usd" doc:"what calls of models may cost: of a run, all runs of a pipeline, all runs, or all runs of a day (UTC)"`
	Tokens int     `key:"tokens" doc:"tokens of calls of models, in and out"`
	Calls  int     `key:"calls" doc:"calls of models"`
}

type securityConfig struct {
	AllowUnauthenticated bool     `key:"allow_unauthenticated" doc:"listen on other addresses than loopback although everybody who reaches them may do everything; only behind something that decides who does, as in a container whose port is published on loopback"`
	AllowedActions       []string `key:"allowed_actions" doc:"what pipelines may do: actions, tools of agents and of MCP servers by name, with * for any letters; command for programs, lines for the shell and agents that are programs; default: everything"`
	PrivateHosts         []string `key:"private_hosts" doc:"hosts that models may choose for requests although they are not of the public internet, by name with * for any letters, as in wiki.example.internal,10.0.0.*; default: none"`
	ApproveTools         []string `key:"approve_tools" doc:"tools of agents whose calls people must approve, whatever the pipeline says, by name with * for any letters, as in terminal,mcp__*; default: none"`
}

type monitoringConfig struct {
	LogLevel          string `key:"log_level" default:"info" values:"debug,info,warn,error" doc:"the least that is logged"`
	Profiling         bool   `key:"profiling" doc:"serve profiles of the process under /debug/pprof/, for those who look for where its time and memory go"`
	TracingEnabled    bool   `key:"tracing_enabled" doc:"send traces of runs, steps, agents and calls of models and tools to an OpenTelemetry collector; also on where tracing_endpoint or OTEL_EXPORTER_OTLP_ENDPOINT says where that is"`
	TracingEndpoint   string `key:"tracing_endpoint" doc:"the collector that takes OTLP over gRPC, as in http://jaeger:4317; default: what OTEL_EXPORTER_OTLP_ENDPOINT says, else http://localhost:4317"`
	TracingContent    bool   `key:"tracing_content" doc:"tell in traces what was said, too: prompts, answers, arguments and results, without secrets"`
	StructuredLogging bool   `key:"structured_logging" default:"true" doc:"log JSON; false: lines for people"`
}

type cacheConfig struct {
	Enabled            bool   `key:"enabled" default:"true" doc:"use results of equal steps again, where the step says cache"`
	RedisURL           string `key:"redis_url" doc:"a Redis server that keeps such results for all servers, as in redis://host:6379/0; default: the memory of each server and the store"`
	MemoryCacheSize    int    `key:"memory_cache_size" default:"1000" doc:"results that a server keeps in its memory, at most 64 MiB"`
	TTLSeconds         int    `key:"ttl_seconds" default:"86400" doc:"how long a result is good, unless its step says so"`
	CompressionEnabled bool   `key:"compression_enabled" default:"true" doc:"compress large results in Redis"`
}

// planned are keys of the documented tree that this version cannot honour. To
// accept them would promise what is not kept.
var planned = []string{
	"storage.checkpoint_compression",
	"execution.default_timeout", "execution.max_retries", "execution.retry_backoff_factor",
	"security.api_key_required", "security.rate_limiting", "security.forbidden_modules",
	"monitoring.metrics_enabled", "monitoring.metrics_port",
}

// setting is one field of config.
type setting struct {
	path  string // as in storage.pool_size
	field reflect.StructField
	value reflect.Value
}

// env is the name of the setting's environment variable.
func (s setting) env() string {
	return "ORCHESTRATOR_" + strings.ToUpper(strings.ReplaceAll(s.path, ".", "_"))
}

// settings lists all of them in the order of the struct.
func (c *config) settings() []setting {
	var list []setting
	var walk func(v reflect.Value, prefix string)
	walk = func(v reflect.Value, prefix string) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			path := prefix + f.Tag.Get("key")
			if f.Type.Kind() == reflect.Struct {
				walk(v.Field(i), path+".")
				continue
			}
			list = append(list, setting{path, f, v.Field(i)})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return list
}

// set gives the setting a value by its text.
func (s setting) set(text string) error {
	switch s.value.Interface().(type) {
	case string:
		if values := s.field.Tag.Get("values"); values != "" {
			known := strings.Split(values, ",")
			text = strings.ToLower(text)
			if text != "" && !slices.Contains(known, text) {
				return fmt.Errorf("%q is none of its values: %s", text, strings.Join(known, ", "))
			}
		}
		s.value.SetString(text)
	case []string:
		var list []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		s.value.Set(reflect.ValueOf(list))
	case time.Duration:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		s.value.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 && (n < 0 || s.field.Tag.Get("zero") == "") {
			return fmt.Errorf("%q is not a whole number above 0", text)
		}
		s.value.SetInt(int64(n))
	case float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !(f > 0 && f <= 1e8) {
			return fmt.Errorf("%q is not a number above 0", text)
		}
		s.value.SetFloat(f)
	case bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		s.value.SetBool(text == "true")
	default:
		return fmt.Errorf("a setting of type %s", s.value.Type())
	}
	return nil
}

// parseDuration reads a number of seconds, or 90s, 5m, 1h30m.
func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1e9 {
		return time.Duration(n * float64(time.Second)), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is not a duration: write a number of seconds, or 90s, 5m, 1h30m", text)
}

// defaultConfig is the configuration without any source.
func defaultConfig() *config {
	c := &config{}
	for _, s := range c.settings() {
		if def, ok := s.field.Tag.Lookup("default"); ok {
			if err := s.set(def); err != nil {
				panic(fmt.Sprintf("setting %s: default: %v", s.path, err))
			}
		}
	}
	return c
}

// configPath is the file that is read, and whether it must exist.
func (c *cli) configPath() (path string, must bool) {
	if c.configFile != "" {
		return c.configFile, true
	}
	if path, ok := c.env("ORCHESTRATOR_CONFIG"); ok && path != "" {
		return path, true
	}
	return filepath.Join(c.home(), "config.yaml"), false
}

// home is the directory that holds what this command keeps.
func (c *cli) home() string {
	if dir, ok := c.env("ORCHESTRATOR_HOME"); ok && dir != "" {
		return dir
	}
	dir, ok := c.env("HOME")
	if !ok || dir == "" {
		dir, _ = os.UserHomeDir()
	}
	return filepath.Join(dir, ".orchestrator")
}

// loadConfig reads the settings from all sources but the flags.
func (c *cli) loadConfig() (*config, error) {
	cfg := defaultConfig()
	path, must := c.configPath()
	text, err := os.ReadFile(path) //nolint:gosec // the file that the caller named
	switch {
	case err == nil:
		if faults := cfg.read(path, text, c.env); len(faults) > 0 {
			return nil, &failure{
				code: exitInvalid, what: "the configuration is not valid", why: strings.Join(faults, "\n"),
				fix: []string{"orchestrator help configuration lists the settings"},
			}
		}
	case must || !os.IsNotExist(err):
		return nil, &failure{code: exitInvalid, what: "cannot read the configuration " + path, why: cause(err)}
	}
	if faults := cfg.readEnv(c.env); len(faults) > 0 {
		return nil, &failure{
			code: exitInvalid, what: "the environment holds a setting that is not valid", why: strings.Join(faults, "\n"),
			fix: []string{"orchestrator help configuration lists the settings"},
		}
	}
	cfg.finish(c.home())
	for _, p := range []*string{&cfg.Models.RegistryPath, &cfg.Models.LocalModelsPath} {
		if *p == "" {
			continue
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(path), *p)
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, &failure{code: exitInvalid, what: "the configuration is not valid", why: cause(err)}
		}
	}
	return cfg, nil
}

// readEnv takes settings from the environment.
func (c *config) readEnv(env func(string) (string, bool)) (faults []string) {
	if url, ok := env("DATABASE_URL"); ok && url != "" {
		c.Storage.ConnectionString = url
	}
	if file, ok := env("ORCHESTRATOR_SCRIPT"); ok && file != "" {
		c.Models.Script = file
	}
	for _, s := range c.settings() {
		if text, ok := env(s.env()); ok && text != "" {
			if err := s.set(text); err != nil {
				faults = append(faults, s.env()+": "+err.Error())
			}
		}
	}
	return faults
}

// finish fills in what depends on other settings.
func (c *config) finish(home string) {
	if c.Storage.Backend == "" {
		c.Storage.Backend = "sqlite"
		if c.Storage.ConnectionString != "" {
			c.Storage.Backend = "postgres"
		}
	}
	if c.Storage.Path == "" {
		c.Storage.Path = filepath.Join(home, "orchestrator.db")
	}
	if c.Execution.WorkspaceRoot == "" {
		c.Execution.WorkspaceRoot = filepath.Join(home, "workspaces")
	}
	if c.Execution.MaxTasksPerRun == 0 {
		c.Execution.MaxTasksPerRun = c.Execution.MaxConcurrentTasks
	}
}

// read takes settings from the text of a config.yaml and returns what is wrong
// with it, each with its place.
func (c *config) read(file string, text []byte, env func(string) (string, bool)) []string {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return []string{file + ": " + strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " ")}
	}
	r := configReader{file: file, env: env}
	if len(doc.Content) == 0 {
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		r.fault(root, "the file must be a map with the key orchestrator")
		return r.faults
	}
	for i := 0; i < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if k.Value != "orchestrator" {
			r.fault(k, "unknown key %q: all settings stand under the key orchestrator", k.Value)
			continue
		}
		r.section(v, reflect.ValueOf(c).Elem(), "")
	}
	return r.faults
}

// configReader walks the nodes of a config.yaml.
type configReader struct {
	file   string
	env    func(string) (string, bool)
	faults []string
}

func (r *configReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf("%s:%d:%d: ", r.file, n.Line, n.Column)+fmt.Sprintf(format, args...))
}

// section reads a map into a struct.
func (r *configReader) section(n *yaml.Node, v reflect.Value, prefix string) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s must be a map", strings.TrimSuffix("orchestrator."+prefix, "."))
		return
	}
	var names []string
	for i := range v.NumField() {
		names = append(names, v.Type().Field(i).Tag.Get("key"))
	}
	for i := 0; i < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		field := slices.Index(names, k.Value)
		switch {
		case field >= 0 && v.Field(field).Kind() == reflect.Struct:
			r.section(val, v.Field(field), prefix+k.Value+".")
		case field >= 0:
			r.setting(val, setting{prefix + k.Value, v.Type().Field(field), v.Field(field)})
		case slices.Contains(planned, prefix+k.Value):
			r.fault(k, "%s has no effect in this version; leave it out", prefix+k.Value)
		default:
			hint := ""
			if name := expr.Suggest(k.Value, names); name != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", name)
			}
			r.fault(k, "unknown key %q%s", prefix+k.Value, hint)
		}
	}
}

// setting reads one value.
func (r *configReader) setting(n *yaml.Node, s setting) {
	text := ""
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return
	case n.Kind == yaml.ScalarNode:
		t, err := expand(n.Value, r.env)
		if err != nil {
			r.fault(n, "%s: %v", s.path, err)
			return
		}
		text = t
	case n.Kind == yaml.SequenceNode && s.value.Kind() == reflect.Slice:
		parts := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			t, err := expand(item.Value, r.env)
			if err != nil || item.Kind != yaml.ScalarNode {
				r.fault(item, "%s: each item must be a text", s.path)
				return
			}
			parts = append(parts, t)
		}
		text = strings.Join(parts, ",")
	default:
		r.fault(n, "%s must be a single value", s.path)
		return
	}
	if text == "" && s.value.Kind() != reflect.String {
		return
	}
	if err := s.set(text); err != nil {
		r.fault(n, "%s: %v", s.path, err)
	}
}

// expand replaces ${VAR} and ${VAR:-default}; $$ is a dollar sign.
func expand(text string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			b.WriteByte('$')
			text = rest[1:]
			continue
		case !strings.HasPrefix(rest, "{"):
			b.WriteByte('$')
			text = rest
			continue
		}
		inside, after, closed := strings.Cut(rest[1:], "}")
		if !closed {
			return "", fmt.Errorf("${%s is not closed", rest[1:])
		}
		name, def, hasDefault := strings.Cut(inside, ":-")
		value, ok := env(name)
		switch {
		case (!ok || value == "") && hasDefault:
			value = def
		case !ok:
			return "", fmt.Errorf("the variable %s is not set; write ${%s:-} if it may be missing", name, name)
		}
		b.WriteString(value)
		text = after
	}
}

// strayEnv lists variables that look like settings but are none.
func (c *config) strayEnv(environ []string) []string {
	known := map[string]bool{}
	var names []string
	sections := map[string]bool{}
	for _, s := range c.settings() {
		known[s.env()] = true
		names = append(names, s.env())
		if section, _, ok := strings.Cut(s.path, "."); ok {
			sections[section] = true
		}
	}
	var stray []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, "ORCHESTRATOR_")
		section, key, _ := strings.Cut(strings.ToLower(rest), "_")
		// Kubernetes sets ..._PORT and ..._SERVICE_HOST for services of such names.
		if !ours || known[name] || !sections[section] || key == "" || strings.HasPrefix(key, "port") || strings.HasPrefix(key, "service_") {
			continue
		}
		text := name + " is not a setting"
		if n := expr.Suggest(name, names); n != "" {
			text += " (did you mean " + n + "?)"
		}
		stray = append(stray, text)
	}
	return stray
}

// configReference is the list of all settings, from their tags.
func configReference() string {
	var b strings.Builder
	b.WriteString(`Settings come from, a later one winning: the defaults, config.yaml in the home (or --config FILE, ORCHESTRATOR_CONFIG), the environment, the flags.

In config.yaml they stand under the key orchestrator; ${VAR} and ${VAR:-default} are replaced from the environment, $$ is a dollar sign. In the environment a setting's name is ORCHESTRATOR_ and its path: storage.pool_size is ORCHESTRATOR_STORAGE_POOL_SIZE. An unknown key is an error.

  orchestrator:
    storage:
      connection_string: ${DATABASE_URL}
      pool_size: 20
    execution:
      max_concurrent_tasks: 50
`)
	for _, s := range defaultConfig().settings() {
		fmt.Fprintf(&b, "\n%s\n  %s", s.path, s.field.Tag.Get("doc"))
		if v := s.field.Tag.Get("values"); v != "" {
			b.WriteString("; one of " + strings.ReplaceAll(v, ",", ", "))
		}
		if v := s.field.Tag.Get("default"); v != "" {
			b.WriteString("; default " + v)
		}
		b.WriteByte('\n')
	}
	b.WriteString(`
Beside the settings:

ORCHESTRATOR_HOME
  where the embedded store and config.yaml live; default ~/.orchestrator
ORCHESTRATOR_SERVER
  the server that the commands speak to, as in http://127.0.0.1:8080; default: none, they work in their own process
ORCHESTRATOR_SECRET_<NAME>
  the value of the secret NAME
NO_COLOR
  any value: no colours
`)
	return b.String()
}
