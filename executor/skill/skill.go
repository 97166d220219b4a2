// Package skill finds skills on disk: folders with a manual, SKILL.md, and the
// program that it describes. A Library is the folder of skills of one home, over
// the skills that ship with the program, which stand in default/. Whoever makes a
// skill available adds a folder to either.
//
//	library := skill.Library{Dir: filepath.Join(home, "skills")}
//	files, err := library.Files("code-analyzer")
//
// A skill of the home may be copied from a git repository (Add). It is pinned to
// one commit: beside its folder NAME the file NAME.lock says where it comes from
// and what it held, and a folder that holds anything else is not used.
package skill

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// What one skill may hold.
const (
	maxFiles = 1000
	maxBytes = 32 << 20
)

// manual is the file that makes a folder a skill.
const manual = "SKILL.md"

//go:embed default
var shipped embed.FS

// nameForm is how skills are called; a folder of another name is none.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// Library is the skills that pipelines find which do not bring them. It is
// read anew with every call. The zero value holds what ships with the program.
type Library struct {
	Dir string // the folder of the home's own skills; it need not exist
}

// Files gives the files of a skill by path, which begins with its name: of the
// home's, or else of the one that ships. nil: there is none of the name.
func (l Library) Files(name string) (pipeline.Bundle, error) {
	files, err := l.Own(name)
	if err != nil || files != nil || !nameForm.MatchString(name) {
		return files, err
	}
	return read(shipped, path.Join("default", name), name)
}

// Own gives the files of a skill of the home alone. One whose files are not those
// of its commit is an error of reason skill_changed.
func (l Library) Own(name string) (pipeline.Bundle, error) {
	if l.Dir == "" || !nameForm.MatchString(name) {
		return nil, nil
	}
	files, pin, err := l.pinned(name)
	if err == nil && pin != nil && files.Digest() != pin.Digest { // perhaps it was being replaced: once more
		files, pin, err = l.pinned(name)
	}
	if err != nil {
		return nil, err
	}
	if pin != nil && files.Digest() != pin.Digest {
		return nil, changed(name, pin)
	}
	return files, nil
}

// changed is the error of a skill that is not what its lock says.
func changed(name string, pin *pipeline.SkillPin) error {
	return &pipeline.Error{
		Kind: pipeline.Conflict, Reason: "skill_changed",
		Text: fmt.Sprintf("the skill %s is not what was copied from %s at %s: its files have changed since. To have them back: orchestrator skills update %s. To keep the change as a skill of your own, remove skills/%s.lock in the home", name, pin.URL, pin.Commit, name, name),
	}
}

func (l Library) pinned(name string) (pipeline.Bundle, *pipeline.SkillPin, error) {
	pin, err := l.pin(name)
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(filepath.Join(l.Dir, name)) // it may be a link
	if err != nil {
		if err = missing(err); err != nil {
			err = fmt.Errorf("open the skill %s: %w", name, err)
		}
		return nil, pin, err
	}
	defer func() { _ = root.Close() }() // it was only read
	files, err := read(root.FS(), ".", name)
	return files, pin, err
}

// pin reads what was recorded of a skill; nil: it was not copied from anywhere.
func (l Library) pin(name string) (*pipeline.SkillPin, error) {
	text, err := os.ReadFile(l.lock(name))
	if err != nil {
		return nil, missing(err)
	}
	pin := &pipeline.SkillPin{}
	if err := json.Unmarshal(text, pin); err != nil || pin.Commit == "" || pin.Digest == "" {
		return nil, &pipeline.Error{
			Kind: pipeline.Conflict, Reason: "skill_changed", Err: err,
			Text: fmt.Sprintf("the skill %s cannot be checked: skills/%s.lock in the home is damaged; add the skill again", name, name),
		}
	}
	return pin, nil
}

// lock is the file that says where a skill comes from. No skill can have such a
// name.
func (l Library) lock(name string) string { return filepath.Join(l.Dir, name+".lock") }

// Unwanted reports whether an entry of a skill's folder stays behind: what is
// hidden, as the folders of version control are, and what Python has compiled.
func Unwanted(name string) bool {
	return strings.HasPrefix(name, ".") || name == "__pycache__" || name == "CVS"
}

