package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// said is what a client of HTTP/2 says first: each frame on its own, headers as pairs.
func said(t *testing.T, answersFirst bool, headers ...string) [][]byte {
	t.Helper()
	var frames [][]byte
	var buf bytes.Buffer
	f := http2.NewFramer(&buf, nil)
	frame := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, bytes.Clone(buf.Bytes()))
		buf.Reset()
	}
	buf.WriteString(http2.ClientPreface)
	frame(f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
	frame(f.WriteWindowUpdate(0, 1<<20))
	if answersFirst {
		frame(f.WriteSettingsAck())
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(headers); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: headers[i], Value: headers[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	half := block.Len() / 2
	frame(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()[:half]}))
	frame(f.WriteContinuation(1, true, block.Bytes()[half:]))
	if !answersFirst {
		frame(f.WriteSettingsAck())
	}
	frame(f.WriteData(1, true, []byte("hello")))
	frame(f.WriteSettingsAck())
	return frames
}

func TestConnectionsAreSortedByTheirFirstRequest(t *testing.T) {
	request := func(more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":path", "/x", ":authority", "localhost:80"}, more...)
	}
	const kind, grpc = "content-type", "application/grpc"
	for _, c := range []struct {
		name    string
		text    string
		headers []string
		native  bool
	}{
		{name: "gRPC", headers: request(kind, grpc, "user-agent", "x"), native: true},
		{name: "gRPC with a codec", headers: request(kind, grpc+"+proto"), native: true},
		{name: "gRPC for browsers", headers: request(kind, grpc+"-web")},
		{name: "REST", headers: request(kind, "application/json")},
		{name: "a host that is not served", headers: []string{":method", "POST", ":authority", "evil.example", kind, grpc}},
		{name: "a page", headers: request(kind, grpc, "origin", "http://localhost")},
		{name: "a browser", headers: request(kind, grpc, "sec-fetch-site", "none")},
		{name: "a proxy", headers: request(kind, grpc, "x-forwarded-for", "10.0.0.1")},
		{name: "another proxy", headers: request(kind, grpc, "via", "2 proxy")},
		{name: "too many headers", headers: request(kind, grpc, "x", strings.Repeat("x", headerLimit))},
		{name: "HTTP/1.1", text: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{name: "almost HTTP/2", text: "PRI * HTTP/1.0\r\n\r\n"},
		{name: "nothing", text: ""},
	} {
		for _, answersFirst := range []bool{true, false} {
			for _, piece := range []int{1, 1 << 20} {
				sending := [][]byte{[]byte(c.text)}
				if c.headers != nil {
					sending = said(t, answersFirst, c.headers...)
				}
				var given bytes.Buffer // what the server is to read in the end
				skipped := false
				for _, f := range sending {
					if c.headers != nil && !c.native && !skipped && bytes.Equal(f, []byte{0, 0, 0, 4, 1, 0, 0, 0, 0}) {
						skipped = true
						continue
					}
					given.Write(f)
				}
				client, server := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, client) }()
				go func() {
					for rest := bytes.Join(sending, nil); len(rest) > 0; rest = rest[min(piece, len(rest)):] {
						if _, err := client.Write(rest[:min(piece, len(rest))]); err != nil {
							return
						}
					}
					_ = client.Close()
				}()
				s := newSorter(nil, func(host string) bool { return loopback(hostName(host)) })
				to, sorted := s.look(server)
				if (to == &s.grpc) != c.native {
					t.Errorf("%s: taken for a gRPC client's: %v", c.name, !c.native)
				}
				if got, err := io.ReadAll(sorted); err != nil || !bytes.Equal(got, given.Bytes()) {
					t.Errorf("%s, answers first %v, by %d: the server reads %d bytes, not the %d that it is to read, %v", c.name, answersFirst, piece, len(got), given.Len(), err)
				}
				_ = server.Close()
			}
		}
	}
}

func TestOnePortServesAllProtocols(t *testing.T) {
	f := start(t)
	conn, err := grpc.NewClient(strings.TrimPrefix(f.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	other, err := grpc.NewClient(strings.TrimPrefix(f.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	h2 := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	defer h2.CloseIdleConnections()
	for range 3 {
		run, err := orchestratorv1.NewRunsClient(conn).CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: hello})
		if err != nil {
			t.Fatalf("gRPC: %v", err)
		}
		proxied := metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-for", "10.0.0.1")
		if _, err := orchestratorv1.NewRunsClient(other).GetRun(proxied, &orchestratorv1.GetRunRequest{Id: run.GetId()}); err != nil {
			t.Errorf("gRPC by a proxy: %v", err)
		}
		for _, client := range []*http.Client{h2, f.client} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/v1/runs/"+run.GetId(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("REST: %v", err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(run.GetId())) || (resp.ProtoMajor == 2) != (client == h2) {
				t.Errorf("REST: %s %s %q, %v", resp.Proto, resp.Status, text, err)
			}
		}
	}
	if _, _, text := f.do(http.MethodGet, "/metrics", ""); !strings.Contains(text, `orchestrator_http_requests_total{code="200",route="grpc"} 6`) {
		t.Errorf("the metrics do not tell of six requests over gRPC:\n%s", text)
	}
}

func TestAServerEndsWithConnectionsThatHaveSaidNothing(t *testing.T) {
	f := start(t)
	var silent []net.Conn
	for _, text := range []string{"", "PRI * HT", http2.ClientPreface} {
		c, err := new(net.Dialer).DialContext(context.Background(), "tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	f.create()
	f.stop()
	for i, c := range silent {
		if text, err := io.ReadAll(c); err == nil && len(text) > len(settings) {
			t.Errorf("connection %d was told %q", i, text)
		}
	}
}
