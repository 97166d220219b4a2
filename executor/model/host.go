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
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Host is what local models may use of this machine.
type Host struct {
	MemoryGB    float64
	GPUMemoryGB float64 // of the largest GPU; 0: none answers
	GPUs        int
	Cores       int64
}

// gib is how models.yaml counts memory.
const gib = 1 << 30

// LookAtHost asks the machine: its memory and cores, and its GPUs where a driver
// answers.
func LookAtHost(ctx context.Context) Host {
	h := Host{Cores: int64(runtime.NumCPU())}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		h.MemoryGB = memTotal(string(text))
	}
	// A container may have less than its machine.
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64); err == nil && n/gib < h.MemoryGB {
			h.MemoryGB = n / gib
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits").Output(); err == nil {
		h.GPUs, h.GPUMemoryGB = gpuMemory(string(out))
	} else if list, err := filepath.Glob("/proc/driver/nvidia/gpus/*"); err == nil {
		h.GPUs = len(list) // how much memory they have is not told there
	}
	return h
}

// memTotal reads /proc/meminfo.
func memTotal(text string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			if err == nil {
				return kib * 1024 / gib
			}
		}
	}
	return 0
}

// gpuMemory reads what nvidia-smi says: MiB, a line for each GPU.
func gpuMemory(text string) (n int, most float64) {
	for line := range strings.Lines(text) {
		if mib, err := strconv.ParseFloat(strings.TrimSpace(line), 64); err == nil {
			n++
			most = max(most, mib/1024)
		}
	}
	return n, most
}

// lacks says what a model needs that the machine does not have.
func (h *Host) lacks(q Requirements) string {
	switch {
	case q.MemoryGB > h.MemoryGB:
		return fmt.Sprintf("it needs %g GB of memory, and this machine has %.1f", q.MemoryGB, h.MemoryGB)
	case q.GPUMemoryGB > h.GPUMemoryGB:
		return fmt.Sprintf("it needs %g GB of GPU memory, and this machine has %.1f", q.GPUMemoryGB, h.GPUMemoryGB)
	case q.CPUCores > h.Cores:
		return fmt.Sprintf("it needs %d cores, and this machine has %d", q.CPUCores, h.Cores)
	}
	return ""
}

func (r *Router) hostOf() *Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.host == nil {
		h := LookAtHost(context.Background())
		r.host = &h
	}
	return r.host
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

// probed says why a local server cannot be asked for a model; empty: it can.
func (r *Router) probed(ctx context.Context, at Endpoint, model string) string {
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
	switch {
	case p.err != nil:
		return fmt.Sprintf("the server at %s does not answer", at.BaseURL)
	case len(p.models) > 0 && !slices.Contains(p.models, model) && !slices.Contains(p.models, model+":latest"):
		return fmt.Sprintf("the server at %s does not have it", at.BaseURL)
	}
	return ""
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
