package model

import (
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// ReadRegistry reads a models.yaml. file is its name in messages, and where the
// files that it names lie. faults lists all that is wrong, each with its place;
// then there is no registry.
func ReadRegistry(file string, text []byte) (g *Registry, faults []string) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, []string{file + ": " + strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " ")}
	}
	g = &Registry{Policies: policies()}
	r := registryReader{file: file}
	if len(doc.Content) > 0 {
		r.members(doc.Content[0], "the file", []string{"models", "selection_policies"}, func(key string, n *yaml.Node) {
			if key == "models" {
				r.entries(n, g)
				return
			}
			r.members(n, key, nil, func(name string, n *yaml.Node) {
				p, before := SelectionPolicy{}, len(r.faults)
				r.fields(n, reflect.ValueOf(&p).Elem(), key+"."+name)
				switch {
				case len(r.faults) > before:
				case p.Strategy == "":
					r.fault(n, "%s.%s: strategy is missing", key, name)
				case p.Strategy == StrategyWeighted && p.Weights == Weights{}:
					r.fault(n, "%s.%s: weights are missing: cost, accuracy or latency", key, name)
				}
				g.Policies[name] = p
			})
		})
	}
	if len(r.faults) > 0 {
		return nil, r.faults
	}
	return g, nil
}

// registryReader walks the nodes of a models.yaml.
type registryReader struct {
	file   string
	faults []string
}

func (r *registryReader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf("%s:%d:%d: ", r.file, n.Line, n.Column)+fmt.Sprintf(format, args...))
}

// members hands each member of a map to read. known nil: any key will do.
func (r *registryReader) members(n *yaml.Node, what string, known []string, read func(key string, n *yaml.Node)) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s must be a map", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if v.Kind == yaml.AliasNode && v.Alias != nil {
			v = v.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			r.fault(k, "%s: a key must be a text", what)
		case seen[k.Value]:
			r.fault(k, "%s: the key %q stands here twice", what, k.Value)
		case known != nil && !slices.Contains(known, k.Value):
			hint := ""
			if s := expr.Suggest(k.Value, known); s != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", s)
			}
			r.fault(k, "%s: unknown key %q%s", what, k.Value, hint)
		default:
			seen[k.Value] = true
			read(k.Value, v)
		}
	}
}

// entries reads the models, and what they take from each other.
func (r *registryReader) entries(n *yaml.Node, g *Registry) {
	places := map[string]*yaml.Node{}
	r.members(n, "models", nil, func(name string, n *yaml.Node) {
		e := &Entry{Name: name}
		before := len(r.faults)
		r.fields(n, reflect.ValueOf(e).Elem(), "models."+name)
		switch {
		case len(r.faults) > before:
		case strings.TrimSpace(name) == "":
			r.fault(n, "models: a model has no name")
		case e.Provider == "":
			r.fault(n, "models.%s: provider is missing", name)
		case e.File == "" && (e.Provider == ProviderScript || e.Provider == ProviderCassette):
			r.fault(n, "models.%s: file is missing, which holds the answers", name)
		case e.BaseURL != "" && holdsSecret(e.BaseURL):
			r.fault(n, "models.%s.base_url holds a name or a password; addresses are shown, so name the variable of the key in key_env", name)
		case e.BaseURL != "" && !httpAddress(e.BaseURL):
			r.fault(n, "models.%s.base_url is %q; it must be an address, as in http://127.0.0.1:11434/v1", name, e.BaseURL)
		}
		if e.File != "" && !filepath.IsAbs(e.File) {
			e.File = filepath.Join(filepath.Dir(r.file), e.File)
		}
		places[name] = n
		g.Entries = append(g.Entries, e)
	})
	for _, e := range g.Entries {
		at := places[e.Name]
		base, among := e, 0
		for ; base != nil && base.BaseModel != "" && among <= len(g.Entries); among++ {
			if base = g.Entry(base.BaseModel); base != nil && reflect.ValueOf(e.Capabilities).IsZero() {
				e.Capabilities = base.Capabilities
			}
		}
		switch {
		case base == nil:
			r.fault(at, "models.%s: its base_model %q is not in the file", e.Name, e.BaseModel)
		case among > len(g.Entries):
			r.fault(at, "models.%s: its base_model %q is, in the end, a version of itself", e.Name, e.BaseModel)
		}
		if e.Record != "" {
			r.recorded(at, e, g)
		}
		for _, f := range e.Fallback {
			if g.Entry(f) == nil && !slices.ContainsFunc(builtIn, func(b *Entry) bool { return b.Name == f }) {
				r.fault(at, "models.%s: its fallback %q is not in the file", e.Name, f)
			}
		}
	}
}

