package executor

import (
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
