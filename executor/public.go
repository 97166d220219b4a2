package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrNotPublic is why a request was not sent: a stranger, as a model or a server
// elsewhere, has chosen its host, and that is none of the public internet.
var ErrNotPublic = errors.New("is not an address of the public internet")

type publicKey struct{}

// PublicOnly marks requests whose host a stranger chooses: a transport of Guarded
// sends them, and what they are redirected to, to public addresses alone, and to
// hosts that one of the patterns names, as path.Match has them.
func PublicOnly(ctx context.Context, patterns []string) context.Context {
	return context.WithValue(ctx, publicKey{}, patterns)
}

// Guarded gives a transport that heeds PublicOnly and sends everything else by base.
// Addresses are judged once names are resolved, when a connection is made. Through
// a proxy, which resolves names by itself, what this machine makes of the name is
// judged.
func Guarded(base *http.Transport) http.RoundTripper {
	apart := base.Clone() // no connection is shared, so that none to a private address is found open
	apart.DialTLSContext = nil
	apart.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%s %w", address, ErrNotPublic)
		}
		return unlessPublic(at.Addr())
	}}).DialContext
	return &guarded{base: base, apart: apart}
}

type guarded struct {
	base, apart *http.Transport
}

func (g *guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	patterns, marked := req.Context().Value(publicKey{}).([]string)
	host := strings.TrimSuffix(strings.ToLower(req.URL.Hostname()), ".")
	if !marked || slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(strings.ToLower(p), host); return ok }) {
		return g.base.RoundTrip(req)
	}
	if local(host) {
		return nil, fmt.Errorf("%s %w", host, ErrNotPublic)
	}
	if g.base.Proxy != nil {
		if proxy, err := g.base.Proxy(req); err != nil || proxy != nil {
			if err := publicName(req.Context(), host); err != nil {
				return nil, err
			}
			return g.base.RoundTrip(req)
		}
	}
	return g.apart.RoundTrip(req)
}

// CloseIdleConnections closes what is kept open.
func (g *guarded) CloseIdleConnections() {
	g.base.CloseIdleConnections()
	g.apart.CloseIdleConnections()
}

// local reports whether a host need not be resolved to be refused: this machine, and
// odd ways to write an address, as 2130706433 and 0x7f.1, which some resolvers take.
func local(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(host)
	_, odd := strconv.ParseUint(last, 0, 64)
	return err != nil && (odd == nil || last != "" && strings.Trim(last, "0123456789") == "")
}

// publicName judges a host that a proxy is to resolve. A name that is unknown here
// is the proxy's to judge.
func publicName(ctx context.Context, host string) error {
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	for _, a := range found {
		if err := unlessPublic(a); err != nil {
			return err
		}
	}
	return nil
}

// notPublic are ranges of the registries of special addresses (IANA), beside those
// that netip knows.
var notPublic = func() (list []netip.Prefix) {
	for _, p := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b:1::/48", "100::/64", "2001:db8::/32", "fec0::/10",
	} {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}()

// carriers are ranges of IPv6 that hold an address of IPv4, by where it begins.
var carriers = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"): 12,
	netip.MustParsePrefix("2002::/16"):    2,
}

func unlessPublic(a netip.Addr) error {
	if Public(a) {
		return nil
	}
	return fmt.Errorf("%s %w", a.Unmap(), ErrNotPublic)
}

// Public reports whether an address is one of the public internet.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for p, from := range carriers {
		if p.Contains(a) {
			b := a.As16()
			a = netip.AddrFrom4([4]byte(b[from : from+4]))
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(a) })
}
