package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// source is a pipeline's text as the verbs read it.
type source struct {
	file  string // its name in messages
	text  string
	files pipeline.Bundle // that travel with it

	about *api.Pipeline // once it was asked for
}

// readSource reads a pipeline from a file, or from standard input for "-", with
// the files that it names.
func (c *cli) readSource(name string) (*source, error) {
	src := &source{file: name}
	if name == "-" {
		src.file = "stdin.yaml"
		b, err := io.ReadAll(c.in)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		src.text = string(b)
	} else {
		b, err := readFile("pipeline", name)
		if err != nil {
			return nil, err
		}
		src.text = string(b)
	}
	var err error
	src.files, err = pack(src.file, src.text, c.skills())
	return src, err
}

// skills are the caller's own.
func (c *cli) skills() skill.Library { return skillsOf(c.home()) }

// describe asks for the description of a pipeline, once.
func (c *cli) describe(ctx context.Context, cl *client, src *source) (*api.Pipeline, error) {
	if src.about == nil {
		p, err := cl.pipelines.ExplainPipeline(ctx, &api.ExplainPipelineRequest{Source: src.text, File: src.file, Files: src.files})
		if err != nil {
			return nil, err
		}
		src.about = p
	}
	return src.about, nil
}

// line is a line of the source, or of a file that travels with it, by the name
// that messages have for it; from 1.
func (s *source) line(file string, n int) string {
	if file == s.file {
		return lineOf([]byte(s.text), n)
	}
	dir := path.Dir(strings.ReplaceAll(s.file, `\`, "/"))
	for name, data := range s.files {
		if path.Join(dir, name) == file {
			return lineOf(data, n)
		}
	}
	return ""
}

// lineOf is a line of a text, from 1.
func lineOf(b []byte, n int) string {
	if n < 1 {
		return ""
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	for ; n > 1; n-- {
		_, after, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return ""
		}
		b = after
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r")))
}

// readFile reads a file that the command line names.
func readFile(what, name string) ([]byte, error) {
	b, err := os.ReadFile(name) //nolint:gosec // the file that the caller named
	if err == nil {
		return b, nil
	}
	f := &failure{code: exitInvalid, what: fmt.Sprintf("cannot read the %s %s", what, name), why: cause(err)}
	if errors.Is(err, os.ErrNotExist) {
		f.fix = []string{"give the path of a file, or - for standard input"}
	}
	return nil, f
}

// cause is the innermost reason of a file error.
func cause(err error) string {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
