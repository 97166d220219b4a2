// Command openapi writes server/openapi.json: an OpenAPI 3.1 description of
// the REST interface as package wire and the gateway really speak it. What
// there is comes from the protos, their comments and proto/rest.yaml.
//
//	go run ./scripts/openapi
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func main() {
	root, err := moduleRoot()
	if err == nil {
		var doc []byte
		if doc, err = generate(context.Background(), root); err == nil {
			err = os.WriteFile(filepath.Join(root, "server", "openapi.json"), doc, 0o644) //nolint:gosec // a source file
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

// moduleRoot is the folder of go.mod at or above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod at or above the working directory")
		}
		dir = up
	}
}

// restRules is proto/rest.yaml.
type restRules struct {
	HTTP struct {
		Rules []rule `yaml:"rules"`
	} `yaml:"http"`
}

type rule struct {
	Selector string `yaml:"selector"`
	Get      string `yaml:"get"`
	Post     string `yaml:"post"`
	Put      string `yaml:"put"`
	Delete   string `yaml:"delete"`
	Patch    string `yaml:"patch"`
	Body     string `yaml:"body"`
}

func (r *rule) verb() (method, path string) {
	for method, path := range map[string]string{"get": r.Get, "post": r.Post, "put": r.Put, "delete": r.Delete, "patch": r.Patch} {
		if path != "" {
			return method, path
		}
	}
	return "", ""
}

// object is a JSON object.
type object = map[string]any

