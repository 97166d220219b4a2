package sandbox

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Check refuses what no driver can run, and what one might take for something else:
// texts with a NUL character, paths that are not absolute, a folder to start in that is
// not in the workspace. nil: it may be started.
func Check(s Spec, p Program) *pipeline.Failure {
	if !filepath.IsAbs(s.Workspace) {
		return pipeline.Failuref(pipeline.CategorySystem, "the run has no workspace")
	}
	if info, err := os.Stat(s.Workspace); err != nil || !info.IsDir() {
		return pipeline.Failuref(pipeline.CategorySystem, "the workspace of the run is gone")
	}
	if len(p.Argv) == 0 || p.Argv[0] == "" {
		return pipeline.Failuref(pipeline.CategoryValidation, "the command is empty")
	}
	for _, list := range [][]string{p.Argv, p.Environ, s.Readable, {s.Workspace, p.Dir}} {
		for _, text := range list {
			if strings.ContainsRune(text, 0) {
				return pipeline.Failuref(pipeline.CategoryValidation, "the command, its environment or its folder holds a NUL character")
			}
		}
	}
	for _, dir := range s.Readable {
		if !filepath.IsAbs(dir) {
			return pipeline.Failuref(pipeline.CategorySystem, "the folder %s is not absolute", dir)
		}
	}
	if inside, err := filepath.Rel(s.Workspace, p.Dir); p.Dir != "" && (err != nil || !filepath.IsLocal(inside)) {
		return pipeline.Failuref(pipeline.CategoryValidation, "the folder %s is not in the workspace", p.Dir)
	}
	return nil
}
