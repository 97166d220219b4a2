package spec

import (
	"path"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Need is a file, or files, that a source names and that travel with it.
type Need struct {
	Kind string // import, prompt, skill, model or glob
	Name string // a path or pattern relative to the source's folder; of a skill its name
	Pos  pipeline.Pos
}

// The kinds of Need.
const (
	NeedImport = "import"
	NeedPrompt = "prompt"
	NeedSkill  = "skill"
	NeedModel  = "model" // the answers of a script or cassette
	NeedGlob   = "glob"
)

// Needs lists what one source needs of its folder, each once, in the order of
// the file. It makes do with sources that Compile refuses; paths that leave the
// folder are left out, as Compile reports them.
func Needs(source []byte) []Need {
	t, bad := newText("", string(source))
	if bad != nil {
		return nil
	}
	n := loadTagged(t, newFindings(t))
	if n == nil {
		return nil
	}
	r := needs{text: t, seen: map[Need]bool{}}
	r.document(n)
	return r.list
}

type needs struct {
	text *text
	list []Need
	seen map[Need]bool
}

func (r *needs) add(kind string, n *node) {
	if n.kind != scalar || n.text == "" || templated(n.text) || tagged(n.text) {
		return
	}
	need := Need{Kind: kind, Name: n.text}
	if kind != NeedSkill {
		if need.Name = strings.ReplaceAll(n.text, `\`, "/"); leaves(need.Name) {
			return
		}
	} else if !skillName.MatchString(n.text) {
		return
	}
	if !r.seen[need] {
		r.seen[need] = true
		need.Pos = r.text.pos(n.off)
		r.list = append(r.list, need)
	}
}

// leaves reports whether a path names something outside of its folder. One with
// ".." may still be within the bundle: that is for who knows where the source is.
func leaves(name string) bool { return path.IsAbs(name) }

func (r *needs) document(n *node) {
	if n.kind != mapping {
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		switch p.name {
		case "imports":
			for k := range p.value.pairs {
				r.add(NeedImport, p.value.pairs[k].value)
			}
		case "bundle":
			r.each(p.value, func(n *node) { r.add(NeedGlob, n) })
		case "actions":
			for k := range p.value.pairs {
				if file := p.value.pairs[k].value.get("prompt_file"); file != nil {
					r.add(NeedPrompt, file)
				}
			}
		case "agents":
			for k := range p.value.pairs {
				r.agent(p.value.pairs[k].value)
			}
		case "models":
			for k := range p.value.pairs {
				if file := p.value.pairs[k].value.get("file"); file != nil {
					r.add(NeedModel, file)
				}
			}
		case "steps", "finally":
			r.steps(p.value)
		}
	}
}

func (r *needs) agent(n *node) {
	if file := n.get("instructions_file"); file != nil {
		r.add(NeedPrompt, file)
	}
	if skills := n.get("skills"); skills != nil {
		r.each(skills, func(n *node) { r.add(NeedSkill, n) })
	}
}

func (r *needs) each(n *node, f func(*node)) {
	if n.kind == scalar {
		f(n)
	}
	for _, item := range n.items {
		f(item)
	}
}

// steps goes through steps and the blocks in them. Values that steps work with
// may have any keys and are passed over.
func (r *needs) steps(n *node) {
	for _, item := range n.items {
		r.steps(item)
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		switch p.name {
		case "skill":
			r.add(NeedSkill, p.value)
		case "prompt_file":
			r.add(NeedPrompt, p.value)
		case "pipeline":
			r.document(p.value)
		case "parameters", "with", "env", "state", "set", "metadata", "returns":
		default:
			r.steps(p.value)
		}
	}
}

// bundlePatterns checks the further files that travel with the pipeline.
func (c *compiler) bundlePatterns(n *node) {
	names, nodes := c.names(n, where{path: "bundle"})
	for i, name := range names {
		if _, ok := c.bundled(name); !ok {
			c.error(fault{code: "E0601", at: nodes[i].at, msg: name + " is not within the pipeline's folder", hint: "name files beside the pipeline or in a folder below"}, where{path: "bundle"})
		}
	}
}
