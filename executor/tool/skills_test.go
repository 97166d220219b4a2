package tool_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// skilled is an agent with skills, whose files lie in the bundle of the
// environment.
func skilled(t *testing.T, files map[string]string, names ...string) (executor.Env, tool.Want) {
	t.Helper()
	env := environment(t)
	env.Bundle = t.TempDir()
	bundle := pipeline.Bundle{}
	for name, text := range files {
		at := filepath.Join(env.Bundle, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o500); err != nil {
			t.Fatal(err)
		}
		bundle[name] = []byte(text)
	}
	w := want()
	for _, name := range names {
		m, err := spec.ParseSkill("SKILL.md", bundle["skills/"+name+"/SKILL.md"])
		if err != nil {
			t.Fatal(err)
		}
		m.Dir = "skills/" + name
		w.Agent.Skills = append(w.Agent.Skills, m.Skill)
	}
	return env, w
}

var someSkills = map[string]string{
	"skills/style/SKILL.md":       "---\nname: style\ndescription: |\n  How we write.\n  Use it for every text.\ntools: [terminal, filesystem_read]\n---\nShort sentences.\n",
	"skills/style/words/list.txt": "never: utilise\n",
	"skills/style/words/raw.bin":  "\xff\xfe\x00",
	"skills/add/SKILL.md": "---\nname: add\ndescription: Adds two numbers.\nparameters:\n  a: {type: integer, description: the first}\n  b: {type: integer, default: 2}\n" +
		"returns:\n  sum: {type: integer}\nrun: [sh, ./add.sh]\n---\nWhole numbers only.\n",
	"skills/add/add.sh": `in=$(cat)
a=$(echo "$in" | sed 's/.*"a":\(-*[0-9]*\).*/\1/'); b=$(echo "$in" | sed 's/.*"b":\(-*[0-9]*\).*/\1/')
echo "adding in $ORCHESTRATOR_SKILL_DIR" >&2
case $a in 13) exit 3;; 14) echo not JSON; exit;; 15) echo '{"sum": "x"}'; exit;; esac
echo "{\"sum\": $((a+b))}"
`,
}

func TestAnAgentIsToldOnlyTheNamesOfItsSkills(t *testing.T) {
	_, w := skilled(t, someSkills, "style", "add")
	told := tool.Skills(w.Agent)
	want := "## Skills\nYou have these skills. Load one with load_skill before you do what it is for:\n- style: How we write. Use it for every text.\n- add: Adds two numbers."
	if told != want {
		t.Errorf("told %q", told)
	}
	if tool.Skills(&pipeline.Agent{}) != "" {
		t.Error("an agent without skills is told of some")
	}
}

