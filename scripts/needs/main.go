// Needs finds what the tests and measurements need beside Go, installs what is
// missing where it may, and runs a command with it:
//
//	needs -for postgres,browser,axe,aimock,mcp,redis,python,bwrap,gcc -- go test ./...
//
// It hands over what it found in the environment: TEST_DATABASE_URL, CHROMIUM,
// AXE_CORE_JS, AIMOCK_JS, MCP_SERVERS, MCP_CONFORMANCE, MCP_CONFORMANCE_NODE and REDIS_SERVER. Where one of these is set already, it is taken as it is. As
// root on Debian or Ubuntu a missing need is installed with apt-get; elsewhere it
// is an error that says the one command to get it. A need is never skipped.
//
// PostgreSQL is the server that all tests of this user share, which stays for
// the next ones until `needs -stop`; with -own it is a fresh one that ends with
// the command, as for measuring.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// need is something outside of Go.
type need struct {
	name string
	why  string
	// find says what was found, as a text for people and as variables for the
	// command. A missing one is an error.
	find func(ctx context.Context) (found string, env []string, err error)
	apt  []string // packages of Debian and Ubuntu that bring it
	brew []string // formulas of Homebrew
}

var needs = []need{
	{
		name: "postgres", why: "the store that replicas share is tested and measured against the real thing",
		find: findPostgres, apt: []string{"postgresql"}, brew: []string{"postgresql@17"},
	},
	{
		name: "browser", why: "the dashboard is tested in a real Chromium",
		find: findBrowser, apt: []string{"chromium"}, brew: []string{"--cask", "chromium"},
	},
	{
		name: "axe", why: "axe-core, which npm brings, looks for barriers in every page",
		find: findAxe, apt: []string{"nodejs", "npm"}, brew: []string{"node"},
	},
	{
		name: "aimock", why: "the providers of models are held against an independent mock of their services, which npm brings",
		find: findAimock, apt: []string{"nodejs", "npm"}, brew: []string{"node"},
	},
	{
		name: "mcp", why: "the MCP client talks to servers of others, which npm brings",
		find: findServers, apt: []string{"nodejs", "npm"}, brew: []string{"node"},
	},
	{
		name: "conformance", why: "the MCP client is judged by the protocol's conformance suite, which npm brings with the Node that it needs",
		find: findConformance, apt: []string{"nodejs", "npm"}, brew: []string{"node"},
	},
	{
		name: "redis", why: "the cache that servers share is tested against the real thing",
		find: findRedis, apt: []string{"redis-server"}, brew: []string{"redis"},
	},
	{
		name: "python", why: "the worker in Python speaks gRPC to a real server",
		find: findPython, apt: []string{"python3-grpcio", "python3-protobuf", "protobuf-compiler"}, brew: []string{"python", "grpc", "protobuf"},
	},
	{
		name: "bwrap", why: "what programs may do in a sandbox is tested with the real bubblewrap",
		find: findBubblewrap, apt: []string{"bubblewrap"}, // it is for Linux: elsewhere nothing is missing
	},
	{
		name: "gcc", why: "the race detector is linked by a C compiler",
		find: findCompiler, apt: []string{"gcc", "libc6-dev"}, brew: []string{"gcc"},
	},
}

func main() {
	wanted := flag.String("for", "postgres,browser,axe,aimock,mcp,redis,python,bwrap,gcc", "the needs, separated by commas")
	own := flag.Bool("own", false, "a PostgreSQL for this command alone")
	end := flag.Bool("stop", false, "end the PostgreSQL that the tests share, and do nothing else")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: needs [-for postgres,browser,axe,aimock,mcp,redis,python,bwrap,gcc] [-own] [-- COMMAND...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var code int
	var err error
	if *end {
		err = storetest.StopPostgres(ctx)
	} else {
		code, err = run(ctx, strings.Split(*wanted, ","), *own, flag.Args())
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "needs:", err)
		code = max(1, code)
	}
	os.Exit(code)
}

// run brings the needs and gives the exit code of the command.
func run(ctx context.Context, wanted []string, own bool, command []string) (code int, err error) {
	var list []need
	for _, name := range wanted {
		i := slices.IndexFunc(needs, func(n need) bool { return n.name == name })
		if i < 0 {
			return 2, fmt.Errorf("there is no need %q", name)
		}
		list = append(list, needs[i])
	}
	back := func() {}
	if own {
		dir, end, failed := ownDir()
		if failed != nil {
			return 1, failed
		}
		defer func() { err = errors.Join(err, end()) }()
		if back, err = elsewhere(dir); err != nil {
			return 1, err
		}
	}
	env, err := provide(ctx, list)
	back()
	if err != nil {
		return 1, err
	}
	if len(command) == 0 {
		return 0, nil
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // it runs what it is told to
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode()), nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}

// provide finds every need, after installing those that are missing.
func provide(ctx context.Context, list []need) (env []string, err error) {
	for attempt := 0; ; attempt++ {
		env = nil
		var missing []need
		var reasons []string
		for _, n := range list {
			found, vars, err := n.find(ctx)
			if err != nil {
				missing = append(missing, n)
				reasons = append(reasons, fmt.Sprintf("%s is missing (%s): %v", n.name, n.why, err))
				continue
			}
			env = append(env, vars...)
			fmt.Fprintf(os.Stderr, "needs: %-9s %s\n", n.name, found)
		}
		if len(missing) == 0 {
			return env, nil
		}
		install, byUs := installer(missing)
		if attempt > 0 || !byUs {
			return nil, fmt.Errorf("%s\nget it with: %s", strings.Join(reasons, "\n"), install)
		}
		fmt.Fprintf(os.Stderr, "%s\nneeds: installing with: %s\n", strings.Join(reasons, "\n"), install)
		cmd := exec.CommandContext(ctx, "sh", "-c", install) //nolint:gosec // made from the table above
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s\ninstalling it failed (%w); get it with: %s", strings.Join(reasons, "\n"), err, install)
		}
	}
}

// installer is the one command that brings the missing needs, and whether we
// may run it ourselves.
func installer(missing []need) (command string, byUs bool) {
	var apt, brew []string
	for _, n := range missing {
		apt = append(apt, n.apt...)
		brew = append(brew, n.brew...)
	}
	if _, err := exec.LookPath("brew"); err == nil {
		return "brew install " + strings.Join(brew, " "), false
	}
	const get = "apt-get -o Acquire::Retries=5 " // mirrors fail now and then
	command = get + "update && " + get + "install -y --no-install-recommends " + strings.Join(apt, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "the package manager of this system; on Debian the packages are " + strings.Join(apt, " "), false
	}
	if os.Geteuid() != 0 {
		return "sudo sh -c '" + command + "'", false
	}
	return command, true
}
