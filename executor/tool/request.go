package tool

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// request is an HTTP request of the pipeline's own as a tool. The action http
// sends it, with its rules.
func (s *source) request(w Want, def *pipeline.Tool) (Tool, error) {
	i := slices.IndexFunc(s.cfg.Actions, func(a executor.Action) bool { return a.Spec.Key == "http" })
	if i < 0 {
		return Tool{}, bad("agent %s: this server sends no requests", w.Agent.Name)
	}
	send, req := &s.cfg.Actions[i], def.HTTP
	method := req.Method
	if method == "" {
		method = "GET"
	}
	// RFC 9110, 9.2.2: which methods can be repeated.
	effect := pipeline.EffectIdempotent
	if method == "POST" || method == "PATCH" {
		effect = pipeline.EffectAtMostOnce
	}
	return Tool{
		Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: effect,
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			more := named(c.Arguments)
			to, fixed, err := address(w, &req.URL, c.Arguments)
			if err != nil {
				return Result{}, err
			}
			if !fixed {
				ctx = executor.PublicOnly(ctx, s.cfg.PrivateHosts)
			}
			params := map[string]any{"method": method, "url": to}
			if req.Body != nil {
				body, err := w.Text(req.Body, more)
				if err != nil {
					return Result{}, err
				}
				if _, ok := body.(string); ok {
					params["body"] = body
				} else if body != nil {
					params["json"] = body
				}
			}
			if len(req.Headers) > 0 {
				headers := map[string]any{}
				more["secrets"] = secrets{w.Secret}
				for i := range req.Headers {
					v, err := w.Text(&req.Headers[i].Value, more)
					if err != nil {
						return Result{}, err
					}
					headers[req.Headers[i].Name] = v
				}
				params["headers"] = headers
			}
			out, err := perform(ctx, send, env, params)
			return answered(out.Value), err
		},
	}, nil
}

// address is where a request goes. What the pipeline itself says of the host, no
// argument changes: what is sent there may be secret. fixed reports whether it says
// all of the host, or at least the domain that it is in.
func address(w Want, f *pipeline.Field, args map[string]any) (to string, fixed bool, err error) {
	with := func(stand func(any) any) (string, error) {
		own := make(map[string]any, len(args))
		for name, v := range args {
			own[name] = stand(v)
		}
		v, err := w.Text(f, named(own))
		return expr.Text(v), err
	}
	if to, err = with(func(v any) any { return v }); err != nil {
		return "", false, err
	}
	one, err := with(standIn("x1", 0))
	if err != nil {
		return to, false, nil //nolint:nilerr // it can be made of these arguments alone
	}
	other, err := with(standIn("y2", 0))
	if err != nil {
		return to, false, nil //nolint:nilerr // likewise
	}
	if !keepsHost(to, one, other) {
		return "", false, errors.New("with these arguments, the request would go to another host")
	}
	counted, err := with(standIn("x1", 1<<40))
	return to, err == nil && fixes(one, other) && fixes(one, counted), nil
}

// standIn puts other texts, and other whole numbers by adding to them, in the place
// of those that an argument holds.
func standIn(text string, more int64) func(any) any {
	var stand func(v any) any
	stand = func(v any) any {
		switch v := v.(type) {
		case string:
			return text
		case int64:
			return v + more
		case []any:
			list := make([]any, len(v))
			for i := range v {
				list[i] = stand(v[i])
			}
			return list
		case map[string]any:
			m := make(map[string]any, len(v))
			for k := range v {
				m[k] = stand(v[k])
			}
			return m
		}
		return v
	}
	return stand
}

// authority is the part of an address between :// and the path.
func authority(s string) (string, bool) {
	_, rest, ok := strings.Cut(s, "://")
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	return rest, ok
}

// fixes reports whether two addresses, made of one template with different
// arguments, have the same host, or at least the same domain of two names.
func fixes(one, other string) bool {
	host := func(s string) (string, bool) {
		a, ok := authority(s)
		a = a[strings.LastIndexByte(a, '@')+1:]
		if i := strings.LastIndexByte(a, ':'); i > strings.LastIndexByte(a, ']') {
			a = a[:i]
		}
		return a, ok
	}
	a, isOne := host(one)
	b, isOther := host(other)
	if !isOne || !isOther || a == "" || b == "" {
		return false
	}
	if a == b {
		return true
	}
	same := 0
	for same < min(len(a), len(b)) && a[len(a)-1-same] == b[len(b)-1-same] {
		same++
	}
	_, domain, whole := strings.Cut(a[len(a)-same:], ".")
	return whole && strings.Contains(domain, ".") && strings.Trim(domain, "0123456789.") != ""
}

var label = regexp.MustCompile("^[A-Za-z0-9-]+$")

// keepsHost reports whether an address has the host that its template says, of
// which one and other were made with other arguments.
func keepsHost(to, one, other string) bool {
	a, isOne := authority(one)
	b, isOther := authority(other)
	if !isOne || !isOther {
		return true // the whole address is an argument
	}
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	end := 0
	for end < min(len(a), len(b))-same && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	before, after := a[:same], a[len(a)-end:]
	scheme, _, _ := strings.Cut(one, "://")
	had, _, _ := strings.Cut(to, "://")
	host, ok := authority(to)
	switch {
	case !ok || scheme != had:
		return false
	case before == "" && after == "": // the whole host is an argument
		return true
	case a == b || after == "" && host == before: // no argument has a part in it
		return host == before
	case len(host) < len(before)+len(after) || !strings.HasPrefix(host, before) || !strings.HasSuffix(host, after):
		return false
	}
	middle := host[len(before) : len(host)-len(after)]
	if after == "" {
		_, err := strconv.ParseUint(middle, 10, 16)
		return strings.HasSuffix(before, ":") && err == nil
	}
	return label.MatchString(middle)
}

// answered is the answer to a request as a model reads it: its body.
func answered(v any) Result {
	m, _ := v.(map[string]any)
	if m == nil {
		return Result{}
	}
	if m["json"] != nil {
		return Value(m["json"])
	}
	body, _ := m["body"].(string)
	if m["encoding"] != "text" {
		kind := ""
		if h, _ := m["headers"].(map[string]any); h != nil {
			kind, _ = h["content-type"].(string)
		}
		return bytesShown(body, kind, "")
	}
	if body == "" {
		return Text("(an answer without a body)")
	}
	return Text(body)
}
