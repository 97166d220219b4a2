package mcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// entryKeys are what an installation's file may say of a server.
var entryKeys = []string{"type", "command", "args", "env", "url", "headers", "oauth", "disabled", "sandbox", "allow", "deny"}

// kinds are the words for transports in such files.
var kinds = map[string]string{"stdio": stdio, "http": streamable, "streamable-http": streamable, "streamableHttp": streamable, "sse": sse}

// fromPeople is what people would have to be asked for when the file is read.
var fromPeople = regexp.MustCompile(`\$\{input:[^}]*\}`)

// ReadInstalled reads the servers that every pipeline of an installation may name,
// from a file of the form that many programs share: {"mcpServers": {NAME: {command,
// args, env} or {url, type, headers}}}, and for each besides sandbox, allow and deny.
// ${NAME} and ${NAME:-otherwise} anywhere in its texts are variables, which env finds;
// a server that lacks one cannot be used, and says so when it is. Servers come in the
// order of their names. A fault names the file and the server.
func ReadInstalled(file string, text []byte, env func(name string) (string, bool)) (servers []Server, faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, file+": "+fmt.Sprintf(format, args...))
	}
	var all struct {
		Servers map[string]json.RawMessage `json:"mcpServers"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		fault("it is no mcp.json: %v", err)
		return nil, faults
	}
	if all.Servers == nil {
		fault(`it has no mcpServers; it is to be as {"mcpServers": {"files": {"command": "npx", "args": [...]}}}`)
	}
	for _, name := range slices.Sorted(maps.Keys(all.Servers)) {
		e, wrong := readEntry(name, all.Servers[name])
		for _, w := range wrong {
			fault("the server %q: %s", shown(name), w)
		}
		if len(wrong) == 0 && !e.Disabled {
			servers = append(servers, e.resolved(name, env))
		}
	}
	return servers, faults
}

// readEntry reads a server, and says what is wrong with it.
func readEntry(name string, text []byte) (e entry, wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(text, &keys); err != nil || keys == nil {
		say("it is to be an object with command or url")
		return e, wrong
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Contains(entryKeys, k) {
			say("there is no key %q; there are %s", shown(k), strings.Join(entryKeys, ", "))
		}
	}
	if err := json.Unmarshal(text, &e); err != nil {
		say("%v", err)
		return e, wrong
	}
	if !pipeline.MCPServerName(name) {
		say("that cannot be a server's name: letters, digits, _ and -, beginning with a letter, without __ and without _ at the end; at most 32")
	}
	kind, known := kinds[e.Type]
	switch {
	case e.Type != "" && !known:
		say("there is no type %q; there are stdio, http and sse", shown(e.Type))
	case e.Command == "" && e.URL == "":
		say("it has neither a command nor a url")
	case e.Command != "" && e.URL != "":
		say("it has a command and a url; it can be only one of them")
	case e.Command != "" && known && kind != stdio, e.URL != "" && kind == stdio:
		say("its type does not go with %s", map[bool]string{true: "a command", false: "a url"}[e.Command != ""])
	case e.Command != "" && len(e.Headers) > 0:
		say("headers mean nothing for a command")
	case e.URL != "" && (len(e.Args) > 0 || len(e.Env) > 0 || e.Sandbox):
		say("args, env and sandbox mean nothing for a url")
	}
	if e.OAuth != nil {
		wrong = append(wrong, e.readOAuth()...)
	}
	for _, p := range slices.Concat(e.Allow, e.Deny) {
		if _, err := path.Match(p, ""); err != nil {
			say("%q is not a pattern; * stands for any letters, as in read_*", p)
		}
	}
	if fromPeople.Match(bytes.TrimSpace(text)) {
		say("${input:...} asks people, which nobody can be; write ${NAME}, which is taken from the environment")
	}
	return e, wrong
}

// grants are the ways to a token: people log in, or the client's own secret does.
const grantPeople, grantClient = "authorization_code", "client_credentials"

// way is what an entry says of the way to a token.
type way struct {
	Grant        string `json:"grant"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

func (e *entry) readOAuth() (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf("oauth: "+format, args...)) }
	d := json.NewDecoder(bytes.NewReader(e.OAuth))
	d.DisallowUnknownFields()
	o := &e.way
	if err := d.Decode(o); err != nil {
		say("it is to be an object of grant, client_id, client_secret: %v", err)
		return wrong
	}
	switch {
	case e.Command != "":
		say("it means nothing for a command")
	case o.Grant != "" && o.Grant != grantPeople && o.Grant != grantClient:
		say("there is no grant %q; there are %s, where people log in, and %s", shown(o.Grant), grantPeople, grantClient)
	case o.Grant == grantClient && (o.ClientID == "" || o.ClientSecret == ""):
		say("%s needs client_id and client_secret", grantClient)
	case o.ClientSecret != "" && o.ClientID == "":
		say("client_secret needs client_id")
	case o.ClientSecret != "" && !placeholder.MatchString(o.ClientSecret):
		say("write client_secret as ${NAME}, which is taken from the environment")
	}
	for name := range e.Headers {
		if strings.EqualFold(name, "Authorization") {
			say("the header Authorization already says who calls")
		}
	}
	return wrong
}