// generate returns the document for the module in root.
func generate(ctx context.Context, root string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools.mod", "buf", "build", "-o", "-#format=binpb")
	cmd.Dir = root
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	image, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("build the protos: %w: %s", err, complaint.String())
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(image, &set); err != nil {
		return nil, fmt.Errorf("read the built protos: %w", err)
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, fmt.Errorf("link the built protos: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(root, "proto", "rest.yaml")) //nolint:gosec // of this repository
	if err != nil {
		return nil, err
	}
	var rest restRules
	if err := yaml.Unmarshal(text, &rest); err != nil {
		return nil, fmt.Errorf("read rest.yaml: %w", err)
	}
	g := &generator{schemas: fixedSchemas(), paths: fixedPaths()}
	for i := range rest.HTTP.Rules {
		r := &rest.HTTP.Rules[i]
		d, err := files.FindDescriptorByName(protoreflect.FullName(r.Selector))
		if err != nil {
			return nil, fmt.Errorf("rest.yaml names %s: %w", r.Selector, err)
		}
		m, ok := d.(protoreflect.MethodDescriptor)
		if !ok {
			return nil, fmt.Errorf("rest.yaml: %s is not a method", r.Selector)
		}
		g.operation(r, m)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title":   "Orchestrator",
			"version": "v1",
			"description": "Runs AI pipelines durably. Field names are snake_case, every field of an answer is present, " +
				"absent objects are null, and unknown fields of a request are refused. " +
				"Changing requests need Content-Type: application/json.",
		},
		"paths":      g.paths,
		"components": object{"schemas": g.schemas, "responses": object{"Error": errorResponse()}},
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(doc); err != nil {
		return nil, fmt.Errorf("write the document: %w", err)
	}
	return out.Bytes(), nil
}

type generator struct {
	schemas, paths object
}

var pathParam = regexp.MustCompile(`\{([a-z_]+)\}`)

func (g *generator) operation(r *rule, m protoreflect.MethodDescriptor) {
	method, path := r.verb()
	in := m.Input()
	inPath := map[string]bool{}
	params := []any{}
	for _, match := range pathParam.FindAllStringSubmatch(path, -1) {
		inPath[match[1]] = true
		fd := in.Fields().ByName(protoreflect.Name(match[1]))
		params = append(params, object{"name": match[1], "in": "path", "required": true, "schema": g.field(fd, false), "description": comment(fd)})
	}
	op := object{
		"operationId": string(m.Name()),
		"tags":        []any{string(m.Parent().Name())},
		"summary":     firstSentence(comment(m)),
		"description": comment(m),
	}
	if r.Body == "" {
		for i := range in.Fields().Len() {
			fd := in.Fields().Get(i)
			if !inPath[string(fd.Name())] {
				params = append(params, object{"name": string(fd.Name()), "in": "query", "schema": g.field(fd, false), "description": comment(fd)})
			}
		}
	} else {
		op["requestBody"] = object{"content": object{"application/json": object{"schema": g.request(in, inPath)}}}
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	answer := object{"description": "The " + string(m.Output().Name()) + ".", "content": object{"application/json": object{"schema": g.ref(m.Output())}}}
	if m.IsStreamingServer() {
		g.ref(m.Output())
		answer = object{
			"description": "One " + string(m.Output().Name()) + " per line, sent as they happen. A line {\"error\": ...} may be the last.",
			"content": object{"application/x-ndjson": object{"schema": object{
				"oneOf": []any{g.ref(m.Output()), object{"$ref": "#/components/schemas/Error"}},
			}}},
		}
	}
	op["responses"] = object{"200": answer, "default": object{"$ref": "#/components/responses/Error"}}
	item, ok := g.paths[path].(object)
	if !ok {
		item = object{}
		g.paths[path] = item
	}
	item[method] = op
}

// ref names the schema of a message of answers and makes it if need be.
func (g *generator) ref(m protoreflect.MessageDescriptor) object {
	name := string(m.Name())
	ref := object{"$ref": "#/components/schemas/" + name}
	if g.schemas[name] != nil {
		return ref
	}
	s := object{"type": "object"}
	g.schemas[name] = s // before its fields, which may lead back here
	required, properties := []any{}, object{}
	for i := range m.Fields().Len() {
		fd := m.Fields().Get(i)
		required = append(required, string(fd.Name()))
		properties[string(fd.Name())] = described(g.field(fd, true), comment(fd))
	}
	s["properties"] = properties
	if len(required) > 0 {
		s["required"] = required
	}
	if c := comment(m); c != "" {
		s["description"] = c
	}
	return ref
}

// request is the schema of a body; what stands in the path is left out.
func (g *generator) request(m protoreflect.MessageDescriptor, inPath map[string]bool) object {
	properties := object{}
	for i := range m.Fields().Len() {
		fd := m.Fields().Get(i)
		if !inPath[string(fd.Name())] {
			properties[string(fd.Name())] = described(g.field(fd, false), comment(fd))
		}
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}
}

func described(schema object, text string) object {
	if text != "" {
		schema["description"] = text
	}
	return schema
}

// field is the schema of a field in package wire's form.
func (g *generator) field(fd protoreflect.FieldDescriptor, answer bool) object {
	switch {
	case fd.IsMap():
		return object{"type": "object", "additionalProperties": g.single(fd.MapValue(), answer)}
	case fd.IsList():
		return object{"type": "array", "items": g.single(fd, answer)}
	case fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Timestamp":
		return object{"type": []any{"string", "null"}, "format": "date-time"}
	case fd.Message() != nil:
		return object{"oneOf": []any{g.ref(fd.Message()), object{"type": "null"}}}
	}
	return g.single(fd, answer)
}

func (g *generator) single(fd protoreflect.FieldDescriptor, answer bool) object {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return object{"type": "boolean"}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return object{"type": "integer", "format": "int32"}
	case protoreflect.DoubleKind:
		if answer {
			return object{"type": []any{"number", "null"}, "format": "double"}
		}
		return object{"type": "number", "format": "double"}
	case protoreflect.EnumKind:
		words := []any{}
		for i := range fd.Enum().Values().Len() {
			words = append(words, string(fd.Enum().Values().Get(i).Name()))
		}
		return object{"type": "string", "enum": words}
	case protoreflect.MessageKind:
		return g.ref(fd.Message())
	default:
		if isJSON(fd) {
			return object{} // any JSON value, null when there is none
		}
		return object{"type": "string"}
	}
}

func isJSON(fd protoreflect.FieldDescriptor) bool {
	o, ok := fd.Options().(*descriptorpb.FieldOptions)
	if !ok || o == nil {
		return false
	}
	v, ok := proto.GetExtension(o, orchestratorv1.E_Json).(bool)
	return ok && v
}

// comment is the text above a declaration, as paragraphs on one line each.
func comment(d protoreflect.Descriptor) string {
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	return strings.Join(strings.Fields(text), " ")
}

func firstSentence(s string) string {
	if i := strings.IndexAny(s, ".;"); i >= 0 {
		return s[:i+1]
	}
	return s
}
