package mcp

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxResources is how many resources are listed to a model.
const maxResources = 200

// violated says how a result differs from what the tool promises, or nothing.
func (l *listed) violated(r *sdk.CallToolResult) string {
	if l.output == nil || r.IsError {
		return ""
	}
	if r.StructuredContent == nil {
		return "it promises structured content and gives none"
	}
	v, err := value(r.StructuredContent)
	if err != nil {
		return err.Error()
	}
	if wrong := violations(l.output, v); wrong != "" {
		return "its structured content violates its schema: " + wrong
	}
	return ""
}

// value is a decoded JSON value as one of ours.
func value(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return pipeline.DecodeValue(text)
}

// content is a result as a model sees it.
func content(r *sdk.CallToolResult) (tool.Result, error) {
	out := tool.Result{Failed: r.IsError}
	for _, c := range r.Content {
		out.Content = append(out.Content, block(c)...)
	}
	if r.StructuredContent != nil && !spoken(r) {
		v, err := value(r.StructuredContent)
		if err != nil {
			return tool.Result{}, failure(reasonResult, "the structured content cannot be read: %v", err)
		}
		out.Content = append(out.Content, model.Block{Kind: model.BlockText, Text: string(pipeline.EncodeValue(v))})
	}
	if len(out.Content) == 0 {
		out.Content = tool.Text("").Content
	}
	return out, nil
}

// spoken reports whether the structured content of a result stands in its texts
// too, as servers are asked to do.
func spoken(r *sdk.CallToolResult) bool {
	want, err := value(r.StructuredContent)
	if err != nil {
		return false
	}
	text := string(pipeline.EncodeValue(want))
	for _, c := range r.Content {
		if t, ok := c.(*sdk.TextContent); ok {
			if v, err := pipeline.DecodeValue([]byte(t.Text)); err == nil && string(pipeline.EncodeValue(v)) == text {
				return true
			}
		}
	}
	return false
}

// block is a piece of content.
func block(c sdk.Content) []model.Block {
	text := func(format string, args ...any) []model.Block {
		return []model.Block{{Kind: model.BlockText, Text: fmt.Sprintf(format, args...)}}
	}
	switch c := c.(type) {
	case *sdk.TextContent:
		return text("%s", c.Text)
	case *sdk.ImageContent:
		return []model.Block{media(c.MIMEType, "", c.Data)}
	case *sdk.AudioContent:
		return []model.Block{media(c.MIMEType, "", c.Data)}
	case *sdk.ResourceLink:
		about := ""
		if c.Description != "" {
			about = ": " + c.Description
		}
		return text("[resource %s (%s)%s]", c.URI, c.Name, about)
	case *sdk.EmbeddedResource:
		if c.Resource != nil {
			return embedded(c.Resource)
		}
	}
	return text("[content of a kind that is not known]")
}

func embedded(r *sdk.ResourceContents) []model.Block {
	if len(r.Blob) > 0 {
		return []model.Block{media(r.MIMEType, r.URI, r.Blob)}
	}
	return []model.Block{{Kind: model.BlockText, Text: "[resource " + r.URI + "]\n" + r.Text}}
}

// media is a file as a block of the kind that its type calls for.
func media(typ, name string, data []byte) model.Block {
	kind := model.BlockDocument
	switch major, _, _ := strings.Cut(typ, "/"); major {
	case "image":
		kind = model.BlockImage
	case "audio":
		kind = model.BlockAudio
	}
	if typ == "" {
		typ = "application/octet-stream"
	}
	return model.Block{Kind: kind, Media: &model.Media{Type: typ, Name: name, Data: data}}
}

// output is a result as a step gives it: the structured content, else the texts,
// else the content as it is.
func output(r *sdk.CallToolResult) (any, error) {
	if r.StructuredContent != nil {
		return value(r.StructuredContent)
	}
	var texts []string
	for _, c := range r.Content {
		t, ok := c.(*sdk.TextContent)
		if !ok {
			return value(r.Content)
		}
		texts = append(texts, t.Text)
	}
	return strings.Join(texts, "\n"), nil
}

// resource reads a resource, or lists them. v is what a step gives: the text of a
// resource that is one text, else its contents or the list as they came.
func (s *session) resource(ctx context.Context, set *Set, env executor.Env, c tool.Call) (out tool.Result, v any, err error) {
	uri, _ := c.Arguments["uri"].(string)
	err = s.do(ctx, set, env, c, pipeline.EffectIdempotent, func(ctx context.Context, client *sdk.ClientSession, _ *running) error {
		out, v = tool.Result{}, nil
		if uri == "" {
			r, err := client.ListResources(ctx, nil)
			if err != nil {
				return err
			}
			out = tool.Text(index(r))
			v, err = value(r.Resources)
			return err
		}
		r, err := client.ReadResource(ctx, &sdk.ReadResourceParams{Meta: meta(ctx, c), URI: uri})
		if err != nil {
			return err
		}
		for _, part := range r.Contents {
			if part != nil {
				out.Content = append(out.Content, embedded(part)...)
			}
		}
		if len(r.Contents) == 1 && r.Contents[0] != nil && len(r.Contents[0].Blob) == 0 {
			v = r.Contents[0].Text
			return nil
		}
		v, err = value(r.Contents)
		return err
	})
	return out, v, err
}

func index(r *sdk.ListResourcesResult) string {
	var b strings.Builder
	for i, x := range r.Resources {
		if x == nil {
			continue
		}
		if i == maxResources {
			fmt.Fprintf(&b, "and %d more\n", len(r.Resources)-i)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", x.URI, strings.TrimSpace(x.Name+" "+x.Description))
	}
	if r.NextCursor != "" {
		b.WriteString("and more\n")
	}
	if b.Len() == 0 {
		return "there are no resources"
	}
	return b.String()
}

func encoded(v any) string { return string(pipeline.EncodeValue(v)) }
