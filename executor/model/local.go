package model

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// free reports whether nobody is paid for a target's answers: scripts, recordings,
// and servers of one's own, which want no key.
func (t *target) free() bool {
	switch t.Provider {
	case ProviderScript, ProviderCassette:
		return true
	case ProviderLocal:
		return t.endpoint.Key == ""
	}
	return false
}

// near reports whether an address is of this machine.
func near(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// probe is what a local server has said about its models.
type probe struct {
	at     time.Time
	models []string
	err    error
}

const (
	probeGood = time.Minute
	probeBad  = 10 * time.Second // a server may just be starting
	probeWait = 2 * time.Second
)

// probed says why a local server cannot be asked for a model; empty: it can. Then t
// holds the server's own name for it.
func (r *Router) probed(ctx context.Context, t *target) string {
	at, model := t.endpoint, t.own()
	r.mu.Lock()
	p := r.probes[at]
	r.mu.Unlock()
	if p == nil || p.err == nil && time.Since(p.at) > probeGood || p.err != nil && time.Since(p.at) > probeBad {
		p = &probe{at: time.Now()}
		p.models, p.err = listModels(ctx, at)
		r.mu.Lock()
		if len(r.probes) >= maxProviders {
			clear(r.probes)
		}
		r.probes[at] = p
		r.mu.Unlock()
	}
	why := ""
	switch i := slices.IndexFunc(p.models, func(id string) bool { return r.isModel(id, model) }); {
	case p.err != nil:
		why = fmt.Sprintf("the server at %s does not answer", at.BaseURL)
	case i >= 0:
		t.served = p.models[i]
	case len(p.models) > 0:
		why = fmt.Sprintf("the server at %s does not have it", at.BaseURL)
	}
	if why != "" && r.cfg.LocalPath != "" && near(at.BaseURL) {
		why += ", and " + r.weights(model)
	}
	return why
}

// isModel reports whether a server means a model by its id. Servers that were given
// no name for it call it by its file or folder.
func (r *Router) isModel(id, model string) bool {
	if id == model || id == model+":latest" {
		return true
	}
	if r.cfg.LocalPath == "" {
		return false
	}
	if filepath.IsAbs(id) {
		within, err := filepath.Rel(r.cfg.LocalPath, id)
		if err != nil || !filepath.IsLocal(within) {
			return false
		}
		id = within
	}
	bare := strings.TrimSuffix(id, weightsSuffix)
	return id == model || bare == model || filepath.Base(bare) == model
}

// weightsSuffix is what files of weights end with that are not folders.
const weightsSuffix = ".gguf"

// weights says where the files of a local model are.
func (r *Router) weights(model string) string {
	if filepath.IsLocal(model) {
		for _, name := range []string{model, model + weightsSuffix} {
			path := filepath.Join(r.cfg.LocalPath, name)
			if _, err := os.Stat(path); err == nil {
				return fmt.Sprintf("its files are there: let a server serve %s", path)
			}
		}
	}
	return fmt.Sprintf("%s has no %s or %s%s", r.cfg.LocalPath, model, model, weightsSuffix)
}

// listModels asks a server that speaks as openai does which models it has.
func listModels(ctx context.Context, at Endpoint) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at.BaseURL, "/")+"/models", http.NoBody)
	if err != nil {
		return nil, err
	}
	if at.Key != "" {
		req.Header.Set("Authorization", "Bearer "+at.Key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusInternalServerError {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list); err != nil {
		return nil, nil //nolint:nilnil // it answers, and does not say what it has
	}
	names := make([]string, len(list.Data))
	for i, m := range list.Data {
		names[i] = m.ID
	}
	return names, nil
}
