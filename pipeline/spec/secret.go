package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// secretRef checks a reference to a secret: it can stand in the environment of a
// step, and in parameters that are made for secrets.
func (c *compiler) secretRef(u *use, r *expr.Ref, first *expr.Segment) {
	x := fault{code: "E0211", at: c.at(u, r.Off, r.End), msg: "a secret cannot be used here"}
	if first == nil {
		x.msg = "secrets needs the name of one"
		x.hint = "as in secrets.TOKEN"
		c.error(x, u.where)
		return
	}
	if !u.takesSecrets() {
		x.at = c.at(u, r.Off, first.End)
		x.hint = fmt.Sprintf("secrets: [%s] in the step gives it to the program as the environment variable %s", first.Name, first.Name)
		if u.when == useTool || u.when == useGate || u.when == useServer {
			x.hint = "secrets can stand in env and in headers"
		} else if s := u.where.step; s != nil && s.spec != nil {
			x.hint = fmt.Sprintf("%s takes no secrets", s.spec.Name)
			if len(s.spec.Secret) > 0 {
				x.hint = fmt.Sprintf("%s takes them in %s", s.spec.Name, quoteList(s.spec.Secret))
			}
		}
		c.error(x, u.where)
		return
	}
	c.secretAt(c.at(u, first.Off, first.End), first.Name, u.where)
}

// secretNames reads the names of secrets that the pipeline declares.
func (c *compiler) secretNames(n *node, w where) []string {
	names, nodes := c.names(n, w)
	for i, name := range names {
		c.secretNamed(nodes[i], name, w)
	}
	return names
}

func (c *compiler) secretNamed(n *node, name string, w where) bool { return c.secretAt(n.at, name, w) }

// secretAt reports a secret that the pipeline does not declare.
func (c *compiler) secretAt(at span, name string, w where) bool {
	if c.secrets[name] {
		return true
	}
	x := fault{code: "E0201", at: at, msg: fmt.Sprintf("the pipeline declares no secret %q", name), hint: "list it in the pipeline's secrets"}
	if like := c.suggest(name, c.plan.Secrets); like != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", like)
	}
	c.error(x, w)
	return false
}

// takesSecrets reports whether a template may name secrets.
func (u *use) takesSecrets() bool {
	s := u.where.step
	if u.open || s == nil || u.when != useField {
		return u.open
	}
	if strings.HasPrefix(u.where.path, "env.") {
		return s.def.Kind.Work()
	}
	rest, ok := strings.CutPrefix(u.where.path, "parameters.")
	if i := strings.IndexAny(rest, ".["); i >= 0 {
		rest = rest[:i]
	}
	return ok && s.def.Kind == pipeline.KindAction && s.spec != nil && slices.Contains(s.spec.Secret, rest)
}
