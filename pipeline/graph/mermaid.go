package graph

import (
	"fmt"
	"strings"
	"unicode"
)

// Mermaid is the graph as a Mermaid flowchart, from top to bottom.
func (g Graph) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	index := make(map[string]int, len(g.Nodes))
	children := map[string][]int{}
	for i := range g.Nodes {
		n := &g.Nodes[i]
		index[n.ID] = i
		children[n.Parent] = append(children[n.Parent], i)
	}
	var write func(parent string, indent string)
	write = func(parent, indent string) {
		for _, i := range children[parent] {
			n := &g.Nodes[i]
			text := escape(n.Label)
			if n.Action != "" && n.Action != n.Label {
				text += "<br/>" + escape(n.Action)
			}
			if len(children[n.ID]) > 0 {
				fmt.Fprintf(&b, "%ssubgraph n%d[\"%s: %s\"]\n", indent, i, escape(n.Kind), text)
				write(n.ID, indent+"  ")
				fmt.Fprintf(&b, "%send\n", indent)
				continue
			}
			left, right := "[", "]"
			switch n.Kind {
			case "set":
				left, right = "(", ")"
			case "if":
				left, right = "{", "}"
			case "for", "while":
				left, right = "[[", "]]"
			}
			fmt.Fprintf(&b, "%sn%d%s\"%s\"%s\n", indent, i, left, text, right)
		}
	}
	write("", "  ")
	for _, e := range g.Edges {
		arrow := "-->"
		if e.Cause == "state" {
			arrow = "-.->"
		}
		fmt.Fprintf(&b, "  n%d %s n%d\n", index[e.From], arrow, index[e.To])
	}
	return b.String()
}

// escape makes a text safe within a quoted label.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"' || r == '<' || r == '>' || r == '&' || r == '#' || r == '`':
			fmt.Fprintf(&b, "#%d;", r)
		case unicode.IsControl(r):
			b.WriteByte(' ')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
