package step

import (
	"slices"
	"strings"
)

// pyScan applies the rules of security to a file of Python.
type pyScan struct {
	x       *findings
	aliases map[string]string // what a name stands for: sp -> subprocess, system -> os.system
	def     string            // the function around
}

func securityOfPython(f *parsedFile, x *findings) {
	s := &pyScan{x: x, aliases: map[string]string{}}
	for _, i := range f.imports {
		switch {
		case i.name != "" && i.name != "*":
			s.aliases[i.binds()] = i.module + "." + i.name
		case i.alias != "":
			s.aliases[i.alias] = i.module
		}
	}
	s.block(f.python.body)
}

func (s *pyScan) block(body []*pyStatement) {
	for _, st := range body {
		outer := s.def
		if st.kind == "def" {
			s.def = strings.ToLower(st.name)
			for _, p := range st.params() {
				if text, ok := pyConstant(p.value); ok {
					hardCoded(p.name, text, st.line, s.x)
				}
			}
		}
		for _, e := range st.expressions() {
			pyCalls(e, s.call)
		}
		if st.kind == "assign" {
			s.assign(st)
		}
		for _, e := range st.expressions() {
			s.maps(e)
		}
		s.block(st.body)
		s.def = outer
	}
}

// full is a dotted name with what its first part was imported as.
func (s *pyScan) full(name string) string {
	first, rest, dotted := strings.Cut(name, ".")
	if full := s.aliases[first]; full != "" {
		first = full
	}
	if dotted {
		return first + "." + rest
	}
	return first
}

// pyConstant is the text of a value made of string literals alone.
func pyConstant(value []pyToken) (string, bool) {
	if len(value) > 1 && value[0].op("(") && pyClose(value, 0) == len(value)-1 {
		return pyConstant(value[1 : len(value)-1])
	}
	var text strings.Builder
	for i := range value {
		if value[i].kind != pyString || len(value[i].fields) > 0 {
			return "", false
		}
		text.WriteString(pyStringValue(value[i].text))
	}
	return text.String(), len(value) > 0
}

// pyFixed reports whether a value is made of literals alone.
func pyFixed(value []pyToken) bool {
	for i := range value {
		t := &value[i]
		if t.kind == pyName && !slices.Contains([]string{"None", "True", "False"}, t.text) || len(t.fields) > 0 {
			return false
		}
	}
	return true
}

// pyComposed tells a text put together at run time, by +, %, format or fields, and
// gives what it begins with.
func pyComposed(value []pyToken) (leading string, ok bool) {
	if len(value) > 1 && value[0].op("(") && pyClose(value, 0) == len(value)-1 {
		return pyComposed(value[1 : len(value)-1])
	}
	if len(value) == 0 || value[0].kind != pyString {
		return "", false
	}
	leading = pyStringValue(value[0].text)
	i := 0
	for i < len(value) && value[i].kind == pyString {
		if len(value[i].fields) > 0 {
			return leading, true
		}
		i++
	}
	if i == len(value) {
		return leading, false
	}
	switch t := &value[i]; {
	case t.op("+"):
		return leading, !pyFixed(value[i+1:])
	case t.op("%"):
		return leading, true
	case t.op(".") && i+1 < len(value) && (value[i+1].word("format") || value[i+1].word("join")):
		return leading, true
	}
	return leading, false
}

