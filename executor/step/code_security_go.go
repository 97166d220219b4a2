package step

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// goScanner applies the rules of security to a file of Go.
type goScanner struct {
	*goModule
	x       *findings
	imports map[string]string // local name -> path
}

func securityOfGo(f *parsedFile, x *findings) {
	s := &goScanner{goModule: f.golang, x: x, imports: map[string]string{}}
	for _, i := range f.imports {
		name := i.alias
		if name == "" {
			name = path.Base(i.module)
			if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
				name = path.Base(path.Dir(i.module))
			}
		}
		s.imports[name] = i.module
		switch i.module {
		case "unsafe":
			x.secure(i.line, "unsafe-code", "unsafe steps around the rules of the language")
		case "net/http/pprof":
			x.secure(i.line, "profiler-exposed", "the import adds the profiler to the default server")
		case "crypto/des", "crypto/rc4", "golang.org/x/crypto/blowfish", "golang.org/x/crypto/tea":
			x.secure(i.line, "weak-cipher", "%s is a broken cipher", path.Base(i.module))
		}
	}
	ast.Inspect(f.golang.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			s.call(n)
		case *ast.CompositeLit:
			s.literal(n)
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				if i < len(n.Rhs) && len(n.Lhs) == len(n.Rhs) {
					s.assign(goText(l), n.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, id := range n.Names {
				if i < len(n.Values) {
					s.assign(id.Name, n.Values[i])
				}
			}
		}
		return true
	})
}

// full is the name of what is called with its package's path: os/exec.Command.
func (s *goScanner) full(e ast.Expr) string {
	name := goText(e)
	first, rest, ok := strings.Cut(name, ".")
	if p := s.imports[first]; ok && p != "" {
		return p + "." + rest
	}
	return name
}

// constantText is the value of a literal, or of literals that are joined.
func constantText(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			t, err := strconv.Unquote(e.Value)
			return t, err == nil
		}
		return e.Value, true
	case *ast.ParenExpr:
		return constantText(e.X)
	case *ast.BinaryExpr:
		a, ok := constantText(e.X)
		b, too := constantText(e.Y)
		return a + b, ok && too && e.Op == token.ADD
	}
	return "", false
}

// fixed reports whether an expression is a literal or looks like a constant.
func fixed(e ast.Expr) bool {
	if _, ok := constantText(e); ok {
		return true
	}
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "nil"
}

// composed tells a text put together at run time: joined, or formatted.
func (s *goScanner) composed(e ast.Expr) (leading string, ok bool) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return s.composed(e.X)
	case *ast.BinaryExpr:
		if e.Op != token.ADD || fixed(e) {
			return "", false
		}
		left := ast.Expr(e)
		for {
			b, isJoin := left.(*ast.BinaryExpr)
			if !isJoin {
				break
			}
			left = b.X
		}
		text, isText := constantText(left)
		return text, isText
	case *ast.CallExpr:
		if name := s.full(e.Fun); (name == "fmt.Sprintf" || name == "fmt.Sprint") && len(e.Args) > 1 {
			return constantText(e.Args[0])
		}
	}
	return "", false
}

var (
	goShells  = []string{"sh", "bash", "zsh", "dash", "ksh", "cmd", "cmd.exe", "powershell", "pwsh"}
	goQueries = []string{"Query", "QueryRow", "Exec", "QueryContext", "QueryRowContext", "ExecContext", "Prepare", "PrepareContext", "Raw", "Queryx", "MustExec", "Get", "Select"}
	goWeak    = map[string]string{"crypto/md5.New": "MD5", "crypto/md5.Sum": "MD5", "crypto/sha1.New": "SHA-1", "crypto/sha1.Sum": "SHA-1", "golang.org/x/crypto/md4.New": "MD4"}
)

