package skill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What a repository may cost, and what a skill from one may hold.
const (
	fetchTime   = 2 * time.Minute
	fetchBytes  = 64 << 20 // of one file that git writes, and it writes one
	treeBytes   = 4 << 20  // of the list of a commit's files
	remoteBytes = 1 << 20  // of what a server says
	gitMemory   = 512 << 20
	copiedBytes = 8 << 20
)

// Source is where a skill is copied from.
type Source struct {
	URL  string
	Ref  string // a commit, whole, or a branch or tag; empty: HEAD
	Path string // the skill's folder in the repository; empty: the whole
}

var (
	wholeCommit = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)
	refForm     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)
	sshForm     = regexp.MustCompile(`^(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^/\s][^\s]*$`)
)

// ParseSource reads URL or URL@REF. Repositories are reached by https, ssh and
// from this machine's disk. The error is a *pipeline.Error.
func ParseSource(text, dir string) (Source, error) {
	bad := func(format string, args ...any) (Source, error) {
		return Source{}, &pipeline.Error{Kind: pipeline.Invalid, Reason: "bad_source", Text: fmt.Sprintf(format, args...)}
	}
	s := Source{URL: text}
	if i := strings.LastIndexByte(text, '@'); i > 0 && !strings.ContainsAny(text[i+1:], "/:") && strings.ContainsAny(text[:i], "/") {
		s.URL, s.Ref = text[:i], text[i+1:]
		if !refForm.MatchString(s.Ref) {
			return bad("%q is no commit, and no branch or tag that can be written behind @", s.Ref)
		}
	}
	scheme, rest, hasScheme := strings.Cut(s.URL, "://")
	switch {
	case strings.ContainsFunc(s.URL, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), strings.HasPrefix(s.URL, "-"), strings.Contains(s.URL, "::"):
		return bad("%q is not the address of a git repository", text)
	case !hasScheme && filepath.IsAbs(s.URL):
		s.URL = "file://" + filepath.ToSlash(filepath.Clean(s.URL))
	case !hasScheme && sshForm.MatchString(s.URL):
	case !hasScheme:
		return bad("%q is not the address of a git repository: write https://HOST/PATH, ssh://HOST/PATH, USER@HOST:PATH, or an absolute path", text)
	case scheme != "https" && scheme != "ssh" && scheme != "file":
		return bad("repositories are reached by https, ssh and file, not by %s", scheme)
	case scheme != "file" && (rest == "" || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "/")):
		return bad("%q names no host", text)
	case strings.Contains(strings.SplitN(rest, "/", 2)[0], "@") && strings.Contains(strings.SplitN(rest, "@", 2)[0], ":"):
		return bad("the address holds a password, which would be kept in the home: use ssh, or a .netrc")
	}
	if dir != "" && dir != "." {
		s.Path = path.Clean(filepath.ToSlash(dir))
		if !filepath.IsLocal(s.Path) || strings.ContainsFunc(s.Path, unicode.IsControl) {
			return bad("--path %q is not a folder within the repository", dir)
		}
	}
	if wholeCommit.MatchString(strings.ToLower(s.Ref)) {
		s.Ref = strings.ToLower(s.Ref)
	}
	return s, nil
}

// repository is a fresh and empty one into which a single commit is fetched.
// Nothing is ever checked out: the files are read as objects, so that no hook, no
// filter, no link and no submodule of the repository comes to life.
type repository struct {
	dir     string
	environ []string
}

// gitEnviron is what git inherits: nothing that steers it, of the caller's or
// of the machine, but whom it trusts, as of a host with a certificate of its own.
func gitEnviron(environ []string) []string {
	clean := slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		trust := strings.HasPrefix(e, "GIT_SSL_CAINFO=") || strings.HasPrefix(e, "GIT_SSL_CAPATH=")
		return strings.HasPrefix(e, "GIT_") && !trust || strings.HasPrefix(e, "SSH_ASKPASS")
	})
	return append(clean,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_ATTR_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_ALLOW_PROTOCOL=file:https:ssh", "GIT_SSH_COMMAND=ssh -oBatchMode=yes", "GIT_LFS_SKIP_SMUDGE=1", "GIT_NO_REPLACE_OBJECTS=1", "LC_ALL=C",
	)
}

