package skill_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// https serves a repository by git's own server, with a certificate that this
// process has been told to trust.
func https(t *testing.T, o *origin) *httptest.Server {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), "git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git was installed without its server for http: ", err)
	}
	git := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + o.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}
	mux := http.NewServeMux()
	mux.Handle("/.git/", git)
	mux.HandleFunc("/away/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/.git"+strings.TrimPrefix(r.URL.Path, "/away")+"?"+r.URL.RawQuery, http.StatusFound)
	})
	mux.HandleFunc("/closed/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/endless/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		fmt.Fprint(w, "001e# service=git-upload-pack\n0000")
		for r.Context().Err() == nil {
			fmt.Fprintf(w, "003f%s refs/heads/%013d\n", strings.Repeat("a", 40), 1)
		}
	})
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_SSL_CAINFO", ca)
	t.Setenv("HOME", t.TempDir()) // no .netrc
	return s
}

func addFrom(t *testing.T, l skill.Library, source, dir string) (*pipeline.InstalledSkill, error) {
	t.Helper()
	src, err := skill.ParseSource(source, dir)
	if err != nil {
		t.Fatal(err)
	}
	return l.Add(t.Context(), src)
}

func TestASkillComesByHTTPS(t *testing.T) {
	o, l := newOrigin(t), library(t)
	o.write("tools/s/SKILL.md", manualOf("s", "one"))
	o.write("tools/s/part/data.txt", "data")
	first := o.commit()
	o.git("tag", "-a", "-m", "x", "v1")
	s := https(t, o)
	url := s.URL + "/.git"

	got, err := addFrom(t, l, url+"@v1", "tools/s")
	if err != nil || got.Pin.Commit != first || got.Pin.Ref != "v1" || got.Pin.URL != url || len(got.Files) != 2 {
		t.Fatalf("got %+v, %v", got, err)
	}

	// The tag moves: what was pinned stays, until somebody asks for what it means now.
	o.write("tools/s/SKILL.md", manualOf("s", "two"))
	second := o.commit()
	o.git("tag", "-f", "-a", "-m", "y", "v1")
	if got = l.Get("s"); got.Pin.Commit != first || !strings.Contains(got.Text, "one") {
		t.Errorf("got %+v", got)
	}
	got, differs, err := l.Update(t.Context(), "s")
	if err != nil || !differs || got.Pin.Commit != second || !strings.Contains(got.Text, "two") {
		t.Errorf("got %+v, %t, %v", got, differs, err)
	}

	// By its commit alone, also one that no branch names any more.
	if got, err = addFrom(t, l, url+"@"+first, "tools/s"); err != nil || got.Pin.Commit != first || got.Pin.Ref != "" {
		t.Errorf("got %+v, %v", got, err)
	}

	// Without the server it is there all the same, and cannot change.
	s.Close()
	if files, err := l.Files("s"); err != nil || len(files) != 2 {
		t.Errorf("offline: %d files, %v", len(files), err)
	}
	if _, _, err := l.Update(t.Context(), "s"); pipeline.KindOf(err) != pipeline.Unavailable {
		t.Errorf("an update without the server: %v", err)
	}
	if got = l.Get("s"); got.Problem != "" || got.Pin.Commit != first {
		t.Errorf("after an update that failed: %+v", got)
	}
}

func TestServersThatMisbehaveAreRefused(t *testing.T) {
	o, l := newOrigin(t), library(t)
	o.write("SKILL.md", manualOf("s", "one"))
	o.commit()
	s := https(t, o)
	for source, want := range map[string]string{
		s.URL + "/away":                             "git: ",
		s.URL + "/closed":                           "git: ",
		s.URL + "/endless":                          "git: ",
		s.URL + "/nowhere":                          "not found",
		s.URL + "/.git@none":                        "has no branch and no tag none",
		s.URL + "/.git@" + strings.Repeat("0f", 20): "git: ",
		"https://127.0.0.1:1/x":                     "git: ",
	} {
		_, err := addFrom(t, l, source, "")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", source, err, want)
		}
	}
	if err := os.Unsetenv("GIT_SSL_CAINFO"); err != nil { // comes back with the end of the test
		t.Fatal(err)
	}
	if _, err := addFrom(t, l, s.URL+"/.git", ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(l.Dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestSkillsAreAddedAtOnce holds that whoever adds a skill while others do finds one
// of them, whole, and never the files of one with the lock of another.
func TestSkillsAreAddedAtOnce(t *testing.T) {
	o, l := newOrigin(t), library(t)
	var commits []string
	for _, text := range []string{"one", "two", "three"} {
		o.write("SKILL.md", manualOf("s", text))
		commits = append(commits, o.commit())
	}
	var adding sync.WaitGroup
	for i := range 12 {
		adding.Go(func() {
			src := skill.Source{URL: "file://" + o.dir, Ref: commits[i%len(commits)]}
			if _, err := (skill.Library{Dir: l.Dir}).Add(t.Context(), src); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if got := l.Get("s"); got == nil || got.Problem != "" || got.Pin == nil {
		t.Errorf("got %+v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(l.Dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestNoAddressIsAnOption(t *testing.T) {
	for _, text := range []string{
		"--upload-pack=touch x", "https://-oProxyCommand=x/y", "ssh://-oProxyCommand=x/y", "ext::sh -c touch% x", "https://h/x@--upload-pack", "http://h/x", "git://h/x", "https://u:p@h/x",
	} {
		if src, err := skill.ParseSource(text, ""); err == nil {
			t.Errorf("%q was taken: %+v", text, src)
		} else if e, ok := errors.AsType[*pipeline.Error](err); !ok || e.Reason != "bad_source" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