// pyUnsafe are calls that are findings by their name alone.
var pyUnsafe = map[string]struct{ rule, message string }{
	"pickle.load": {"unsafe-deserialization", "pickle runs what the data says"}, "pickle.loads": {"unsafe-deserialization", "pickle runs what the data says"},
	"pickle.Unpickler": {"unsafe-deserialization", "pickle runs what the data says"}, "cPickle.loads": {"unsafe-deserialization", "pickle runs what the data says"},
	"dill.load": {"unsafe-deserialization", "dill runs what the data says"}, "dill.loads": {"unsafe-deserialization", "dill runs what the data says"},
	"marshal.load": {"unsafe-deserialization", "marshal is not made for data of others"}, "marshal.loads": {"unsafe-deserialization", "marshal is not made for data of others"},
	"shelve.open": {"unsafe-deserialization", "shelve unpickles what it reads"}, "jsonpickle.decode": {"unsafe-deserialization", "jsonpickle makes any object that the data names"},
	"yaml.unsafe_load": {"unsafe-deserialization", "any object is made that the document names"}, "yaml.full_load": {"unsafe-deserialization", "full_load makes objects that the document names"},
	"tempfile.mktemp": {"insecure-temp-file", "another program can take the name first; use mkstemp or NamedTemporaryFile"}, "os.tmpnam": {"insecure-temp-file", "another program can take the name first"},
	"os.tempnam": {"insecure-temp-file", "another program can take the name first"}, "ssl._create_unverified_context": {"tls-not-verified", "the certificate of the other side is not checked"},
	"paramiko.AutoAddPolicy": {"host-key-not-verified", "any host is accepted as the right one"}, "paramiko.WarningPolicy": {"host-key-not-verified", "any host is accepted as the right one"},
	"xml.etree.ElementTree.parse": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"}, "xml.etree.ElementTree.fromstring": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"},
	"xml.dom.minidom.parse": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"}, "xml.dom.minidom.parseString": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"},
	"xml.sax.parse": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"}, "lxml.etree.parse": {"xml-entities", "entities of the document are expanded; defusedxml refuses them"},
	"django.utils.safestring.mark_safe": {"unescaped-html", "a text is marked as safe"}, "markupsafe.Markup": {"unescaped-html", "a text is marked as safe"},
	"Crypto.Cipher.DES.new": {"weak-cipher", "DES is broken"}, "Crypto.Cipher.DES3.new": {"weak-cipher", "triple DES is broken"}, "Crypto.Cipher.ARC4.new": {"weak-cipher", "RC4 is broken"},
	"Crypto.Cipher.Blowfish.new": {"weak-cipher", "Blowfish is broken"}, "Crypto.Cipher.ARC2.new": {"weak-cipher", "RC2 is broken"},
}

