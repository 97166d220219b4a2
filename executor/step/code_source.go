package step

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// The bounds of what one step looks at. Sources travel within the value, which
// itself has at most 16 MiB.
const (
	maxCodeFile  = 1 << 20 // bytes of a file
	maxCodeTotal = 8 << 20 // of all files
	maxCodeFiles = 2000
)

// sourceFile is a file of source code, or a text given as one.
type sourceFile struct {
	path     string // with slashes; <text> for what is no file
	language string // a key of languageNames; empty: unknown
	text     string
	note     string // why it was not read; empty: it was
}

// languageOf tells the language by a file's extension.
var languageOf = map[string]string{
	".go": "go", ".py": "python", ".pyi": "python", ".pyw": "python",
	".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript",
	".java": "java", ".kt": "kotlin", ".scala": "scala", ".rs": "rust", ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++",
	".hpp": "c++", ".cs": "c#", ".rb": "ruby", ".php": "php", ".swift": "swift", ".sh": "shell", ".bash": "shell", ".pl": "perl",
	".lua": "lua", ".r": "r", ".sql": "sql", ".ex": "elixir", ".exs": "elixir", ".hs": "haskell", ".zig": "zig", ".dart": "dart",
}

// languageNames are the spellings in which people name languages.
var languageNames = map[string]string{
	"golang": "go", "py": "python", "python3": "python", "js": "javascript", "node": "javascript", "nodejs": "javascript", "ts": "typescript",
	"rs": "rust", "cpp": "c++", "csharp": "c#", "rb": "ruby", "bash": "shell", "sh": "shell",
}

// understood are the languages whose structure is read.
var understood = []string{"go", "python"}

// noCode are folders that hold other people's code, or none.
var noCode = []string{"node_modules", "vendor", "__pycache__", "venv", "site-packages"}

// readCode gives the files that a parameter names: a value of parse_code, paths of
// files and folders, patterns, or the code itself. languages narrows them; empty:
// all that are known.
func readCode(ctx context.Context, env executor.Env, param string, v any, languages []string) ([]sourceFile, error) {
	g := &codeReader{ctx: ctx, env: env, param: param, languages: languages, seen: map[string]bool{}}
	if err := g.read(v, 0); err != nil {
		return nil, err
	}
	slices.SortStableFunc(g.files, func(a, b sourceFile) int { return cmp.Compare(a.path, b.path) })
	return g.files, nil
}

type codeReader struct {
	ctx       context.Context
	env       executor.Env
	param     string
	languages []string
	seen      map[string]bool
	files     []sourceFile
	total     int
}

func (g *codeReader) read(v any, depth int) error {
	switch v := v.(type) {
	case string:
		return g.text(v)
	case []any:
		if depth > 4 {
			return invalid("parameter %s is nested too deeply", g.param)
		}
		for _, e := range v {
			if err := g.read(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		for _, key := range []string{"parsed_code", "files"} {
			if inner, ok := v[key]; ok && depth < 4 {
				return g.read(inner, depth+1)
			}
		}
		name, _ := v["path"].(string)
		language, _ := v["language"].(string)
		if text, ok := v["source"].(string); ok {
			return g.add(sourceFile{path: cmp.Or(name, "<text>"), language: language, text: text})
		}
		if note, ok := v["note"].(string); ok && name != "" {
			return g.add(sourceFile{path: name, language: language, note: note})
		}
		return invalid("parameter %s holds a map that is neither what parse_code gives nor a file with path and source", g.param)
	}
	return invalid("parameter %s is %s; it can be a file, a folder, a pattern, the code itself, what parse_code gives, or a list of them", g.param, kindOf(v))
}

// text reads a path, a pattern or the code itself.
func (g *codeReader) text(s string) error {
	name := strings.TrimSpace(s)
	switch {
	case len(s) > maxCodeFile:
		return tooLarge("the text of parameter %s is larger than %s", g.param, size(maxCodeFile))
	case strings.ContainsAny(name, "\n\r"):
		return g.add(sourceFile{path: "<text>", language: guess(s), text: s})
	case name == "":
		return invalid("parameter %s is empty", g.param)
	case strings.Contains(name, "://"):
		return invalid("parameter %s is the address %s, and this step reads files of the workspace: fetch it before, with an http step or a command such as git clone, and name the file or folder", g.param, name)
	case strings.ContainsAny(name, "*?[{"):
		return g.pattern(name)
	}
	root, rel, err := openWorkspace(g.env, name)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(rel)
	if err != nil {
		return ioFailure("read", name, err)
	}
	if info.IsDir() {
		return g.folder(root, rel, nil)
	}
	return g.file(root, rel, true)
}

// guess tells the language of a text: Go begins with its package clause, and what
// parses as Python is taken for it.
func guess(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "package ") && !strings.HasSuffix(line, ";") {
			return "go"
		}
		if line != "" && !strings.HasPrefix(line, "//") {
			break
		}
	}
	if _, err := pyParse(text); err == nil {
		return "python"
	}
	return ""
}

