package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/web"
)

func (c *cli) serveCommand() *cobra.Command {
	var listen, database string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Start the server: API and dashboard on one port",
		Long: `Serves gRPC, REST and the dashboard on one port and executes runs, until SIGTERM or Ctrl-C: then it hands its runs over, lets running steps end within their grace, and exits; a second signal exits at once.

Runs are kept in ~/.orchestrator/orchestrator.db, or in Postgres when DATABASE_URL or --database-url names one: several servers may share it. Settings come from config.yaml, the environment and flags: orchestrator help configuration

The server has no users yet. It listens on loopback only, unless security.allow_unauthenticated (ORCHESTRATOR_SECURITY_ALLOW_UNAUTHENTICATED=true) says that something in front of it decides who may reach it.`,
		Example: `
orchestrator serve
orchestrator serve --listen 127.0.0.1:9000 --config ./config.yaml
DATABASE_URL=postgres://orchestrator@localhost/orchestrator orchestrator serve`,
		Args: args(0, 0, "no arguments", "orchestrator serve"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.loadConfig()
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("listen") {
				cfg.Server.Listen = listen
			}
			if cmd.Flags().Changed("database-url") {
				cfg.Storage.Backend, cfg.Storage.ConnectionString = "postgres", database
			}
			return c.serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "address and port")
	cmd.Flags().StringVar(&database, "database-url", "", "the Postgres database, as in postgres://user@host/name; default: the embedded store")
	return cmd
}

func (c *cli) serve(ctx context.Context, cfg *config) error {
	open, err := checkListen(cfg)
	if err != nil {
		return err
	}
	log := logger(c.err, cfg, cfg.Monitoring.StructuredLogging)
	for _, stray := range cfg.strayEnv(c.environ) {
		log.Warn("a variable of the environment is ignored", "why", stray)
	}
	if open {
		log.Warn("security.allow_unauthenticated is set: everybody who reaches this address may run commands on this machine", "listen", cfg.Server.Listen)
	}
	_, set := c.env("GOGC")
	opening, stop := c.endOnSignal(ctx)
	h, err := build(opening, plan{cfg: cfg, log: log, home: c.home(), env: c.env, lanes: true, queue: true, collects: !set})
	if err == nil {
		if rerr := h.ready(opening); rerr != nil {
			h.close()
			err = rerr
		}
	}
	stop()
	if err != nil {
		return err
	}
	return c.serveHouse(ctx, cfg, h, log)
}

// serveHouse serves until a signal comes, then drains.
func (c *cli) serveHouse(ctx context.Context, cfg *config, h *house, log *slog.Logger) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Server.Listen)
	if err != nil {
		h.close()
		f := &failure{code: exitRefused, what: "cannot listen on " + cfg.Server.Listen, why: listenCause(err)}
		if errors.Is(err, syscall.EADDRINUSE) {
			f.fix = []string{"another server may run there; choose another port with: orchestrator serve --listen 127.0.0.1:8081"}
		}
		return f
	}
	front, drain := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		dashboard := web.New(web.Config{Conn: h.conn(), Version: version, Logger: log})
		served <- h.server.Serve(front, l, h.server.Handler(dashboard)) //nolint:contextcheck // each request brings its own
	}()
	url := "http://" + visible(l.Addr().String())
	log.Info("serving", "address", l.Addr().String(), "store", cfg.Storage.Backend, "version", version)
	w := c.painted(c.out)
	fmt.Fprintf(w, "dashboard  %s\nAPI        %s/docs\nstore      %s\n", strong.Render(url), url, cfg.storeName())
	var broken error
	select {
	case <-c.signals.first:
		log.Info("shutting down: handing runs over; a second signal exits at once")
	case broken = <-served:
		served <- nil
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		drain()
		h.closeEngine()
		if err := <-served; err != nil {
			log.Warn("stopped serving", "err", err)
		}
		h.close()
	}()
	select {
	case <-finished:
	case <-ctx.Done(): // the second signal
		log.Warn("left at once; another server or the next start continues the runs")
		os.Exit(exitInterrupted)
	}
	if broken != nil {
		return &failure{code: exitFailed, what: "the server stopped", why: broken.Error()}
	}
	log.Info("stopped")
	return nil
}

// storeName is where runs are kept, for people.
func (c *config) storeName() string {
	if c.Storage.Backend == "postgres" {
		return redactURL(c.Storage.ConnectionString)
	}
	return c.Storage.Path
}

// checkListen refuses an address on which everybody could run commands, unless
// the settings say that this is meant.
func checkListen(cfg *config) (open bool, err error) {
	host, port, err := net.SplitHostPort(cfg.Server.Listen)
	if err != nil || port == "" {
		return false, usage("write it like 127.0.0.1:8080", "%q is not an address to listen on", cfg.Server.Listen)
	}
	a, err := netip.ParseAddr(host)
	if strings.EqualFold(host, "localhost") || (err == nil && a.Unmap().IsLoopback()) {
		return false, nil
	}
	if cfg.Security.AllowUnauthenticated {
		return true, nil
	}
	return false, &failure{
		code: exitInvalid,
		what: "refusing to listen on " + cfg.Server.Listen + ": everybody who reaches it could run commands on this machine",
		why:  "this version has no users and no login; only addresses of loopback, such as 127.0.0.1, are safe",
		fix: []string{
			"listen on loopback and let a proxy with authentication and TLS speak to it",
			"or, where something else decides who reaches it (a container whose port is published on loopback, a private network):\nORCHESTRATOR_SECURITY_ALLOW_UNAUTHENTICATED=true, and server.hosts with the names that browsers use",
		},
	}
}

func listenCause(err error) string {
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		return sys.Err.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err.Error()
	}
	return err.Error()
}

// visible is an address as a browser on this machine can use it.
func visible(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