// httpAddress reports whether a service may be found at an address.
func httpAddress(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// holdsSecret reports whether an address says who calls.
func holdsSecret(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.User != nil
}

// recorded checks the model whose answers a cassette records.
func (r *registryReader) recorded(at *yaml.Node, e *Entry, g *Registry) {
	from := g.Entry(e.Record)
	if i := slices.IndexFunc(builtIn, func(b *Entry) bool { return b.Name == e.Record }); from == nil && i >= 0 {
		from = builtIn[i]
	}
	switch {
	case e.Provider != ProviderCassette:
		r.fault(at, "models.%s: only a model of the provider cassette has a key record", e.Name)
	case from == nil:
		r.fault(at, "models.%s: the model %q, which it records, is not in the file", e.Name, e.Record)
	case from.Provider == ProviderCassette || from.Provider == ProviderScript:
		r.fault(at, "models.%s: it records %q, which itself answers from a file", e.Name, e.Record)
	case reflect.ValueOf(e.Capabilities).IsZero():
		e.Capabilities = from.Capabilities
	}
}

// fields reads a map into a struct, by the tags of its fields.
func (r *registryReader) fields(n *yaml.Node, v reflect.Value, what string) {
	index := map[string]int{}
	var known []string
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("key"); key != "-" {
			index[key] = i
			known = append(known, key)
		}
	}
	r.members(n, what, known, func(key string, n *yaml.Node) {
		f := v.Type().Field(index[key])
		r.value(n, v.Field(index[key]), f.Tag.Get("values"), what+"."+key)
	})
}

// value reads one value.
func (r *registryReader) value(n *yaml.Node, v reflect.Value, values, what string) {
	switch into := v.Addr().Interface().(type) {
	case *[]string:
		if n.Kind != yaml.SequenceNode {
			r.fault(n, "%s must be a list", what)
			return
		}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				r.fault(item, "%s: each item must be a text", what)
				continue
			}
			*into = append(*into, item.Value)
		}
		return
	case *[]Price:
		if n.Kind != yaml.SequenceNode {
			r.fault(n, "%s must be a list", what)
			return
		}
		for i, item := range n.Content {
			p := Price{}
			r.fields(item, reflect.ValueOf(&p).Elem(), fmt.Sprintf("%s[%d]", what, i))
			*into = append(*into, p)
		}
		return
	}
	if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() {
		r.fields(n, v, what)
		return
	}
	if n.Kind != yaml.ScalarNode {
		r.fault(n, "%s must be a single value", what)
		return
	}
	if want := scalar(n.Value, v, values); want != "" {
		r.fault(n, "%s is %q; it must be %s", what, n.Value, want)
	}
}

// scalar sets a value by its text; what it returns says what the text should be,
// empty: it is that.
func scalar(text string, v reflect.Value, values string) string {
	switch into := v.Addr().Interface().(type) {
	case *string:
		if known := strings.Split(values, ","); values != "" && !slices.Contains(known, text) {
			return "one of " + strings.Join(known, ", ")
		}
		*into = text
	case *int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return "a whole number"
		}
		*into = n
	case *float64:
		f, ok := amount(text)
		if !ok {
			return "a number, not below 0"
		}
		*into = f
	case **float64:
		f, ok := amount(text)
		if !ok {
			return "a number, not below 0"
		}
		*into = &f
	case **bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return "true or false"
		}
		*into = &b
	case *time.Time:
		t, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return "a day, as in 2026-01-31"
		}
		*into = t
	}
	return ""
}

func amount(text string) (float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && f >= 0 && f < 1e15
}