func (s *goScanner) call(c *ast.CallExpr) {
	line, name := s.line(c.Pos()), s.full(c.Fun)
	switch name {
	case "os/exec.Command", "os/exec.CommandContext":
		args := c.Args
		if strings.HasSuffix(name, "Context") && len(args) > 0 {
			args = args[1:]
		}
		s.command(line, args)
	case "crypto/rsa.GenerateKey":
		if len(c.Args) == 2 {
			if bits, ok := constantText(c.Args[1]); ok {
				if n, err := strconv.Atoi(bits); err == nil && n < 2048 {
					s.x.secure(line, "weak-key", "an RSA key of %d bits can be broken; take 2048 or more", n)
				}
			}
		}
	case "golang.org/x/crypto/ssh.InsecureIgnoreHostKey":
		s.x.secure(line, "host-key-not-verified", "any host is accepted as the right one")
	case "net/http.ListenAndServe", "net/http.ListenAndServeTLS":
		s.x.secure(line, "no-header-timeout", "a server made so waits for slow clients without end; use http.Server with ReadHeaderTimeout")
	case "html/template.HTML", "html/template.JS", "html/template.URL", "html/template.HTMLAttr":
		if len(c.Args) == 1 && !fixed(c.Args[0]) {
			s.x.secure(line, "unescaped-html", "%s marks a text as safe that is not constant", path.Base(name))
		}
	case "os.Chmod", "os.WriteFile", "os.OpenFile", "os.Mkdir", "os.MkdirAll":
		if len(c.Args) > 1 {
			s.permissions(line, c.Args[len(c.Args)-1])
		}
	case "path/filepath.Join", "path.Join":
		for _, a := range c.Args {
			if sel, ok := a.(*ast.SelectorExpr); ok && sel.Sel.Name == "Name" && slices.Contains([]string{"header", "hdr", "zf", "zipFile", "tarHeader", "file", "f", "h"}, goText(sel.X)) && s.archives() {
				s.x.secure(line, "archive-path", "a name out of an archive becomes a path; it may hold ..")
			}
		}
	}
	if weak := goWeak[name]; weak != "" {
		s.x.secure(line, "weak-hash", "%s is no protection against forgery", weak)
	}
	if strings.HasPrefix(name, "math/rand.") || strings.HasPrefix(name, "math/rand/v2.") {
		if s.secretFunction(c.Pos()) {
			s.x.secure(line, "weak-random", "math/rand can be foretold; use crypto/rand")
		}
	}
	if sel, ok := c.Fun.(*ast.SelectorExpr); ok && slices.Contains(goQueries, sel.Sel.Name) {
		for _, a := range c.Args[:min(2, len(c.Args))] { // the context may stand first
			if text, ok := s.composed(a); ok && sqlText.MatchString(text) {
				s.x.secure(line, "sql-injection", "%s is given SQL that is put together; use placeholders", sel.Sel.Name)
			}
		}
	}
}

func (s *goScanner) archives() bool {
	for _, p := range s.imports {
		if p == "archive/zip" || p == "archive/tar" {
			return true
		}
	}
	return false
}

// secretFunction reports whether the function around a place sounds as if it made
// something that must not be guessed.
func (s *goScanner) secretFunction(p token.Pos) bool {
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Pos() <= p && p < f.End() {
			name := strings.ToLower(f.Name.Name)
			return slices.ContainsFunc([]string{"token", "secret", "password", "key", "nonce", "salt", "session"}, func(w string) bool { return strings.Contains(name, w) })
		}
	}
	return false
}

func (s *goScanner) command(line int, args []ast.Expr) {
	if len(args) == 0 {
		return
	}
	program, ok := constantText(args[0])
	if !ok {
		if !fixed(args[0]) {
			s.x.secure(line, "command-injection", "the program that is run is not constant")
		}
		return
	}
	if !slices.Contains(goShells, path.Base(program)) || len(args) < 3 {
		return
	}
	for _, a := range args[2:] {
		if !fixed(a) {
			s.x.secure(line, "shell-injection", "a shell runs a text that is not constant")
			return
		}
	}
}

func (s *goScanner) permissions(line int, e ast.Expr) {
	text, ok := constantText(e)
	if !ok {
		return
	}
	mode, err := strconv.ParseInt(text, 0, 32)
	if err == nil && mode&0o002 != 0 {
		s.x.secure(line, "open-permissions", "the mode %s lets everybody write", text)
	}
}

func (s *goScanner) literal(l *ast.CompositeLit) {
	name := s.full(l.Type)
	timeout := false
	for _, e := range l.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		key, value, line := goText(kv.Key), goText(kv.Value), s.line(kv.Pos())
		switch {
		case key == "InsecureSkipVerify" && value == "true":
			s.x.secure(line, "tls-not-verified", "the certificate of the other side is not checked")
		case (key == "MinVersion" || key == "MaxVersion") && slices.Contains([]string{"crypto/tls.VersionSSL30", "crypto/tls.VersionTLS10", "crypto/tls.VersionTLS11"}, s.full(kv.Value)):
			s.x.secure(line, "old-tls", "%s is broken; take TLS 1.2 or later", path.Base(value))
		case key == "ReadHeaderTimeout" || key == "ReadTimeout":
			timeout = true
		}
		if text, ok := constantText(kv.Value); ok && key != "" {
			hardCoded(key, text, line, s.x)
		} else if ok {
			if k, ok := constantText(kv.Key); ok {
				hardCoded(k, text, line, s.x)
			}
		}
	}
	if name == "net/http.Server" && !timeout {
		s.x.secure(s.line(l.Pos()), "no-header-timeout", "the server waits for slow clients without end; set ReadHeaderTimeout")
	}
}

func (s *goScanner) assign(name string, value ast.Expr) {
	if name == "" {
		return
	}
	line := s.line(value.Pos())
	if strings.HasSuffix(name, ".InsecureSkipVerify") && goText(value) == "true" {
		s.x.secure(line, "tls-not-verified", "the certificate of the other side is not checked")
	}
	if text, ok := s.composed(value); ok && sqlText.MatchString(text) {
		s.x.secure(line, "sql-injection", "SQL is put together; use placeholders")
		s.x.list[len(s.x.list)-1].severity = "medium"
	}
	if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
		if text, ok := constantText(value); ok {
			hardCoded(name, text, line, s.x)
		}
	}
}
