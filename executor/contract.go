package executor

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// Where a contract finds its result.
const (
	fromStdout = "stdout"
	fromJSON   = "json"
	fromFiles  = "files"
	fromModel  = "model"
)

// maxFile bounds a file that is a step's result, or is kept with the run, in bytes.
const maxFile = store.MaxBlob

// reasonContract is the reason of a result that is not what was promised.
const reasonContract = "contract_violated"

// typed is a value with the type that it satisfies.
type typed struct {
	typ   *pipeline.Type
	value any
}

// broken is the failure of a result that violates its contract.
func broken(what string, wrong []spec.Violation) *pipeline.Failure {
	return &pipeline.Failure{Kind: pipeline.CategoryContract, Reason: reasonContract, Message: what + " is not as promised: " + listed(wrong)}
}

// listed writes violations one after the other.
func listed(wrong []spec.Violation) string {
	parts := make([]string, len(wrong))
	for i := range wrong {
		at := wrong[i].Path
		if at == "" {
			at = "it"
		}
		parts[i] = at + " " + wrong[i].Text
	}
	return strings.Join(parts, "; ")
}

// result finds the result of an attempt that has succeeded and holds it against
// what the step promises.
func (j *job) result(given any) (any, *pipeline.Failure) {
	v := given
	if c := j.task.Def.Returns; c != nil {
		var fail *pipeline.Failure
		if v, fail = j.found(c, given); fail != nil {
			return given, fail
		}
	}
	return j.checked(v)
}

// promised are the types that the result satisfies.
func (j *job) promised() []*pipeline.Type {
	if c := j.task.Def.Returns; c != nil {
		return append(slices.Clip(j.work.gives), &c.Type)
	}
	return j.work.gives
}

// checked holds a result against what the step promises. Paths in it lie within
// the workspace and lead nowhere else.
func (j *job) checked(v any) (any, *pipeline.Failure) {
	for _, t := range j.promised() {
		out, wrong := spec.Conform(atLeast(t), v)
		if wrong == nil {
			wrong = checkPaths(j.env.Workspace, t, out)
		}
		if wrong != nil {
			return v, broken("the result", wrong)
		}
		v = out
	}
	return v, nil
}

// atLeast is the type of results that hold what t names: programs may tell more
// than was asked for. The cases of a union are exact, as that tells them apart.
func atLeast(t *pipeline.Type) *pipeline.Type {
	if t.Kind != "map" || t.Additional {
		return t
	}
	open := *t
	open.Additional = true
	return &open
}

// found is what a contract looks at.
func (j *job) found(c *pipeline.Contract, given any) (any, *pipeline.Failure) {
	switch c.From {
	case fromJSON:
		return readResult(j.env.Workspace, j.work.file)
	case fromFiles:
		return filesOf(j.env.Workspace, &c.Type)
	}
	text, ok := given.(string)
	if !ok {
		return given, nil
	}
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return nil, &pipeline.Failure{
			Kind: pipeline.CategoryContract, Reason: reasonContract,
			Message: "the result is not as promised: it must be one JSON value: " + err.Error() + "; it begins " + strconv.Quote(beginning(j.work.redact.text(text), 80)),
		}
	}
	return v, nil
}

// beginning shortens a text for a message.
func beginning(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// readResult reads a file of JSON in the workspace.
func readResult(dir, name string) (any, *pipeline.Failure) {
	refuse := func(text string) (any, *pipeline.Failure) {
		return nil, &pipeline.Failure{Kind: pipeline.CategoryContract, Reason: reasonContract, Message: "the result is not as promised: " + text}
	}
	data, err := readWithin(dir, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("there is no file " + name)
	case err != nil:
		return refuse(err.Error())
	}
	v, err := pipeline.DecodeValue(data)
	if err != nil {
		return refuse(name + " does not hold one JSON value: " + err.Error())
	}
	return v, nil
}

// tooLarge is the error of a file beyond maxFile, by its name.
type tooLarge string

func (t tooLarge) Error() string {
	return string(t) + " is larger than " + strconv.Itoa(maxFile>>20) + " MiB"
}

// readWithin reads a file that lies within a folder, also by where its links lead.
func readWithin(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name = path.Clean(name)
	info, err := root.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New(name + " is not a file")
	case info.Size() > maxFile:
		return nil, tooLarge(name)
	}
	return root.ReadFile(name)
}

