package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxTools       = 1000     // of a server; more are not looked at
	maxPages       = 100      // of a list
	maxSchema      = 64 << 10 // bytes of a tool's schema
	maxDescription = 8 << 10  // bytes
	maxRemoteName  = 200      // bytes of a tool's own name
	maxRefusals    = 50       // that are told
)

// readResource is the name of the tool by which a server's resources are read.
const readResource = "read_resource"

// listing is what a server offers.
type listing struct {
	tools   []*listed
	refused map[string]string // tools that cannot be used, and why
}

// listed is a tool as a server has described it.
type listed struct {
	remote      string
	description string
	schema      map[string]any
	args        *model.Schema // of schema
	output      *model.Schema // nil: it says nothing of its results
	effect      pipeline.Effect
	resources   bool // it is ours: it reads resources
}

// list asks a server what it offers.
func (s *session) list(ctx context.Context, client *sdk.ClientSession) (listing, error) {
	found := listing{refused: map[string]string{}}
	caps := &sdk.ServerCapabilities{}
	if init := client.InitializeResult(); init != nil && init.Capabilities != nil {
		caps = init.Capabilities
	}
	seen, names := map[string]bool{}, map[string]bool{}
	add := func(t *listed) {
		name := Name(s.server.Name, t.remote)
		switch {
		case seen[t.remote]:
			found.refuse(t.remote, "it is listed twice; the first one counts")
		case names[name]:
			found.refuse(t.remote, "another tool goes by the name "+name)
		default:
			seen[t.remote], names[name] = true, true
			found.tools = append(found.tools, t)
		}
	}
	if caps.Tools != nil {
		params := &sdk.ListToolsParams{}
		for page := 0; ; page++ {
			r, err := client.ListTools(ctx, params)
			if err != nil {
				return found, fmt.Errorf("its tools cannot be listed: %w", err)
			}
			for _, t := range r.Tools {
				if len(found.tools) >= maxTools {
					found.refuse("beyond the first "+fmt.Sprint(maxTools), "there are too many")
					return found, nil
				}
				l, why := read(t)
				if why != "" {
					found.refuse(shown(t.Name), why)
					continue
				}
				add(l)
			}
			if r.NextCursor == "" {
				break
			}
			if page+1 >= maxPages {
				return found, fmt.Errorf("its list of tools has more than %d pages", maxPages)
			}
			params = &sdk.ListToolsParams{Cursor: r.NextCursor}
		}
	}
	if caps.Resources != nil && !seen[readResource] {
		add(&listed{
			remote: readResource, resources: true, effect: pipeline.EffectIdempotent,
			description: "Reads a resource of the server " + s.server.Name + " by its uri; without one, lists the resources that there are.",
			schema: map[string]any{
				"type": "object", "additionalProperties": false,
				"properties": map[string]any{"uri": map[string]any{"type": "string", "description": "as it is listed"}},
			},
		})
	}
	return found, nil
}

func (l *listing) refuse(name, why string) {
	if len(l.refused) < maxRefusals {
		l.refused[name] = why
	}
}

// shown is a server's text as it can be shown.
func shown(s string) string {
	if len(s) > maxRemoteName {
		s = s[:maxRemoteName] + "..."
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// read takes over a tool, or says why it cannot be used.
func read(t *sdk.Tool) (l *listed, why string) {
	switch {
	case t.Name == "":
		return nil, "it has no name"
	case len(t.Name) > maxRemoteName:
		return nil, fmt.Sprintf("its name has more than %d bytes", maxRemoteName)
	case !utf8.ValidString(t.Name) || shown(t.Name) != t.Name:
		return nil, "its name holds characters that cannot be shown"
	}
	l = &listed{remote: t.Name, description: t.Description, effect: pipeline.EffectAtMostOnce}
	if l.description == "" {
		l.description = t.Title
	}
	if len(l.description) > maxDescription {
		l.description = strings.ToValidUTF8(l.description[:maxDescription], "") + " ..."
	}
	if l.schema, why = schema(t.InputSchema); why != "" {
		return nil, "the schema of its arguments " + why
	}
	if typ, given := l.schema["type"]; !given {
		l.schema["type"] = "object"
	} else if typ != "object" {
		return nil, "the schema of its arguments is not one of an object"
	}
	var err error
	if l.args, err = model.Compile(l.schema); err != nil {
		return nil, "the schema of its arguments is not a JSON Schema that can be used: " + reason(err)
	}
	if t.OutputSchema != nil {
		out, why := schema(t.OutputSchema)
		if why != "" {
			return nil, "the schema of its results " + why
		}
		if l.output, err = model.Compile(out); err != nil {
			return nil, "the schema of its results is not a JSON Schema that can be used: " + reason(err)
		}
	}
	if a := t.Annotations; a != nil {
		if a.ReadOnlyHint || a.IdempotentHint {
			l.effect = pipeline.EffectIdempotent
		}
	}
	return l, ""
}

// arguments says how arguments violate the tool's schema, or nothing.
func (l *listed) arguments(args map[string]any) string {
	if l.args == nil {
		return ""
	}
	return violations(l.args, any(args))
}

// violations says how a value that is no model's answer violates a schema.
func violations(s *model.Schema, v any) string {
	wrong := s.Violations(v)
	for i := range wrong {
		wrong[i] = strings.TrimPrefix(wrong[i], "the answer: ")
	}
	return strings.Join(wrong, "; ")
}

func reason(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 && len(text) > 300 {
		text = text[i+2:]
	}
	return text[:min(len(text), 300)]
}

// schema is a JSON Schema as it came, as a value of ours; nil: none was given.
func schema(v any) (m map[string]any, why string) {
	if v == nil {
		return map[string]any{}, ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, "cannot be read"
	}
	if len(text) > maxSchema {
		return nil, fmt.Sprintf("has %d bytes, more than %d", len(text), maxSchema)
	}
	value, err := pipeline.DecodeValue(text)
	if err != nil {
		return nil, "cannot be read: " + err.Error()
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, "is no object"
	}
	return m, ""
}
