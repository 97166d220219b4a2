package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// What may travel with a pipeline: bytes, and how many files.
const (
	maxBundle  = 32 << 20
	maxBundled = 10_000
)

// packer collects the files that travel with a pipeline. Nothing is read from
// outside of the pipeline's folder but the caller's own skills. What is missing
// is left out: the compiler says so, at the place that names it.
type packer struct {
	file   string        // the pipeline's, for messages
	root   *os.Root      // its folder
	own    skill.Library // the caller's skills
	bundle pipeline.Bundle
	sizes  map[string]int64 // of what is packed, and of what would be too much
	total  int64
}

// pack collects what a pipeline needs of its folder: imported pipelines with
// what those need, prompt files, skills, and what bundle names.
func pack(file, text string, skills skill.Library) (pipeline.Bundle, error) {
	needs := spec.Needs([]byte(text))
	if len(needs) == 0 {
		return nil, nil
	}
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, &failure{code: exitInvalid, what: "cannot read the folder of " + file, why: cause(err)}
	}
	defer func() { _ = root.Close() }() // it was only read
	p := &packer{file: file, root: root, own: skills, bundle: pipeline.Bundle{}, sizes: map[string]int64{}}
	if err := p.needs(".", filepath.Base(file), needs); err != nil {
		return nil, err
	}
	if p.total > maxBundle {
		return nil, tooLarge("the files that travel with "+file, p.total, p.sizes, "name fewer files under bundle, or let the steps fetch what is large")
	}
	return p.bundle, nil
}

// needs packs what one source needs; dir is its folder within the pipeline's.
func (p *packer) needs(dir, name string, needs []spec.Need) error {
	for _, n := range needs {
		if err := p.need(dir, n); err != nil {
			if _, said := errors.AsType[*failure](err); said {
				return err // of an imported source
			}
			at := filepath.Join(filepath.Dir(p.file), filepath.FromSlash(dir), name)
			f := &failure{code: exitInvalid, what: fmt.Sprintf("%s:%d:%d: cannot pack %s", at, n.Pos.Line, n.Pos.Column, n.Name), why: escape(err)}
			if _, told := errors.AsType[*pipeline.Error](err); !told { // of a skill of the home
				f.fix = []string{"a pipeline's files stand in its folder or below"}
			}
			return f
		}
	}
	return nil
}

// escape words an error of a file.
func escape(err error) string {
	pe, ok := errors.AsType[*os.PathError](err)
	if !ok {
		return err.Error()
	}
	if strings.Contains(pe.Err.Error(), "escapes") { // os.Root has no name for it
		return pe.Path + " leads out of the pipeline's folder, by a link"
	}
	return pe.Path + ": " + pe.Err.Error()
}

func (p *packer) need(dir string, n spec.Need) error {
	switch n.Kind {
	case spec.NeedSkill:
		return p.skill(dir, n.Name)
	case spec.NeedGlob:
		return p.glob(path.Join(dir, n.Name))
	}
	name := path.Join(dir, n.Name)
	if _, again := p.sizes[name]; again || !filepath.IsLocal(name) {
		return nil
	}
	if err := p.add(p.root, name, name); err != nil {
		return err
	}
	if text, ok := p.bundle[name]; ok && n.Kind == spec.NeedImport {
		return p.needs(path.Dir(name), path.Base(name), spec.Needs(text))
	}
	return nil
}

// skill packs a skill of the folder of the file that uses it, else of the
// pipeline's, else of the caller's own as if it stood beside the pipeline. The
// server knows those that ship, and those that it has installed.
func (p *packer) skill(dir, name string) error {
	for _, at := range []string{path.Join(dir, "skills", name), path.Join("skills", name)} {
		if _, err := p.root.Stat(path.Join(at, "SKILL.md")); err == nil {
			return walk(p.root, at, skill.Unwanted, func(name string) error { return p.add(p.root, name, name) })
		}
	}
	files, err := p.own.Own(name)
	if err != nil {
		return err
	}
	for name, data := range files {
		as := path.Join("skills", name)
		if _, again := p.sizes[as]; again {
			continue
		}
		p.sizes[as], p.bundle[as] = int64(len(data)), data
		p.total += int64(len(data) + len(as))
	}
	if len(p.sizes) > maxBundled {
		return fmt.Errorf("more than %d files would travel with the pipeline", maxBundled)
	}
	return nil
}

