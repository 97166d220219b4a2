package expr

import "slices"

// body parses up to the end of the source, or to a tag that starts with one of
// the end words, which is left to the caller.
func (p *parser) body(open token, ends ...string) []stmt {
	p.enter()
	defer func() { p.depth-- }()
	var out []stmt
	for {
		t := p.peek()
		switch t.kind {
		case tokText:
			p.next()
			out = append(out, &textStmt{t.text})
		case tokOpen:
			p.next()
			if p.peek().kind == tokClose {
				p.fail(Span{t.Off, p.peek().End}, "", "an empty expression")
			}
			x := p.tuple(true)
			if p.peek().kind != tokClose {
				p.unexpected("expected the end of the expression")
			}
			p.next()
			out = append(out, &outStmt{x})
		case tokBlock:
			w := p.tokens[p.pos+1]
			if w.kind == tokName && slices.Contains(ends, w.text) {
				return out
			}
			p.next()
			out = append(out, p.statement(t))
		case tokEOF:
			if ends != nil {
				p.fail(open.Span, "end it with {% "+ends[len(ends)-1]+" %}", "this %s is never closed", open.text)
			}
			return out
		default:
			p.unexpected("expected text or a tag")
		}
	}
}

// end consumes the word and the end of its tag.
func (p *parser) end() {
	p.next()
	p.close()
}

func (p *parser) close() {
	if p.peek().kind != tokEnd {
		p.unexpected("expected the end of the tag")
	}
	p.next()
}

var statements = []string{"if", "for", "set", "raw"}

func (p *parser) statement(open token) stmt {
	t := p.peek()
	if t.kind != tokName {
		p.unexpected("expected a statement")
	}
	p.next()
	at := token{Span: Span{open.Off, t.End}, text: t.text}
	switch t.text {
	case "if":
		return p.ifStatement(at)
	case "for":
		return p.forStatement(at)
	case "set":
		return p.setStatement(at)
	case "elif", "else", "endif", "endfor", "endset", "endraw":
		p.fail(t.Span, "", "'%s' without its beginning", t.text)
	case "macro", "call", "import", "from", "include", "extends", "block", "with", "filter", "do", "autoescape", "break", "continue":
		p.fail(t.Span, "statements are if, for, set and raw", "there is no statement '%s' here", t.text)
	}
	p.fail(t.Span, didYouMean(t.text, statements), "no statement named '%s'", t.text)
	return nil
}

func (p *parser) ifStatement(open token) stmt {
	s := &ifStmt{}
	for {
		s.conds = append(s.conds, p.tuple(true))
		p.close()
		s.bodies = append(s.bodies, p.body(open, "elif", "else", "endif"))
		p.next() // {%
		switch p.next().text {
		case "elif":
			continue
		case "else":
			p.close()
			s.els = p.body(open, "endif")
			p.next()
			p.end()
		default:
			p.close()
		}
		return s
	}
}

// targets parses the names that for and set bind; they are bound by the caller.
func (p *parser) targets() []token {
	paren := p.skip("(")
	var out []token
	for {
		t := p.peek()
		if t.kind != tokName || keywords[t.text] {
			p.unexpected("expected a name")
		}
		switch t.text {
		case "true", "false", "none", "True", "False", "None", "null", "loop":
			p.fail(t.Span, "", "'%s' cannot be set", t.text)
		}
		p.next()
		if p.is(".") {
			p.fail(p.peek().Span, "", "attributes cannot be set")
		}
		if out = append(out, t); len(out) > maxTargets {
			p.fail(t.Span, "", "more than %d names", maxTargets)
		}
		if !p.skip(",") || p.is(")") || p.word("in") || p.is("=") {
			break
		}
	}
	if paren {
		p.expect(")", "to close the names")
	}
	return out
}

func (p *parser) forStatement(open token) stmt {
	names := p.targets()
	if !p.word("in") {
		p.unexpected("expected 'in'")
	}
	p.next()
	s := &forStmt{over: p.tuple(false)}
	s.Span = s.over.at()
	scope := map[string]int{}
	p.scopes = append(p.scopes, scope)
	for _, t := range names {
		s.targets = append(s.targets, p.bind(t.text))
	}
	if p.word("if") {
		p.next()
		s.filter = p.tuple(true)
	}
	if t := p.peek(); p.word("recursive") {
		p.fail(t.Span, "", "loops cannot be recursive")
	}
	p.close()
	s.loop = p.bind("loop")
	s.body = p.body(open, "else", "endfor")
	for name, slot := range scope {
		if name != "loop" && !slices.Contains(s.targets, slot) {
			s.own = append(s.own, slot)
		}
	}
	p.scopes = p.scopes[:len(p.scopes)-1]
	p.next() // {%
	if p.next().text == "else" {
		p.close()
		s.els = p.body(open, "endfor")
		p.next()
		p.end()
	} else {
		p.close()
	}
	return s
}

func (p *parser) setStatement(open token) stmt {
	names := p.targets()
	if p.skip("=") {
		s := &setStmt{x: p.tuple(true)}
		s.Span = s.x.at()
		p.close()
		for _, t := range names {
			s.targets = append(s.targets, p.bind(t.text))
		}
		return s
	}
	if len(names) != 1 || p.peek().kind != tokEnd {
		p.unexpected("expected '='")
	}
	p.close()
	s := &setBlockStmt{body: p.body(open, "endset")}
	s.slot = p.bind(names[0].text)
	p.next()
	p.end()
	return s
}
