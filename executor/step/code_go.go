package step

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"strconv"
	"strings"
)

// goModule is a parsed file of Go.
type goModule struct {
	fset *token.FileSet
	file *ast.File
}

func (m *goModule) line(p token.Pos) int { return m.fset.Position(p).Line }

func parseGo(f *parsedFile) error {
	m := &goModule{fset: token.NewFileSet()}
	var err error
	m.file, err = parser.ParseFile(m.fset, f.path, f.text, parser.ParseComments|parser.SkipObjectResolution)
	if list, ok := errors.AsType[scanner.ErrorList](err); ok && len(list) > 0 {
		return &codeError{list[0].Pos.Line, list[0].Msg}
	}
	if err != nil {
		return &codeError{1, err.Error()}
	}
	f.golang = m
	for _, i := range m.file.Imports {
		x := pyImport{line: m.line(i.Pos())}
		x.module, _ = strconv.Unquote(i.Path.Value)
		if i.Name != nil {
			x.alias = i.Name.Name
		}
		f.imports = append(f.imports, x)
	}
	for _, g := range m.file.Comments {
		for _, c := range g.List {
			text := strings.TrimPrefix(c.Text, "//")
			if strings.HasPrefix(c.Text, "/*") {
				text = strings.TrimSuffix(c.Text[2:], "*/")
			}
			f.comments = append(f.comments, codeComment{m.line(c.Pos()), strings.TrimSpace(text)})
		}
	}
	for _, d := range m.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			f.functions = append(f.functions, m.function(d))
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if t, ok := s.(*ast.TypeSpec); ok {
					f.types = append(f.types, m.typeOf(d, t))
				}
			}
		}
	}
	return nil
}

func (m *goModule) function(d *ast.FuncDecl) codeFunction {
	f := codeFunction{
		name: d.Name.Name, class: receiver(d), line: m.line(d.Pos()), endLine: m.line(d.End()), documented: d.Doc != nil, outer: true,
		cyclomatic: goCyclomatic(d), cognitive: goCognitive(d),
	}
	if d.Body != nil {
		f.nesting = goDepth(d.Body)
	}
	for _, p := range d.Type.Params.List {
		if len(p.Names) == 0 {
			f.params = append(f.params, "_")
		}
		for _, n := range p.Names {
			f.params = append(f.params, n.Name)
		}
	}
	return f
}

// receiver is the name of the type that a method belongs to; empty: none.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.ParenExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func (m *goModule) typeOf(d *ast.GenDecl, t *ast.TypeSpec) codeType {
	x := codeType{
		name: t.Name.Name, kind: "type", line: m.line(t.Pos()), endLine: m.line(t.End()),
		documented: t.Doc != nil || (d.Doc != nil && !d.Lparen.IsValid()),
	}
	var fields *ast.FieldList
	switch u := t.Type.(type) {
	case *ast.StructType:
		x.kind, fields = "struct", u.Fields
	case *ast.InterfaceType:
		x.kind, fields = "interface", u.Methods
	}
	if t.Assign.IsValid() {
		x.kind = "alias"
	}
	if fields != nil {
		for _, f := range fields.List {
			if len(f.Names) == 0 { // embedded
				x.bases = append(x.bases, goText(f.Type))
			}
		}
	}
	return x
}

// goText writes the name of a type or of what is called: a.b.c; other parts are
// left empty.
func goText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return goText(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return "*" + goText(e.X)
	case *ast.ParenExpr:
		return goText(e.X)
	case *ast.IndexExpr:
		return goText(e.X)
	case *ast.IndexListExpr:
		return goText(e.X)
	}
	return ""
}