// glob packs what a pattern matches. ** stands for any folders, and what is
// hidden must be named so. A folder means all that is in it.
func (p *packer) glob(pattern string) error {
	if !filepath.IsLocal(pattern) {
		return nil
	}
	parts := strings.Split(pattern, "/")
	fixed := slices.IndexFunc(parts, func(s string) bool { return strings.ContainsAny(s, `*?[\`) })
	if fixed < 0 {
		info, err := p.root.Stat(pattern)
		if err != nil {
			return missing(err)
		}
		if !info.IsDir() {
			return p.add(p.root, pattern, pattern)
		}
		fixed, parts = len(parts), append(parts, "**")
	}
	for _, part := range parts {
		if _, err := path.Match(part, ""); err != nil {
			return fmt.Errorf("%s is not a pattern: %w", part, err)
		}
	}
	hidden := func(string) bool { return false } // fits knows
	return walk(p.root, path.Join(parts[:fixed]...), hidden, func(name string) error {
		if !fits(parts, strings.Split(name, "/")) {
			return nil
		}
		return p.add(p.root, name, name)
	})
}

// fits reports whether a path is one that the pattern means.
func fits(pattern, name []string) bool {
	for len(pattern) > 0 && pattern[0] != "**" {
		if len(name) == 0 || strings.HasPrefix(name[0], ".") && !strings.HasPrefix(pattern[0], ".") {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); err != nil || !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	if len(pattern) == 0 {
		return len(name) == 0
	}
	rest := pattern[1:]
	for len(rest) > 0 && rest[0] == "**" {
		rest = rest[1:]
	}
	if len(rest) == 0 { // the end: any file below
		return len(name) > 0 && !slices.ContainsFunc(name, func(s string) bool { return strings.HasPrefix(s, ".") })
	}
	for {
		if fits(rest, name) {
			return true
		}
		if len(name) == 0 || strings.HasPrefix(name[0], ".") {
			return false
		}
		name = name[1:]
	}
}

// walk calls do for the files below a folder, but for those that skip leaves
// out with all that is below them.
func walk(root *os.Root, dir string, skip func(name string) bool, do func(name string) error) error {
	if dir == "" {
		dir = "."
	}
	seen := 0
	err := fs.WalkDir(root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != dir && skip(d.Name()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			if d.Name() == ".git" {
				return fs.SkipDir // large, and nothing that a pipeline means
			}
			return nil
		}
		if seen++; seen > 10*maxBundled {
			return fmt.Errorf("there are more than %d files below %s", 10*maxBundled, dir)
		}
		return do(name)
	})
	return missing(err)
}

// missing leaves out the error of what is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// add packs one file under a name.
func (p *packer) add(root *os.Root, name, as string) error {
	if _, again := p.sizes[as]; again {
		return nil
	}
	info, err := root.Stat(name)
	if err != nil {
		return missing(err)
	}
	switch {
	case info.IsDir():
		return fmt.Errorf("%s is a folder, or a link to one: only the files of real folders are packed", name)
	case !info.Mode().IsRegular():
		return nil
	}
	if len(p.sizes) == maxBundled {
		return fmt.Errorf("more than %d files would travel with the pipeline", maxBundled)
	}
	p.sizes[as] = info.Size()
	if p.total += info.Size() + int64(len(as)); p.total > maxBundle {
		return nil // it is refused; the sizes of the others are still of interest
	}
	data, err := root.ReadFile(name)
	if err == nil {
		p.bundle[as] = data
	}
	return err
}

// tooLarge names the biggest of files that are too large together.
func tooLarge(what string, total int64, sizes map[string]int64, fix string) error {
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int {
		return cmp.Or(cmp.Compare(sizes[b], sizes[a]), strings.Compare(a, b))
	})
	var why strings.Builder
	fmt.Fprintf(&why, "at most %s may travel; the biggest are\n", mebibytes(maxBundle))
	for _, name := range names[:min(5, len(names))] {
		fmt.Fprintf(&why, "%9s  %s\n", mebibytes(sizes[name]), name)
	}
	return &failure{code: exitInvalid, what: what + " are too large: " + mebibytes(total), why: why.String(), fix: []string{fix}}
}

func mebibytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
