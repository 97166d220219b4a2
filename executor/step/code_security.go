package step

import (
	"context"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const securityDoc = `Looks for insecure code by rules over its structure. Go and Python are understood; keys and tokens are found in files of any language.

    - id: security_scan
      action: security_analysis
      parameters: {code: "{{ code_parsing.parsed_code }}", severity_threshold: medium and above}

code is what parse_code gives, or anything that parse_code takes. severity_threshold is a text with low, medium, high or critical in it; findings below it are left out; default: low, which is all. scan_depth is a text; with quick, shallow, basic or surface in it only rules that seldom err are used. threshold and depth tell what was used.

Of both: shell-injection (CWE-78), command-injection (CWE-78), sql-injection (CWE-89), weak-hash (CWE-328), weak-cipher (CWE-327), weak-key (CWE-326), tls-not-verified (CWE-295), old-tls (CWE-327), weak-random (CWE-338), open-permissions (CWE-732), archive-path (CWE-22), unescaped-html (CWE-79), hard-coded-secret (CWE-798).
Of Go: unsafe-code (CWE-242), profiler-exposed (CWE-489), host-key-not-verified (CWE-322), no-header-timeout (CWE-400).
Of Python: code-injection (eval, exec; CWE-95), unsafe-deserialization (pickle, yaml.load, ...; CWE-502), insecure-temp-file (CWE-377), debug-mode (CWE-489), bind-all (CWE-605), xml-entities (CWE-611), no-timeout (CWE-400), host-key-not-verified (CWE-322).

These rules see what stands in the code, not where data comes from: what they find is to be looked at, and what they do not find may still be there. message never shows a secret whole.`

// SecurityAnalysis names the code and what to leave out.
type SecurityAnalysis struct {
	Code              any `param:"required" doc:"what parse_code gives, or a file, a folder, a pattern, the code itself, or a list of them"`
	SeverityThreshold any `doc:"the least severity: a text with low, medium, high or critical; default: low"`
	ScanDepth         any `doc:"a text; quick, shallow, basic or surface: only rules that seldom err"`
}

type securityResult struct {
	Findings  []any          `doc:"maps with path, line, rule, severity, message, cwe; by path and line"`
	Summary   map[string]any `doc:"how many of each severity, and in all (total)"`
	Threshold string         `doc:"the least severity that was reported"`
	Depth     string         `doc:"quick or full"`
	Skipped   []any          `doc:"files of which only the text was searched: path, reason"`
}

func securityAction() executor.Action {
	return executor.NewAction[SecurityAnalysis](executor.Describe{
		Name: "security_analysis", Doc: securityDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: securityResult{},
	})
}

var severities = []string{"low", "medium", "high", "critical"}

// rule of security: its weakness, how grave it is, and whether it may well err.
type securityRule struct {
	cwe      string
	severity string
	unsure   bool
}

var securityRules = map[string]securityRule{
	"code-injection":         {cwe: "CWE-95", severity: "high"},
	"shell-injection":        {cwe: "CWE-78", severity: "high"},
	"command-injection":      {cwe: "CWE-78", severity: "medium", unsure: true},
	"sql-injection":          {cwe: "CWE-89", severity: "high"},
	"unsafe-deserialization": {cwe: "CWE-502", severity: "high"},
	"weak-hash":              {cwe: "CWE-328", severity: "medium"},
	"weak-cipher":            {cwe: "CWE-327", severity: "high"},
	"weak-key":               {cwe: "CWE-326", severity: "high"},
	"tls-not-verified":       {cwe: "CWE-295", severity: "high"},
	"old-tls":                {cwe: "CWE-327", severity: "medium"},
	"weak-random":            {cwe: "CWE-338", severity: "low", unsure: true},
	"open-permissions":       {cwe: "CWE-732", severity: "medium"},
	"archive-path":           {cwe: "CWE-22", severity: "medium", unsure: true},
	"unescaped-html":         {cwe: "CWE-79", severity: "medium", unsure: true},
	"hard-coded-secret":      {cwe: "CWE-798", severity: "high"},
	"unsafe-code":            {cwe: "CWE-242", severity: "low"},
	"profiler-exposed":       {cwe: "CWE-489", severity: "medium"},
	"host-key-not-verified":  {cwe: "CWE-322", severity: "high"},
	"no-header-timeout":      {cwe: "CWE-400", severity: "low", unsure: true},
	"insecure-temp-file":     {cwe: "CWE-377", severity: "medium"},
	"debug-mode":             {cwe: "CWE-489", severity: "high"},
	"bind-all":               {cwe: "CWE-605", severity: "low", unsure: true},
	"xml-entities":           {cwe: "CWE-611", severity: "low", unsure: true},
	"no-timeout":             {cwe: "CWE-400", severity: "low", unsure: true},
}

// secure adds what a rule of security found.
func (f *findings) secure(line int, rule, format string, args ...any) {
	r := securityRules[rule]
	f.add(line, rule, r.severity, format, args...)
	f.list[len(f.list)-1].cwe = r.cwe
}

// Run applies the rules.
func (s SecurityAnalysis) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	files, err := parseCode(ctx, env, "code", s.Code, nil)
	if err != nil {
		return executor.Output{}, err
	}
	least := "low"
	asked := strings.ToLower(expr.Text(s.SeverityThreshold))
	for _, name := range severities { // "high and critical": the lower one
		if strings.Contains(asked, name) {
			least = name
			break
		}
	}
	depth := "full"
	if spelled(expr.Text(s.ScanDepth), [][2]string{{"quick", "q"}, {"shallow", "q"}, {"basic", "q"}, {"surface", "q"}}) != "" {
		depth = "quick"
	}
	var all []finding
	for _, f := range files {
		x := &findings{path: f.path}
		secretsOfText(f.text, x)
		switch {
		case f.golang != nil:
			securityOfGo(f, x)
		case f.python != nil:
			securityOfPython(f, x)
		}
		for _, found := range x.list {
			if slices.Index(severities, found.severity) >= slices.Index(severities, least) && (depth == "full" || !securityRules[found.rule].unsure) {
				all = append(all, found)
			}
		}
	}
	list, summary := report(all, severities)
	return executor.Output{Value: map[string]any{
		"findings": list, "summary": summary, "threshold": least, "depth": depth, "skipped": skipped(files),
	}}, nil
}

