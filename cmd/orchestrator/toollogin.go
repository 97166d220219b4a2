package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// loginTime is how long a person may take in their browser.
const loginTime = 10 * time.Minute

// loginsOf keeps the logins of a home at MCP servers. They are in no backup.
func loginsOf(home string) *mcp.Logins { return &mcp.Logins{Dir: filepath.Join(home, "logins")} }

// loginCall is what tools login is given.
type loginCall struct {
	inputs []string
	scopes string
	port   int
	silent bool
}

func (c *cli) toolsLoginCommand() *cobra.Command {
	f := &loginCall{}
	cmd := &cobra.Command{
		Use:   "login [FILE] SERVER",
		Short: "Log in at an MCP server that wants a person's consent (OAuth)",
		Long: `Logs you in at an MCP server of this installation, which its mcp.json names, or of a pipeline: opens the server's page in your browser, waits at an address of this machine for its answer, and keeps the tokens in the home, in a file that its owner alone reads. Runs on this machine, in the same home, then use the server, and renew the tokens by themselves.

The login at a server of the installation counts for that entry alone, one at a pipeline's server for every pipeline that names the same address. On a machine without a browser, forward the port: ssh -L 8765:127.0.0.1:8765 HOST, and --port 8765.`,
		Example: `
orchestrator tools login shop
orchestrator tools login pipeline.yaml shop
orchestrator tools login shop --scope 'orders:write' --no-browser --port 8765`,
		Args: args(1, 2, "a server, or a pipeline and one of its servers", "orchestrator tools login shop"),
		RunE: func(cmd *cobra.Command, words []string) error { return c.login(cmd.Context(), words, f) },
	}
	cmd.Flags().StringArrayVarP(&f.inputs, "input", "i", nil, "an input of the pipeline as name=value (repeatable)")
	cmd.Flags().StringVar(&f.scopes, "scope", "", "ask for these scopes too, with spaces between them")
	cmd.Flags().IntVar(&f.port, "port", 0, "the port of this machine at which the answer is awaited; 0: a free one")
	cmd.Flags().BoolVar(&f.silent, "no-browser", false, "print the address and open nothing")
	return cmd
}

func (c *cli) toolsLogoutCommand() *cobra.Command {
	f := &loginCall{}
	cmd := &cobra.Command{
		Use:   "logout [FILE] SERVER",
		Short: "Forget the login at an MCP server",
		Long:  `Removes the tokens that tools login has kept. Runs that use the server at this moment end with their token. The server itself is not told; withdraw the consent there if it is to be gone there too.`,
		Example: `
orchestrator tools logout shop
orchestrator tools logout pipeline.yaml shop`,
		Args: args(1, 2, "a server, or a pipeline and one of its servers", "orchestrator tools logout shop"),
		RunE: func(cmd *cobra.Command, words []string) error {
			s, err := c.serverToLogIn(cmd.Context(), words, f.inputs)
			if err != nil {
				return err
			}
			gone, err := loginsOf(c.home()).Forget(s)
			if err != nil {
				return &failure{code: exitFailed, what: "cannot remove the login at " + s.Name, why: cause(err)}
			}
			if !gone {
				fmt.Fprintln(c.out, "nobody is logged in at "+s.Name)
				return nil
			}
			fmt.Fprintln(c.out, "logged out of "+s.Name)
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&f.inputs, "input", "i", nil, "an input of the pipeline as name=value (repeatable)")
	return cmd
}

// serverToLogIn is the server that login and logout are about.
func (c *cli) serverToLogIn(ctx context.Context, words, inputs []string) (mcp.Server, error) {
	if len(words) == 1 {
		own, err := installed(c.home(), c.secret, c.env)
		if err != nil {
			return mcp.Server{}, err
		}
		i := slices.IndexFunc(own, func(s mcp.Server) bool { return s.Name == words[0] })
		if i < 0 {
			return mcp.Server{}, usage("orchestrator tools login FILE SERVER", "%s names no MCP server %q; those of a pipeline are named after its file", filepath.Join(c.home(), installedFile), words[0])
		}
		if l := own[i].Lacking(); len(l) > 0 {
			return mcp.Server{}, usage("export "+l[0]+"=...", "%s needs %s in the environment", words[0], strings.Join(l, ", "))
		}
		return own[i], nil
	}
	cl, err := c.embed(ctx, plan{bare: true})
	if err != nil {
		return mcp.Server{}, err
	}
	defer cl.close()
	list, _, err := c.wantedServers(ctx, cl, words, inputs)
	if err != nil {
		return mcp.Server{}, err
	}
	return list[0], nil
}

func (c *cli) login(ctx context.Context, words []string, f *loginCall) error {
	ctx, stop := c.endOnSignal(ctx)
	defer stop()
	s, err := c.serverToLogIn(ctx, words, f.inputs)
	if err != nil {
		return err
	}
	at, err := awaitAnswer(ctx, f.port)
	if err != nil {
		return &failure{code: exitFailed, what: "cannot wait for the browser's answer", why: err.Error(), fix: []string{"choose another port: --port 8765"}}
	}
	defer at.close()
	within, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	err = mcp.Login(within, s, loginsOf(c.home()), at.address, strings.Fields(f.scopes), func(ctx context.Context, address string) (url.Values, error) {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" {
			return nil, errors.New("the server's page has no address of the web")
		}
		fmt.Fprintf(c.err, "Log in at this page:\n\n    %s\n\nWaiting for the answer at %s; press Ctrl-C to give up.\n", harmlessLine(address), at.address)
		if !f.silent {
			browse(ctx, address)
		}
		select {
		case v := <-at.answers:
			return v, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case within.Err() != nil:
		return &failure{code: exitFailed, what: "cannot log in at " + s.Name, why: fmt.Sprintf("nobody has logged in within %s", loginTime)}
	case err != nil:
		why := err.Error()
		if f, ok := errors.AsType[*pipeline.Failure](err); ok {
			why = f.Message
		}
		return &failure{code: exitFailed, what: "cannot log in at " + s.Name, why: harmless(why), fix: []string{"a server without OAuth takes a key in headers; docs/guide/tools.md tells how"}}
	}
	fmt.Fprintln(c.out, "logged in at "+s.Name)
	return nil
}

// answers waits at an address of this machine for what a browser is sent to.
type answers struct {
	address string
	answers chan url.Values // capacity 1
	close   func()
}

func awaitAnswer(ctx context.Context, port int) (*answers, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	a := &answers{address: "http://" + l.Addr().String() + "/callback", answers: make(chan url.Values, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if v.Get("code") == "" && v.Get("error") == "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintln(w, "This is no answer to a login.")
			return
		}
		select {
		case a.answers <- v:
		default: // it has one
		}
		fmt.Fprintln(w, "Thank you. Close this page and go back to the terminal.")
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = srv.Serve(l)
	}()
	a.close = func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // the page is still to be shown
		defer cancel()
		_ = srv.Shutdown(end)
		_ = srv.Close()
		<-over
	}
	return a, nil
}

// browse opens an address in the person's browser, where there is one.
func browse(ctx context.Context, address string) {
	name := "xdg-open"
	if runtime.GOOS == "darwin" {
		name = "open"
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, address) //nolint:gosec // an address of the web, which the person is shown
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }()
	}
}