// read gives the files below a folder; nil where that is no skill. A link may
// lead to another file of the folder, and nowhere else.
func read(tree fs.FS, dir, name string) (pipeline.Bundle, error) {
	if _, err := fs.Stat(tree, path.Join(dir, manual)); err != nil {
		if err = missing(err); err != nil {
			err = fmt.Errorf("read the skill %s: %w", name, err)
		}
		return nil, err
	}
	files := pipeline.Bundle{}
	var size int64
	err := fs.WalkDir(tree, dir, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case at != dir && Unwanted(d.Name()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		info, err := fs.Stat(tree, at)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return fmt.Errorf("%s is a link to a folder: only the files of real folders travel with a pipeline", at)
		case !info.Mode().IsRegular():
			return nil
		}
		if size += info.Size(); size > maxBytes || len(files) == maxFiles {
			return tooLarge(name)
		}
		data, err := fs.ReadFile(tree, at)
		files[path.Join(name, strings.TrimPrefix(strings.TrimPrefix(at, dir), "/"))] = data
		return err
	})
	if err != nil {
		if pipeline.KindOf(err) == pipeline.TooLarge {
			return nil, err
		}
		return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "skill_unreadable", Err: err, Text: fmt.Sprintf("the skill %s cannot be read: %s", name, reason(err))}
	}
	return files, nil
}

func tooLarge(name string) error {
	return &pipeline.Error{
		Kind: pipeline.TooLarge, Reason: "skill_too_large",
		Text: fmt.Sprintf("the skill %s is too large: at most %d files and %d MiB may travel with a pipeline", name, maxFiles, maxBytes>>20),
	}
}

// reason is an error of a file without the place of the home, which is nobody
// else's business.
func reason(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Path + ": " + pe.Err.Error()
	}
	return err.Error()
}

// missing leaves out the error of what is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return err
}

// List describes all skills by name. One that cannot be used says why.
func (l Library) List() ([]pipeline.InstalledSkill, error) {
	names := map[string]bool{}
	add := func(entries []fs.DirEntry) {
		for _, e := range entries {
			if nameForm.MatchString(e.Name()) {
				names[e.Name()] = true
			}
		}
	}
	entries, err := shipped.ReadDir("default")
	if err != nil {
		return nil, fmt.Errorf("list the skills that ship: %w", err)
	}
	add(entries)
	if l.Dir != "" {
		if entries, err = os.ReadDir(l.Dir); missing(err) != nil {
			return nil, fmt.Errorf("list the skills of the home: %w", err)
		}
		add(entries)
	}
	var list []pipeline.InstalledSkill
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if s := l.Get(name); s != nil {
			list = append(list, *s)
		}
	}
	return list, nil
}

// Get describes one skill; nil: there is none of the name.
func (l Library) Get(name string) *pipeline.InstalledSkill {
	s := &pipeline.InstalledSkill{Origin: l.origin(name)}
	s.Name = name
	files, err := l.Files(name)
	if err != nil {
		s.Problem = err.Error()
		if e, ok := errors.AsType[*pipeline.Error](err); ok {
			s.Problem = e.Text
		}
		return s
	}
	text, ok := files[path.Join(name, manual)]
	if !ok {
		return nil
	}
	s.Pin, _ = l.pin(name) // Files has looked
	s.Digest = files.Digest()
	for file := range files {
		s.Files = append(s.Files, strings.TrimPrefix(file, name+"/"))
	}
	slices.Sort(s.Files)
	m, err := spec.ParseSkill(path.Join(name, manual), text)
	switch {
	case err != nil:
		s.Problem = strings.TrimSpace(err.Error())
		return s
	case m.Name != name:
		s.Problem = fmt.Sprintf("its manual calls it %s, but its folder is %s", m.Name, name)
	case m.Inactive:
		s.Problem = "its manual says active: false"
	}
	s.Skill, s.Tools, s.Text = m.Skill, m.Tools, m.Body
	s.Name, s.Dir = name, name
	return s
}

// origin is the place that a skill of the name is taken from.
func (l Library) origin(name string) string {
	if l.Dir == "" {
		return pipeline.SkillDefault
	}
	if _, err := os.Lstat(l.lock(name)); err == nil {
		return pipeline.SkillGit
	}
	if _, err := os.Stat(filepath.Join(l.Dir, name, manual)); err == nil {
		return pipeline.SkillOwn
	}
	return pipeline.SkillDefault
}
