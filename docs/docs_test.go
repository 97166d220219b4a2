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

// part is a YAML block that shows a part of an example, as its fence says.
var part = regexp.MustCompile("(?m)^```yaml (\\S+)\n((?:[^`\n][^\n]*\n|\n)*)```")

// TestShownPartsAreInExamples holds that a block marked as in "yaml for.yaml" stands
// in that file of examples, line by line; how far it is indented does not matter.
func TestShownPartsAreInExamples(t *testing.T) {
	for name, text := range texts(t) {
		for _, m := range part.FindAllStringSubmatch(text, -1) {
			whole, err := os.ReadFile(filepath.Join("..", "examples", m[1]))
			if err != nil {
				t.Errorf("%s shows a part of %s, which cannot be read: %v", name, m[1], err)
				continue
			}
			if !strings.Contains("\n"+flat(string(whole)), "\n"+flat(m[2])) {
				t.Errorf("%s: this is no part of examples/%s:\n%s", name, m[1], m[2])
			}
		}
	}
}

// flat is a text without the blanks at the start of its lines.
func flat(text string) string {
	return regexp.MustCompile(`(?m)^ +`).ReplaceAllString(text, "")
}

// TestLanguageShowsExamples holds that the reference of the language shows no YAML
// that the tests do not run.
func TestLanguageShowsExamples(t *testing.T) {
	fence := regexp.MustCompile("(?m)^```yaml.*$")
	for name, text := range texts(t) {
		if strings.HasPrefix(name, "docs/guide/language/") {
			all := len(fence.FindAllString(text, -1))
			if known := len(pipelineBlock.FindAllString(text, -1)) + len(part.FindAllString(text, -1)); known != all {
				t.Errorf("%s: %d blocks of YAML are neither an example nor marked as a part of one", name, all-known)
			}
		}
	}
}

// TestDeviationsAreListed holds that the page on expressions has the table that the
// tests of package expr keep.
func TestDeviationsAreListed(t *testing.T) {
	const page, begin, end = "guide/language/expressions.md", "<!-- deviations -->\n", "<!-- end -->"
	table, err := os.ReadFile("../pipeline/expr/testdata/deviations.md")
	if err != nil {
		t.Fatal(err)
	}
	text := texts(t)["docs/"+page]
	i, j := strings.Index(text, begin), strings.Index(text, end)
	switch {
	case i < 0 || j < i:
		t.Fatalf("%s has no place for the table", page)
	case text[i+len(begin):j] == string(table):
	case *update:
		if err := os.WriteFile(page, []byte(text[:i+len(begin)]+string(table)+text[j:]), 0o644); err != nil { //nolint:gosec // a source file
			t.Fatal(err)
		}
	default:
		t.Errorf("%s shows the deviations in an older form: go test ./docs -update writes them anew", page)
	}
}

// TestEveryCodeIsExplained holds that the page on diagnostics names each code that
// the compiler can give, and no other.
func TestEveryCodeIsExplained(t *testing.T) {
	code := regexp.MustCompile(`"([EW][0-9]{4})"`)
	given := map[string]bool{}
	err := filepath.WalkDir("../pipeline", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			given[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text := texts(t)["docs/guide/language/diagnostics.md"]
	for c := range given {
		if !strings.Contains(text, "| "+c+" |") {
			t.Errorf("diagnostics.md does not explain %s", c)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\| ([EW][0-9]{4}) \|`).FindAllStringSubmatch(text, -1) {
		if !given[m[1]] {
			t.Errorf("diagnostics.md explains %s, which is never given", m[1])
		}
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
