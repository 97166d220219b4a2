package server

import (
	"net/http"
	"net/http/pprof" // it is served where the settings say so; nobody uses the default mux
	"strings"
)

// profilePath is where the profiles of this process stand, in the form that go tool
// pprof reads.
const profilePath = "/debug/pprof/"

func serveProfile(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimPrefix(r.URL.Path, profilePath) {
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	default:
		pprof.Index(w, r)
	}
}
