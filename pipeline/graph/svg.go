package graph

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// svgStyle makes the drawing readable on light and dark pages.
const svgStyle = `text{font:500 13px system-ui,sans-serif;fill:#191c22}.kind,.arm,.way{font-size:12px;font-weight:400;fill:#555e6c}` +
	`.box{fill:#fff;stroke:#868f9c;stroke-width:1.2}.block{fill:#f6f7f9}.frame{fill:none;stroke:#dde1e7}` +
	`.line{fill:none;stroke:#868f9c;stroke-width:1.3}.soft{stroke-dasharray:4 3}.head{fill:#868f9c}` +
	`@media(prefers-color-scheme:dark){text{fill:#e5e8ed}.kind,.arm,.way{fill:#9ca6b4}.box{fill:#171b21;stroke:#6d7786}.block{fill:#101318}` +
	`.frame{stroke:#2a3039}.line{stroke:#6d7786}.head{fill:#6d7786}}`

// margin is left free around an SVG document's drawing, in pixels.
const margin = 12.0

// SVG is the graph as a document of its own, with the given title. It follows
// the reader's choice of light or dark and needs no other file.
func (g Graph) SVG(title string) string {
	var b strings.Builder
	w, h := number(g.Width+2*margin), number(g.Height+2*margin)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" role="img" width="%s" height="%s" viewBox="%s %s %s %s">`,
		w, h, number(-margin), number(-margin), w, h)
	fmt.Fprintf(&b, "\n<title>%s</title>\n<style>%s</style>\n", text(title), svgStyle)
	holds := map[string]bool{}
	for i := range g.Nodes {
		holds[g.Nodes[i].Parent] = true
	}
	for i := range g.Nodes { // blocks stand before what they hold
		if n := &g.Nodes[i]; holds[n.ID] {
			g.box(&b, n, true)
		}
	}
	for i := range g.Arms {
		a := &g.Arms[i]
		fmt.Fprintf(&b, `<rect class="frame" x="%s" y="%s" width="%s" height="%s" rx="4"/>`, number(a.X), number(a.Y), number(a.W), number(a.H))
		fmt.Fprintf(&b, `<text class="arm" x="%s" y="%s">%s</text>`+"\n", number(a.X+8), number(a.Y+15), fitted(a.Label, a.W-16))
	}
	for i := range g.Edges {
		g.edge(&b, &g.Edges[i])
	}
	for i := range g.Nodes {
		if n := &g.Nodes[i]; !holds[n.ID] {
			g.box(&b, n, false)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (g Graph) box(b *strings.Builder, n *Node, block bool) {
	class, kind := "box", n.Kind
	if n.Action != "" {
		kind = n.Action
	}
	if block {
		class = "box block"
	}
	fmt.Fprintf(b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s" rx="6"/>`, class, number(n.X), number(n.Y), number(n.W), number(n.H))
	if block {
		label := n.Label
		if label != kind {
			label += "  " + kind
		}
		fmt.Fprintf(b, `<text x="%s" y="%s">%s</text>`+"\n", number(n.X+10), number(n.Y+18), fitted(label, n.W-20))
		return
	}
	fmt.Fprintf(b, `<text x="%s" y="%s">%s</text>`, number(n.X+10), number(n.Y+n.H/2-2), fitted(n.Label, n.W-20))
	fmt.Fprintf(b, `<text class="kind" x="%s" y="%s">%s</text>`+"\n", number(n.X+10), number(n.Y+n.H/2+13), fitted(kind, n.W-20))
}

// edge draws a line through the points, with curves where it changes lanes, and
// its head at the last one.
func (g Graph) edge(b *strings.Builder, e *Edge) {
	if len(e.Points) < 2 {
		return
	}
	class := "line"
	if e.Cause == "state" || e.Cause == "sequence" || e.Cause == jump {
		class = "line soft"
	}
	fmt.Fprintf(b, `<path class="%s" d="M%s %s`, class, number(e.Points[0].X), number(e.Points[0].Y))
	for i := 1; i < len(e.Points); i++ {
		from, to := e.Points[i-1], e.Points[i]
		if from.X == to.X || from.Y == to.Y {
			fmt.Fprintf(b, "L%s %s", number(to.X), number(to.Y))
			continue
		}
		middle := number((from.Y + to.Y) / 2)
		fmt.Fprintf(b, "C%s %s %s %s %s %s", number(from.X), middle, number(to.X), middle, number(to.X), number(to.Y))
	}
	b.WriteString(`"/>`)
	from, to := e.Points[len(e.Points)-2], e.Points[len(e.Points)-1]
	dx, dy := 0.0, 1.0
	if to.Y == from.Y {
		dx, dy = math.Copysign(1, to.X-from.X), 0
	} else if to.Y < from.Y {
		dy = -1
	}
	corner := func(side float64) string {
		return number(to.X-7*dx+side*3.5*dy) + " " + number(to.Y-7*dy-side*3.5*dx)
	}
	fmt.Fprintf(b, `<path class="head" d="M%s %sL%sL%sz"/>`, number(to.X), number(to.Y), corner(1), corner(-1))
	if e.Label != "" {
		at := e.Points[len(e.Points)/2]
		fmt.Fprintf(b, `<text class="way" x="%s" y="%s">%s</text>`, number(at.X+5), number(at.Y-4), text(e.Label))
	}
	b.WriteByte('\n')
}

// fitted is a text cut to a width in pixels, escaped.
func fitted(s string, width float64) string {
	most := max(3, int(width/7))
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most-1]) + "…"
	}
	return text(s)
}

// text is s as it may stand in XML: escaped, and without the control characters
// that no document may hold.
func text(s string) string {
	return html.EscapeString(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0xfffe || r == 0xffff {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "�")))
}

func number(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }
