package skill_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// origin is a git repository to copy skills from.
type origin struct {
	t   *testing.T
	dir string
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("this machine has no git")
	}
	o := &origin{t: t, dir: t.TempDir()}
	o.git("init", "--quiet", "--initial-branch=main")
	return o
}

func (o *origin) git(args ...string) string { return o.say("", args...) }

// say runs git with an input, away from the configuration of this machine.
func (o *origin) say(stdin string, args ...string) string {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), "git", args...) //nolint:gosec // the test's own
	cmd.Dir, cmd.Stdin = o.dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + o.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (o *origin) write(name, text string) {
	o.t.Helper()
	at := filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *origin) commit() string {
	o.t.Helper()
	o.git("add", "-A")
	o.git("commit", "--quiet", "-m", "more")
	return o.git("rev-parse", "HEAD")
}

// tree makes a commit of entries that no checkout could hold, and a branch of it.
// Lines are as git mktree reads them, with %b for some blob.
func (o *origin) tree(branch, lines string) string {
	o.t.Helper()
	blob := o.say("x\n", "hash-object", "-w", "--stdin")
	text := o.say(manualOf("s", "a text"), "hash-object", "-w", "--stdin")
	tree := o.say("100644 blob "+text+"\tSKILL.md\n"+strings.ReplaceAll(lines, "%b", blob), "mktree", "--missing")
	commit := o.git("commit-tree", "-m", "odd", tree)
	o.git("branch", "-f", branch, commit)
	return commit
}

func manualOf(name, text string) string {
	return "---\nname: " + name + "\ndescription: For tests.\n---\n" + text + "\n"
}

func (o *origin) add(library skill.Library, ref, dir string) (*pipeline.InstalledSkill, error) {
	o.t.Helper()
	url := "file://" + o.dir
	if ref != "" {
		url += "@" + ref
	}
	src, err := skill.ParseSource(url, dir)
	if err != nil {
		o.t.Fatal(err)
	}
	return library.Add(o.t.Context(), src)
}

func library(t *testing.T) skill.Library {
	t.Helper()
	return skill.Library{Dir: filepath.Join(t.TempDir(), "skills")}
}

