// Package docs_test holds the texts against the tree: links lead somewhere, and
// every pipeline that the texts show is an example that the tests run.
package docs_test

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// texts returns the Markdown files of the project by their path from the root.
func texts(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	add := func(name string) {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "bench/README.md"} {
		add(name)
	}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(name) == ".md" {
			add(filepath.Join("docs", name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var (
	link   = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	fenced = regexp.MustCompile("(?ms)^ *```[^\n]*\n.*?^ *```")
	// pipelineBlock is a YAML block that has steps.
	pipelineBlock = regexp.MustCompile("(?m)^```yaml\n(?:[^`\n][^\n]*\n|\n)*?steps:\n(?:[^`\n][^\n]*\n|\n)*```")
)

func TestLinks(t *testing.T) {
	files := texts(t)
	for name, text := range files {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.Join(filepath.Dir(name), target)
				if _, err := os.Stat(filepath.Join("..", path)); err != nil {
					t.Errorf("%s: the link to %s leads nowhere", name, m[1])
					continue
				}
			}
			if there, ok := files[path]; ok && anchor != "" && !hasHeading(there, anchor) {
				t.Errorf("%s: the link to %s: %s has no such heading", name, m[1], path)
			}
		}
	}
}

// hasHeading reports whether a text has a heading whose anchor is as given.
func hasHeading(text, anchor string) bool {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		a := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(a, " ", "-") == anchor {
			return true
		}
	}
	return false
}

var update = flag.Bool("update", false, "write the examples anew into the texts that show them")

// pipelineName finds the name that tells which example a text shows.
var pipelineName = regexp.MustCompile(`(?m)^name: *(\S+)`)

// examples returns the pipelines of the folder examples by their name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	byName := map[string]string{}
	err := filepath.WalkDir(filepath.Join("..", "examples"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(name)
		if m := pipelineName.FindStringSubmatch(string(text)); m != nil {
			byName[m[1]] = strings.TrimSpace(string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return byName
}

// TestShownPipelinesAreExamples holds that every YAML block with steps is one of
// the files in examples, word for word, so that it runs in the tests.
func TestShownPipelinesAreExamples(t *testing.T) {
	byName := examples(t)
	shown := 0
	for name, text := range texts(t) {
		fresh := pipelineBlock.ReplaceAllStringFunc(text, func(block string) string {
			shown++
			m := pipelineName.FindStringSubmatch(block)
			if m == nil || byName[m[1]] == "" {
				t.Errorf("%s: this pipeline is no file in examples/: quote one\n%s", name, block)
				return block
			}
			return "```yaml\n" + byName[m[1]] + "\n```"
		})
		switch {
		case fresh == text:
		case *update:
			if err := os.WriteFile(filepath.Join("..", name), []byte(fresh), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s shows examples in an older form: go test ./docs -update writes them anew", name)
		}
	}
	if shown == 0 {
		t.Error("the texts show no pipeline")
	}
}

// TestNamedTestsExist holds that a test that the texts name stands in the tree.
func TestNamedTestsExist(t *testing.T) {
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)`)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return nil //nolint:nilerr // a file that went away while we walk
		}
		text, err := os.ReadFile(name)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			exists[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range texts(t) {
		for _, m := range regexp.MustCompile("`(Test[A-Z0-9]\\w+)`").FindAllStringSubmatch(text, -1) {
			if !exists[m[1]] {
				t.Errorf("%s names %s, which is no test: correct the name, or write the test", name, m[1])
			}
		}
	}
}

// TestDecisionsAreListed holds that the index names every text.
func TestDecisionsAreListed(t *testing.T) {
	index := texts(t)["docs/README.md"]
	for name := range texts(t) {
		inDocs, ok := strings.CutPrefix(name, "docs/")
		if ok && inDocs != "README.md" && !strings.Contains(index, "("+inDocs+")") {
			t.Errorf("docs/README.md does not list %s", inDocs)
		}
	}
}
