package pipeline

import "time"

// The places that a skill may come from, beside the folder of a pipeline.
const (
	SkillOwn     = "home"    // a folder that somebody has put into the home
	SkillGit     = "git"     // a commit of a git repository, copied into the home
	SkillDefault = "default" // it ships with the program
)

// InstalledSkill is a skill that pipelines find which do not bring one of its
// name.
type InstalledSkill struct {
	Skill             // its Dir is its folder below the folder of skills
	Origin  string    // SkillOwn, SkillGit, SkillDefault
	Problem string    // why it cannot be used; empty: it can. Of a folder that cannot be read only Name and Origin are set besides
	Tools   []string  // that it uses
	Text    string    // what its manual says below the front matter
	Files   []string  // by path below its folder, sorted
	Digest  Digest    // of its files
	Pin     *SkillPin // of SkillGit
}

// SkillPin says which commit a skill was copied from.
type SkillPin struct {
	URL     string    `json:"url"`
	Path    string    `json:"path,omitempty"` // its folder in the repository; empty: the whole
	Ref     string    `json:"ref,omitempty"`  // the branch or tag that was asked for, or HEAD; empty: the commit itself
	Commit  string    `json:"commit"`
	Digest  Digest    `json:"digest"` // of the files as they were copied
	AddedAt time.Time `json:"added_at"`
}
