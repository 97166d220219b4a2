package tool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxEdited  = 8 << 20 // bytes of a file that is edited, or searched
	maxMatches = 200     // lines that a search gives
	maxLooked  = 200_000 // files and folders that a search looks at
)

// files are the tools for the workspace: the actions of filesystem, shown as
// models like to read them, and two that models need besides.
func files(cfg Config) []Tool {
	var tools []Tool
	var write *executor.Action
	for i := range cfg.Actions {
		a := &cfg.Actions[i]
		if a.Spec.Tool != Filesystem {
			continue
		}
		t := actionTool(a, cfg.PrivateHosts)
		switch a.Spec.Name {
		case "read":
			t.Description = "Reads a file of the workspace. A text is given as it is, pictures and PDF are shown."
			t.Run = func(ctx context.Context, env executor.Env, c Call) (Result, error) {
				out, err := perform(ctx, a, env, c.Arguments)
				if err != nil {
					return Result{}, err
				}
				return fileShown(out.Value), nil
			}
		case "write":
			write = a
		}
		tools = append(tools, t)
	}
	if write != nil {
		tools = append(tools, editTool(write), grepTool())
	}
	return tools
}

// fileShown is the result of reading a file.
func fileShown(v any) Result {
	m, _ := v.(map[string]any)
	content, _ := m["content"].(string)
	if m["encoding"] == "text" {
		if content == "" {
			return Text("(the file is empty)")
		}
		return Text(content)
	}
	name, _ := m["path"].(string)
	return bytesShown(content, mime.TypeByExtension(path.Ext(name)), name)
}

// bytesShown is what is no text, given as base64, as a medium.
func bytesShown(encoded, kind, name string) Result {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Text(encoded)
	}
	kind, _, _ = mime.ParseMediaType(typeOf(kind, data))
	return Result{Content: []model.Block{{Kind: model.BlockDocument, Media: &model.Media{Type: kind, Name: name, Data: data}}}}
}

// typeOf is the type of a file by its name, else by its content.
func typeOf(named string, data []byte) string {
	if found := http.DetectContentType(data); named == "" || media[found] != "" {
		return found
	}
	return named
}

// editTool replaces a text in a file by another.
func editTool(write *executor.Action) Tool {
	return Tool{
		Name:        Filesystem + "_edit",
		Description: "Replaces a text in a file of the workspace, exactly as it stands there, by another. It must stand there once, unless all is true.",
		Effect:      pipeline.EffectAtLeastOnce, // it finds out whether it was done
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"path", "old", "new"},
			"properties": map[string]any{
				"path": map[string]any{"type": "string", "description": "relative to the workspace"},
				"old":  map[string]any{"type": "string", "minLength": int64(1), "description": "what stands there now, with enough around it to be the only such place"},
				"new":  map[string]any{"type": "string", "description": "what is to stand there"},
				"all":  map[string]any{"type": "boolean", "default": false, "description": "replace it wherever it stands"},
			},
		},
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			name, _ := c.Arguments["path"].(string)
			was, _ := c.Arguments["old"].(string)
			now, _ := c.Arguments["new"].(string)
			all, _ := c.Arguments["all"].(bool)
			root, name, err := openFile(env, name)
			if err != nil {
				return Result{}, err
			}
			defer func() { _ = root.Close() }()
			data, err := readFile(root, name)
			if err != nil {
				return Result{}, err
			}
			n := strings.Count(string(data), was)
			switch {
			case was == now:
				return Result{}, errors.New("old and new are the same")
			case n > 0 && c.Again && strings.Contains(now, was) && strings.Contains(string(data), now):
				return Result{}, fmt.Errorf("an earlier attempt of this call may have edited %s; read the file to see whether it has", name)
			case n == 0 && c.Again && now != "" && strings.Contains(string(data), now):
				return Text("It was replaced before: an earlier attempt of this call has done it."), nil
			case n == 0:
				return Result{}, fmt.Errorf("old does not stand in %s; read the file, and give it letter by letter, with its spaces", name)
			case n > 1 && !all:
				return Result{}, fmt.Errorf("old stands %d times in %s, in the lines %s; give more of what is around it, or all: true", n, name, linesOf(data, was))
			}
			_, err = perform(ctx, write, env, map[string]any{"path": name, "content": strings.ReplaceAll(string(data), was, now)})
			if err != nil {
				return Result{}, err
			}
			return Text(fmt.Sprintf("Replaced %d times in %s.", n, name)), nil
		},
	}
}

