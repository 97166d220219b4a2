package skill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// lockWait is how long others may change the skills of a home.
const lockWait = time.Minute

// Add copies a skill from a git repository into the home and pins it to the
// commit that the source means now. A skill that came from the same place is
// replaced; any other of its name stays, and is an error. Errors are
// *pipeline.Error, or the context's.
func (l Library) Add(ctx context.Context, s Source) (*pipeline.InstalledSkill, error) {
	return l.add(ctx, s, "")
}

// Update copies a skill anew: the commit that its branch or tag means now, or the
// same one where it was added by its commit. It reports whether anything differs.
func (l Library) Update(ctx context.Context, name string) (s *pipeline.InstalledSkill, differs bool, err error) {
	pin, err := l.copied(name)
	if err != nil {
		return nil, false, err
	}
	src := Source{URL: pin.URL, Path: pin.Path, Ref: pin.Ref}
	switch src.Ref {
	case "":
		src.Ref = pin.Commit
	case "HEAD":
		src.Ref = ""
	}
	now, err := l.Own(name)
	differs = err != nil || now.Digest() != pin.Digest
	if s, err = l.add(ctx, src, name); err != nil {
		return nil, false, err
	}
	return s, differs || s.Pin.Commit != pin.Commit, nil
}

// Remove deletes a skill that was copied from a repository.
func (l Library) Remove(ctx context.Context, name string) error {
	if _, err := l.copied(name); err != nil {
		return err
	}
	release, err := l.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := os.RemoveAll(filepath.Join(l.Dir, name)); err != nil {
		return fmt.Errorf("remove the skill %s: %w", name, err)
	}
	if err := os.Remove(l.lock(name)); err != nil {
		return fmt.Errorf("remove the skill %s: %w", name, err)
	}
	return nil
}

// copied is where a skill was copied from.
func (l Library) copied(name string) (*pipeline.SkillPin, error) {
	if nameForm.MatchString(name) && l.Dir != "" {
		if pin, err := l.pin(name); pin != nil || err != nil {
			return pin, err
		}
		if _, err := os.Stat(filepath.Join(l.Dir, name)); err == nil {
			return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "skill_own", Text: fmt.Sprintf("the skill %s was not copied from a repository: its folder in the home is your own", name)}
		}
	}
	if files, err := read(shipped, path.Join("default", name), name); nameForm.MatchString(name) && err == nil && files != nil {
		return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "skill_default", Text: fmt.Sprintf("the skill %s ships with the program and changes with it; one of that name in the home takes its place", name)}
	}
	return nil, &pipeline.Error{Kind: pipeline.NotFound, Reason: "skill_not_found", Text: fmt.Sprintf("there is no skill %s in the home", name)}
}

