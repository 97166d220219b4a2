package step

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// globs are patterns of paths, any of which may match.
type globs []glob

// glob is one pattern, cut at its slashes.
type glob []string

const maxGlobs = 1000 // after the alternatives are spelled out

// compileGlobs reads a pattern or a list of patterns.
func compileGlobs(v any) (globs, error) {
	var sources []string
	switch v := v.(type) {
	case string:
		sources = []string{v}
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, invalid("parameter pattern is a text or a list of texts; it holds %s", kindOf(e))
			}
			sources = append(sources, s)
		}
	default:
		return nil, invalid("parameter pattern is a text or a list of texts, not %s", kindOf(v))
	}
	var all globs
	for _, src := range sources {
		spelled, err := alternatives(src)
		if err != nil {
			return nil, err
		}
		for _, s := range spelled {
			s = strings.ReplaceAll(s, "[!", "[^") // as the shell spells it
			g := glob(strings.Split(strings.TrimPrefix(s, "./"), "/"))
			for _, part := range g {
				if _, err := path.Match(part, ""); err != nil || part == "" || part == ".." || part == "." {
					return nil, invalid("%q is not a pattern of paths below the folder", src)
				}
			}
			all = append(all, g)
		}
		if len(all) > maxGlobs {
			return nil, invalid("the pattern has more than %d alternatives", maxGlobs)
		}
	}
	return all, nil
}

// alternatives spells out {a,b}, also nested.
func alternatives(src string) ([]string, error) {
	done, work := []string{}, []string{src}
	for len(work) > 0 {
		s := work[len(work)-1]
		work = work[:len(work)-1]
		open := strings.IndexByte(s, '{')
		if open < 0 {
			done = append(done, s)
			continue
		}
		depth, from := 0, open+1
		var choices []string
		end := -1
		for i := open; i < len(s) && end < 0; i++ {
			switch {
			case s[i] == '{':
				depth++
			case s[i] == '}':
				if depth--; depth == 0 {
					choices, end = append(choices, s[from:i]), i
				}
			case s[i] == ',' && depth == 1:
				choices, from = append(choices, s[from:i]), i+1
			}
		}
		if end < 0 {
			return nil, invalid("pattern %q has a { without its }", src)
		}
		for _, c := range slices.Backward(choices) {
			work = append(work, s[:open]+c+s[end+1:])
		}
		if len(work)+len(done) > maxGlobs {
			return nil, invalid("pattern %q has more than %d alternatives", src, maxGlobs)
		}
	}
	return done, nil
}

func (g globs) match(name string) bool {
	parts := strings.Split(name, "/")
	return slices.ContainsFunc(g, func(p glob) bool { return p.match(parts, false) })
}

// below reports whether something in the folder may match.
func (g globs) below(folder string) bool {
	parts := strings.Split(folder, "/")
	return slices.ContainsFunc(g, func(p glob) bool { return p.match(parts, true) })
}

// match walks pattern and parts side by side, keeping the set of places in the
// pattern that fit so far, so that many ** cost no backtracking. With prefix,
// the parts need only begin a match.
func (g glob) match(parts []string, prefix bool) bool {
	at := make([]bool, len(g)+1)
	at[0] = true
	g.skip(at)
	for _, part := range parts {
		next := make([]bool, len(g)+1)
		some := false
		for i, p := range g {
			if !at[i] {
				continue
			}
			hidden := strings.HasPrefix(part, ".")
			if p == "**" {
				if !hidden {
					next[i], some = true, true
				}
				continue
			}
			if hidden && !strings.HasPrefix(p, ".") {
				continue
			}
			if ok, err := path.Match(p, part); err == nil && ok {
				next[i+1], some = true, true
			}
		}
		if !some {
			return false
		}
		at = next
		g.skip(at)
	}
	if prefix {
		return slices.Contains(at[:len(g)], true)
	}
	return at[len(g)]
}

// skip lets ** stand for no folder at all.
func (g glob) skip(at []bool) {
	for i, p := range g {
		if at[i] && p == "**" {
			at[i+1] = true
		}
	}
}

func sortEntries(entries []any) {
	name := func(v any) string {
		if m, ok := v.(map[string]any); ok {
			s, _ := m["path"].(string)
			return s
		}
		return ""
	}
	slices.SortFunc(entries, func(a, b any) int { return cmp.Compare(name(a), name(b)) })
}
