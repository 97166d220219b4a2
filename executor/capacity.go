package executor

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The reasons of steps that cannot run in this process.
const (
	reasonLabels    = "no_worker"
	reasonResources = "too_few_resources"
)

// capacity is what the steps that say what they take share. They get it in the
// order in which they ask, so that a large step is not kept waiting by small ones.
type capacity struct {
	total pipeline.Resources

	mu   sync.Mutex
	used pipeline.Resources
	line []*claim
}

type claim struct {
	need  pipeline.Resources
	taken chan struct{} // closed when it is granted
}

// newCapacity takes what is not said from the machine.
func newCapacity(total pipeline.Resources) *capacity {
	if total.CPU == 0 {
		total.CPU = float64(runtime.GOMAXPROCS(0))
	}
	if total.MemoryGB == 0 {
		total.MemoryGB = machineMemory()
	}
	return &capacity{total: total}
}

// machineMemory is the machine's memory in GB, without a bound where it does not
// tell.
func machineMemory() float64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.Inf(1)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kb, err := strconv.ParseFloat(f[1], 64); err == nil {
				return kb * 1024 / 1e9
			}
		}
	}
	return math.Inf(1)
}

// suits says why a step can never run here; nil: it can.
func (e *Executor) suits(def *pipeline.StepDef) *pipeline.Failure {
	refuse := func(reason, format string, args ...any) *pipeline.Failure {
		f := pipeline.Failuref(pipeline.CategoryResource, format, args...)
		f.Reason = reason
		return f
	}
	for _, label := range def.Worker {
		if !slices.Contains(e.cfg.Labels, label) {
			has := "none"
			if len(e.cfg.Labels) > 0 {
				has = strings.Join(e.cfg.Labels, ", ")
			}
			return refuse(reasonLabels, "the step asks for a worker with the label %s; the labels of this one are: %s", label, has)
		}
	}
	if def.Resources == nil {
		return nil
	}
	for _, r := range e.capacity.members(def.Resources) {
		if r.need > r.total {
			return refuse(reasonResources, "the step asks for %s %s; this worker has %s", amount(r.need), r.name, amount(r.total))
		}
	}
	return nil
}

func amount(x float64) string { return strconv.FormatFloat(math.Round(x*100)/100, 'f', -1, 64) }

// member is one of the resources.
type member struct {
	name        string
	need, total float64
	used        *float64
}

func (c *capacity) members(need *pipeline.Resources) []member {
	return []member{
		{"cpu", need.CPU, c.total.CPU, &c.used.CPU},
		{"GB of memory", need.MemoryGB, c.total.MemoryGB, &c.used.MemoryGB},
		{"gpu", need.GPU, c.total.GPU, &c.used.GPU},
	}
}

// take waits until what a step needs is free. release gives it back.
func (c *capacity) take(ctx context.Context, need *pipeline.Resources) (release func(), err error) {
	if need == nil {
		return func() {}, nil
	}
	me := &claim{need: *need, taken: make(chan struct{})}
	c.mu.Lock()
	c.line = append(c.line, me)
	c.grant()
	c.mu.Unlock()
	release = sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, m := range c.members(&me.need) {
			*m.used -= m.need
		}
		c.grant()
	})
	select {
	case <-me.taken:
		return release, nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	i := slices.Index(c.line, me)
	if i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
		c.grant()
	}
	c.mu.Unlock()
	if i < 0 { // it was granted meanwhile
		release()
	}
	return nil, fmt.Errorf("wait for resources: %w", context.Cause(ctx))
}

// grant serves those who wait, in order, as far as what is free reaches.
func (c *capacity) grant() {
	for len(c.line) > 0 {
		first := c.line[0]
		list := c.members(&first.need)
		for _, m := range list {
			if *m.used > 0 && *m.used+m.need > m.total+1e-9 && m.need > 0 {
				return
			}
		}
		for _, m := range list {
			*m.used += m.need
		}
		c.line = c.line[1:]
		close(first.taken)
	}
}
