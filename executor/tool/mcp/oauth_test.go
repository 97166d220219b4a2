package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// gated is a server, and the one that gives out its tokens.
type gated struct {
	*httptest.Server

	mu      sync.Mutex
	good    string // the token that is good now
	given   int    // tokens
	grants  []string
	refuses bool // to renew tokens
	lasts   int  // seconds that tokens are good for
}

func newGated(t *testing.T) *gated {
	t.Helper()
	g := &gated{lasts: 3600}
	s := sdk.NewServer(&sdk.Implementation{Name: "gated"}, nil)
	s.AddTool(&sdk.Tool{Name: "echo", InputSchema: map[string]any{"type": "object"}, Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true}}, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "called with " + r.Extra.Header.Get("Authorization")}}}, nil
	})
	inner := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
	mux := http.NewServeMux()
	mux.HandleFunc("/mcp", func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		ok := g.good != "" && r.Header.Get("Authorization") == "Bearer "+g.good
		g.mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+g.URL+`/.well-known/oauth-protected-resource/mcp"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/oauth-protected-resource/mcp", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"resource": g.URL + "/mcp", "authorization_servers": []string{g.URL}})
	})
	mux.HandleFunc("/.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": g.URL, "authorization_endpoint": g.URL + "/authorize", "token_endpoint": g.URL + "/token", "registration_endpoint": g.URL + "/register",
			"code_challenge_methods_supported": []string{"S256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_post"}, "response_types_supported": []string{"code"},
		})
	})
	mux.HandleFunc("/register", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"client_id": "registered", "client_secret": "client-secret-1", "token_endpoint_auth_method": "client_secret_post", "redirect_uris": []string{"http://127.0.0.1/callback"}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		_ = r.ParseForm()
		grant := r.Form.Get("grant_type")
		g.grants = append(g.grants, grant)
		if grant == "refresh_token" && (g.refuses || r.Form.Get("refresh_token") != fmt.Sprintf("refresh-%d", g.given)) || r.Form.Get("client_secret") == "wrong-secret" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error": "invalid_grant", "error_description": "you sent %s"}`, r.Form.Get("refresh_token"))
			return
		}
		g.given++
		g.good = fmt.Sprintf("token-number-%d", g.given)
		answer(w, map[string]any{"access_token": g.good, "token_type": "Bearer", "expires_in": g.lasts, "refresh_token": fmt.Sprintf("refresh-%d", g.given)})
	})
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	return g
}

// agree is a person who consents.
func agree(_ context.Context, address string) (url.Values, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return url.Values{"code": {"code"}, "state": {u.Query().Get("state")}}, nil
}

func (g *gated) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// echo connects and calls the tool of a gated server.
func echo(t *testing.T, s Server, logins *Logins) (string, error) {
	t.Helper()
	pool := NewPool(Config{Logins: logins})
	defer pool.Close()
	set, err := pool.Connect(t.Context(), executor.Env{Run: "run-1", Workspace: t.TempDir()}, "", []Server{s})
	if err != nil {
		return "", err
	}
	defer set.Close()
	r, err := set.Find(pipeline.MCPName(s.Name, "echo")).Run(t.Context(), executor.Env{}, tool.Call{})
	return said(r), err
}