// tokenForms are keys and tokens that are known by their form.
var tokenForms = []struct {
	what    string
	pattern *regexp.Regexp
}{
	{"a private key", regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----`)},
	{"an access key of AWS", regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`)},
	{"a token of GitHub", regexp.MustCompile(`\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{60,})\b`)},
	{"a token of Slack", regexp.MustCompile(`\bxox[abprs]-[0-9A-Za-z-]{20,}\b`)},
	{"a key of Google", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}\b`)},
	{"a key of Stripe", regexp.MustCompile(`\b[sr]k_live_[0-9A-Za-z]{20,}\b`)},
	{"a token that is signed (JWT)", regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}`)},
	{"a password within an address", regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^/\s:@'"{}$<%]+:[^/\s:@'"{}$<%]{4,}@[0-9A-Za-z]`)},
}

func secretsOfText(text string, x *findings) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if len(line) > 10_000 {
			continue
		}
		for _, t := range tokenForms {
			if t.pattern.MatchString(line) {
				x.secure(n, "hard-coded-secret", "%s stands in the source", t.what)
				x.list[len(x.list)-1].severity = "critical"
			}
		}
	}
}

// placeholder tells texts that stand for a secret, or are made up for tests.
var placeholder = regexp.MustCompile(`(?i)(example|change.?me|your[_ -]|xxx|placeholder|dummy|<.*>|\$\{|\{\{|%s|\*\*\*|todo|redacted|^none$|^null$|^test)`)

var (
	// secretWords sound like a secret; keyWords do with key after them.
	secretWords = strings.Fields("password passwd passwort pwd passphrase secret credential credentials apikey token")
	keyWords    = strings.Fields("api access private secret encryption signing auth master")
	// otherWords tell what is about a secret from the secret.
	otherWords = strings.Fields("file filename path name url uri prefix suffix header field param parameter env var label hint regex pattern format hash hashed id " +
		"count len length min max type kind types policy error message msg prompt title help doc column table endpoint address input")
)

// nameWords cuts a name of code into its words, in small letters.
func nameWords(name string) []string {
	var words []string
	word := ""
	flush := func() {
		if word != "" {
			words = append(words, strings.ToLower(word))
		}
		word = ""
	}
	upper := false
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush()
			continue
		case unicode.IsUpper(r) && !upper:
			flush()
		}
		upper = unicode.IsUpper(r)
		word += string(r)
	}
	flush()
	return words
}

// soundsSecret judges a name by its words.
func soundsSecret(name string) bool {
	words := nameWords(name)
	sounds := false
	for i, w := range words {
		switch {
		case slices.Contains(otherWords, w):
			return false
		case slices.Contains(secretWords, w), w == "key" && i > 0 && slices.Contains(keyWords, words[i-1]):
			sounds = true
		}
	}
	return sounds
}

// hardCoded judges a constant text that is given to a name: the name sounds like a
// secret, and the text could be one.
func hardCoded(name, text string, line int, x *findings) {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if len(text) < 4 || len(text) > 500 || strings.ContainsAny(text, " \n\t") || placeholder.MatchString(text) || !soundsSecret(last) {
		return
	}
	plain := strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
	switch {
	case soundsSecret(text) && !strings.ContainsAny(text, "0123456789"): // it names a secret: "access_token"
	case randomText(text):
		x.secure(line, "hard-coded-secret", "%s is given a text of %d characters that looks random", name, len(text))
	case plain && slices.Contains(nameWords(last), "token"): // of a parser, rather
	default:
		x.secure(line, "hard-coded-secret", "%s is given a text of %d characters that begins %q", name, len(text), []rune(text)[0])
	}
}

// randomText judges by length, alphabet and entropy: 20 characters or more with at
// least 3.5 bits each, or 3 for hexadecimal digits.
func randomText(text string) bool {
	if len(text) < 20 {
		return false
	}
	hexadecimal := strings.Trim(text, "0123456789abcdefABCDEF") == ""
	letters := strings.ContainsAny(text, "0123456789") && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-") == ""
	bits := entropy(text)
	return (hexadecimal && bits >= 3) || (letters && bits >= 3.5)
}

// entropy is Shannon's, in bits for each byte.
func entropy(text string) float64 {
	var counts [256]int
	for i := range len(text) {
		counts[text[i]]++
	}
	bits := 0.0
	for _, n := range counts {
		if n > 0 {
			p := float64(n) / float64(len(text))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// sqlText tells the beginning of a statement of SQL.
var sqlText = regexp.MustCompile(`(?is)^\W*(select\b.+\bfrom\b|select\s|insert\s+into\b|update\s+\S+\s+set\b|delete\s+from\b|drop\s+(table|database)\b|alter\s+table\b|create\s+(table|database|index)\b|replace\s+into\b|with\s+\w+\s+as\s*\()`)