// git runs one command of git and gives what it writes, of which there may be as
// much as limit.
func (r repository) git(ctx context.Context, limit int, stdin string, args ...string) ([]byte, error) {
	own := []string{
		"-c", "core.hooksPath=" + os.DevNull, "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "fetch.unpackLimit=1", "-c", "transfer.unpackLimit=1",
		"-c", "core.bigFileThreshold=1m", "-c", "pack.threads=1", "-c", "submodule.recurse=false", "-c", "fetch.recurseSubmodules=false", "-c", "protocol.version=2",
	}
	// The bound on files is in units of 512 bytes, as POSIX has it; that on memory, of
	// which git takes what a server says, is in KiB, where there is one.
	line := fmt.Sprintf(`ulimit -f %d || exit 1; ulimit -v %d 2>/dev/null; exec git "$@"`, fetchBytes/512, gitMemory>>10)
	ctx, stop := context.WithTimeout(ctx, fetchTime)
	defer stop()
	cmd := exec.CommandContext(ctx, "/bin/sh", append(append([]string{"-c", line, "git"}, own...), args...)...) //nolint:gosec // what is foreign in args stands behind -- or is a commit
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.WaitDelay = r.dir, r.environ, strings.NewReader(stdin), 5*time.Second
	var out, log bounded
	out.left, log.left = limit, 64<<10
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	switch {
	case out.full:
		return nil, failed("the repository says more than %d bytes about itself", limit)
	case err == nil:
		return out.text.Bytes(), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, failed("git took longer than %s", fetchTime)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	said := strings.TrimSpace(log.text.String())
	switch {
	case strings.Contains(said, "not found") && strings.Contains(said, "exec"):
		return nil, failed("there is no program git in the PATH; install it")
	case strings.Contains(said, "index-pack"):
		said += fmt.Sprintf("\n(at most %d MiB are fetched)", fetchBytes>>20)
	case said == "":
		said = err.Error()
	}
	return nil, failed("git: %s", said)
}

func failed(format string, args ...any) error {
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "git_failed", Text: fmt.Sprintf(format, args...)}
}

// bounded takes in so many bytes; what comes after them is an error, which ends
// the program that writes.
type bounded struct {
	text bytes.Buffer // not embedded: io.Copy would read into it past Write
	left int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full = true
		return 0, io.ErrShortWrite
	}
	b.left -= len(p)
	return b.text.Write(p)
}

// resolve finds the commit that a source means.
func (r repository) resolve(ctx context.Context, s Source) (string, error) {
	if wholeCommit.MatchString(s.Ref) {
		return s.Ref, nil
	}
	asked := []string{"HEAD"}
	if s.Ref != "" {
		asked = []string{"refs/heads/" + s.Ref, "refs/tags/" + s.Ref, "refs/tags/" + s.Ref + "^{}"}
	}
	out, err := r.git(ctx, remoteBytes, "", append([]string{"ls-remote", "--quiet", "--", s.URL}, asked...)...)
	if err != nil {
		return "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, name, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if ok && slices.Contains(asked, name) && wholeCommit.MatchString(id) {
			found[name] = id
		}
	}
	if s.Ref == "" {
		if found["HEAD"] == "" {
			return "", failed("%s has no commit at its HEAD; name a branch, a tag or a commit behind @", s.URL)
		}
		return found["HEAD"], nil
	}
	branch, tag := found[asked[0]], found[asked[1]]
	if peeled := found[asked[2]]; peeled != "" {
		tag = peeled
	}
	switch {
	case branch == "" && tag == "":
		return "", failed("%s has no branch and no tag %s; a commit is written with all its digits", s.URL, s.Ref)
	case branch != "" && tag != "" && branch != tag:
		return "", failed("%s is a branch and a tag of %s; write the commit behind @: %s or %s", s.Ref, s.URL, branch, tag)
	case branch != "":
		return branch, nil
	}
	return tag, nil
}

// fetch brings exactly one commit.
func (r repository) fetch(ctx context.Context, url, commit string) error {
	format := "sha1"
	if len(commit) == 64 {
		format = "sha256"
	}
	if _, err := r.git(ctx, remoteBytes, "", "init", "--quiet", "--bare", "--template=", "--object-format="+format, "."); err != nil {
		return err
	}
	if _, err := r.git(ctx, remoteBytes, "", "fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--", url, commit); err != nil {
		return err
	}
	out, err := r.git(ctx, 4096, "", "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{commit}")
	if err != nil || strings.TrimSpace(string(out)) != commit {
		return failed("%s is not a commit of %s", commit, url)
	}
	return nil
}

