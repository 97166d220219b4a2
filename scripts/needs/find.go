package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// findPostgres finds the server that the tests use, or starts it.
func findPostgres(ctx context.Context) (string, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	url, err := storetest.EnsurePostgres(ctx)
	if err != nil {
		return "", nil, err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return "", nil, err
	}
	config := conn.Config()
	found := fmt.Sprintf("PostgreSQL %s (%s:%d)", version, config.Host, config.Port)
	return found, []string{storetest.PostgresEnv + "=" + url}, nil
}

// elsewhere makes storetest keep its server in dir, below which it then finds
// none and starts one, until back is called.
func elsewhere(dir string) (back func(), err error) {
	type variable struct {
		name, value string
		set         bool
	}
	var before []variable
	back = func() {
		for _, v := range before {
			if v.set {
				_ = os.Setenv(v.name, v.value)
			} else {
				_ = os.Unsetenv(v.name)
			}
		}
	}
	for _, name := range []string{"TMPDIR", "XDG_CACHE_HOME"} { // it keeps it below one of these
		value, set := os.LookupEnv(name)
		before = append(before, variable{name, value, set})
		if err := os.Setenv(name, dir); err != nil {
			back()
			return nil, err
		}
	}
	return back, nil
}

// ownDir makes the folder for a PostgreSQL of our own; end stops what runs there.
func ownDir() (dir string, end func() error, err error) {
	if dir, err = os.MkdirTemp("", "needs-postgres"); err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server runs as somebody else when we are root
		return "", nil, err
	}
	return dir, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		back, err := elsewhere(dir)
		if err != nil {
			return err
		}
		defer back()
		return errors.Join(storetest.StopPostgres(ctx), os.RemoveAll(dir))
	}, nil
}

// findBrowser looks for a Chromium that can be driven: $CHROMIUM or one of the
// names under which it is packaged.
func findBrowser(ctx context.Context) (string, []string, error) {
	names := []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell", "chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	}
	if given := os.Getenv("CHROMIUM"); given != "" {
		names = []string{given}
	}
	var last error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			last = err
			continue
		}
		// Ubuntu's chromium is a script that asks for snap: only one that answers counts.
		version, err := output(ctx, path, "--version")
		if err != nil {
			last = fmt.Errorf("%s --version: %w", path, err)
			continue
		}
		return fmt.Sprintf("%s (%s)", version, path), []string{"CHROMIUM=" + path}, nil
	}
	return "", nil, last
}

// findAxe looks for axe-core: $AXE_CORE_JS, or what npm brings.
func findAxe(ctx context.Context) (string, []string, error) {
	return findScript(ctx, "axe-core", "AXE_CORE_JS", "axe-core/axe.min.js")
}

// findAimock looks for aimock: $AIMOCK_JS, or what npm brings; and for the Node
// that runs it.
func findAimock(ctx context.Context) (string, []string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", nil, err
	}
	return findScript(ctx, "aimock", "AIMOCK_JS", "@copilotkit/aimock/dist/cli.js")
}

// findServers looks for the MCP servers of others that npm brings: $MCP_SERVERS is
// the folder node_modules that they stand in.
func findServers(ctx context.Context) (string, []string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", nil, err
	}
	const path = "@modelcontextprotocol/server-everything/dist/index.js"
	if given := os.Getenv("MCP_SERVERS"); given != "" {
		_, err := os.Stat(filepath.Join(given, filepath.FromSlash(path))) //nolint:gosec // whoever runs the tests names the folder
		return given, nil, err
	}
	found, vars, err := findScript(ctx, "MCP servers", "MCP_SERVERS", path)
	if err == nil {
		vars[0] = strings.TrimSuffix(vars[0], string(filepath.Separator)+filepath.FromSlash(path))
	}
	return found, vars, err
}

// findConformance looks for the conformance suite of the Model Context Protocol,
// $MCP_CONFORMANCE, or what npm brings, and for a Node that can run it,
// $MCP_CONFORMANCE_NODE, which npm brings too.
func findConformance(ctx context.Context) (string, []string, error) {
	if given := os.Getenv("MCP_CONFORMANCE"); given != "" {
		_, err := os.Stat(given) //nolint:gosec // the caller names it
		return given, nil, err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", nil, err
	}
	modules := filepath.Join(root, ".cache", "npm-judges", "node_modules")
	script := filepath.Join(modules, "@modelcontextprotocol", "conformance", "dist", "index.js")
	if err := npmInstall(ctx, root, "npm/judges", "npm-judges", script); err != nil {
		return "", nil, err
	}
	arch := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	node := filepath.Join(modules, "node-"+runtime.GOOS+"-"+arch, "bin", "node")
	if _, err := os.Stat(node); err != nil { // npm has none for this machine
		if node, err = exec.LookPath("node"); err != nil {
			return "", nil, err
		}
	}
	version, err := output(ctx, node, "--version")
	if err != nil {
		return "", nil, err
	}
	return "MCP conformance suite, node " + version, []string{"MCP_CONFORMANCE=" + script, "MCP_CONFORMANCE_NODE=" + node}, nil
}

