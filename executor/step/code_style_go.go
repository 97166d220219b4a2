package step

import (
	"go/ast"
	"go/format"
	"go/token"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// styleOfGo holds a file against the rules of Go: Effective Go and the review
// comments of its authors. receivers are the names that types' methods gave their
// receivers so far, by folder and type.
func styleOfGo(f *parsedFile, x *findings, receivers map[string]string) {
	m := f.golang
	if formatted, err := format.Source([]byte(f.text)); err == nil && string(formatted) != f.text {
		x.add(firstDifference(f.text, string(formatted)), "not-formatted", "warning", "gofmt would write the file in another way; the first difference is here")
	}
	goImports(f, x)
	test := strings.HasSuffix(f.path, "_test.go")
	public := !test && m.file.Name.Name != "main"
	if strings.ContainsAny(strings.TrimSuffix(m.file.Name.Name, "_test"), "_ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		x.add(m.line(m.file.Name.Pos()), "naming", "warning", "the package %s has a name with underscores or large letters", m.file.Name.Name)
	}
	for _, d := range m.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			m.styleOfFunction(d, x, public, test, path.Dir(f.path), receivers)
		case *ast.GenDecl:
			m.styleOfDeclaration(d, x, public)
		}
	}
	ast.Inspect(m.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			if _, chained := n.Else.(*ast.BlockStmt); chained && n.Init == nil && leaves(n.Body) {
				x.add(m.line(n.Else.Pos()), "else-after-return", "info", "the if before ends by leaving; the else needs no block of its own")
			}
			if len(n.Body.List) == 0 && !m.commented(n.Body) {
				x.add(m.line(n.Pos()), "empty-block", "warning", "the block is empty")
			}
		case *ast.CallExpr:
			m.styleOfError(n, x)
		}
		return true
	})
}

func firstDifference(a, b string) int {
	line := 1
	for i := 0; i < len(a) && i < len(b) && a[i] == b[i]; i++ {
		if a[i] == '\n' {
			line++
		}
	}
	return line
}

// goImports finds imports that bind a name which nothing uses.
func goImports(f *parsedFile, x *findings) {
	used := map[string]bool{}
	ast.Inspect(f.golang.file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok {
				used[id.Name] = true
			}
		}
		return true
	})
	for _, i := range f.imports {
		switch i.alias {
		case ".":
			x.add(i.line, "dot-import", "warning", "the names of %s cannot be told from those of the package", i.module)
			continue
		case "_":
			continue
		}
		name := i.alias
		if name == "" {
			first, _, _ := strings.Cut(i.module, "/")
			if strings.Contains(first, ".") || i.module == "C" {
				continue // what the package calls itself stands in the package
			}
			if name = path.Base(i.module); len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
				name = path.Base(path.Dir(i.module))
			}
		}
		if !used[name] {
			x.add(i.line, "unused-import", "error", "%s is imported and not used", i.module)
		}
	}
}

func (m *goModule) styleOfFunction(d *ast.FuncDecl, x *findings, public, test bool, dir string, receivers map[string]string) {
	name, class, line := d.Name.Name, receiver(d), m.line(d.Name.Pos())
	tested := test && d.Recv == nil && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Example") || strings.HasPrefix(name, "Benchmark") || strings.HasPrefix(name, "Fuzz"))
	if strings.Contains(strings.Trim(name, "_"), "_") && !tested {
		x.add(line, "naming", "warning", "%s has underscores; Go writes MixedCaps", name)
	}
	if d.Recv != nil && len(d.Recv.List) > 0 && len(d.Recv.List[0].Names) > 0 {
		own := d.Recv.List[0].Names[0].Name
		key := dir + " " + class
		switch before := receivers[key]; {
		case own == "this" || own == "self":
			x.add(line, "naming", "warning", "the receiver of %s.%s is called %s; Go names it by its type", class, name, own)
		case own == "_":
		case before == "":
			receivers[key] = own
		case before != own:
			x.add(line, "naming", "info", "the receiver of %s.%s is called %s, and %s in other methods", class, name, own, before)
		}
	}
	if !public || !d.Name.IsExported() || (class != "" && !ast.IsExported(class)) {
		return
	}
	full := name
	if class != "" {
		full = class + "." + name
	}
	m.documented(x, line, full, name, d.Doc)
}

// documented wants a comment that begins with the name.
func (m *goModule) documented(x *findings, line int, full, name string, doc *ast.CommentGroup) {
	if doc == nil {
		x.add(line, "missing-doc", "warning", "%s is exported and has no comment", full)
		return
	}
	words := strings.Fields(doc.Text())
	if len(words) > 0 && (words[0] == "A" || words[0] == "An" || words[0] == "The" || words[0] == "Deprecated:") {
		words = words[1:]
	}
	if len(words) > 0 && strings.TrimRight(words[0], ".,:'s") != strings.TrimRight(name, ".,:'s") {
		x.add(line, "doc-form", "info", "the comment of %s begins with another word", full)
	}
}

func (m *goModule) styleOfDeclaration(d *ast.GenDecl, x *findings, public bool) {
	named := func(id *ast.Ident) {
		if strings.Contains(strings.Trim(id.Name, "_"), "_") {
			x.add(m.line(id.Pos()), "naming", "warning", "%s has underscores; Go writes MixedCaps", id.Name)
		}
	}
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			named(s.Name)
			if public && s.Name.IsExported() {
				doc := s.Doc
				if doc == nil && !d.Lparen.IsValid() {
					doc = d.Doc
				}
				m.documented(x, m.line(s.Name.Pos()), s.Name.Name, s.Name.Name, doc)
			}
		case *ast.ValueSpec:
			for _, id := range s.Names {
				named(id)
				if public && id.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					x.add(m.line(id.Pos()), "missing-doc", "warning", "%s is exported and has no comment", id.Name)
				}
			}
		}
	}
}

// leaves reports whether a block ends by leaving it.
func leaves(b *ast.BlockStmt) bool {
	if len(b.List) == 0 {
		return false
	}
	switch b.List[len(b.List)-1].(type) {
	case *ast.ReturnStmt, *ast.BranchStmt:
		return true
	}
	return false
}

func (m *goModule) commented(b *ast.BlockStmt) bool {
	for _, g := range m.file.Comments {
		if g.Pos() > b.Pos() && g.End() < b.End() {
			return true
		}
	}
	return false
}

// styleOfError looks at the text of a new error: it will stand within another.
func (m *goModule) styleOfError(c *ast.CallExpr, x *findings) {
	if name := goText(c.Fun); (name != "errors.New" && name != "fmt.Errorf") || len(c.Args) == 0 {
		return
	}
	lit, ok := c.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return
	}
	text, err := strconv.Unquote(lit.Value)
	if err != nil || text == "" {
		return
	}
	first, width := utf8.DecodeRuneInString(text)
	second, _ := utf8.DecodeRuneInString(text[width:])
	switch {
	case unicode.IsUpper(first) && unicode.IsLower(second):
		x.add(m.line(lit.Pos()), "error-text", "info", "the text of an error begins with a small letter: it will stand within another")
	case strings.HasSuffix(text, ".") && !strings.HasSuffix(text, "..."), strings.HasSuffix(text, "\n"):
		x.add(m.line(lit.Pos()), "error-text", "info", "the text of an error ends without a point or a new line")
	}
}