// filesOf makes a result of files: a field that is a path is the one file in its
// folder that is called like the field, with any ending; a list of paths is all
// files below its folder.
func filesOf(dir string, t *pipeline.Type) (any, *pipeline.Failure) {
	if t.Kind != "map" {
		return nil, pipeline.Failuref(pipeline.CategoryContract, "a result that is found as files has fields, not cases")
	}
	v := map[string]any{}
	for i := range t.Properties {
		p := &t.Properties[i]
		pattern, many, of := p.Name, false, &p.Type
		if of.Kind == "list" && of.Items != nil {
			pattern, many, of = "**", true, of.Items
		}
		if of.Kind != "path" && of.Kind != "file" {
			return nil, pipeline.Failuref(pipeline.CategoryContract, "%s is %s; what is found as files is a path, or a list of paths", p.Name, spec.TypeText(&p.Type))
		}
		files, fail := listFor(dir, path.Join(of.Under, pattern))
		if fail == nil && !many {
			var others []string
			others, fail = listFor(dir, path.Join(of.Under, pattern+".*"))
			files = append(files, others...)
		}
		switch {
		case fail != nil:
			return nil, fail
		case many:
			v[p.Name] = anyList(files)
		case len(files) > 1:
			return nil, &pipeline.Failure{
				Kind: pipeline.CategoryContract, Reason: reasonContract,
				Message: "the result is not as promised: " + p.Name + " could be any of " + strings.Join(files, ", "),
			}
		case len(files) == 1:
			v[p.Name] = files[0]
		}
	}
	return v, nil
}

// checkPaths looks for the paths in a value: one must exist where its type says
// so, and whatever is there must lie within the folder.
func checkPaths(dir string, t *pipeline.Type, v any) []spec.Violation {
	var wrong []spec.Violation
	eachPath(t, v, "", func(t *pipeline.Type, name, at string) {
		root, err := os.OpenRoot(dir)
		if err == nil {
			_, err = root.Stat(path.Clean(name))
			_ = root.Close()
		}
		switch {
		case err == nil:
		case errors.Is(err, fs.ErrNotExist):
			if t.MustExist {
				wrong = append(wrong, spec.Violation{Path: at, Text: "must name something that exists, not " + name})
			}
		default:
			wrong = append(wrong, spec.Violation{Path: at, Text: "must be a path within the workspace, not " + name, Escapes: true})
		}
	})
	return wrong
}

// eachPath calls f for every path in a value that conforms to the type.
func eachPath(t *pipeline.Type, v any, at string, f func(t *pipeline.Type, name, at string)) {
	switch t.Kind {
	case "path":
		if s, ok := v.(string); ok {
			f(t, s, at)
		}
	case "list":
		list, _ := v.([]any)
		for i := range list {
			if t.Items != nil {
				eachPath(t.Items, list[i], at+"["+strconv.Itoa(i)+"]", f)
			}
		}
	case "map":
		eachField(t.Properties, v, at, f)
	case "union":
		m, _ := v.(map[string]any)
		for i := range t.Cases {
			if m[t.By] == t.Cases[i].Tag {
				eachField(t.Cases[i].Fields, v, at, f)
			}
		}
	}
}

func eachField(ps []pipeline.Property, v any, at string, f func(t *pipeline.Type, name, at string)) {
	m, _ := v.(map[string]any)
	for i := range ps {
		name := ps[i].Name
		if at != "" {
			name = at + "." + name
		}
		eachPath(&ps[i].Type, m[ps[i].Name], name, f)
	}
}
