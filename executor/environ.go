package executor

import (
	"encoding/base64"
	"os"
	"slices"
	"strings"
)

// harmless is what a command sees of a server's own environment.
var harmless = []string{"PATH", "HOME", "LANG", "TMPDIR", "TZ"}

// Harmless keeps of an environment what commands on a server may see: PATH,
// HOME, LANG, TMPDIR and TZ.
func Harmless(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return !slices.Contains(harmless, k)
	})
}

// Callers keeps of the caller's environment what commands of a run started by
// `orchestrator run` see: all but the keys of model providers, the database
// and this program's own settings.
func Callers(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == "DATABASE_URL" || strings.HasPrefix(k, "ORCHESTRATOR_") ||
			strings.HasSuffix(k, "_API_KEY") || strings.HasSuffix(k, "_AUTH_TOKEN")
	})
}

// EnvSecret finds a secret in the variable ORCHESTRATOR_SECRET_<NAME>.
func EnvSecret(name string) (string, bool) {
	return os.LookupEnv("ORCHESTRATOR_SECRET_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
}

// redactor blots out secrets, by value and by its base64 form.
type redactor struct{ replace []string }

// minSecret is the length below which a value is too common to blot out.
const minSecret = 4

func (x *redactor) add(name, value string) {
	if len(value) < minSecret {
		return
	}
	mark := "[secret " + name + "]"
	x.replace = append(x.replace, value, mark, base64.StdEncoding.EncodeToString([]byte(value)), mark)
}

func (x *redactor) text(s string) string {
	if x == nil || len(x.replace) == 0 {
		return s
	}
	return strings.NewReplacer(x.replace...).Replace(s)
}

func (x *redactor) value(v any) any {
	if x == nil || len(x.replace) == 0 {
		return v
	}
	switch v := v.(type) {
	case string:
		return x.text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = x.value(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[x.text(k)] = x.value(e)
		}
		return out
	}
	return v
}
