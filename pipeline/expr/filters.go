package expr

import (
	"maps"
	"slices"
)

// input is what a filter takes on its left.
type input uint8

const (
	anyIn  input = iota
	textIn       // a text; other scalars as they print
	listIn       // a list; a map as its keys, a text as its characters
	numIn        // a number
	mapIn        // a map
)

// filter is an entry of the closed table.
type filter struct {
	name  string
	in    input
	sig   signature
	raw   bool // takes an undefined value: default
	inner byte // 'f' or 't': the first extra argument names a filter or a test
	fn    func(c *call, in any, args []any) any
}

func (c *call) input(f *filter, v any) any {
	v = c.ev.plain(v, c.at)
	switch f.in {
	case textIn:
		switch v.(type) {
		case []any, map[string]any:
			c.fail("it needs a text, not %s", typeName(v))
		}
		return c.ev.text(v, c.at)
	case listIn:
		switch v.(type) {
		case []any, map[string]any, string:
			return c.ev.iterate(v, c.at)
		}
		c.fail("it needs a list, not %s", typeName(v))
	case numIn:
		n := number(v)
		if n == nil {
			c.fail("it needs a number, not %s", typeName(v))
		}
		return n
	case mapIn:
		if _, ok := v.(map[string]any); !ok {
			c.fail("it needs a map, not %s", typeName(v))
		}
	}
	return v
}

// filterAdvice answers for filters that people expect from elsewhere.
var filterAdvice = map[string]string{
	"split":      "it is a method: x.split(',')",
	"startswith": "it is a method: x.startswith('a')",
	"endswith":   "it is a method: x.endswith('a')",
	"keys":       "it is a method: x.keys()",
	"values":     "it is a method: x.values()",
	"random":     "values do not change between evaluations",
	"shuffle":    "values do not change between evaluations",
	"tojson5":    "use tojson",
	"quote":      "use sh",
	"fromjson":   "use from_json",
	"bool":       "compare it, as in x == 'true'",
}

// filters is the table. Names and parameters are those of Jinja2, where it has
// the filter.
var filters = table()

