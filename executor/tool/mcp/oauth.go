package mcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/auth/extauth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// OAuth is how this client is known where a server gets its tokens from.
type OAuth struct {
	// ClientID is empty where the client registers itself; an https address is that
	// of a document about the client.
	ClientID     string
	ClientSecret string
	// Credentials says that no person logs in: the client itself is who calls.
	Credentials bool
}

// tokenWait is how long whoever gives tokens may take to answer.
const tokenWait = 30 * time.Second

// reasonLogin is the reason of the failure of whoever needs a login that nobody has
// made, or that is over.
const reasonLogin = "mcp_login"

// tokens are those that a server was sent lately; they are shown nowhere.
type tokens struct {
	mu   sync.Mutex
	last []string
}

func (t *tokens) add(token string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.last); n > 0 && t.last[n-1] == token {
		return
	}
	if t.last = append(t.last, token); len(t.last) > 4 {
		t.last = t.last[1:]
	}
}

func (t *tokens) blot(text string) string {
	if t == nil {
		return text
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, v := range t.last {
		if len(v) >= 4 {
			text = strings.ReplaceAll(text, v, "[secret]")
		}
	}
	return text
}

// hide blots out tokens that a server has sent back to us.
func (t *tokens) hide(r *tool.Result) {
	for i := range r.Content {
		r.Content[i].Text = t.blot(r.Content[i].Text)
	}
}

func (t *tokens) hidden(v any) any {
	switch v := v.(type) {
	case string:
		return t.blot(v)
	case []any:
		for i := range v {
			v[i] = t.hidden(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = t.hidden(v[k])
		}
	}
	return v
}

// keeper has the tokens that the requests of a connection carry.
type keeper interface {
	// token is the one for the next request; empty: none.
	token(ctx context.Context) (string, error)
	// refused is told of an answer 401 or 403 to a request that carried sent, and
	// reports whether there is another token now. It leaves the answer's body alone.
	refused(ctx context.Context, req *http.Request, resp *http.Response, sent string) (again bool, err error)
}

// newKeeper gives the keeper of a server's tokens; nil: the headers say who calls.
func newKeeper(s *Server, logins *Logins, base *http.Transport) (keeper, error) {
	for name := range s.Headers {
		if strings.EqualFold(name, "Authorization") {
			return nil, nil
		}
	}
	client := tokenClient(s, base)
	if s.OAuth == nil || !s.OAuth.Credentials {
		return &person{server: s, logins: logins, client: client}, nil
	}
	h, err := extauth.NewClientCredentialsHandler(&extauth.ClientCredentialsHandlerConfig{
		Credentials: &oauthex.ClientCredentials{ClientID: s.OAuth.ClientID, ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: s.OAuth.ClientSecret}},
		HTTPClient:  client,
	})
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "its oauth cannot be used: %v", err)
	}
	return &machine{handler: h}, nil
}

// tokenClient sends requests to where a server says that tokens are: nowhere but the
// public internet, unless the server itself is elsewhere.
func tokenClient(s *Server, base *http.Transport) *http.Client {
	free := base.Clone()
	free.DialContext = (&net.Dialer{Timeout: 30 * time.Second}).DialContext // so that the SDK has no rules of its own
	return &http.Client{Timeout: tokenWait, Transport: &besides{server: s, next: executor.Guarded(free)}}
}

type besides struct {
	server *Server
	next   http.RoundTripper
	once   sync.Once
	inner  bool // the server is not on the public internet
}

func (b *besides) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	b.once.Do(func() {
		u, err := url.Parse(b.server.URL)
		if err != nil {
			return
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
		for _, a := range found {
			b.inner = b.inner || err == nil && !executor.Public(a)
		}
	})
	if !b.inner {
		ctx = executor.PublicOnly(ctx, nil)
	}
	return b.next.RoundTrip(req.WithContext(ctx))
}