// linesOf lists the first lines in which a text begins.
func linesOf(data []byte, text string) string {
	var list []string
	for at := 0; len(list) < 10; {
		i := bytes.Index(data[at:], []byte(text))
		if i < 0 {
			break
		}
		at += i
		list = append(list, fmt.Sprint(1+bytes.Count(data[:at], []byte{'\n'})))
		at += len(text)
	}
	return strings.Join(slices.Compact(list), ", ")
}

// grepTool searches the files of the workspace.
func grepTool() Tool {
	return Tool{
		Name:        Filesystem + "_search",
		Description: "Searches the files of the workspace for a regular expression (RE2) and gives the lines that match as path:line: text. Files that are no text, or larger than 8 MiB, and folders whose names begin with a dot are passed over.",
		Effect:      pipeline.EffectIdempotent,
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"pattern"},
			"properties": map[string]any{
				"pattern": map[string]any{"type": "string", "minLength": int64(1), "maxLength": int64(1000), "description": "a regular expression; (?i) before it ignores case"},
				"path":    map[string]any{"type": "string", "default": ".", "description": "a file, or a folder to look in with all below it"},
				"name":    map[string]any{"type": "string", "description": "only files of such names, as in *.go"},
			},
		},
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			pattern, _ := c.Arguments["pattern"].(string)
			re, err := regexp.Compile(pattern)
			if err != nil {
				return Result{}, fmt.Errorf("pattern is not a regular expression: %w", err)
			}
			in, _ := c.Arguments["path"].(string)
			if in == "" {
				in = "."
			}
			only, _ := c.Arguments["name"].(string)
			if _, err := path.Match(only, ""); err != nil {
				return Result{}, fmt.Errorf("name is not a pattern of names: %w", err)
			}
			root, in, err := openFile(env, in)
			if err != nil {
				return Result{}, err
			}
			defer func() { _ = root.Close() }()
			g := grep{re: re, only: only, root: root}
			if err := g.walk(ctx, in); err != nil {
				return Result{}, err
			}
			if g.found == 0 {
				return Text("No line matches."), nil
			}
			return Text(g.out.String()), nil
		},
	}
}

type grep struct {
	re    *regexp.Regexp
	only  string
	root  *os.Root
	out   strings.Builder
	found int
}

func (g *grep) walk(ctx context.Context, in string) error {
	looked := 0
	err := fs.WalkDir(g.root.FS(), filepath.ToSlash(in), func(name string, d fs.DirEntry, err error) error {
		looked++
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && name == filepath.ToSlash(in):
			return unread(name, err)
		case err != nil:
			return nil //nolint:nilerr // what cannot be read, or has gone, is passed over
		case looked > maxLooked:
			return fmt.Errorf("there are more than %d files; search a folder of them", maxLooked)
		case d.IsDir() && name != in && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		if ok, _ := path.Match(g.only, d.Name()); g.only != "" && !ok {
			return nil
		}
		data, err := readFile(g.root, name)
		if err != nil || binary(oddBytes(data), int64(len(data))) {
			return nil //nolint:nilerr // as above
		}
		return g.file(name, data)
	})
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

// file looks for lines in a file.
func (g *grep) file(name string, data []byte) error {
	in := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if line != "" && g.re.MatchString(strings.TrimRight(line, "\r\n")) {
			if g.found++; g.found > maxMatches {
				fmt.Fprintf(&g.out, "[more lines match; narrow the search]\n")
				return fs.SkipAll
			}
			fmt.Fprintf(&g.out, "%s:%d: %s\n", name, n, upTo(strings.TrimRight(line, "\r\n"), maxShown))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
	}
}

// openFile opens the workspace as a root that nothing leaves, and gives the path
// relative to it.
func openFile(env executor.Env, name string) (*os.Root, string, error) {
	rel := filepath.Clean(name)
	if filepath.IsAbs(rel) {
		if r, err := filepath.Rel(env.Workspace, rel); err == nil {
			rel = r
		}
	}
	if name == "" || strings.ContainsRune(name, 0) || !filepath.IsLocal(rel) {
		return nil, "", fmt.Errorf("%q is not a path within the workspace", name)
	}
	var root *os.Root
	err := env.MakeWorkspace()
	if err == nil {
		root, err = os.OpenRoot(env.Workspace)
	}
	if err != nil {
		return nil, "", errors.New("the run's workspace cannot be opened")
	}
	return root, filepath.ToSlash(rel), nil
}

// readFile reads a regular file of at most maxEdited bytes. It cannot hang on a
// pipe that lies in the workspace.
func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, unread(name, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, unread(name, err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEdited+1))
	switch {
	case err != nil:
		return nil, unread(name, err)
	case len(data) > maxEdited:
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxEdited>>20)
	}
	return data, nil
}

func unread(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no file %s in the workspace", name)
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("%s cannot be read: %w", name, err)
}
