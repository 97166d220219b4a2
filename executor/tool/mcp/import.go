package mcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Imported is what a file mcp.json comes to as a part of a pipeline.
type Imported struct {
	YAML    string   // the blocks secrets and mcp_servers
	Servers []string // names of the servers, in order
	Secrets []string // names of the secrets that the pipeline needs now
	Notes   []string // what is different, or left out
}

// entry is a server in the form that clients share.
type entry struct {
	Type     string            `json:"type"`
	Command  string            `json:"command"`
	Args     []string          `json:"args"`
	Env      map[string]string `json:"env"`
	URL      string            `json:"url"`
	Headers  map[string]string `json:"headers"`
	Disabled bool              `json:"disabled"`

	// In an installation's file alone.
	OAuth   json.RawMessage `json:"oauth"`
	Sandbox bool            `json:"sandbox"`
	way     way
	Allow   []string `json:"allow"`
	Deny    []string `json:"deny"`
}

var (
	placeholder = regexp.MustCompile(`\$\{(?:env:|input:)?([A-Za-z_][A-Za-z0-9_-]*)(?::-([^}]*))?\}`)
	looksSecret = regexp.MustCompile(`(?i)key|token|secret|passw|credential|auth`)
	notInNames  = regexp.MustCompile(`[^A-Za-z0-9_-]+`)
)

// Import makes the mcp_servers block of a pipeline of a file mcp.json:
// {"mcpServers": {NAME: {command, args, env, url, type, headers}}}. What the file
// takes from its user's environment, as ${NAME}, and values that look like secrets
// become secrets of the pipeline; their values are not taken over.
func Import(text []byte) (*Imported, error) {
	var file struct {
		Servers map[string]entry `json:"mcpServers"`
		Other   map[string]entry `json:"servers"` // as some clients call it
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("it is no mcp.json: %w", err)
	}
	if file.Servers == nil {
		file.Servers = file.Other
	}
	if len(file.Servers) == 0 {
		return nil, fmt.Errorf(`it names no servers; it is to be as {"mcpServers": {"files": {"command": "npx", "args": [...]}}}`)
	}
	x := &importer{out: &Imported{}}
	for _, name := range slices.Sorted(maps.Keys(file.Servers)) {
		x.server(name, file.Servers[name])
	}
	if len(x.out.Secrets) > 0 {
		slices.Sort(x.out.Secrets)
		x.out.Secrets = slices.Compact(x.out.Secrets)
		x.out.YAML = "secrets: [" + strings.Join(x.out.Secrets, ", ") + "]\n"
	}
	x.out.YAML += "mcp_servers:\n" + x.body.String()
	return x.out, nil
}

type importer struct {
	out  *Imported
	body strings.Builder
}

func (x *importer) note(format string, args ...any) {
	x.out.Notes = append(x.out.Notes, fmt.Sprintf(format, args...))
}

func (x *importer) server(given string, e entry) {
	name := strings.Trim(notInNames.ReplaceAllString(given, "-"), "-_")
	for strings.Contains(name, "__") {
		name = strings.ReplaceAll(name, "__", "_")
	}
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "s" + name
	}
	name = strings.TrimRight(name[:min(len(name), 32)], "_-")
	switch {
	case e.Disabled:
		x.note("%s is left out: it is disabled", given)
		return
	case slices.Contains(x.out.Servers, name):
		x.note("%s is left out: another server is called %s", given, name)
		return
	case e.Command == "" && e.URL == "":
		x.note("%s is left out: it has neither a command nor a url", given)
		return
	case name != given:
		x.note("%s is called %s", given, name)
	}
	x.out.Servers = append(x.out.Servers, name)
	fmt.Fprintf(&x.body, "  %s:\n", name)
	if e.Command != "" {
		argv := []any{x.word(e.Command)}
		for _, a := range e.Args {
			argv = append(argv, x.word(a))
		}
		fmt.Fprintf(&x.body, "    command: %s\n", encoded(any(argv)))
		x.entries("env", e.Env)
		return
	}
	fmt.Fprintf(&x.body, "    url: %s\n", encoded(x.word(e.URL)))
	if e.Type == sse {
		x.body.WriteString("    transport: sse\n")
	}
	x.entries("headers", e.Headers)
}

// word is a text where no secrets may stand.
func (x *importer) word(text string) string {
	if placeholder.MatchString(text) {
		x.note("%q takes something from the environment, which commands and addresses cannot; it is an input now", shown(text))
		text = placeholder.ReplaceAllString(text, "\x00$1\x01")
	}
	text = literal(text)
	return strings.NewReplacer("\x00", "{{ inputs.", "\x01", " }}").Replace(text)
}

// literal is a text that means itself, as a template.
func literal(text string) string {
	return strings.NewReplacer("{{", "{{ '{{' }}", "{%", "{{ '{%' }}", "{#", "{{ '{#' }}").Replace(text)
}

func (x *importer) entries(key string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	out := make(map[string]any, len(m))
	for name, v := range m {
		switch {
		case placeholder.MatchString(v):
			for _, p := range placeholder.FindAllStringSubmatch(v, -1) {
				x.out.Secrets = append(x.out.Secrets, secretName(p[1]))
			}
			out[name] = placeholder.ReplaceAllStringFunc(literal(v), func(s string) string {
				return "{{ secrets." + secretName(placeholder.FindStringSubmatch(s)[1]) + " }}"
			})
		case looksSecret.MatchString(name) && v != "":
			secret := secretName(name)
			if key == "headers" {
				secret = secretName(x.out.Servers[len(x.out.Servers)-1] + "_" + name)
			}
			x.out.Secrets = append(x.out.Secrets, secret)
			out[name] = "{{ secrets." + secret + " }}"
			x.note("the value of %s is not taken over: it looks like a secret; set ORCHESTRATOR_SECRET_%s where the server runs", name, secret)
		default:
			out[name] = literal(v)
		}
	}
	fmt.Fprintf(&x.body, "    %s: %s\n", key, pipeline.EncodeValue(out))
}

func secretName(name string) string {
	return strings.ToUpper(strings.ReplaceAll(strings.Trim(notInNames.ReplaceAllString(name, "_"), "_-"), "-", "_"))
}
