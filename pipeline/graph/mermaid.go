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
	arms := map[string][]int{}
	for i := range g.Arms {
		arms[g.Arms[i].Block] = append(arms[g.Arms[i].Block], i)
	}
	var write func(parent string, indent string)
	node := func(i int, indent string) {
		n := &g.Nodes[i]
		text := escape(n.Label)
		if n.Action != "" && n.Action != n.Label {
			text += "<br/>" + escape(n.Action)
		}
		if len(children[n.ID]) > 0 {
			fmt.Fprintf(&b, "%ssubgraph n%d[\"%s: %s\"]\n", indent, i, escape(n.Kind), text)
			write(n.ID, indent+"  ")
			fmt.Fprintf(&b, "%send\n", indent)
			return
		}
		left, right := "[", "]"
		switch n.Kind {
		case "set", "assert":
			left, right = "(", ")"
		case "if", "match":
			left, right = "{", "}"
		case "for", "while", "repeat", "queue", "call", "parallel", "compete":
			left, right = "[[", "]]"
		case "wait", "ask":
			left, right = "([", "])"
		}
		fmt.Fprintf(&b, "%sn%d%s\"%s\"%s\n", indent, i, left, text, right)
	}
	write = func(parent, indent string) {
		if len(arms[parent]) > 0 {
			for _, a := range arms[parent] {
				if len(g.Arms[a].Nodes) == 0 {
					continue // Mermaid has no empty subgraphs
				}
				fmt.Fprintf(&b, "%ssubgraph a%d[\"%s\"]\n", indent, a, escape(g.Arms[a].Label))
				for _, id := range g.Arms[a].Nodes {
					node(index[id], indent+"  ")
				}
				fmt.Fprintf(&b, "%send\n", indent)
			}
			return
		}
		for _, i := range children[parent] {
			node(i, indent)
		}
	}
	write("", "  ")
	for i := range g.Edges {
		e := &g.Edges[i]
		arrow := "-->"
		if e.Cause == "state" || e.Cause == jump {
			arrow = "-.->"
		}
		if e.Label != "" {
			arrow += "|" + e.Label + "|"
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
