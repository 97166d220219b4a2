package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// maxFiles is how much of the files' content a prompt takes, in bytes.
const maxFiles = 256 << 10

// reasonNoFiles is the reason of a step whose required files are not there.
const reasonNoFiles = "files_missing"

// surround puts around a prompt what else the step is told: its files, the
// artifacts that it is handed, and what its result must be.
func (r *runState) surround(ev evaluation, t *pipeline.Task, w *work, prompt string, contract bool) (string, *pipeline.Failure) {
	def := t.Def
	parts := []string{prompt}
	if def.Files != nil {
		text, files, fail := ev.files(def.Files)
		if fail != nil {
			return "", fail
		}
		w.files = files
		if def.Files.Position == "before" {
			parts = []string{text, prompt}
		} else {
			parts = append(parts, text)
		}
	}
	for _, h := range w.handed {
		parts = append(parts, artifactText(&h))
	}
	if contract && def.Returns != nil {
		parts = append(parts, contractText(def.Returns, w.file))
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return strings.TrimSpace(s) == "" })
	return strings.Join(parts, "\n\n"), nil
}

// files are what a prompt says of files, and what is recorded of that: of each
// file its size and how much of it the prompt holds.
func (ev evaluation) files(f *pipeline.Files) (text string, recorded []any, fail *pipeline.Failure) {
	seen := map[string]bool{}
	gather := func(list []pipeline.Field, what string, must bool) *pipeline.Failure {
		for i := range list {
			at := fmt.Sprintf("files.%s[%d]", what, i)
			pattern, fail := ev.text(&list[i], at)
			if fail != nil {
				return fail
			}
			files, err := ev.listFiles(pattern)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return pipeline.Failuref(pipeline.CategoryValidation, "%s: %v", at, err)
			}
			if must && len(files) == 0 {
				return &pipeline.Failure{Kind: pipeline.CategoryContract, Reason: reasonNoFiles, Message: fmt.Sprintf("%s: no file is like %s", at, pattern)}
			}
			for _, name := range files {
				seen[strings.TrimPrefix(name, "./")] = true
			}
		}
		return nil
	}
	if fail := gather(f.Required, "required", true); fail != nil {
		return "", nil, fail
	}
	if fail := gather(f.Optional, "optional", false); fail != nil {
		return "", nil, fail
	}
	var b strings.Builder
	left := maxFiles
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if f.Mode == "list" {
			fmt.Fprintf(&b, "- %s\n", name)
			recorded = append(recorded, map[string]any{"path": name})
			continue
		}
		content, size, err := readPart(ev.dir, name, left)
		if err != nil {
			return "", nil, pipeline.Failuref(pipeline.CategorySystem, "files: read %s: %v", name, err)
		}
		note := ""
		switch {
		case !utf8.ValidString(content):
			content, note = "", fmt.Sprintf("(%d bytes that are no text)\n", size)
		case int64(len(content)) < size:
			note = fmt.Sprintf("(cut: %d of %d bytes)\n", len(content), size)
		}
		left -= len(content)
		entry := map[string]any{"path": name, "size": size, "included": int64(len(content))}
		recorded = append(recorded, entry)
		if content != "" && !strings.HasSuffix(content, "\n") {
			content += "\n"
		}
		fmt.Fprintf(&b, "### %s\n%s%s\n", name, content, note)
	}
	if b.Len() == 0 {
		return "", recorded, nil
	}
	return "## Files\n" + strings.TrimRight(b.String(), "\n"), recorded, nil
}

// readPart reads the first n bytes of a file of the workspace, without a part of
// a character at the end.
func readPart(dir, name string, n int) (content string, size int64, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = root.Close() }()
	f, err := root.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	buf := make([]byte, min(int64(n), info.Size()))
	read, err := f.ReadAt(buf, 0)
	if read < len(buf) {
		return "", 0, err
	}
	for i := 1; i <= min(len(buf), utf8.UTFMax-1) && int64(len(buf)) < info.Size(); i++ {
		if c := buf[len(buf)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(buf[len(buf)-i:]) {
				buf = buf[:len(buf)-i]
			}
			break
		}
	}
	return string(buf), info.Size(), nil
}

// artifactText is an artifact in a prompt.
func artifactText(h *handed) string {
	head := fmt.Sprintf("## Artifact %s, version %d, by %s\n", h.version.Artifact, h.version.Version, h.version.Producer)
	switch {
	case h.whole:
		return head + strings.TrimRight(h.content, "\n")
	case h.version.Blob != "":
		return head + "The file " + word(h.version.Value)
	}
	return head + word(h.version.Value)
}

// contractText tells in a prompt what the result must be.
func contractText(c *pipeline.Contract, file string) string {
	var b strings.Builder
	b.WriteString("## Result\n")
	switch c.From {
	case fromJSON:
		fmt.Fprintf(&b, "Write the result as one JSON object to the file %s:\n", file)
	case fromFiles:
		b.WriteString("Leave these files:\n")
	default:
		b.WriteString("Answer with one JSON object and nothing else:\n")
	}
	if c.Type.Kind == "union" {
		for i := range c.Type.Cases {
			one := &c.Type.Cases[i]
			fmt.Fprintf(&b, "- where %s is %q:\n", c.Type.By, one.Tag)
			fieldsText(&b, one.Fields, "  ")
		}
	} else {
		fieldsText(&b, c.Type.Properties, "")
	}
	return strings.TrimRight(b.String(), "\n")
}

func fieldsText(b *strings.Builder, ps []pipeline.Property, indent string) {
	for i := range ps {
		p := &ps[i]
		fmt.Fprintf(b, "%s- %s: %s", indent, p.Name, spec.TypeText(&p.Type))
		if p.Type.MustExist {
			b.WriteString(", of a file that exists")
		}
		if !p.Required {
			b.WriteString(", may be left out")
		}
		if doc := p.Doc; doc != "" {
			b.WriteString("; " + doc)
		} else if p.Type.Description != "" {
			b.WriteString("; " + p.Type.Description)
		}
		b.WriteByte('\n')
	}
}