// findScript looks for a script: where a variable says, or at its path in what npm
// installs.
func findScript(ctx context.Context, name, variable, path string) (string, []string, error) {
	if given := os.Getenv(variable); given != "" {
		_, err := os.Stat(given) //nolint:gosec // the caller names it
		return given, nil, err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", nil, err
	}
	script := filepath.Join(root, ".cache", "npm", "node_modules", filepath.FromSlash(path))
	if err := npmInstall(ctx, root, "npm", "npm", script); err != nil {
		return "", nil, err
	}
	return name + " (" + strings.TrimPrefix(script, root+string(filepath.Separator)) + ")", []string{variable + "=" + script}, nil
}

// npmInstall brings what a folder of scripts names into one of .cache by its lock
// file, unless it stands there with the script that is looked for.
func npmInstall(ctx context.Context, root, from, to, script string) error {
	dir := filepath.Join(root, ".cache", to)
	fresh := true // what was installed is what the lock file names
	for _, name := range []string{"package.json", "package-lock.json"} {
		want, err := os.ReadFile(filepath.Join(root, "scripts", filepath.FromSlash(from), name)) //nolint:gosec // a file of this project
		if err != nil {
			return err
		}
		if have, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(have) == string(want) { //nolint:gosec // as above
			continue
		}
		fresh = false
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), want, 0o600); err != nil { //nolint:gosec // below .cache
			return err
		}
	}
	if _, err := os.Stat(script); err == nil && fresh {
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error") //nolint:gosec // npm of this machine
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		// The next attempt must not take the half of it for the whole.
		return errors.Join(fmt.Errorf("npm ci: %w\n%s", err, out), os.Remove(filepath.Join(dir, "package-lock.json")))
	}
	return nil
}

// findRedis looks for the Redis server that tests start: $REDIS_SERVER, or the
// name under which it is packaged.
func findRedis(ctx context.Context) (string, []string, error) {
	name := "redis-server"
	if given := os.Getenv("REDIS_SERVER"); given != "" {
		name = given
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", nil, err
	}
	version, err := output(ctx, path, "--version")
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s (%s)", version, path), []string{"REDIS_SERVER=" + path}, nil
}

// findBubblewrap looks for the program that sandboxes are made by. Some machines
// have it and do not allow it to work: then the tests that need it say so.
func findBubblewrap(ctx context.Context) (string, []string, error) {
	if runtime.GOOS != "linux" {
		return "none; bubblewrap is for Linux, and the tests of sandboxes are skipped", nil, nil
	}
	path, err := exec.LookPath("bwrap")
	if err != nil {
		return "", nil, err
	}
	version, err := output(ctx, path, "--version")
	if err != nil {
		return "", nil, err
	}
	found := fmt.Sprintf("%s (%s)", version, path)
	if out, err := exec.CommandContext(ctx, path, "--unshare-all", "--ro-bind", "/", "/", "true").CombinedOutput(); err != nil { //nolint:gosec // bwrap of this machine
		found += fmt.Sprintf("; it may not work here (%s), then the tests of sandboxes are skipped", strings.TrimSpace(string(out)))
	}
	return found, nil, nil
}

// findCompiler looks for the C compiler that go's race detector needs.
func findCompiler(ctx context.Context) (string, []string, error) {
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
		if _, err := exec.LookPath(compiler); err != nil {
			compiler = "cc"
		}
	}
	path, err := exec.LookPath(compiler)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "needs")
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// A compiler without the headers of the C library is half of one.
	cmd := exec.CommandContext(ctx, path, "-x", "c", "-", "-o", filepath.Join(dir, "probe")) //nolint:gosec // the compiler of this machine
	cmd.Stdin = strings.NewReader("#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("%s cannot compile: %w\n%s", path, err, out)
	}
	version, err := output(ctx, path, "--version")
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("%s (%s)", version, path), nil, nil
}

// findPython looks for a Python that can speak gRPC, and for the compiler of its
// messages: $PYTHON_GRPC or the system's own python3 before others, as packages
// of the system are for that one.
func findPython(ctx context.Context) (string, []string, error) {
	names := []string{"/usr/bin/python3", "python3"}
	if given := os.Getenv("PYTHON_GRPC"); given != "" {
		names = []string{given}
	}
	if _, err := exec.LookPath("protoc"); err != nil {
		return "", nil, err
	}
	var last error
	for _, name := range names {
		version, err := output(ctx, name, "-c", "import grpc, google.protobuf, sys; print('Python', sys.version.split()[0], 'with grpcio', grpc.__version__)")
		if err == nil {
			return fmt.Sprintf("%s (%s)", version, name), []string{"PYTHON_GRPC=" + name}, nil
		}
		last = fmt.Errorf("%s cannot import grpc: %w", name, err)
	}
	return "", nil, last
}

// moduleRoot is the folder that holds go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	file, err := output(ctx, "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	if file == "" || file == os.DevNull {
		return "", errors.New("run me inside the checkout")
	}
	return filepath.Dir(file), nil
}

// output is the first line that a command prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).Output() //nolint:gosec // names stand in this file
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line, err
}