var (
	pyShells    = []string{"os.system", "os.popen", "os.popen2", "os.popen3", "commands.getoutput", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"}
	pyProcesses = []string{"subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.Popen"}
	pyExecs     = []string{"os.execl", "os.execle", "os.execlp", "os.execv", "os.execve", "os.execvp", "os.spawnl", "os.spawnv", "os.spawnvp", "os.startfile"}
	pyRequests  = []string{"requests.get", "requests.post", "requests.put", "requests.delete", "requests.patch", "requests.head", "requests.options", "requests.request"}
	pyRandom    = []string{"random.random", "random.randint", "random.randrange", "random.choice", "random.choices", "random.sample", "random.getrandbits", "random.shuffle"}
)

func (s *pyScan) call(c *pyCall) {
	name := s.full(c.callee)
	first := c.positional(0)
	last := name[strings.LastIndexByte(name, '.')+1:]
	if u, ok := pyUnsafe[name]; ok && (u.rule != "unescaped-html" || !pyFixed(first)) {
		s.x.secure(c.line, u.rule, "%s: %s", name, u.message)
	}
	switch {
	case (name == "eval" || name == "exec") && !pyFixed(first):
		s.x.secure(c.line, "code-injection", "%s runs a text that is not constant", name)
	case name == "__import__" && !pyFixed(first), name == "importlib.import_module" && !pyFixed(first):
		s.x.secure(c.line, "code-injection", "%s loads a module whose name is not constant", name)
		s.x.list[len(s.x.list)-1].severity = "low"
	case slices.Contains(pyShells, name) && !pyFixed(first):
		s.x.secure(c.line, "shell-injection", "%s runs a text that is not constant", name)
	case slices.Contains(pyProcesses, name):
		s.process(c, name, first)
	case slices.Contains(pyExecs, name) && !pyFixed(first):
		s.x.secure(c.line, "command-injection", "%s runs a program that is not constant", name)
	case name == "yaml.load" || name == "yaml.load_all":
		loader := c.arg("Loader")
		if loader == nil {
			loader = c.positional(1)
		}
		if text := pyText(loader); !strings.Contains(text, "SafeLoader") && !strings.Contains(text, "BaseLoader") {
			s.x.secure(c.line, "unsafe-deserialization", "%s without SafeLoader makes objects that the document names; use safe_load", name)
		}
	case slices.Contains([]string{"hashlib.md5", "hashlib.sha1", "hashlib.md4", "Crypto.Hash.MD5.new", "Crypto.Hash.SHA1.new"}, name):
		if !pyIs(c.arg("usedforsecurity"), "False") {
			s.x.secure(c.line, "weak-hash", "%s is no protection against forgery", name)
		}
	case name == "hashlib.new":
		if text, ok := pyConstant(first); ok && slices.Contains([]string{"md5", "sha1", "md4", "sha"}, strings.ToLower(text)) && !pyIs(c.arg("usedforsecurity"), "False") {
			s.x.secure(c.line, "weak-hash", "%s is no protection against forgery", text)
		}
	case slices.Contains(pyRandom, name):
		if slices.ContainsFunc([]string{"token", "secret", "password", "key", "nonce", "salt", "session", "otp"}, func(w string) bool { return strings.Contains(s.def, w) }) {
			s.x.secure(c.line, "weak-random", "%s can be foretold; use secrets", name)
		}
	case name == "os.chmod":
		s.permissions(c)
	case last == "extractall" || last == "extract":
		if c.arg("filter") == nil && (strings.Contains(name, "tar") || strings.Contains(name, "zip")) {
			s.x.secure(c.line, "archive-path", "%s writes where the archive says; its names may hold ..", last)
		}
	case last == "bind":
		if inside, ok := pyInside(first); ok && len(inside) > 0 {
			first = inside[:1]
		}
		if text, ok := pyConstant(first); ok && (text == "0.0.0.0" || text == "") {
			s.x.secure(c.line, "bind-all", "the socket listens on all addresses")
		}
	case last == "run" && pyIs(c.arg("debug"), "True"):
		s.x.secure(c.line, "debug-mode", "the debugger lets its visitors run code")
	case name == "jinja2.Environment":
		if auto := c.arg("autoescape"); auto == nil || pyIs(auto, "False") {
			s.x.secure(c.line, "unescaped-html", "autoescape is off, which is the default of jinja2")
		}
	case slices.Contains([]string{"execute", "executemany", "executescript", "raw", "read_sql", "read_sql_query", "text"}, last):
		if text, ok := pyComposed(first); ok && sqlText.MatchString(text) {
			s.x.secure(c.line, "sql-injection", "%s is given SQL that is put together; use parameters", last)
		}
	case last == "generate_private_key" || name == "Crypto.PublicKey.RSA.generate":
		bits := c.arg("key_size")
		if bits == nil && strings.HasSuffix(name, "RSA.generate") {
			bits = first
		}
		if len(bits) == 1 && bits[0].kind == pyNumber && len(bits[0].text) <= 4 && bits[0].text < "2048" {
			s.x.secure(c.line, "weak-key", "a key of %s bits can be broken; take 2048 or more", bits[0].text)
		}
	}
	if slices.Contains(pyRequests, name) && c.arg("timeout") == nil && c.arg("**") == nil {
		s.x.secure(c.line, "no-timeout", "%s without timeout may wait without end", name)
	}
	if pyIs(c.arg("verify"), "False") {
		s.x.secure(c.line, "tls-not-verified", "the certificate of the other side is not checked")
	}
	for _, a := range c.args {
		if text, ok := pyConstant(a.value); ok && a.name != "" {
			hardCoded(a.name, text, c.line, s.x)
		}
		if len(a.value) > 9 { // no dotted name
			continue
		}
		switch v := s.full(pyText(a.value)); {
		case strings.HasPrefix(v, "ssl.PROTOCOL_"):
			s.protocol(c.line, v)
		case strings.HasSuffix(v, "AES.MODE_ECB"):
			s.x.secure(c.line, "weak-cipher", "the mode ECB shows which blocks are equal")
		}
	}
}

func (s *pyScan) protocol(line int, name string) {
	if slices.Contains([]string{"ssl.PROTOCOL_SSLv2", "ssl.PROTOCOL_SSLv3", "ssl.PROTOCOL_SSLv23", "ssl.PROTOCOL_TLSv1", "ssl.PROTOCOL_TLSv1_1"}, name) {
		s.x.secure(line, "old-tls", "%s is broken; take TLS 1.2 or later", name)
	}
}

func pyIs(value []pyToken, word string) bool { return len(value) == 1 && value[0].word(word) }

func (s *pyScan) process(c *pyCall, name string, first []pyToken) {
	shell := c.arg("shell")
	switch {
	case pyIs(shell, "True") && pyFixed(first):
		s.x.secure(c.line, "shell-injection", "%s runs a shell where the program alone would do", name)
		s.x.list[len(s.x.list)-1].severity = "low"
	case shell != nil && !pyIs(shell, "False"):
		s.x.secure(c.line, "shell-injection", "%s gives a shell a text that is not constant", name)
	default:
		if _, composed := pyComposed(first); composed {
			s.x.secure(c.line, "command-injection", "%s is given a command that is put together", name)
		}
	}
}

func (s *pyScan) permissions(c *pyCall) {
	mode := c.positional(1)
	if mode == nil {
		mode = c.arg("mode")
	}
	if len(mode) != 1 || mode[0].kind != pyNumber || !strings.HasPrefix(strings.ToLower(mode[0].text), "0o") {
		return
	}
	text := mode[0].text
	if d := text[len(text)-1]; d == '2' || d == '3' || d == '6' || d == '7' {
		s.x.secure(c.line, "open-permissions", "the mode %s lets everybody write", text)
	}
}

// assign looks at constants that are given to names.
func (s *pyScan) assign(st *pyStatement) {
	parts := pySplit(st.head, "=")
	if len(parts) < 2 {
		return
	}
	value := parts[len(parts)-1]
	for _, target := range parts[:len(parts)-1] {
		name := pyText(target)
		if i := strings.IndexByte(name, ':'); i > 0 { // an annotation
			name = name[:i]
		}
		if key, ok := pySubscript(target); ok {
			name = key
		}
		if text, ok := pyConstant(value); ok {
			hardCoded(name, text, st.line, s.x)
		}
		if strings.HasSuffix(name, ".verify_mode") && strings.HasSuffix(pyText(value), "CERT_NONE") {
			s.x.secure(st.line, "tls-not-verified", "the certificate of the other side is not checked")
		}
		if strings.HasSuffix(name, "check_hostname") && pyIs(value, "False") {
			s.x.secure(st.line, "tls-not-verified", "the name in the certificate is not checked")
		}
		if strings.HasSuffix(name, "_create_default_https_context") {
			s.x.secure(st.line, "tls-not-verified", "certificates are not checked any more")
		}
		if name == "DEBUG" && pyIs(value, "True") {
			s.x.secure(st.line, "debug-mode", "DEBUG shows visitors what they should not see")
			s.x.list[len(s.x.list)-1].severity = "medium"
		}
	}
	if text, ok := pyComposed(value); ok && sqlText.MatchString(text) && !pyPlaceholders(text) {
		s.x.secure(st.line, "sql-injection", "SQL is put together; use parameters")
		s.x.list[len(s.x.list)-1].severity = "medium"
	}
}

// pyPlaceholders tells SQL into which only a list of placeholders is put.
func pyPlaceholders(text string) bool {
	return strings.Contains(text, "?") && !strings.Contains(text, "'")
}

// pySubscript is the constant key of x["key"].
func pySubscript(target []pyToken) (string, bool) {
	n := len(target)
	if n < 4 || !target[n-1].op("]") || !target[n-3].op("[") || target[n-2].kind != pyString {
		return "", false
	}
	return pyConstant(target[n-2 : n-1])
}

// maps looks at the constants of literal maps: {"password": "..."}.
func (s *pyScan) maps(tokens []pyToken) {
	for i := 0; i+2 < len(tokens); i++ {
		if tokens[i].kind == pyString && tokens[i+1].op(":") && tokens[i+2].kind == pyString && (i == 0 || tokens[i-1].op("{") || tokens[i-1].op(",")) {
			key, ok := pyConstant(tokens[i : i+1])
			text, too := pyConstant(tokens[i+2 : i+3])
			if ok && too {
				hardCoded(key, text, tokens[i].line, s.x)
			}
		}
	}
}