func TestSkillsAreLoadedWhenTheyAreNeeded(t *testing.T) {
	env, w := skilled(t, someSkills, "style", "add")
	w.Agent.Tools = []pipeline.Tool{{Name: "filesystem_read"}}
	box := open(t, config(&blobs{}), env, w)
	for _, c := range []struct{ name, want string }{
		{"style", "# style\n\nHow we write.\nUse it for every text.\n\nShort sentences.\n\nIt was written for tools that you do not have, and must do without: terminal.\n\nIts files, which read_skill_file reads:\n- words/list.txt\n- words/raw.bin"},
		{"add", "# add\n\nAdds two numbers.\n\nWhole numbers only.\n\nRun it with run_skill.\nIt takes:\n- a: integer; the first\n- b: integer, default 2\n\nIt gives:\n- sum: integer\n\nIts files, which read_skill_file reads:\n- add.sh"},
	} {
		got, r := call(t, box, env, "load_skill", `{"name": "`+c.name+`"}`)
		if diff := cmp.Diff(c.want, got); diff != "" || r.Failed {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if got, r := call(t, box, env, "read_skill_file", `{"name": "style", "path": "./words/list.txt"}`); got != "never: utilise\n" || r.Failed {
		t.Errorf("the file is %q", got)
	}
	for path, want := range map[string]string{
		"../add/SKILL.md": "is not a file of the skill style", "/etc/passwd": "is not a file of the skill style", "words": "is not a file",
		"none": "has no file none", "words/raw.bin": "is no text", `..\add\add.sh`: "is not a file of the skill style",
	} {
		if got, r := call(t, box, env, "read_skill_file", string(pipeline.EncodeValue(map[string]any{"name": "style", "path": path}))); !r.Failed || !strings.Contains(got, want) {
			t.Errorf("%s gave %q", path, got)
		}
	}
}

func TestALinkInASkillLeadsNowhereElse(t *testing.T) {
	env, w := skilled(t, someSkills, "style")
	if err := os.Symlink("/etc/passwd", filepath.Join(env.Bundle, "skills/style/out.txt")); err != nil {
		t.Fatal(err)
	}
	box := open(t, config(&blobs{}), env, w)
	if got, r := call(t, box, env, "read_skill_file", `{"name": "style", "path": "out.txt"}`); !r.Failed {
		t.Errorf("gave %q", got)
	}
}

func TestASkillsProgramIsHeldToItsManual(t *testing.T) {
	env, w := skilled(t, someSkills, "style", "add")
	var log strings.Builder
	env.Log = func(_, text string) { log.WriteString(text) }
	box := open(t, config(&blobs{}), env, w)
	for _, c := range []struct {
		params, want string
		fails        bool
	}{
		{`{"a": 40}`, `{"sum":42}`, false},
		{`{"a": 1.0, "b": 5}`, `{"sum":6}`, false},
		{`{}`, "do not suit the skill add: it must have a", true},
		{`{"a": "x"}`, `a must be a whole number`, true},
		{`{"a": 1, "c": 1}`, `c`, true},
		{`{"a": 13}`, "[the skill add failed with exit code 3]", true},
		{`{"a": 14}`, "[the skill add gave no JSON]", true},
		{`{"a": 15}`, "gave what its manual does not promise: sum must be a whole number", true},
	} {
		got, r := call(t, box, env, "run_skill", `{"name": "add", "parameters": `+c.params+`}`)
		if !strings.Contains(got, c.want) || r.Failed != c.fails {
			t.Errorf("%s gave %q", c.params, got)
		}
	}
	if !strings.Contains(log.String(), "adding in "+filepath.Join(env.Bundle, "skills/add")) {
		t.Errorf("the log is %q", log.String())
	}
	if got := box.Find("run_skill").EffectWith(nil); got != pipeline.EffectAtMostOnce {
		t.Errorf("a run is %s", got)
	}
	for _, arguments := range []string{`{"name": "style"}`, `{"name": "other"}`, `{}`} { // a text; none; none named
		if _, wrong := tool.Check(box.Find("run_skill"), arguments); wrong == nil {
			t.Errorf("%s is taken", arguments)
		}
	}
}

func TestAgentsHaveOnlyTheToolsThatTheirSkillsNeed(t *testing.T) {
	env, w := skilled(t, someSkills, "style")
	box := open(t, config(&blobs{}), env, w)
	if box.Find("load_skill") == nil || box.Find("read_skill_file") == nil || box.Find("run_skill") != nil {
		t.Error("a skill that is a text needs load_skill and read_skill_file alone")
	}
	env, w = skilled(t, nil)
	w.Agent.Tools = []pipeline.Tool{{Name: "filesystem_read"}}
	if box := open(t, config(&blobs{}), env, w); box.Find("load_skill") != nil {
		t.Error("an agent without skills has a tool for them")
	}
}

// Where there is no sandbox, the program of a skill does not run bare.
func TestSkillsDoNotRunBare(t *testing.T) {
	env, w := skilled(t, someSkills, "add")
	cfg := config(&blobs{})
	cfg.Sandbox = nil
	box := open(t, cfg, env, w)
	if got, r := call(t, box, env, "run_skill", `{"name": "add", "parameters": {"a": 1}}`); !r.Failed || !strings.Contains(got, "sandbox") {
		t.Errorf("gave %q", got)
	}
}

func TestPeopleMayHaveToApproveTheProgramsOfSkills(t *testing.T) {
	env, w := skilled(t, someSkills, "add")
	cfg := config(&blobs{})
	cfg.Policy = func(name string) *pipeline.Gate {
		if name == tool.RunSkill {
			return &pipeline.Gate{Always: true}
		}
		return nil
	}
	box := open(t, cfg, env, w)
	if g := box.Find("run_skill").Gate; g == nil || !g.Always {
		t.Error("nobody is asked")
	}
	if box.Find("load_skill").Gate != nil {
		t.Error("somebody is asked whether a skill may be read")
	}
}
