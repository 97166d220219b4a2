package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// standIn is what answers in place of models: at most one of its members is set.
type standIn struct {
	Script   string `json:"script,omitempty"`   // a file
	Cassette string `json:"cassette,omitempty"` // a file
}

// apply lets it answer for all models of a configuration; where it is empty, nothing
// changes.
func (s standIn) apply(cfg *config) {
	switch {
	case s.Script != "":
		cfg.Models.Script = s.Script
	case s.Cassette != "":
		cfg.Models.Script, cfg.Models.Cassette = "", s.Cassette
	}
}

// standInFile keeps, with a run, what its command line named in place of models, so that
// whoever continues the run need not name it again.
const standInFile = "stand-in.json"

// keepStandIn notes it for a run of this process. Without the note the run goes on
// all the same.
func (c *cli) keepStandIn(cl *client, run string, s standIn) {
	if cl.house == nil || s == (standIn{}) {
		return
	}
	for _, file := range []*string{&s.Script, &s.Cassette} {
		if *file != "" {
			if abs, err := filepath.Abs(*file); err == nil {
				*file = abs
			}
		}
	}
	text, err := json.Marshal(s)
	if err == nil {
		e := evidence{dir: c.evidenceDir(run)}
		e.write(standInFile, append(text, '\n'))
		err = e.err
	}
	if err != nil {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", "what answers in place of models was not noted: name it again to continue the run; "+err.Error()))
	}
}

// keptStandIn is what keepStandIn has noted; empty: nothing.
func (c *cli) keptStandIn(run string) (standIn, error) {
	var s standIn
	if !filepath.IsLocal(run) {
		return s, nil // no id; whoever looks for the run says so
	}
	name := filepath.Join(c.evidenceDir(run), standInFile)
	text, err := os.ReadFile(name) //nolint:gosec // below the home
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, &failure{
			code: exitInvalid, what: "cannot read " + name + ", which says what answers in place of models", why: cause(err),
			fix: []string{"name a script with --script FILE, or remove the file to ask models"},
		}
	}
	for _, file := range []string{s.Script, s.Cassette} {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			return s, &failure{
				code: exitInvalid, what: "the run was begun with answers of " + file + ", which cannot be read", why: cause(err),
				fix: []string{"name another script with --script FILE, or remove " + name + " to ask models"},
			}
		}
	}
	return s, nil
}
