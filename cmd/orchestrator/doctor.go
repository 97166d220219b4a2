package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor/cache"
	"github.com/orchestrator-project/orchestrator/proto/human"
	"github.com/orchestrator-project/orchestrator/store"
)

// finding is what doctor has seen of one thing.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning, error
	Text   string `json:"text"`
	Fix    string `json:"fix"`
}

func (c *cli) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is missing, and say how to get it",
		Long:  `Checks the configuration, the home, the store, the free disk, the programs that pipelines use, and, where they are named, the Postgres database and the server. Exit code 1 if something must be mended.`,
		Args:  args(0, 0, "no arguments", "orchestrator doctor"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := c.endOnSignal(cmd.Context())
			defer stop()
			return c.doctor(ctx)
		},
	}
	c.jsonFlag(cmd, `print {"findings": [...]}`)
	return cmd
}

func (c *cli) doctor(ctx context.Context) error {
	found := c.findings(ctx)
	bad := 0
	for _, f := range found {
		if f.Status == "error" {
			bad++
		}
	}
	if c.asJSON {
		text, err := json.Marshal(map[string]any{"findings": found})
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		if err := c.printRaw(text); err != nil {
			return err
		}
	} else {
		w := c.painted(c.out)
		var rows [][]string
		for _, f := range found {
			mark := painted("COMPLETED", "✓")
			switch f.Status {
			case "warning":
				mark = painted("WAITING", "!")
			case "error":
				mark = painted("FAILED", "✗")
			}
			rows = append(rows, []string{mark + " " + f.Name, f.Text})
			if f.Fix != "" {
				rows = append(rows, []string{"", dim("→ " + f.Fix)})
			}
		}
		table(w, rows)
		switch bad {
		case 0:
			fmt.Fprintln(w, "\n"+painted("COMPLETED", "everything that is needed is there"))
		default:
			fmt.Fprintln(w, "\n"+painted("FAILED", plural(bad, "thing")+" to mend"))
		}
	}
	if bad > 0 {
		return quiet(exitFailed)
	}
	return nil
}

func (c *cli) findings(ctx context.Context) []finding {
	var out []finding
	ok := func(name, format string, args ...any) {
		out = append(out, finding{Name: name, Status: "ok", Text: fmt.Sprintf(format, args...)})
	}
	bad := func(status, name, fix, format string, args ...any) {
		out = append(out, finding{Name: name, Status: status, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	b := readBuild()
	ok("version", "%s, %s, %s", b.Version, b.Go, b.Platform)

	path, _ := c.configPath()
	cfg, err := c.loadConfig()
	var f *failure
	switch {
	case errors.As(err, &f):
		bad("error", "configuration", "orchestrator help configuration lists the settings", "%s\n%s", f.what, f.why)
		cfg = defaultConfig()
		cfg.finish(c.home())
	case fileExists(path):
		ok("configuration", "%s", path)
	default:
		ok("configuration", "the defaults; %s does not exist", path)
	}
	for _, stray := range cfg.strayEnv(c.environ) {
		bad("warning", "environment", "", "%s", stray)
	}

	home := c.home()
	if err := writable(home); err != nil {
		bad("error", "home", "make it writable, or set ORCHESTRATOR_HOME to another directory", "%s: %s", home, cause(err))
	} else {
		ok("home", "%s", home)
		if free, known := freeDisk(home); known {
			text := fmt.Sprintf("%.1f GiB", float64(free)/(1<<30))
			if free < 1<<30 {
				bad("warning", "free disk", "make room: every step's result is kept there", "%s", text)
			} else {
				ok("free disk", "%s", text)
			}
		}
	}

	embedded := *cfg
	embedded.Storage.Backend = "sqlite"
	if text, err := c.checkStore(ctx, &embedded); err != nil {
		bad("error", "embedded store", "move the file away to begin with an empty store", "%s: %s", embedded.Storage.Path, err)
	} else {
		ok("embedded store", "%s: %s", embedded.Storage.Path, text)
	}
	if cfg.Storage.Backend == "postgres" {
		if text, err := c.checkStore(ctx, cfg); err != nil {
			bad("error", "postgres", "start it, or correct DATABASE_URL; orchestrator serve needs it", "%s: %s", redactURL(cfg.Storage.ConnectionString), err)
		} else {
			ok("postgres", "%s: %s", redactURL(cfg.Storage.ConnectionString), text)
		}
	} else {
		ok("postgres", "not configured; a team's servers share one by DATABASE_URL")
	}
	if url := cfg.Cache.RedisURL; url != "" {
		if err := checkRedis(ctx, url); err != nil {
			bad("warning", "redis", "start it, or correct cache.redis_url; without it each server keeps results in its memory and the store", "%s: %s", redactURL(url), err)
		} else {
			ok("redis", "%s answers", redactURL(url))
		}
	}
	if c.remote() {
		if err := c.checkServer(ctx); err != nil {
			bad("error", "server", "start it with orchestrator serve, or unset ORCHESTRATOR_SERVER", "%s: %s", c.server, c.explainError(err).Error())
		} else {
			ok("server", "%s answers", c.server)
		}
	}

	if p, err := exec.LookPath("sh"); err != nil {
		bad("error", "sh", "install a POSIX shell: run: steps need it", "not found in PATH")
	} else {
		ok("sh", "%s", p)
	}
	if p, err := exec.LookPath("git"); err != nil {
		bad("warning", "git", "install git if your pipelines use it (apt-get install git, brew install git)", "not found in PATH")
	} else {
		ok("git", "%s", p)
	}
	if p, err := exec.LookPath("python3"); err != nil {
		bad("warning", "python3", "install Python 3 if your pipelines use it (apt-get install python3, brew install python)",
			"not found in PATH; skills and the action execute run Python with it")
	} else {
		ok("python3", "%s; skills and the action execute run Python with it", p)
	}
	out = append(out, sandboxFindings(ctx, cfg, home)...)
	if cfg.Models.Script != "" {
		if _, err := provider(cfg.Models.Script); err != nil {
			bad("error", "model script", "correct models.script", "%s", err)
		} else {
			ok("model script", "%s", cfg.Models.Script)
		}
	}
	c.checkModels(ctx, cfg, ok, bad)
	c.checkServers(ok, bad)
	return out
}

// checkRedis asks the server that keeps results of steps whether it is there.
func checkRedis(ctx context.Context, url string) (err error) {
	r, err := cache.OpenRedis(url, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.Ping(ctx)
}

// checkStore opens a store and asks it something.
func (c *cli) checkStore(ctx context.Context, cfg *config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		var f *failure
		if errors.As(err, &f) && f.why != "" {
			return "", errors.New(f.why)
		}
		return "", err
	}
	defer s.Close()
	if err := s.Ping(ctx); err != nil {
		return "", err
	}
	page, err := s.Runs(ctx, store.Query{Limit: 1})
	if err != nil {
		return "", err
	}
	if len(page.Runs) == 0 {
		return "works; no runs yet", nil
	}
	return "works; newest run " + human.Ago(page.Runs[0].CreatedAt, time.Now()), nil
}

func (c *cli) checkServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cl, err := c.dial()
	if err != nil {
		return err
	}
	defer cl.close()
	_, err = cl.findRun(ctx, "last")
	if _, ok := errors.AsType[*failure](err); ok { // it has no runs yet
		return nil
	}
	return err
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// writable checks that files can be made in a directory, which is made if it
// is missing.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(filepath.Clean(f.Name())))
}