// add copies a skill; must is the name that it has to have, empty: any.
func (l Library) add(ctx context.Context, s Source, must string) (*pipeline.InstalledSkill, error) {
	if err := os.MkdirAll(l.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of skills: %w", err)
	}
	l.sweep()
	work, err := os.MkdirTemp(l.Dir, ".new-") // beside what it becomes, to be renamed
	if err != nil {
		return nil, fmt.Errorf("make a folder for the skill: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	git := filepath.Join(work, "git")
	if err := os.Mkdir(git, 0o750); err != nil {
		return nil, fmt.Errorf("make a folder for the repository: %w", err)
	}
	r := repository{dir: git, environ: gitEnviron(os.Environ())}
	commit, err := r.resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := r.fetch(ctx, s.URL, commit); err != nil {
		return nil, err
	}
	name, files, err := r.skill(ctx, commit, s.Path, filepath.Join(work, "skill"))
	switch {
	case err != nil:
		return nil, err
	case must != "" && name != must:
		return nil, refused("it calls itself %s now, and no longer %s", name, must)
	}
	pin := &pipeline.SkillPin{URL: s.URL, Path: s.Path, Ref: s.Ref, Commit: commit, Digest: files.Digest(), AddedAt: time.Now().UTC().Truncate(time.Second)}
	switch pin.Ref {
	case commit:
		pin.Ref = ""
	case "":
		pin.Ref = "HEAD"
	}
	if err := l.put(ctx, name, pin, work); err != nil {
		return nil, err
	}
	return l.Get(name), nil
}

// skill writes the files of a skill of a commit into a new folder.
func (r repository) skill(ctx context.Context, commit, dir, to string) (name string, files pipeline.Bundle, err error) {
	list, err := r.tree(ctx, commit, dir)
	if err != nil {
		return "", nil, err
	}
	var manuals []string
	has := false
	for i := range list {
		has = has || list[i].name == manual
		if path.Base(list[i].name) == manual && plain(list[i].name) {
			manuals = append(manuals, path.Join(dir, path.Dir(list[i].name)))
		}
	}
	switch {
	case !has && len(manuals) == 0:
		return "", nil, refused("there is no %s in it", manual)
	case !has:
		more := ""
		if n := len(manuals); n > 10 {
			more, manuals = fmt.Sprintf(" and %d more", n-10), manuals[:10]
		}
		return "", nil, refused("there is no %s in that folder; name one with --path: %s%s", manual, strings.Join(manuals, ", "), more)
	}
	if list, err = wanted(list); err != nil {
		return "", nil, err
	}
	contents, err := r.read(ctx, list)
	if err != nil {
		return "", nil, err
	}
	for i := range list {
		if list[i].name == manual {
			if name, err = named(contents[i]); err != nil {
				return "", nil, err
			}
		}
	}
	if err := os.Mkdir(to, 0o750); err != nil {
		return "", nil, fmt.Errorf("make the skill's folder: %w", err)
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return "", nil, fmt.Errorf("open the skill's folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	files = pipeline.Bundle{}
	for i := range list {
		at, mode := filepath.FromSlash(list[i].name), os.FileMode(0o640)
		if list[i].mode == "100755" {
			mode = 0o750
		}
		if err := root.MkdirAll(filepath.Dir(at), 0o750); err != nil {
			return "", nil, fmt.Errorf("write the skill: %w", err)
		}
		if err := root.WriteFile(at, contents[i], mode); err != nil {
			return "", nil, fmt.Errorf("write the skill: %w", err)
		}
		files[path.Join(name, list[i].name)] = contents[i]
	}
	return name, files, nil
}

// named is the name that a manual gives its skill.
func named(text []byte) (string, error) {
	m, err := spec.ParseSkill(manual, text)
	if err != nil {
		return "", refused("%s", err)
	}
	return m.Name, nil
}

// sweep removes what processes have left that were killed while they copied.
func (l Library) sweep() {
	left, _ := filepath.Glob(filepath.Join(l.Dir, ".new-*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir) // the next one tries again
		}
	}
}

// alone keeps other processes from changing the skills of this home until they are
// released. Waiting for them takes the time of a few renamings.
func (l Library) alone(ctx context.Context) (release func(), err error) {
	lock, err := store.LockFile(ctx, filepath.Join(l.Dir, ".lock"), lockWait)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of skills: %w", err)
	}
	return lock.Release, nil
}

// put makes a copied folder the skill of a name. The lock comes first: a crash in
// between leaves a skill that is not used until it is added again, and never one
// that nobody has pinned.
func (l Library) put(ctx context.Context, name string, pin *pipeline.SkillPin, work string) error {
	release, err := l.alone(ctx)
	if err != nil {
		return err
	}
	defer release()
	at := filepath.Join(l.Dir, name)
	before, err := l.pin(name)
	if err == nil && before != nil && (before.URL != pin.URL || before.Path != pin.Path) {
		return &pipeline.Error{Kind: pipeline.Conflict, Reason: "skill_exists", Text: fmt.Sprintf("there is a skill %s already, from %s; remove it first: orchestrator skills remove %s", name, before.URL, name)}
	}
	if _, held := os.Lstat(at); held == nil && before == nil && err == nil {
		return &pipeline.Error{Kind: pipeline.Conflict, Reason: "skill_exists", Text: fmt.Sprintf("there is a skill %s of your own in the home; give its folder another name first", name)}
	}
	text, err := json.MarshalIndent(pin, "", "  ")
	if err != nil {
		return fmt.Errorf("write the lock of %s: %w", name, err)
	}
	lock := filepath.Join(work, "lock")
	err = os.WriteFile(lock, append(text, '\n'), 0o600)
	if err == nil {
		err = os.Rename(lock, l.lock(name))
	}
	if err == nil {
		if err = os.Rename(at, filepath.Join(work, "before")); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = os.Rename(filepath.Join(work, "skill"), at)
	}
	if err != nil {
		return fmt.Errorf("put the skill %s in its place: %w", name, err)
	}
	return nil
}
