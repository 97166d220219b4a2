package server

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
)

// safe answers requests that a browser may have been tricked into, and reports
// whether the request may go on. It holds on loopback and without login too: a
// page of any site can reach a server on its visitor's machine.
func (s *Server) safe(w http.ResponseWriter, r *http.Request) bool {
	if !probe(r.URL.Path) && !s.hostAllowed(r.Host) {
		// Otherwise a name that points here (DNS rebinding) would make a
		// foreign page and this server one origin.
		reject(w, http.StatusForbidden, codes.PermissionDenied, "host_not_allowed",
			"the host %s is not served here; add it to the server's hosts if it should be", short(r.Host))
		return false
	}
	if (changes(r.Method) || isWebSocket(r)) && !s.originAllowed(r) {
		reject(w, http.StatusForbidden, codes.PermissionDenied, "origin_not_allowed",
			"a page of another site may not do this")
		return false
	}
	return true
}

// probe tells the paths that machines ask for by any address, and that tell
// nothing of anyone.
func probe(path string) bool {
	return path == "/healthz" || path == "/readyz" || path == "/metrics"
}

func changes(method string) bool { return method != http.MethodGet && method != http.MethodHead }

func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// hostAllowed reports whether a Host header names this server.
func (s *Server) hostAllowed(host string) bool {
	name := hostName(host)
	return loopback(name) || s.listed(name)
}

// listed reports whether the configuration names the host.
func (s *Server) listed(name string) bool {
	for _, h := range s.cfg.Hosts {
		if name != "" && strings.EqualFold(name, hostName(h)) {
			return true
		}
	}
	return false
}

// hostName is a host without port and brackets.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.TrimSuffix(strings.Trim(host, "[]"), ".")
}

func loopback(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	return err == nil && a.Unmap().IsLoopback()
}

// originAllowed reports whether a request comes from a page of this server, or
// from a program.
func (s *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		// Browsers send one or the other on everything that changes something.
		site := r.Header.Get("Sec-Fetch-Site")
		return site == "" || site == "same-origin" || site == "none"
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return false // "null" too
	}
	// Another port of this machine is another site. A configured name may
	// differ from Host when a proxy stands in between.
	return strings.EqualFold(u.Host, r.Host) || s.listed(u.Hostname())
}

// isJSON reports whether a REST request's body says that it is JSON. Forms and
// plain text are what a foreign page may send without being asked.
func isJSON(r *http.Request) bool {
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "application/json" {
		return false
	}
	charset := params["charset"]
	return charset == "" || strings.EqualFold(charset, "utf-8")
}