func (g *codeReader) pattern(name string) error {
	globs, err := compileGlobs(filepath.ToSlash(filepath.Clean(name)))
	if err != nil {
		return err
	}
	root, _, err := openWorkspace(g.env, ".")
	if err != nil {
		return err
	}
	defer root.Close()
	before := len(g.files)
	if err := g.folder(root, ".", globs); err != nil {
		return err
	}
	if len(g.files) == before {
		return invalid("parameter %s: no file of the workspace fits the pattern %s", g.param, name)
	}
	return nil
}

// folder reads the source files below a folder; with globs, those that fit one.
func (g *codeReader) folder(root *os.Root, base string, globs globs) error {
	base = filepath.ToSlash(base)
	seen := 0
	return fs.WalkDir(root.FS(), base, func(name string, e fs.DirEntry, err error) error {
		switch {
		case g.ctx.Err() != nil:
			return ended(g.ctx)
		case err != nil && name == base:
			return ioFailure("read", name, err)
		case err != nil || name == base:
			return nil //nolint:nilerr // what cannot be read is left out, as in a listing
		}
		if seen++; seen > maxEntries {
			return tooLarge("%s holds more than %d files; name a folder of it", base, maxEntries)
		}
		if e.IsDir() {
			if hidden := strings.HasPrefix(e.Name(), "."); hidden || slices.Contains(noCode, e.Name()) || (globs != nil && !globs.below(name)) {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || (globs != nil && !globs.match(name)) {
			return nil
		}
		return g.file(root, name, false)
	})
}

// file reads one file; a file that was not named is passed over where it is not
// of a known language.
func (g *codeReader) file(root *os.Root, name string, named bool) error {
	f := sourceFile{path: filepath.ToSlash(name), language: languageOf[strings.ToLower(path.Ext(name))]}
	if f.language == "" && !named {
		return nil
	}
	if g.seen[f.path] || !g.wanted(f.language) {
		return nil
	}
	g.seen[f.path] = true
	if !slices.Contains(understood, f.language) {
		f.note = unsupported(f.language)
	}
	info, err := root.Stat(name)
	switch {
	case err != nil && named:
		return ioFailure("read", name, err)
	case err != nil:
		return nil //nolint:nilerr // it vanished while the folder was read
	case info.Size() > maxCodeFile:
		f.note = "it is larger than " + size(maxCodeFile)
		return g.add(f)
	}
	b, err := readRegular(root, name, maxCodeFile)
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		f.note = "it is not text in UTF-8"
		return g.add(f)
	}
	f.text = string(b)
	return g.add(f)
}

func unsupported(language string) string {
	if language == "" {
		return "its language is not known; Go and Python are understood"
	}
	return language + " is not understood; Go and Python are"
}

func (g *codeReader) wanted(language string) bool {
	return len(g.languages) == 0 || slices.Contains(g.languages, language)
}

func (g *codeReader) add(f sourceFile) error {
	if !g.wanted(f.language) {
		return nil
	}
	if f.note == "" && !slices.Contains(understood, f.language) {
		f.note = unsupported(f.language)
	}
	g.total += len(f.text)
	switch {
	case len(f.text) > maxCodeFile:
		return tooLarge("%s is larger than %s", f.path, size(maxCodeFile))
	case g.total > maxCodeTotal:
		return tooLarge("the source has more than %s; name a part of it", size(maxCodeTotal))
	case len(g.files) == maxCodeFiles:
		return tooLarge("the source has more than %d files; name a part of it", maxCodeFiles)
	}
	g.files = append(g.files, f)
	return nil
}

// namedLanguages finds languages in a list or in free text; a text that names
// none narrows nothing.
func namedLanguages(v any) []string {
	var found []string
	known := map[string]bool{}
	for _, l := range languageOf {
		known[l] = true
	}
	words := strings.FieldsFunc(strings.ToLower(expr.Text(v)), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == '#')
	})
	for _, w := range words {
		if full := languageNames[w]; full != "" {
			w = full
		}
		// One letter is more often a word of English than a language.
		if known[w] && !slices.Contains(found, w) && (len(w) > 1 || len(words) < 4) {
			found = append(found, w)
		}
	}
	return found
}