func TestALoginIsKeptAndRenewed(t *testing.T) {
	g := newGated(t)
	s := Server{Name: "shop", Transport: streamable, URL: g.URL + "/mcp", installed: true}
	logins := &Logins{Dir: t.TempDir() + "/logins"}
	needs := func(why string) {
		t.Helper()
		_, err := echo(t, s, logins)
		f, ok := err.(*pipeline.Failure) //nolint:errorlint // as steps get it
		if !ok || f.Reason != reasonLogin || f.Kind != pipeline.CategoryValidation || !strings.Contains(f.Message, why) || !strings.Contains(f.Message, "orchestrator tools login shop") {
			t.Errorf("%s: got %v", why, err)
		}
	}
	works := func() {
		t.Helper()
		if got, err := echo(t, s, logins); err != nil || got != "called with Bearer [secret]" {
			t.Errorf("gave %q, %v", got, err)
		}
	}
	needs("401")
	if err := Login(t.Context(), s, logins, "http://127.0.0.1:1/callback", nil, agree); err != nil {
		t.Fatal(err)
	}
	works()
	info, err := os.Stat(logins.file(&s))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the login is kept as %v, %v", info, err)
	}
	if dir, err := os.Stat(logins.Dir); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("logins are kept in %v, %v", dir, err)
	}
	for what, other := range map[string]Server{
		"a pipeline's server at its address": {Name: "shop", Transport: streamable, URL: s.URL},
		"another address":                    {Name: "shop", Transport: streamable, URL: s.URL + "?x", installed: true},
	} {
		if logins.Has(other) {
			t.Errorf("the login counts for %s", what)
		}
	}
	g.set(func() { g.good = "withdrawn" }) // the token is not good any more, and nobody has told us
	works()
	g.set(func() { g.good, g.lasts = "withdrawn", 1 }) // and the next one is over before it is used
	works()
	works()
	g.set(func() {
		if n := len(g.grants); n < 4 || g.grants[0] != "authorization_code" || g.grants[n-1] != "refresh_token" {
			t.Errorf("tokens were asked for by %v", g.grants)
		}
		g.refuses = true
	})
	needs("invalid_grant")
	if _, err := echo(t, s, logins); strings.Contains(err.Error(), "refresh-") {
		t.Errorf("a token is shown: %v", err)
	}
	if gone, err := logins.Forget(s); !gone || err != nil {
		t.Errorf("logged out: %v, %v", gone, err)
	}
	needs("401")
	if gone, err := logins.Forget(s); gone || err != nil {
		t.Errorf("logged out twice: %v, %v", gone, err)
	}
}

func TestProcessesRenewOneLoginTogether(t *testing.T) {
	g := newGated(t)
	s := Server{Name: "shop", Transport: streamable, URL: g.URL + "/mcp"}
	logins := &Logins{Dir: t.TempDir()}
	if err := Login(t.Context(), s, logins, "http://127.0.0.1:1/callback", nil, agree); err != nil {
		t.Fatal(err)
	}
	g.set(func() { g.good = "withdrawn" })
	var wait sync.WaitGroup
	for range 6 {
		wait.Go(func() {
			if _, err := echo(t, s, logins); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	g.set(func() {
		if len(g.grants) != 2 { // a refresh token is good once
			t.Errorf("tokens were asked for by %v", g.grants)
		}
	})
}

func TestAClientHasATokenOfItsOwn(t *testing.T) {
	g := newGated(t)
	s := Server{Name: "shop", Transport: streamable, URL: g.URL + "/mcp", OAuth: &OAuth{ClientID: "me", ClientSecret: "my-secret", Credentials: true}}
	if got, err := echo(t, s, nil); err != nil || got != "called with Bearer [secret]" {
		t.Errorf("gave %q, %v", got, err)
	}
	s.OAuth.ClientSecret = "wrong-secret"
	if _, err := echo(t, s, nil); err == nil || !strings.Contains(err.Error(), "invalid_grant") || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("a wrong secret: %v", err)
	}
	if err := Login(t.Context(), s, &Logins{Dir: t.TempDir()}, "http://127.0.0.1:1/callback", nil, agree); err == nil {
		t.Error("somebody could log in")
	}
}

func TestTokensGoToTheirServerAlone(t *testing.T) {
	g := newGated(t)
	s := Server{Name: "shop", Transport: streamable, URL: g.URL + "/mcp"}
	logins := &Logins{Dir: t.TempDir()}
	if err := Login(t.Context(), s, logins, "http://127.0.0.1:1/callback", nil, agree); err != nil {
		t.Fatal(err)
	}
	var got []string
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = append(got, r.Header.Get("Authorization")) }))
	defer thief.Close()
	c, err := newCarrier(t.Context(), &s, logins)
	if err != nil {
		t.Fatal(err)
	}
	defer c.base.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, thief.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(got) != 1 || got[0] != "" {
		t.Errorf("another host was sent %q", got)
	}
}
