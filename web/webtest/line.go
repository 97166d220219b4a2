package webtest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Line is a connection between browser and server that a test can cut.
type Line struct {
	URL string // where the browser reaches the server

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// NewLine returns a line to the server at url (http://host:port).
func NewLine(t testing.TB, url string) *Line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	line := &Line{URL: "http://" + l.Addr().String(), conns: map[net.Conn]bool{}}
	to := strings.TrimPrefix(url, "http://")
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { line.carry(c, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		line.Cut()
		all.Wait()
	})
	return line
}

func (l *Line) carry(a net.Conn, to string) {
	defer a.Close()
	b, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer b.Close()
	if !l.hold(a, b) {
		return
	}
	defer l.drop(a, b)
	done := make(chan struct{}, 2)
	pipe := func(dst, src net.Conn) {
		io.Copy(dst, src)
		dst.Close()
		src.Close()
		done <- struct{}{}
	}
	go pipe(a, b)
	go pipe(b, a)
	<-done
	<-done
}

func (l *Line) hold(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if !l.cut {
			l.conns[c] = true
		}
	}
	return !l.cut
}

func (l *Line) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.conns, c)
	}
}

// Cut breaks every connection and refuses new ones.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		c.Close()
	}
}

// Mend lets connections through again.
func (l *Line) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}