// entry is a file of a commit.
type entry struct {
	mode, kind, id, name string
	size                 int64
}

// tree lists the files below a folder of a commit.
func (r repository) tree(ctx context.Context, commit, dir string) ([]entry, error) {
	out, err := r.git(ctx, treeBytes, "", "ls-tree", "-r", "-z", "-l", "--end-of-options", commit+":"+dir)
	if err != nil {
		if e, ok := errors.AsType[*pipeline.Error](err); ok && dir != "" && (strings.Contains(e.Text, "not a tree") || strings.Contains(e.Text, "Not a valid object")) {
			return nil, failed("the commit has no folder %s", dir)
		}
		return nil, err
	}
	var list []entry
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		head, name, _ := strings.Cut(line, "\t")
		if f := strings.Fields(head); len(f) == 4 {
			size, _ := strconv.ParseInt(f[3], 10, 64) // of a submodule it is -
			list = append(list, entry{mode: f[0], kind: f[1], id: f[2], name: name, size: size})
		}
	}
	return list, nil
}

// wanted checks the files of a skill before any is read: plain files with plain
// names, not too many and not too large.
func wanted(list []entry) ([]entry, error) {
	var out []entry
	seen := map[string]string{}
	var size int64
	for _, e := range list {
		parts := strings.Split(e.name, "/")
		if slices.ContainsFunc(parts, Unwanted) && !slices.Contains(parts, "..") {
			continue
		}
		folded := strings.ToLower(e.name)
		switch {
		case !plain(e.name):
			return nil, refused("it holds a file with the name %q", e.name)
		case e.mode == "120000":
			return nil, refused("%s is a symbolic link: a skill from a repository holds plain files", e.name)
		case e.kind != "blob":
			return nil, refused("%s is a submodule: a skill from a repository holds plain files", e.name)
		case e.mode != "100644" && e.mode != "100755":
			return nil, refused("%s is of an unknown kind (%s)", e.name, e.mode)
		case seen[folded] != "":
			return nil, refused("%s and %s differ by case alone", seen[folded], e.name)
		}
		seen[folded] = e.name
		if size += e.size; size > copiedBytes || len(out) == maxFiles {
			return nil, refused("it is too large: at most %d files and %d MiB are copied", maxFiles, copiedBytes>>20)
		}
		out = append(out, e)
	}
	for _, e := range out { // a file cannot be a folder too
		for dir := path.Dir(e.name); dir != "."; dir = path.Dir(dir) {
			if seen[strings.ToLower(dir)] != "" {
				return nil, refused("%s is a file and a folder", dir)
			}
		}
	}
	return out, nil
}

// plain reports whether a name means the same file on every machine.
func plain(name string) bool {
	return len(name) <= 200 && utf8.ValidString(name) && name == path.Clean(name) && filepath.IsLocal(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`\:*?"<>|`, r) })
}

func refused(format string, args ...any) error {
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "skill_refused", Text: "the skill is not taken: " + fmt.Sprintf(format, args...)}
}

// read gives the content of files, in their order.
func (r repository) read(ctx context.Context, list []entry) ([][]byte, error) {
	var ids strings.Builder
	for i := range list {
		ids.WriteString(list[i].id + "\n")
	}
	out, err := r.git(ctx, copiedBytes+200*(len(list)+1), ids.String(), "cat-file", "--batch")
	if err != nil {
		return nil, err
	}
	all := make([][]byte, len(list))
	for i := range list {
		head, rest, _ := bytes.Cut(out, []byte("\n"))
		f := strings.Fields(string(head))
		if len(f) != 3 || f[0] != list[i].id || f[1] != "blob" || f[2] != strconv.FormatInt(list[i].size, 10) || int64(len(rest)) <= list[i].size {
			return nil, failed("the content of %s cannot be read", list[i].name)
		}
		all[i], out = rest[:list[i].size], rest[list[i].size+1:]
	}
	return all, nil
}
