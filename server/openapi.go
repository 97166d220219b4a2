package server

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// openAPI describes the REST interface; scripts/openapi makes it.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the client may be gone
}

// serveDocs shows the same as one page for people, without scripts.
func (s *Server) serveDocs(w http.ResponseWriter, _ *http.Request) {
	page, err := docsPage()
	if err != nil {
		panic(err) // the embedded document is broken
	}
	sum := sha256.Sum256([]byte(docsStyle))
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}

const docsStyle = `:root{color-scheme:light dark}
body{overflow-wrap:anywhere;font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1a1d23}
a{color:#1a5dd0}code{font:14px ui-monospace,monospace;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0;overflow-wrap:anywhere}
section{border-top:1px solid #8888;margin-top:1rem}h3 code{font-size:1rem}
@media(prefers-color-scheme:dark){body{background:#101317;color:#e7eaef}a{color:#78a9ff}}
@media(max-width:40rem){thead{display:none}tr{display:block;padding:.3rem 0}td{display:inline}}`

var docsTemplate = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{.Title}} API</title><style>{{.Style}}</style></head><body><main>
<h1>{{.Title}} API</h1><p>{{.Description}}</p>
<p>For programs: <a href="/openapi.json">openapi.json</a>. For people: <a href="/">the dashboard</a>.</p>
<nav aria-label="Parts"><ul>{{range .Groups}}<li><a href="#{{.Name}}">{{.Name}}</a></li>{{end}}<li><a href="#messages">Messages</a></li></ul></nav>
{{range .Groups}}<h2 id="{{.Name}}">{{.Name}}</h2>
{{range .Operations}}<section id="{{.ID}}"><h3><code>{{.Method}} {{.Path}}</code></h3>
<p>{{.Text}}</p>
{{if .Fields}}<table><thead><tr><th>Field</th><th>In</th><th>Type</th><th>Meaning</th></tr></thead><tbody>
{{range .Fields}}<tr><td><code>{{.Name}}</code></td><td>{{.In}}</td><td>{{.Type}}</td><td>{{.Text}}</td></tr>
{{end}}</tbody></table>{{end}}
<p>Answers {{.Answer}}.</p></section>
{{end}}{{end}}
<h2 id="messages">Messages</h2>
{{range .Messages}}<section id="{{.Name}}"><h3><code>{{.Name}}</code></h3><p>{{.Text}}</p>
<table><tbody>{{range .Fields}}<tr><td><code>{{.Name}}</code></td><td>{{.Type}}</td><td>{{.Text}}</td></tr>
{{end}}</tbody></table></section>
{{end}}</main></body></html>
`))

// docSchema is what the page needs of a schema.
type docSchema struct {
	Ref         string               `json:"$ref"`
	Type        json.RawMessage      `json:"type"`
	Format      string               `json:"format"`
	Description string               `json:"description"`
	Enum        []string             `json:"enum"`
	Items       *docSchema           `json:"items"`
	OneOf       []*docSchema         `json:"oneOf"`
	Properties  map[string]docSchema `json:"properties"`
}

type docContent map[string]struct {
	Schema docSchema `json:"schema"`
}

type docOperation struct {
	OperationID string   `json:"operationId"`
	Tags        []string `json:"tags"`
	Summary     string   `json:"summary"`
	Description string   `json:"description"`
	Parameters  []struct {
		Name        string    `json:"name"`
		In          string    `json:"in"`
		Description string    `json:"description"`
		Schema      docSchema `json:"schema"`
	} `json:"parameters"`
	RequestBody *struct {
		Content docContent `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Description string     `json:"description"`
		Content     docContent `json:"content"`
	} `json:"responses"`
}

type docField struct{ Name, In, Type, Text string }

type docEntry struct {
	ID, Method, Path, Text, Answer string
	Fields                         []docField
}

type docGroup struct {
	Name       string
	Operations []docEntry
}

type docMessage struct {
	Name, Text string
	Fields     []docField
}

// docsPage renders the page once.
var docsPage = sync.OnceValues(func() ([]byte, error) {
	var doc struct {
		Info       struct{ Title, Description string }
		Paths      map[string]map[string]docOperation
		Components struct{ Schemas map[string]docSchema }
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		return nil, fmt.Errorf("read openapi.json: %w", err)
	}
	groups := map[string]*docGroup{}
	for path, item := range doc.Paths {
		for method, op := range item {
			name := strings.Join(op.Tags, " ")
			if groups[name] == nil {
				groups[name] = &docGroup{Name: name}
			}
			groups[name].Operations = append(groups[name].Operations, op.entry(method, path))
		}
	}
	page := struct {
		Title, Description string
		Style              template.CSS
		Groups             []*docGroup
		Messages           []docMessage
	}{Title: doc.Info.Title, Description: doc.Info.Description, Style: docsStyle}
	for _, g := range groups {
		slices.SortFunc(g.Operations, func(a, b docEntry) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method)) })
		page.Groups = append(page.Groups, g)
	}
	slices.SortFunc(page.Groups, func(a, b *docGroup) int { return cmp.Compare(a.Name, b.Name) })
	for name, s := range doc.Components.Schemas {
		page.Messages = append(page.Messages, docMessage{Name: name, Text: s.Description, Fields: s.fields("")})
	}
	slices.SortFunc(page.Messages, func(a, b docMessage) int { return cmp.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	if err := docsTemplate.Execute(&out, page); err != nil {
		return nil, fmt.Errorf("render the API's page: %w", err)
	}
	return out.Bytes(), nil
})

func (op *docOperation) entry(method, path string) docEntry {
	e := docEntry{ID: op.OperationID, Method: strings.ToUpper(method), Path: path, Text: cmp.Or(op.Description, op.Summary), Answer: "nothing"}
	for _, p := range op.Parameters {
		e.Fields = append(e.Fields, docField{p.Name, p.In, p.Schema.name(), p.Description})
	}
	if op.RequestBody != nil {
		for _, c := range op.RequestBody.Content {
			e.Fields = append(e.Fields, c.Schema.fields("body")...)
		}
	}
	for kind, c := range op.Responses["200"].Content {
		e.Answer = c.Schema.name() + " as " + kind
	}
	if _, ok := op.Responses["101"]; ok {
		e.Answer = "Event, one per message"
	}
	return e
}

func (s *docSchema) fields(in string) []docField {
	var list []docField
	for name, p := range s.Properties {
		list = append(list, docField{name, in, p.name(), p.Description})
	}
	slices.SortFunc(list, func(a, b docField) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// name is a schema in a word or two.
func (s *docSchema) name() string {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case len(s.OneOf) > 0:
		names := make([]string, len(s.OneOf))
		for i, o := range s.OneOf {
			names[i] = o.name()
		}
		return strings.Join(names, " or ")
	case s.Items != nil:
		return "list of " + s.Items.name()
	case len(s.Enum) > 0:
		return strings.Join(s.Enum, ", ")
	case s.Format == "date-time":
		return "time"
	case len(s.Type) == 0:
		return "any JSON value"
	}
	return strings.Join(strings.FieldsFunc(string(s.Type), func(r rune) bool { return strings.ContainsRune(`[]", `, r) }), " or ")
}
