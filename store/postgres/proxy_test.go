package postgres_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a store and its database. It counts statements and can
// cut connections, also between the server's commit and its answer.
type proxy struct {
	target     string
	listener   net.Listener
	work       sync.WaitGroup
	statements atomic.Int64
	mute       atomic.Bool // bells do not pass, as behind a pooler
	swallow    atomic.Bool // the next answer of the server is lost, and its connection with it
	forget     atomic.Bool // the same of the next answer on a connection of a lane

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// newProxy gives a proxy to the database and the address that leads through it.
func newProxy(t testing.TB, address string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, listener: l, conns: make(map[net.Conn]bool)}
	p.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.work.Wait()
	})
	u.Host = l.Addr().String()
	return p, u.String()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	var lane atomic.Bool
	both.Go(func() {
		defer client.Close()
		if p.mute.Load() {
			p.silence(bufio.NewReader(server), client)
			return
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || p.swallow.CompareAndSwap(true, false) || lane.Load() && p.forget.CompareAndSwap(true, false) {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	both.Go(func() {
		defer server.Close()
		p.forward(bufio.NewReader(client), server, &lane)
	})
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// forward passes the client's messages on and counts those that execute. It tells a
// lane by the names of its statements.
func (p *proxy) forward(client io.Reader, server io.Writer, lane *atomic.Bool) {
	for started := false; ; started = true {
		head := make([]byte, 4, 5)
		if started {
			head = head[:5]
		}
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		if started && (head[0] == 'Q' || head[0] == 'E') {
			p.statements.Add(1)
		}
		body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if started && head[0] == 'B' && bytes.HasPrefix(body, []byte("\x00s0\x00")) {
			lane.Store(true)
		}
		if _, err := server.Write(append(head, body...)); err != nil {
			return
		}
	}
}

// silence passes the server's messages on, but for notifications.
func (p *proxy) silence(server io.Reader, client io.Writer) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'A' && p.mute.Load() {
			continue
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}
