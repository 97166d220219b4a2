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
		if s := u.where.step; s != nil && s.spec != nil {
			x.hint = fmt.Sprintf("%s takes no secrets", s.spec.Name)
			if len(s.spec.Secret) > 0 {
				x.hint = fmt.Sprintf("%s takes them in %s", s.spec.Name, quoteList(s.spec.Secret))
			}
		}
		c.error(x, u.where)
		return
	}
	if !c.secrets[first.Name] {
		x = fault{code: "E0201", at: c.at(u, first.Off, first.End), msg: fmt.Sprintf("the pipeline declares no secret %q", first.Name), hint: "list it in the pipeline's secrets"}
		if like := c.suggest(first.Name, c.plan.Secrets); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
		c.error(x, u.where)
	}
}

// takesSecrets reports whether a template may name secrets.
func (u *use) takesSecrets() bool {
	s := u.where.step
	if s == nil || u.when != useField {
		return false
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
