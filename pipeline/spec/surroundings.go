package spec

import (
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// surroundings reads where and with what the work of a step is done, and whether
// it need be done at all.
func (c *compiler) surroundings(f *fields, s *step) {
	d := s.def
	w := where{step: s}
	if n := f.get("cache"); n != nil {
		d.Cache = c.cache(n, w.in("cache"))
	}
	d.Worker, _ = c.names(f.get("worker"), w.in("worker"))
	if n := f.get("resources"); n != nil {
		d.Resources = c.resources(n, w.in("resources"))
	}
	if n := f.get("sandbox"); n != nil {
		d.Sandbox = c.sandbox(n, w.in("sandbox"))
	}
}

func (c *compiler) cache(n *node, w where) *pipeline.Cache {
	if n.kind != mapping {
		if n.kind == scalar && c.boolean(n, w) {
			return &pipeline.Cache{}
		}
		if n.kind == list {
			c.wrong(n, w, "true or a mapping")
		}
		return nil
	}
	f := c.fields(n, inCache, w)
	out := &pipeline.Cache{}
	if v := f.get("ttl"); v != nil {
		out.TTL, _ = c.duration(v, w.in("ttl"))
	}
	if v := f.get("key"); v != nil {
		key := c.field(v, w.in("key"), useField)
		out.Key = &key
	}
	return out
}

func (c *compiler) resources(n *node, w where) *pipeline.Resources {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	f := c.fields(n, inResources, w)
	return &pipeline.Resources{
		CPU: c.amount(f.get("cpu"), w.in("cpu")), MemoryGB: c.amount(f.get("memory_gb"), w.in("memory_gb")), GPU: c.amount(f.get("gpu"), w.in("gpu")),
	}
}

func (c *compiler) sandbox(n *node, w where) *pipeline.Sandbox {
	if n.kind != mapping {
		if n.kind == scalar && c.boolean(n, w) {
			return &pipeline.Sandbox{}
		}
		if n.kind == list {
			c.wrong(n, w, "true or a mapping")
		}
		return nil
	}
	f := c.fields(n, inSandbox, w)
	out := &pipeline.Sandbox{Network: c.boolean(f.get("network"), w.in("network")), CPU: c.amount(f.get("cpu"), w.in("cpu"))}
	if v := f.get("driver"); v != nil {
		out.Driver, _ = c.word(v, w.in("driver"))
	}
	if v := f.get("memory"); v != nil {
		out.Memory = c.bytes(v, w.in("memory"))
	}
	if v := f.get("pids"); v != nil {
		out.Pids, _ = c.integer(v, w.in("pids"), 1)
	}
	if v := f.get("timeout"); v != nil {
		out.Timeout, _ = c.duration(v, w.in("timeout"))
	}
	return out
}

// amount reads a number above 0; 0 where there is none.
func (c *compiler) amount(n *node, w where) float64 {
	if n == nil {
		return 0
	}
	if n.kind == scalar {
		v, bad := n.value()
		if bad != nil {
			c.error(*bad, w)
			return 0
		}
		x := 0.0
		switch v := v.(type) {
		case int64:
			x = float64(v)
		case float64:
			x = v
		}
		if x > 0 {
			return x
		}
	}
	c.error(fault{code: "E0104", at: n.at, msg: lastName(w.path) + " must be a number above 0"}, w)
	return 0
}

// byteUnits are the units of amounts of memory.
var byteUnits = []struct {
	name string
	size float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"B", 1}}

// Bytes reads an amount of memory as the language spells it: a number of bytes, or
// as in 512MB and 2GiB. It is at least one byte.
func Bytes(text string) (n int64, ok bool) {
	s, unit := strings.TrimSpace(text), 1.0
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = strings.TrimSpace(rest), u.size
			break
		}
	}
	var x float64
	switch v := mustPlain(s).(type) {
	case int64:
		x = float64(v)
	case float64:
		x = v
	}
	if x *= unit; x >= 1 && x < math.MaxInt64/2 {
		return int64(x), true
	}
	return 0, false
}

// bytes reads an amount of memory.
func (c *compiler) bytes(n *node, w where) int64 {
	if n.kind == scalar {
		if x, ok := Bytes(n.text); ok {
			return x
		}
	}
	c.error(fault{code: "E0104", at: n.at, msg: "memory must be a number of bytes", hint: "as in 512MB or 2GiB"}, w)
	return 0
}

// autoSettings reads what filling in values may cost.
func (c *compiler) autoSettings(n *node, w where) *pipeline.AutoSettings {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	f := c.fields(n, inAuto, w)
	out := &pipeline.AutoSettings{CostLimit: c.amount(f.get("cost_limit"), w.in("cost_limit"))}
	if v := f.get("max"); v != nil {
		out.Max, _ = c.integer(v, w.in("max"), 1)
	}
	if v := f.get("fallback"); v != nil {
		out.Fallback, _ = c.constant(v, w.in("fallback"))
	}
	return out
}

// workspace reads the folder that the run works in.
func (c *compiler) workspace(n *node, w where) string {
	dir, ok := c.word(n, w)
	if !ok {
		return ""
	}
	clean := path.Clean(strings.ReplaceAll(dir, `\`, "/"))
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		c.error(fault{code: "E0601", at: n.at, msg: fmt.Sprintf("%s is not within the workspace", dir)}, w)
	}
	return clean
}
