package expr

import (
	"maps"
	"time"
)

// function is an entry of the closed table of global functions.
type function struct {
	name   string
	sig    signature
	impure bool
	fn     func(c *call, args []any) any
}

var functions = functionTable()

func functionTable() map[string]*function {
	all := []*function{
		{name: "range", sig: sig(need("start", intKind), opt("stop", intKind, nil), opt("step", intKind, int64(1))), fn: callRange},
		{name: "dict", sig: signature{params: []param{opt("map", anyKind, nil)}, named: true}, fn: callDict},
		{name: "now", impure: true, fn: callNow},
		{name: "list_files", sig: sig(need("pattern", textKind)), impure: true, fn: callListFiles},
		{name: "file_exists", sig: sig(need("path", textKind)), impure: true, fn: callFileExists},
		{name: "include_file", sig: sig(need("path", textKind)), impure: true, fn: callIncludeFile},
		{name: "collect_results", fn: callCollect},
	}
	t := make(map[string]*function, len(all))
	for _, f := range all {
		t[f.name] = f
	}
	return t
}

func callRange(c *call, args []any) any {
	from, step := int64(0), asInt(args[2])
	to, ok := args[1].(int64)
	if ok {
		from = asInt(args[0])
	} else {
		to = asInt(args[0])
	}
	var n uint64
	switch {
	case step == 0:
		c.fail("the step cannot be 0")
	case step > 0 && from < to:
		n = (uint64(to)-uint64(from)-1)/uint64(step) + 1 //nolint:gosec // the difference of int64s fits in uint64
	case step < 0 && from > to:
		n = (uint64(from)-uint64(to)-1)/(-uint64(step)) + 1 //nolint:gosec // as above
	}
	out := c.ev.list(int(min(n, maxElements+1)), c.at)
	for i := range out {
		out[i] = from + int64(i)*step
	}
	return out
}

func callDict(c *call, args []any) any {
	out := map[string]any{}
	switch m := args[0].(type) {
	case nil:
	case map[string]any:
		c.ev.hold(len(m)*weightOfList, c.at)
		maps.Copy(out, m)
	case []any:
		for _, p := range m {
			c.ev.hold(weightOfList, c.at)
			kv, ok := plain(p).([]any)
			if !ok || len(kv) != 2 || !isText(kv[0]) {
				c.fail("it needs a map or a list of [name, value] pairs")
			}
			out[asText(kv[0])] = kv[1]
		}
	default:
		c.fail("it needs a map or a list of [name, value] pairs, not %s", typeName(m))
	}
	for i, n := range c.names {
		out[n] = c.named[i]
	}
	return out
}

// unavailable fails a call that the host does not offer here.
func (c *call) unavailable() {
	c.fail("it is not available here")
}

func callNow(c *call, _ []any) any {
	now := c.ev.env.Host.Now
	if now == nil {
		c.unavailable()
	}
	return now().Format(time.RFC3339)
}

func callListFiles(c *call, args []any) any {
	list := c.ev.env.Host.ListFiles
	if list == nil {
		c.unavailable()
	}
	files, err := list(asText(args[0]))
	if err != nil {
		c.fail("%v", err)
	}
	return c.ev.texts(files, c.at)
}

func callFileExists(c *call, args []any) any {
	exists := c.ev.env.Host.FileExists
	if exists == nil {
		c.unavailable()
	}
	ok, err := exists(asText(args[0]))
	if err != nil {
		c.fail("%v", err)
	}
	return ok
}

func callIncludeFile(c *call, args []any) any {
	include := c.ev.env.Host.IncludeFile
	if include == nil {
		c.unavailable()
	}
	s, err := include(asText(args[0]))
	if err != nil {
		c.fail("%v", err)
	}
	return c.ev.str(s, c.at)
}

func callCollect(c *call, _ []any) any {
	collect := c.ev.env.Host.Collect
	if collect == nil {
		c.unavailable()
	}
	v, err := collect()
	if err != nil {
		c.fail("%v", err)
	}
	return c.ev.plain(v, c.at)
}
