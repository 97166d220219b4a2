package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// LookUp finds the program of a command as a shell would, by the PATH of its own
// environment; relative paths mean the workspace. visible says whether a program
// that the PATH finds may be taken, so that one which comes later in the PATH is;
// nil: any. The error is a *pipeline.Failure.
func LookUp(name, workspace string, environ []string, visible func(path string) bool) (string, error) {
	refuse := func(reason, format string, args ...any) (string, error) {
		f := pipeline.Failuref(pipeline.CategoryValidation, format, args...)
		f.Reason = reason
		return "", f
	}
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(workspace, path)
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return refuse("command_not_found", "there is no file %s to run", name)
		case err != nil:
			return refuse("not_executable", "%s cannot be run: %v", name, errors.Unwrap(err))
		case info.IsDir():
			return refuse("not_executable", "%s is a folder, not a program", name)
		case info.Mode()&0o111 == 0:
			return refuse("not_executable", "%s is not executable; chmod +x makes it so", name)
		}
		return path, nil
	}
	search, hidden := Variable(environ, "PATH"), ""
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(workspace, dir)
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if visible == nil || visible(path) {
			return path, nil
		}
		if hidden == "" {
			hidden = path
		}
	}
	if hidden != "" {
		return hidden, nil
	}
	return refuse("command_not_found", "there is no command %s in the step's PATH (%s)", name, search)
}