func (b *besides) CloseIdleConnections() {
	if c, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// person is the keeper for a server at which somebody has logged in.
type person struct {
	server *Server
	logins *Logins
	client *http.Client

	mu  sync.Mutex
	now *login
}

func (p *person) token(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		got, err := p.logins.read(p.server)
		if err != nil || got == nil {
			return "", err
		}
		p.now = got
	}
	if !p.now.Token.Valid() {
		if err := p.renew(ctx); err != nil {
			return "", err
		}
	}
	return p.now.Token.AccessToken, nil
}

// renew gets another token.
func (p *person) renew(ctx context.Context) error {
	got, err := p.logins.refreshed(ctx, p.server, p.client, p.now.Token.AccessToken)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return p.server.wantsLogin("the login is over: " + err.Error())
	case got == nil:
		return p.server.wantsLogin("somebody has logged out")
	}
	p.now = got
	return nil
}

func (p *person) refused(ctx context.Context, _ *http.Request, resp *http.Response, sent string) (bool, error) {
	if resp.StatusCode == http.StatusForbidden {
		if scope, ok := insufficient(resp); ok {
			more := ""
			if scope != "" {
				more = " --scope '" + strings.Map(plain, scope) + "'"
			}
			return false, p.server.wantsLogin("the login does not reach far enough", more)
		}
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent == "" || p.now == nil {
		return false, p.server.wantsLogin("it answers 401 Unauthorized")
	}
	if p.now.Token.AccessToken != sent {
		return true, nil
	}
	return true, p.renew(ctx)
}

// plain leaves what can stand in a scope, and in quotes of a shell.
func plain(r rune) rune {
	if r < ' ' || r > '~' || r == '\'' || r == '\\' {
		return -1
	}
	return r
}

// insufficient reports whether a token does not reach far enough, and what would.
func insufficient(resp *http.Response) (scope string, ok bool) {
	list, err := oauthex.ParseWWWAuthenticate(resp.Header.Values("WWW-Authenticate"))
	if err != nil {
		return "", false
	}
	for _, c := range list {
		if c.Scheme == "bearer" && c.Params["error"] == "insufficient_scope" {
			return c.Params["scope"], true
		}
	}
	return "", false
}

// wantsLogin is the failure of whoever needs a login.
func (s *Server) wantsLogin(why string, flags ...string) *pipeline.Failure {
	of := s.Name
	if !s.installed {
		of = "PIPELINE " + of
	}
	f := pipeline.Failuref(pipeline.CategoryValidation,
		"%s; where the pipeline runs, log in: orchestrator tools login %s%s; or give it a header with a key", why, of, strings.Join(flags, ""))
	f.Reason = reasonLogin
	return f
}

// machine is the keeper for a server that knows this client by a secret.
type machine struct {
	mu      sync.Mutex
	handler *extauth.ClientCredentialsHandler
}

func (m *machine) token(ctx context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	src, err := m.handler.TokenSource(ctx)
	if err != nil || src == nil {
		return "", err
	}
	t, err := src.Token()
	if err != nil {
		return "", short(err)
	}
	return t.AccessToken, nil
}

func (m *machine) refused(ctx context.Context, req *http.Request, resp *http.Response, sent string) (bool, error) {
	if resp.StatusCode == http.StatusForbidden {
		if _, ok := insufficient(resp); !ok {
			return false, nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if src, _ := m.handler.TokenSource(ctx); src != nil {
		if t, err := src.Token(); err == nil && t.AccessToken != sent {
			return true, nil // another request was faster
		}
	}
	if err := m.handler.Authorize(ctx, req, bodiless(resp)); err != nil { //nolint:bodyclose // the one who has asked closes it
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		f := pipeline.Failuref(pipeline.CategoryValidation, "no token can be had with client_id and client_secret of its oauth: %v", short(err))
		f.Reason = reasonLogin
		return false, f
	}
	return true, nil
}

// bodiless is an answer whose body others still read.
func bodiless(resp *http.Response) *http.Response {
	own := *resp
	own.Body = http.NoBody
	return &own
}

// Login logs a person in at a server: visit shows them an address and gives what
// their browser then asks of redirect, an address of this machine. scopes are asked
// for besides what the server wants. The login is kept in logins.
func Login(ctx context.Context, s Server, logins *Logins, redirect string, scopes []string, visit func(ctx context.Context, address string) (url.Values, error)) error {
	switch {
	case s.Transport == stdio:
		return errors.New("it is a program; there is nothing to log in at")
	case s.OAuth != nil && s.OAuth.Credentials:
		return errors.New("its grant is client_credentials; nobody needs to log in")
	}
	c, err := newCarrier(ctx, &s, nil)
	if err != nil {
		return err
	}
	if c.keeper == nil {
		return errors.New("its headers already say who calls; take Authorization out of them first")
	}
	base := c.base
	defer base.CloseIdleConnections()
	got := login{Server: s.Name, URL: s.URL}
	cfg := auth.AuthorizationCodeHandlerConfig{
		RedirectURL: redirect, RequestRefreshToken: true, Client: tokenClient(&s, base),
		AuthorizationCodeFetcher: func(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			v, err := visit(ctx, args.URL)
			if err != nil {
				return nil, err
			}
			if word := v.Get("error"); word != "" {
				return nil, fmt.Errorf("the login was refused: %s", strings.TrimSpace(word+" "+v.Get("error_description")))
			}
			return &auth.AuthorizationResult{Code: v.Get("code"), State: v.Get("state"), Iss: v.Get("iss")}, nil
		},
		ScopeFilter: func(found []string) []string { return append(found, scopes...) },
		NewTokenSource: func(_ context.Context, cfg *oauth2.Config, t *oauth2.Token) (oauth2.TokenSource, error) {
			got.ClientID, got.ClientSecret, got.TokenURL, got.AuthStyle, got.Token = cfg.ClientID, cfg.ClientSecret, cfg.Endpoint.TokenURL, cfg.Endpoint.AuthStyle, t
			return oauth2.StaticTokenSource(t), nil
		},
	}
	register := &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
		RedirectURIs: []string{redirect}, ClientName: "Orchestrator", GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"},
	}}
	switch o := s.OAuth; {
	case o == nil || o.ClientID == "":
		cfg.DynamicClientRegistrationConfig = register
	case strings.HasPrefix(o.ClientID, "https://") && o.ClientSecret == "":
		cfg.ClientIDMetadataDocumentConfig = &auth.ClientIDMetadataDocumentConfig{URL: o.ClientID}
		cfg.DynamicClientRegistrationConfig = register // where such documents are not known
	default:
		cfg.PreregisteredClient = &oauthex.ClientCredentials{ClientID: o.ClientID}
		if o.ClientSecret != "" {
			cfg.PreregisteredClient.ClientSecretAuth = &oauthex.ClientSecretAuth{ClientSecret: o.ClientSecret}
		}
	}
	h, err := auth.NewAuthorizationCodeHandler(&cfg)
	if err != nil {
		return err
	}
	req, resp, err := knock(ctx, &s, base) //nolint:bodyclose // it has none
	if err != nil {
		return err
	}
	if err := h.Authorize(ctx, req, resp); err != nil {
		return short(err)
	}
	return logins.write(&s, &got)
}

// knock asks a server something without a token, to hear who may. Where it answers
// all the same, it may want one later: then it is the standard places that tell.
func knock(ctx context.Context, s *Server, base *http.Transport) (*http.Request, *http.Response, error) {
	questions := []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"` + initializing + `","capabilities":{},"clientInfo":{"name":"orchestrator","version":"1"}}}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}`,
	}
	if s.Transport == sse {
		questions = []string{""}
	}
	session := ""
	for _, q := range questions {
		method := http.MethodPost
		if q == "" {
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(ctx, method, s.URL, strings.NewReader(q))
		if err != nil {
			return nil, nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		if session != "" {
			req.Header.Set("Mcp-Session-Id", session)
			req.Header.Set("Mcp-Protocol-Version", initializing)
		}
		for name, v := range s.Headers {
			req.Header.Set(name, v)
		}
		resp, err := base.RoundTrip(req)
		if err != nil {
			return nil, nil, err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusUnauthorized {
			return req, bodiless(resp), nil
		}
		session = resp.Header.Get("Mcp-Session-Id")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	return req, &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: http.NoBody}, err
}
