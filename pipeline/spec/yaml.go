package spec

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The limits of a document.
const (
	maxDepth    = 64
	maxExpanded = 1000 // nodes that aliases stand for
)

// node is a value of the document. Aliases are resolved, keys are unique
// texts, and every tag is one of YAML's core schema.
type node struct {
	kind  nodeKind
	style yaml.Style
	tag   string // explicit, else empty
	text  string // of scalars, decoded
	tags  []span // of scalars without quotes: the <AUTO> tags in the source from its beginning on
	off   int    // where the value begins, behind anchor and tag
	at    span   // what a message underlines
	items []*node
	pairs []pair
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	list
	mapping
)

// pair is a key of a mapping with its value.
type pair struct {
	name  string
	key   *node
	value *node
}

// get is the value of a key, or nil.
func (n *node) get(name string) *node {
	for i := range n.pairs {
		if n.pairs[i].name == name {
			return n.pairs[i].value
		}
	}
	return nil
}

// what names the kind of value for messages.
func (n *node) what() string {
	switch n.kind {
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	}
	v, f := n.value()
	if f != nil {
		return "a value"
	}
	switch v.(type) {
	case nil:
		return "nothing"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	}
	return "a text"
}

// quoted reports whether the scalar is a text by its style.
func (n *node) quoted() bool {
	return n.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

// isNull reports whether n stands for nothing.
func (n *node) isNull() bool {
	if n.kind != scalar {
		return false
	}
	v, f := n.value()
	return f == nil && v == nil
}

// loader turns the library's node tree into ours.
type loader struct {
	text     *text
	hidden   *shielded // nil: the library reads the text as it is
	found    *findings
	expanded int
	aliased  int  // depth of aliases that are being expanded
	alias    span // the outermost of them
	over     bool
	slab     []node
}

// load reads the one pipeline of the source, in which <AUTO> tags may hold
// anything. It returns nil after an error.
func load(t *text, found *findings) *node {
	errs := found.errs
	n := loadTagged(t, found)
	if found.errs > errs {
		return nil
	}
	return n
}

// loadTagged is load for readers that can do with what is left of a faulty source.
func loadTagged(t *text, found *findings) *node {
	hidden, bad := shield(t)
	if bad != nil {
		found.error(*bad)
		return nil
	}
	l := &loader{text: t, found: found, hidden: hidden}
	return l.document()
}

// loadData reads the one document of a source of values. It returns nil after
// an error.
func loadData(t *text, found *findings) *node {
	errs := found.errs
	l := &loader{text: t, found: found}
	n := l.document()
	if found.errs > errs {
		return nil
	}
	return n
}

func (l *loader) document() *node {
	src := l.text.src
	if l.hidden != nil {
		src = l.hidden.text.src
	}
	if strings.HasPrefix(src, "%YAML") { // the library knows only its own version
		src = "#" + src[1:]
	}
	docs, err := parseYAML(src)
	if err != nil {
		l.found.error(l.syntaxFault(err))
		return nil
	}
	if len(docs) == 0 || docs[0].Kind != yaml.DocumentNode || len(docs[0].Content) == 0 {
		l.found.error(fault{code: "E0103", msg: "the document is empty", hint: "a pipeline is a mapping with at least the key steps"})
		return nil
	}
	if len(docs) > 1 {
		off := l.offset(docs[1].Line, docs[1].Column)
		l.found.error(fault{code: "E0103", at: span{off, l.text.lineEnd(off)}, msg: "a second document begins here", hint: "one file holds one pipeline"})
		return nil
	}
	n := l.node(docs[0].Content[0], 0)
	if l.over {
		return nil
	}
	return n
}

// offset is where a line and column of the library's stand in the source.
func (l *loader) offset(ln, col int) int {
	if l.hidden != nil {
		return l.hidden.offset(ln, col)
	}
	return l.text.offset(ln, col)
}

// parseYAML returns the documents, at most two.
func parseYAML(src string) ([]*yaml.Node, error) {
	l, err := yaml.NewLoader(strings.NewReader(src))
	if err != nil {
		return nil, err
	}
	var docs []*yaml.Node
	for len(docs) < 2 {
		var n yaml.Node
		err := l.Load(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, &n)
	}
	return docs, nil
}

// syntaxFault places the library's error.
func (l *loader) syntaxFault(err error) fault {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		return fault{code: "E0101", msg: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	t := l.text
	// Marks are places of what the library read.
	place := func(ln, col int) (off, line int) {
		if ln < 1 {
			return 0, 0
		}
		off = l.offset(ln, col)
		line, _ = t.place(off)
		return off, line
	}
	off, ln := place(le.Mark.Line, le.Mark.Column)
	first, firstLine := place(le.ContextMark.Line, le.ContextMark.Column)
	f := fault{code: "E0101", msg: le.Message}
	if f.msg == "" {
		f.msg = "this is not YAML"
	}
	if le.ContextMsg != "" && !strings.HasSuffix(le.ContextMsg, "next token") {
		f.msg += ", " + le.ContextMsg
		if firstLine > 0 && firstLine != ln {
			f.msg += fmt.Sprintf(" that begins in line %d", firstLine)
		}
	}
	if l.hidden != nil {
		for _, o := range l.hidden.orphan {
			if at, _ := t.place(o); o <= off && at+1 >= ln { // the error is a result of it
				return fault{code: "E0105", at: span{o, o + len(tagOpen)}, msg: noTagEnd, hint: tagEndHint}
			}
		}
	}
	here := t.lineText(ln)
	if strings.TrimSpace(here) == "" && firstLine > 0 { // the end of the file says nothing
		off = first
		here = t.lineText(firstLine)
	}
	f.at = span{off, off + 1}
	braces := func(s string) bool {
		s = strings.TrimSpace(s)
		return strings.Contains(s, ": {{") || strings.HasPrefix(s, "- {{") || strings.Contains(s, ": {%")
	}
	switch {
	case strings.Contains(le.Message, "tab character") || strings.HasPrefix(here, "\t"):
		f.hint = "indent with spaces, not tabs"
	case braces(here) || braces(t.lineText(firstLine)):
		f.hint = `a value that begins with {{ must stand in quotes: "{{ name }}"`
	case strings.Contains(le.Message, "mapping values are not allowed"):
		f.hint = "a text that holds \": \" must stand in quotes"
	case strings.Contains(le.Message, "cannot start any token"):
		f.hint = "a text that begins with this character must stand in quotes"
	case strings.Contains(le.Message, "expected '-' indicator"):
		f.hint = "the items of one list begin in the same column"
	case strings.Contains(le.Message, "did not find expected key") && strings.Contains(le.ContextMsg, "block mapping"):
		f.hint = "the keys of one mapping begin in the same column"
	}
	return f
}

// stop reports a fault that refuses the whole document.
func (l *loader) stop(f fault) *node {
	if !l.over {
		l.found.error(f)
	}
	l.over = true
	return nil
}

func (l *loader) node(y *yaml.Node, depth int) *node {
	if l.over {
		return nil
	}
	if y.Kind == yaml.AliasNode {
		if l.aliased == 0 {
			off := l.offset(y.Line, y.Column)
			l.alias = span{off, off + 1 + len(y.Value)}
		}
		l.aliased++
		n := l.node(y.Alias, depth)
		l.aliased--
		return n
	}
	if l.aliased > 0 {
		if l.expanded++; l.expanded > maxExpanded {
			return l.stop(fault{code: "E0103", at: l.alias, msg: fmt.Sprintf("aliases stand for more than %d values", maxExpanded), hint: "write loops with for, not with anchors"})
		}
	}
	if depth > maxDepth {
		off := l.offset(y.Line, y.Column)
		at := span{off, off + 1}
		if l.aliased > 0 {
			at = l.alias
		}
		return l.stop(fault{code: "E0103", at: at, msg: fmt.Sprintf("values are nested deeper than %d", maxDepth)})
	}
	if len(l.slab) == 0 {
		l.slab = make([]node, 256)
	}
	n := &l.slab[0]
	l.slab = l.slab[1:]
	n.style = y.Style
	n.off = l.offset(y.Line, y.Column)
	if y.Anchor != "" || y.Style&yaml.TaggedStyle != 0 {
		n.off = skipProperties(l.text.src, n.off)
	}
	if y.Style&yaml.TaggedStyle != 0 {
		n.tag = y.Tag
		if f := checkTag(y); f != "" {
			l.found.error(fault{code: "E0101", at: span{n.off, l.text.lineEnd(n.off)}, msg: f})
		}
	}
	switch y.Kind {
	case yaml.ScalarNode:
		n.kind = scalar
		n.text = y.Value
		if l.hidden != nil {
			n.text = l.hidden.unveil(n.text)
			n.tags = l.hidden.from(n.off)
		}
		n.at = l.text.scalarSpan(n)
	case yaml.SequenceNode:
		n.kind = list
		n.items = make([]*node, 0, len(y.Content))
		for _, c := range y.Content {
			if item := l.node(c, depth+1); item != nil {
				n.items = append(n.items, item)
			}
		}
		n.at = l.text.collectionSpan(n)
	case yaml.MappingNode:
		n.kind = mapping
		l.mapping(n, y, depth)
		n.at = l.text.collectionSpan(n)
	default:
		return l.stop(fault{code: "E0101", at: span{n.off, n.off + 1}, msg: "this is not a value"})
	}
	return n
}

func (l *loader) mapping(n *node, y *yaml.Node, depth int) {
	n.pairs = make([]pair, 0, len(y.Content)/2)
	var seen map[string]*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k := y.Content[i]
		for k.Kind == yaml.AliasNode && k.Alias != nil {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			off := l.offset(k.Line, k.Column)
			f := fault{code: "E0104", at: span{off, l.text.lineEnd(off)}, msg: "a key must be a text"}
			if n.style&yaml.FlowStyle != 0 && k.Kind == yaml.MappingNode {
				f.at.off = n.off
				f.hint = `a value that begins with {{ must stand in quotes: "{{ name }}"`
			}
			l.found.error(f)
			continue
		}
		key := l.node(k, depth+1)
		value := l.node(y.Content[i+1], depth+1)
		if key == nil || value == nil {
			continue
		}
		if key.text == "<<" && !key.quoted() {
			l.found.error(fault{code: "E0110", at: key.at, msg: "merge keys (<<) are not part of the language", hint: "repeat the keys, or use an alias for the whole value"})
			continue
		}
		first := (*node)(nil)
		if len(y.Content) <= 16 { // few keys: a scan is cheaper than a map
			for j := range n.pairs {
				if n.pairs[j].name == key.text {
					first = n.pairs[j].key
					break
				}
			}
		} else {
			if seen == nil {
				seen = make(map[string]*node, len(y.Content)/2)
			}
			first = seen[key.text]
		}
		if first != nil {
			l.found.error(fault{code: "E0102", at: key.at, msg: fmt.Sprintf("key %q stands twice in this mapping", key.text)}, l.found.related(first.off, "first here"))
			continue
		}
		if seen != nil {
			seen[key.text] = key
		}
		n.pairs = append(n.pairs, pair{key.text, key, value})
	}
	if n.style&yaml.FlowStyle == 0 && len(n.pairs) > 0 {
		n.off = n.pairs[0].key.off
	}
}

// checkTag refuses tags that are not YAML's core schema, or do not suit.
func checkTag(y *yaml.Node) string {
	ok := false
	switch y.Tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null":
		ok = y.Kind == yaml.ScalarNode
	case "!!map":
		ok = y.Kind == yaml.MappingNode
	case "!!seq":
		ok = y.Kind == yaml.SequenceNode
	case "", "!":
		ok = true
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("tag %s has no meaning here", y.Tag)
}

// skipProperties returns the offset behind anchors and tags.
func skipProperties(src string, off int) int {
	for off < len(src) && (src[off] == '&' || src[off] == '!') {
		for off < len(src) && !strings.ContainsRune(" \t\n", rune(src[off])) {
			off++
		}
		for off < len(src) && strings.ContainsRune(" \t\n", rune(src[off])) {
			off++
		}
	}
	return min(off, len(src))
}
