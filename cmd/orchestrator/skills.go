package main

import (
	"path/filepath"

	"github.com/orchestrator-project/orchestrator/executor/skill"
)

// skillsOf are the skills of an installation.
func skillsOf(home string) skill.Library {
	return skill.Library{Dir: filepath.Join(home, "skills")}
}
