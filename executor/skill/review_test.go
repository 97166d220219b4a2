package skill_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// review does what skills-code-review.yaml does, and gives the numbers of failed
// tests pass by pass and the last pass's outputs.
func review(t *testing.T, dir string) (failed []float64, analyses []any, last map[string]any) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "sample_code", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		analyses = append(analyses, must(t, dir, "code-analyzer", map[string]any{
			"file": "./sample_code/" + filepath.Base(file), "analysis_type": "comprehensive",
		}))
	}
	for pass := range 3 {
		generated := must(t, dir, "test-generator", map[string]any{"analyses": analyses, "iteration": pass})
		ran := must(t, dir, "test-runner", map[string]any{"test_directory": generated["directory"]})
		last = map[string]any{"generate_tests": generated, "run_tests": ran}
		failed = append(failed, ran["failures_count"].(float64))
		if ran["failures_count"].(float64) > 0 {
			last["debug_and_fix"] = must(t, dir, "test-fixer", map[string]any{"failures": ran["failures"]})
		}
		if ran["success"].(bool) {
			break
		}
	}
	return failed, analyses, last
}

func TestReviewRepairsItsGuesses(t *testing.T) {
	dir := workspace(t)
	for range 2 { // again, over what the first run has left
		failed, analyses, last := review(t, dir)
		if diff := cmp.Diff([]float64{6, 0}, failed); diff != "" {
			t.Fatalf("failures by pass: %s", diff)
		}
		report := must(t, dir, "report-generator", map[string]any{
			"analyses": analyses, "test_results": last, "output_file": "./out/report.md",
		})
		want := map[string]any{"path": "out/report.md", "summary": "3 files, 10 issues; 12 of 12 tests passed."}
		if diff := cmp.Diff(want, report); diff != "" {
			t.Errorf("report: %s", diff)
		}
		text := read(t, filepath.Join(dir, "out", "report.md"))
		for _, part := range []string{
			"| ./sample_code/pricing.py | 38 | 4 | 12 | 4 of 5 | 4 |\n",
			"- line 38: eval runs whatever text it is given (dangerous_call)\n",
			"12 of 12 tests passed.\n6 of them expect what the code was seen to do",
		} {
			if !strings.Contains(text, part) {
				t.Errorf("the report lacks %q:\n%s", part, text)
			}
		}
	}
	if compiled, _ := filepath.Glob(filepath.Join(dir, "*", "__pycache__")); len(compiled) != 0 {
		t.Errorf("the review leaves %v", compiled)
	}
}

func TestRepairedTestsGuardAgainstChange(t *testing.T) {
	dir := workspace(t)
	review(t, dir)
	file := filepath.Join(dir, "sample_code", "pricing.py")
	changed := strings.Replace(read(t, file), "(100 - percent)", "(100 + percent)", 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	ran := must(t, dir, "test-runner", map[string]any{"test_directory": "generated_tests"})
	want := []any{map[string]any{
		"test": "test_sample_code_pricing.test_discount", "kind": "failure",
		"message": "AssertionError: 14.0 != 11.0", "directory": "generated_tests",
	}}
	if diff := cmp.Diff(want, ran["failures"]); diff != "" || ran["success"] != false {
		t.Errorf("after a change: %s", diff)
	}
}

func TestWhatCannotBeCalledStaysUnfixed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sample_code"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "sample_code/needs.py", "import no_such_module\n\n\ndef f():\n    return 1\n")
	failed, analyses, last := review(t, dir)
	if diff := cmp.Diff([]float64{1, 1, 1}, failed); diff != "" {
		t.Errorf("failures by pass: %s", diff)
	}
	want := map[string]any{"fixed": []any{}, "unfixed": []any{map[string]any{
		"test": "test_sample_code_needs.test_f", "reason": "ModuleNotFoundError: No module named 'no_such_module'",
	}}}
	if diff := cmp.Diff(want, last["debug_and_fix"]); diff != "" {
		t.Errorf("fixer: %s", diff)
	}
	report := must(t, dir, "report-generator", map[string]any{"analyses": analyses, "test_results": last, "output_file": "report.md"})
	if report["summary"] != "1 file, 3 issues; 0 of 1 test passed." {
		t.Errorf("summary: %v", report["summary"])
	}
}

func TestFixerExpectsWhatItSees(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sample_code"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "sample_code/odd.py", `"""Results of many kinds."""
import itertools
import sys

calls = itertools.count()


def pair(a):
    """A tuple is no list: JSON does not keep it."""
    return a + 1, a


def closes(a):
    """Exits unless it is given a list."""
    print("on standard output")
    if not isinstance(a, list):
        sys.exit(3)
    return None


def always(a, b):
    """Raises whatever it gets."""
    raise KeyError(a)


def odd(a: int):
    """Needs another number than the first guess."""
    if a == 1:
        raise ValueError
    return {"a": [a, None, 0.5]}
`)
	failed, _, _ := review(t, dir)
	if diff := cmp.Diff([]float64{4, 0}, failed[:2]); diff != "" {
		t.Errorf("failures by pass: %s", diff)
	}
	text := read(t, filepath.Join(dir, "generated_tests", "test_sample_code_odd.py"))
	for _, part := range []string{
		"type(self.reviewed.pair(12)).__name__, 'tuple')",
		"type(caught.exception).__name__, 'KeyError')",
		"self.assertEqual(self.reviewed.odd(12), {'a': [12, None, 0.5]})",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the tests lack %q:\n%s", part, text)
		}
	}
}