// says fails unless err says so.
func says(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

func TestASkillIsPinnedToItsCommit(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("SKILL.md", manualOf("s", "the first text"))
	o.write("part/run.sh", "echo 1\n")
	o.write(".github/x", "hidden\n")
	if err := os.Chmod(filepath.Join(o.dir, "part/run.sh"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	first := o.commit()
	s, err := o.add(own, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "s" || s.Problem != "" || s.Origin != pipeline.SkillGit || s.Text != "the first text" || strings.Join(s.Files, " ") != "SKILL.md part/run.sh" {
		t.Errorf("copied: %+v", s)
	}
	if p := s.Pin; p.Commit != first || p.Ref != "HEAD" || p.Digest != s.Digest || p.URL != "file://"+o.dir {
		t.Errorf("pinned: %+v", p)
	}
	if info, err := os.Stat(filepath.Join(own.Dir, "s/part/run.sh")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("the program: %v, %v", info, err)
	}

	o.write("SKILL.md", manualOf("s", "the second text"))
	second := o.commit()
	if now := own.Get("s"); now.Text != "the first text" {
		t.Errorf("it has moved on by itself: %q", now.Text)
	}
	s, differs, err := own.Update(t.Context(), "s")
	if err != nil || !differs || s.Pin.Commit != second || s.Text != "the second text" {
		t.Errorf("updated: %+v, %v, %v", s, differs, err)
	}
	if _, differs, err = own.Update(t.Context(), "s"); err != nil || differs {
		t.Errorf("updated again: %v, %v", differs, err)
	}

	if s, err = o.add(own, first, ""); err != nil || s.Pin.Ref != "" || s.Text != "the first text" {
		t.Errorf("by its commit: %+v, %v", s, err)
	}
	if s, _, err = own.Update(t.Context(), "s"); err != nil || s.Pin.Commit != first {
		t.Errorf("updated by its commit: %+v, %v", s, err)
	}
	if err := own.Remove(t.Context(), "s"); err != nil || own.Get("s") != nil {
		t.Errorf("removed: %v", err)
	}
	left, err := os.ReadDir(own.Dir)
	if err != nil || len(left) != 1 || left[0].Name() != ".lock" {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestAChangedSkillIsNotUsed(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("SKILL.md", manualOf("s", "a text"))
	o.commit()
	if _, err := o.add(own, "", ""); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(own.Dir, "s", "SKILL.md")
	for name, change := range map[string]func() error{
		"another text": func() error { return os.WriteFile(at, []byte(manualOf("s", "Do as I say.")), 0o600) },
		"another file": func() error { return os.WriteFile(filepath.Join(own.Dir, "s", "more"), nil, 0o600) },
		"no folder":    func() error { return os.RemoveAll(filepath.Join(own.Dir, "s")) },
		"no lock":      func() error { return os.WriteFile(filepath.Join(own.Dir, "s.lock"), []byte("{}"), 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := own.Files("s"); pipeline.KindOf(err) != pipeline.Conflict {
			t.Errorf("%s: %v", name, err)
		}
		if s := own.Get("s"); s.Problem == "" {
			t.Errorf("%s: nothing is said of it", name)
		}
		if _, err := o.add(own, "", ""); err != nil {
			t.Fatalf("%s: add again: %v", name, err)
		}
		if _, err := own.Files("s"); err != nil {
			t.Errorf("%s, and added again: %v", name, err)
		}
	}
}

func TestBranchesAndTagsAreResolved(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("a/SKILL.md", manualOf("one", "1"))
	o.write("b/SKILL.md", manualOf("two", "2"))
	first := o.commit()
	o.git("tag", "-a", "-m", "x", "v1")
	o.git("branch", "side")
	o.write("a/SKILL.md", manualOf("one", "3"))
	o.commit()
	for _, ref := range []string{"v1", "side", first} {
		s, err := o.add(own, ref, "a")
		if err != nil || s.Pin.Commit != first || s.Text != "1" || s.Pin.Path != "a" {
			t.Errorf("%s: %+v, %v", ref, s, err)
		}
	}
	_, err := o.add(own, "", "")
	says(t, "no folder named", err, "--path: a, b")
	_, err = o.add(own, "", "none")
	says(t, "no such folder", err, "no folder none")
	_, err = o.add(own, "nowhere", "a")
	says(t, "no such branch", err, "no branch and no tag nowhere")
	_, err = o.add(own, first[:12], "a")
	says(t, "a part of a commit", err, "all its digits")
	_, err = o.add(own, strings.Repeat("0", 40), "a")
	says(t, "no such commit", err, "git")
	o.git("branch", "v1", "main")
	_, err = o.add(own, "v1", "a")
	says(t, "a branch and a tag", err, "is a branch and a tag")
}

func TestHostileRepositoriesAreRefused(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("x", "x")
	some := o.commit()
	for name, c := range map[string]struct{ tree, says string }{
		"a link out":         {"120000 blob %b\tlink\n", "symbolic link"},
		"a submodule":        {"160000 commit " + some + "\tsub\n", "submodule"},
		"a name upwards":     {"100644 blob %b\t..\n", "the name"},
		"a name with blanks": {"100644 blob %b\ta\\b\n", "the name"},
		"two of one name":    {"100644 blob %b\tReadme\n100644 blob %b\treadme\n", "differ by case alone"},
	} {
		s, err := o.add(own, o.tree("odd", c.tree), "")
		says(t, name, err, c.says)
		if s != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, c := range map[string]struct{ file, text, says string }{
		"no manual":         {"other.txt", "x", "there is no SKILL.md"},
		"a broken manual":   {"SKILL.md", "---\nname: s\n---\nx", "no description"},
		"an unknown key":    {"SKILL.md", "---\nname: s\ndescription: x\nsudo: true\n---\nx", "SKILL.md:4:1"},
		"a name with a dot": {"SKILL.md", "---\nname: ../s\ndescription: x\n---\nx", "cannot be a skill's name"},
	} {
		o.git("rm", "-r", "-q", "--cached", ".")
		if err := os.RemoveAll(filepath.Join(o.dir, "SKILL.md")); err != nil {
			t.Fatal(err)
		}
		o.write(c.file, c.text)
		_, err := o.add(own, o.commit(), "")
		says(t, name, err, c.says)
	}
	o.write("SKILL.md", manualOf("s", "x"))
	o.write("large", strings.Repeat("0123456789abcdef", (9<<20)/16))
	_, err := o.add(own, o.commit(), "")
	says(t, "too large", err, "too large")
	if left, _ := os.ReadDir(own.Dir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// A tree of trees that all name the same one holds more files than a disk.
func TestATreeBombIsRefused(t *testing.T) {
	o, own := newOrigin(t), library(t)
	text := o.say(manualOf("s", "x"), "hash-object", "-w", "--stdin")
	tree := o.say("100644 blob "+text+"\tf\n", "mktree")
	for range 8 {
		var lines strings.Builder
		for name := range strings.SplitSeq("abcdefghij", "") {
			lines.WriteString("040000 tree " + tree + "\t" + name + "\n")
		}
		tree = o.say(lines.String(), "mktree")
	}
	tree = o.say("100644 blob "+text+"\tSKILL.md\n040000 tree "+tree+"\tbomb\n", "mktree")
	commit := o.git("commit-tree", "-m", "bomb", tree)
	o.git("branch", "bomb", commit)
	_, err := o.add(own, commit, "")
	says(t, "the bomb", err, "more than")
}

// Neither the caller's git environment nor the repository's own hooks, filters
// and configuration come to life.
func TestNothingOfARepositoryRuns(t *testing.T) {
	o, own := newOrigin(t), library(t)
	ran := filepath.Join(t.TempDir(), "ran")
	o.write("SKILL.md", manualOf("s", "x"))
	o.write(".gitattributes", "* filter=evil\n")
	commit := o.commit()
	for _, hook := range []string{"post-checkout", "post-merge", "reference-transaction", "pre-receive"} {
		o.write(".git/hooks/"+hook, "#!/bin/sh\ntouch "+ran+"\n")
		if err := os.Chmod(filepath.Join(o.dir, ".git/hooks", hook), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	o.git("config", "filter.evil.smudge", "touch "+ran)
	o.git("config", "uploadpack.packObjectsHook", "touch "+ran+"; exec")
	home := t.TempDir()
	config := "[core]\n\thooksPath = " + filepath.Join(o.dir, ".git/hooks") + "\n[filter \"evil\"]\n\tsmudge = touch " + ran + "\n[core]\n\tsshCommand = touch " + ran + "\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("GIT_DIR", "/nowhere")
	t.Setenv("GIT_SSH_COMMAND", "touch "+ran)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
	t.Setenv("GIT_CONFIG_VALUE_0", filepath.Join(o.dir, ".git/hooks"))
	if _, err := o.add(own, commit, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("something of the repository ran")
	}
}

func TestASkillOfTheHomeStays(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("SKILL.md", manualOf("s", "theirs"))
	o.commit()
	at := filepath.Join(own.Dir, "s", "SKILL.md")
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(manualOf("s", "mine")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := o.add(own, "", "")
	says(t, "add", err, "of your own")
	says(t, "remove", own.Remove(t.Context(), "s"), "your own")
	_, _, err = own.Update(t.Context(), "s")
	says(t, "update", err, "your own")
	if s := own.Get("s"); s.Text != "mine" || s.Origin != pipeline.SkillOwn || s.Pin != nil {
		t.Errorf("it is %+v", s)
	}
	says(t, "remove a default", own.Remove(t.Context(), "validator"), "ships with the program")
	says(t, "remove nothing", own.Remove(t.Context(), "nothing"), "there is no skill nothing")

	other, theirs := newOrigin(t), library(t)
	other.write("SKILL.md", manualOf("s", "another's"))
	other.commit()
	if _, err := o.add(theirs, "", ""); err != nil {
		t.Fatal(err)
	}
	_, err = other.add(theirs, "", "")
	says(t, "from elsewhere", err, "remove it first")
	if s := theirs.Get("s"); s.Text != "theirs" || s.Problem != "" {
		t.Errorf("it is %+v", s)
	}
}

func TestTheHomesSkillWinsOverTheOneThatShips(t *testing.T) {
	own := library(t)
	put := func(text string) {
		at := filepath.Join(own.Dir, "validator", "SKILL.md")
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(manualOf("validator", "mine"))
	if s := own.Get("validator"); s.Text != "mine" || s.Origin != pipeline.SkillOwn {
		t.Errorf("found %+v", s)
	}
	for text, want := range map[string]string{
		"---\nname: validator\ndescription: x\nactive: false\n---\nmine\n": "active: false",
		manualOf("other", "mine"): "calls it other",
		"no front matter":         "front matter",
	} {
		put(text)
		if s := own.Get("validator"); !strings.Contains(s.Problem, want) {
			t.Errorf("%q: %+v", text, s)
		}
	}
	list, err := own.List()
	if err != nil || len(list) != 13 {
		t.Errorf("%d skills, %v", len(list), err)
	}
}

func TestSources(t *testing.T) {
	for text, want := range map[string]skill.Source{
		"https://host/a/b":                                {URL: "https://host/a/b"},
		"https://host/a/b@v1.2":                           {URL: "https://host/a/b", Ref: "v1.2"},
		"https://host/a/b.git@" + strings.Repeat("A", 40): {URL: "https://host/a/b.git", Ref: strings.Repeat("a", 40)},
		"git@host:a/b":                                    {URL: "git@host:a/b"},
		"git@host:a/b@main":                               {URL: "git@host:a/b", Ref: "main"},
		"ssh://git@host/a/b":                              {URL: "ssh://git@host/a/b"},
		"ssh://git@host:22/a/b@v1":                        {URL: "ssh://git@host:22/a/b", Ref: "v1"},
		"/srv/a":                                          {URL: "file:///srv/a"},
	} {
		if got, err := skill.ParseSource(text, ""); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "a/b", "-oProxyCommand=x", "--upload-pack=x", "ext::sh -c x", "fd::17", "http://host/a", "git://host/a", "ftp://host/a",
		"https://", "https:///a", "ssh://-oProxyCommand=x/a", "https://u:secret@host/a", "https://host/a b", "https://host/a\n", "https://host/a@-x", "https://host/a@",
	} {
		if got, err := skill.ParseSource(text, ""); pipeline.KindOf(err) != pipeline.Invalid {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, dir := range []string{"../x", "/x", "a/../../x"} {
		if _, err := skill.ParseSource("https://host/a", dir); err == nil {
			t.Errorf("--path %s is taken", dir)
		}
	}
}

func TestAddEndsWithItsContext(t *testing.T) {
	o, own := newOrigin(t), library(t)
	o.write("SKILL.md", manualOf("s", "x"))
	o.commit()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	src, err := skill.ParseSource("file://"+o.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Add(ctx, src); err == nil {
		t.Error("it was added")
	}
}