func table() map[string]*filter {
	caseSensitive := opt("case_sensitive", boolKind, false)
	attribute := opt("attribute", attrKind, nil)
	precision := opt("precision", intKind, int64(0))
	ignoreCase := opt("ignorecase", boolKind, false)
	picks := func(name string, attr, keep bool) *filter {
		f := &filter{name: name, in: listIn, inner: 't', fn: pick(attr, keep)}
		f.sig.rest = true
		if attr {
			f.sig.params = []param{need("attribute", attrKind)}
		}
		return f
	}
	all := []*filter{
		{name: "default", raw: true, sig: sig(opt("default_value", anyKind, ""), opt("boolean", boolKind, false))},

		// numbers
		{name: "abs", in: numIn, fn: filterAbs},
		{name: "round", in: numIn, sig: sig(precision, opt("method", textKind, "common")), fn: filterRound},
		{name: "int", sig: sig(opt("default", anyKind, int64(0)), opt("base", intKind, int64(10))), fn: filterInt},
		{name: "float", sig: sig(opt("default", anyKind, 0.0)), fn: filterFloat},
		{name: "filesizeformat", sig: sig(opt("binary", boolKind, false)), fn: filterFileSize},

		// lists and maps
		{name: "length", fn: filterLength},
		{name: "first", in: listIn, fn: filterFirst},
		{name: "last", in: listIn, fn: filterLast},
		{name: "list", in: listIn, fn: filterList},
		{name: "reverse", fn: filterReverse},
		{name: "join", in: listIn, sig: sig(opt("d", textKind, ""), attribute), fn: filterJoin},
		{name: "sort", in: listIn, sig: sig(opt("reverse", boolKind, false), caseSensitive, attribute), fn: filterSort},
		{name: "unique", in: listIn, sig: sig(caseSensitive, attribute), fn: filterUnique},
		{name: "min", in: listIn, sig: sig(caseSensitive, attribute), fn: extreme(-1)},
		{name: "max", in: listIn, sig: sig(caseSensitive, attribute), fn: extreme(1)},
		{name: "sum", in: listIn, sig: sig(attribute, opt("start", anyKind, int64(0))), fn: filterSum},
		{name: "batch", in: listIn, sig: sig(need("linecount", intKind), opt("fill_with", anyKind, nil)), fn: filterBatch},
		{name: "slice", in: listIn, sig: sig(need("slices", intKind), opt("fill_with", anyKind, nil)), fn: filterSlice},
		{name: "groupby", in: listIn, sig: sig(need("attribute", attrKind), opt("default", anyKind, nil), caseSensitive), fn: filterGroupBy},
		{name: "dictsort", in: mapIn, sig: sig(caseSensitive, opt("by", textKind, "key"), opt("reverse", boolKind, false)), fn: filterDictSort},
		{name: "items", in: mapIn, fn: func(c *call, in any, _ []any) any { return c.pairs(in) }},
		{name: "attr", sig: sig(need("name", textKind)), fn: filterAttr},
		{name: "map", in: listIn, inner: 'f', sig: signature{rest: true, named: true}, fn: filterMap},
		picks("select", false, true), picks("reject", false, false),
		picks("selectattr", true, true), picks("rejectattr", true, false),

		// texts
		{name: "string", in: anyIn, fn: func(c *call, in any, _ []any) any { return c.ev.text(in, c.at) }},
		{name: "lower", in: textIn, fn: filterLower},
		{name: "upper", in: textIn, fn: filterUpper},
		{name: "capitalize", in: textIn, fn: filterCapitalize},
		{name: "title", in: textIn, fn: filterTitle},
		{name: "trim", in: textIn, sig: sig(opt("chars", textKind, nil)), fn: filterTrim},
		{name: "replace", in: textIn, sig: sig(need("old", textKind), need("new", textKind), opt("count", intKind, int64(-1))), fn: filterReplace},
		{name: "truncate", in: textIn, sig: sig(opt("length", intKind, int64(255)), opt("killwords", boolKind, false), opt("end", textKind, "..."), opt("leeway", intKind, int64(5))), fn: filterTruncate},
		{name: "center", in: textIn, sig: sig(opt("width", intKind, int64(80))), fn: filterCenter},
		{name: "indent", in: textIn, sig: sig(opt("width", anyKind, int64(4)), opt("first", boolKind, false), opt("blank", boolKind, false)), fn: filterIndent},
		{name: "wordcount", in: textIn, fn: filterWordCount},
		{name: "wordwrap", in: textIn, sig: sig(opt("width", intKind, int64(79)), opt("break_long_words", boolKind, true), opt("wrapstring", textKind, "\n"), opt("break_on_hyphens", boolKind, true)), fn: filterWordWrap},
		{name: "format", in: textIn, sig: signature{rest: true, named: true}, fn: filterFormat},
		{name: "escape", in: textIn, fn: filterEscape},
		{name: "safe", in: textIn, fn: func(_ *call, in any, _ []any) any { return in }},
		{name: "striptags", in: textIn, fn: filterStripTags},
		{name: "urlencode", fn: filterURLEncode},
		{name: "urlize", in: textIn, sig: sig(opt("trim_url_limit", intKind, nil), opt("nofollow", boolKind, false), opt("target", textKind, nil), opt("rel", textKind, nil), opt("extra_schemes", anyKind, nil)), fn: filterURLize},
		{name: "xmlattr", in: mapIn, sig: sig(opt("autospace", boolKind, true)), fn: filterXMLAttr},
		{name: "tojson", sig: sig(opt("indent", intKind, int64(0))), fn: filterToJSON},
		{name: "pprint", fn: func(c *call, in any, _ []any) any { return filterToJSON(c, in, []any{int64(2)}) }},

		// our own
		{name: "from_json", in: textIn, fn: filterFromJSON},
		{name: "slugify", in: textIn, sig: sig(opt("separator", textKind, "-")), fn: filterSlugify},
		{name: "basename", in: textIn, fn: filterBasename},
		{name: "dirname", in: textIn, fn: filterDirname},
		{name: "regex_search", in: textIn, sig: sig(need("pattern", textKind), opt("group", anyKind, int64(0)), ignoreCase), fn: filterRegexSearch},
		{name: "regex_replace", in: textIn, sig: sig(need("pattern", textKind), opt("replacement", textKind, ""), ignoreCase, opt("count", intKind, int64(0))), fn: filterRegexReplace},
		{name: "date", sig: sig(opt("format", textKind, "%Y-%m-%d")), fn: filterDate},
		{name: "sh", fn: filterShell},
	}
	t := make(map[string]*filter, len(all)+10)
	for _, f := range all {
		t[f.name] = f
	}
	for alias, name := range map[string]string{
		"d": "default", "count": "length", "e": "escape", "forceescape": "escape",
		"json": "tojson", "to_json": "tojson", "json_encode": "tojson",
	} {
		t[alias] = t[name]
	}
	return t
}

// Filters returns the names of all filters, sorted.
func Filters() []string { return slices.Sorted(maps.Keys(filters)) }

// Tests returns the names of all tests, sorted.
func Tests() []string { return slices.Sorted(maps.Keys(tests)) }

// Functions returns the names of all global functions, sorted.
func Functions() []string { return slices.Sorted(maps.Keys(functions)) }

// The arguments of a call have the types of their parameters, or are null where
// the default is.
func asText(v any) string { s, _ := v.(string); return s }
func asInt(v any) int64   { n, _ := v.(int64); return n }
func asBool(v any) bool   { b, _ := v.(bool); return b }
func asList(v any) []any  { l, _ := v.([]any); return l }