// goCyclomatic is McCabe's number of a function with the function literals in it.
func goCyclomatic(d *ast.FuncDecl) int {
	n := 1
	ast.Inspect(d, func(node ast.Node) bool {
		switch x := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if x.List != nil {
				n++
			}
		case *ast.CommClause:
			if x.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if x.Op == token.LAND || x.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

// goDepth is how deep blocks that fork or repeat, and function literals, stand
// within each other. An else if is no deeper than its if.
func goDepth(n ast.Node) int {
	deepest := 0
	ast.Inspect(n, func(node ast.Node) bool {
		if node == n {
			return true
		}
		switch x := node.(type) {
		case *ast.IfStmt:
			for {
				deepest = max(deepest, 1+goDepth(x.Body))
				next, ok := x.Else.(*ast.IfStmt)
				if !ok {
					if x.Else != nil {
						deepest = max(deepest, 1+goDepth(x.Else))
					}
					return false
				}
				x = next
			}
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt, *ast.FuncLit:
			deepest = max(deepest, 1+goDepth(x))
			return false
		}
		return true
	})
	return deepest
}

// goCognitive is Campbell's number of a function; function literals in it count,
// one level deeper.
func goCognitive(d *ast.FuncDecl) int {
	if d.Body == nil {
		return 0
	}
	c := &cognition{name: d.Name.Name}
	if d.Recv != nil && len(d.Recv.List) > 0 && len(d.Recv.List[0].Names) > 0 {
		c.name = d.Recv.List[0].Names[0].Name + "." + d.Name.Name
	}
	c.walk(d.Body, 0)
	if c.recursive {
		c.n++
	}
	return c.n
}

type cognition struct {
	n         int
	name      string // how the function would call itself
	recursive bool
}

// walk counts what stands in a node, at a level of nesting.
func (c *cognition) walk(n ast.Node, nesting int) {
	ast.Inspect(n, func(node ast.Node) bool {
		if node == n {
			return true
		}
		switch x := node.(type) {
		case *ast.IfStmt:
			c.n += 1 + nesting
			c.branch(x, nesting)
			return false
		case *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			c.n += 1 + nesting
			c.loop(x, nesting)
			return false
		case *ast.FuncLit:
			c.walk(x.Body, nesting+1)
			return false
		case *ast.BranchStmt:
			if x.Label != nil || x.Tok == token.GOTO {
				c.n++
			}
		case *ast.BinaryExpr:
			if x.Op == token.LAND || x.Op == token.LOR {
				c.sequence(x, nesting)
				return false
			}
		case *ast.CallExpr:
			if goText(x.Fun) == c.name {
				c.recursive = true
			}
		}
		return true
	})
}

// part counts a child of a node whose own block is deeper.
func (c *cognition) part(n ast.Node, nesting int) {
	switch x := n.(type) {
	case *ast.BinaryExpr:
		if x.Op == token.LAND || x.Op == token.LOR {
			c.sequence(x, nesting)
			return
		}
	case *ast.FuncLit:
		c.walk(x.Body, nesting+1)
		return
	case *ast.CallExpr:
		if goText(x.Fun) == c.name {
			c.recursive = true
		}
	}
	c.walk(n, nesting)
}

func (c *cognition) branch(x *ast.IfStmt, nesting int) {
	if x.Init != nil {
		c.part(x.Init, nesting)
	}
	c.part(x.Cond, nesting)
	c.walk(x.Body, nesting+1)
	switch e := x.Else.(type) {
	case *ast.IfStmt:
		c.n++
		c.branch(e, nesting)
	case *ast.BlockStmt:
		c.n++
		c.walk(e, nesting+1)
	}
}

func (c *cognition) loop(n ast.Node, nesting int) {
	head := func(parts ...ast.Node) {
		for _, p := range parts {
			c.part(p, nesting)
		}
	}
	switch x := n.(type) {
	case *ast.ForStmt:
		if x.Init != nil {
			head(x.Init)
		}
		if x.Cond != nil {
			head(x.Cond)
		}
		if x.Post != nil {
			head(x.Post)
		}
		c.walk(x.Body, nesting+1)
	case *ast.RangeStmt:
		head(x.X)
		c.walk(x.Body, nesting+1)
	case *ast.SwitchStmt:
		if x.Init != nil {
			head(x.Init)
		}
		if x.Tag != nil {
			head(x.Tag)
		}
		c.walk(x.Body, nesting+1)
	case *ast.TypeSwitchStmt:
		head(x.Assign)
		c.walk(x.Body, nesting+1)
	case *ast.SelectStmt:
		c.walk(x.Body, nesting+1)
	}
}

// sequence counts each run of like boolean operators, in the order in which they
// are read; brackets begin a run of their own.
func (c *cognition) sequence(x *ast.BinaryExpr, nesting int) {
	var last token.Token
	var visit func(e ast.Expr)
	visit = func(e ast.Expr) {
		b, ok := e.(*ast.BinaryExpr)
		if !ok || (b.Op != token.LAND && b.Op != token.LOR) {
			c.part(e, nesting)
			return
		}
		visit(b.X)
		if b.Op != last {
			c.n++
		}
		last = b.Op
		visit(b.Y)
	}
	visit(x)
}
