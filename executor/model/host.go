package model

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	if text, err := os.ReadFile("/sys/fs/cgroup/cpu.max"); err == nil {
		h.Cores = min(h.Cores, coresOf(string(text)))
	}
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

// coresOf reads what a control group may use of the processors: microseconds in each
// period, or max.
func coresOf(text string) int64 {
	var quota, period int64
	if n, _ := fmt.Sscanf(text, "%d %d", &quota, &period); n < 2 || quota <= 0 || period <= 0 {
		return math.MaxInt64
	}
	return max(1, (quota+period-1)/period)
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
