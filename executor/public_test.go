package executor_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
)

// A stranger who chooses a host cannot choose one that is not public, however it is
// written, whatever leads there.
func TestStrangersReachPublicHostsAlone(t *testing.T) {
	var reached int
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ }))
	defer inner.Close()
	port := inner.Listener.Addr().String()
	port = port[strings.LastIndexByte(port, ':')+1:]
	transport := executor.Guarded(&http.Transport{})
	client := &http.Client{Transport: transport}
	get := func(address string, public bool, patterns ...string) error {
		ctx := t.Context()
		if public {
			ctx = executor.PublicOnly(ctx, patterns)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get("http://127.0.0.1:"+port, false); err != nil || reached != 1 {
		t.Fatalf("a host that nobody forbids: %v, reached %d", err, reached)
	}
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST.", "127.9.8.7", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]",
		"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "099.1", "a.localhost",
		"[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[fe80::1%25lo]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
		"169.254.169.254", "10.0.0.1", "172.16.3.4", "192.168.1.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
	} {
		if err := get("http://"+host+":"+port+"/", true); !errors.Is(err, executor.ErrNotPublic) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if reached != 1 {
		t.Errorf("the inner server was reached %d times", reached)
	}
	if err := get("http://localhost:"+port, true, "wiki", "local*"); err != nil {
		t.Errorf("a host that is allowed by name: %v", err)
	}
	if err := get("http://127.0.0.1:"+port, true, "local*"); !errors.Is(err, executor.ErrNotPublic) {
		t.Errorf("another name of a host that is allowed by name: %v", err)
	}

	outer := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:"+port+"/admin", http.StatusFound))
	defer outer.Close()
	began := strings.Replace(outer.URL, "127.0.0.1", "localhost", 1)
	if err := get(began, true, "localhost"); !errors.Is(err, executor.ErrNotPublic) {
		t.Errorf("a redirect: %v", err)
	}
}

func TestProxiesAreNoWayAround(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.Host) }))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: executor.Guarded(&http.Transport{Proxy: http.ProxyURL(at)})}
	for _, host := range []string{"localhost", "a.localhost", "169.254.169.254", "[::1]", "2130706433", "0x7f.1"} {
		req, err := http.NewRequestWithContext(executor.PublicOnly(t.Context(), nil), http.MethodGet, "http://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, executor.ErrNotPublic) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(asked) > 0 {
		t.Errorf("the proxy was asked for %v", asked)
	}
	req, err := http.NewRequestWithContext(executor.PublicOnly(t.Context(), nil), http.MethodGet, "http://93.184.215.14/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(asked) != 1 {
		t.Errorf("the proxy was asked for %v", asked)
	}
}