// resolved is the server with the variables in place.
func (e *entry) resolved(name string, env func(string) (string, bool)) Server {
	s := Server{Name: name, installed: true, Transport: stdio, URL: "", Env: map[string]string{}, Headers: map[string]string{}, Allow: e.Allow, Deny: e.Deny}
	put := func(text string) string {
		return placeholder.ReplaceAllStringFunc(text, func(p string) string {
			part := placeholder.FindStringSubmatch(p)
			v, ok := env(part[1])
			if !ok || v == "" {
				if v = part[2]; v == "" && !strings.Contains(p, ":-") {
					s.lacking = append(s.lacking, part[1])
				}
				return v
			}
			if len(executor.Harmless([]string{part[1] + "=" + v})) == 0 {
				s.hidden = append(s.hidden, v)
			}
			return v
		})
	}
	entries := func(into, from map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(from)) {
			v := from[k]
			if into[k] = put(v); looksSecret.MatchString(k) {
				s.hidden = append(s.hidden, into[k])
				for word := range strings.FieldsSeq(into[k]) { // of "Bearer KEY"
					if len(word) >= 8 {
						s.hidden = append(s.hidden, word)
					}
				}
			}
		}
	}
	if e.Command != "" {
		s.Command = []string{put(e.Command)}
		for _, a := range e.Args {
			s.Command = append(s.Command, put(a))
		}
		if e.Sandbox {
			s.Sandbox = &pipeline.Sandbox{}
		}
		entries(s.Env, e.Env)
		return s
	}
	if s.Transport = kinds[e.Type]; s.Transport == "" {
		s.Transport = streamable
	}
	s.URL = put(e.URL)
	entries(s.Headers, e.Headers)
	if o := &e.way; e.OAuth != nil {
		s.OAuth = &OAuth{ClientID: put(o.ClientID), ClientSecret: put(o.ClientSecret), Credentials: o.Grant == grantClient}
	}
	return s
}

// complete is the failure of whoever wants an installed server that lacks something.
func (s *Server) complete() error {
	if len(s.lacking) == 0 {
		return nil
	}
	return pipeline.Failuref(pipeline.CategoryValidation,
		"the MCP server %s needs %s, which the mcp.json of the installation takes from the environment; set it where the server runs", s.Name, strings.Join(s.Lacking(), ", "))
}

// Lacking are the variables of the environment that an installed server needs and
// that are not set.
func (s *Server) Lacking() []string {
	list := slices.Sorted(slices.Values(s.lacking))
	return slices.Compact(list)
}

// Hidden are the values of a server that may be shown nowhere.
func (s *Server) Hidden() []string { return slices.Clone(s.hidden) }
