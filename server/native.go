package server

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// sorter splits the connections of one listener: those of gRPC clients go to gRPC's
// own transport, which takes a fraction of the turns of goroutines and of the writes
// that gRPC needs over net/http, and all others to net/http, which can serve gRPC too.
// A connection is sorted by its first request. What a browser or a proxy may have sent
// is never taken for a gRPC client's: a proxy may send anything after it, and what
// browsers are told is net/http's to say.
type sorter struct {
	net.Listener
	allowed    func(host string) bool
	grpc, http queue
	sorting    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	broken error                 // why no more come
	young  map[net.Conn]struct{} // those not sorted yet
}

// queue is one of the two listeners that a sorter makes of its own.
type queue struct {
	*sorter
	conns chan net.Conn
	ended chan struct{}
	end   func()
}

func newSorter(l net.Listener, allowed func(host string) bool) *sorter {
	s := &sorter{Listener: l, allowed: allowed, young: map[net.Conn]struct{}{}}
	for _, q := range []*queue{&s.grpc, &s.http} {
		q.sorter, q.conns, q.ended = s, make(chan net.Conn), make(chan struct{})
		q.end = sync.OnceFunc(func() { close(q.ended) })
	}
	return s
}

// run takes in connections until the listener is closed or broken, and closes those
// that nobody has taken.
func (s *sorter) run() {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			if temporary(err) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			s.close(err)
			s.sorting.Wait()
			return
		}
		if s.take(c) {
			s.sorting.Go(func() { s.sort(c) })
		}
	}
}

// temporary reports whether a listener may work again, as when files have run out.
func temporary(err error) bool {
	e, ok := err.(interface{ Temporary() bool })
	return ok && e.Temporary()
}

func (s *sorter) take(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.young[c] = struct{}{}
	return true
}

// close ends both queues, and whatever has not been sorted.
func (s *sorter) close(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed, s.broken = true, cause
	for c := range s.young {
		_ = c.Close()
	}
	s.grpc.end()
	s.http.end()
	_ = s.Listener.Close() // it may be closed
}

// sort reads a connection's first request and hands the connection over.
func (s *sorter) sort(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(headerTimeout))
	to, sorted := s.look(c)
	_ = c.SetReadDeadline(time.Time{})
	s.mu.Lock()
	delete(s.young, c)
	s.mu.Unlock()
	select {
	case to.conns <- sorted:
	case <-to.ended:
		_ = c.Close()
	}
}

// settings is the frame that a server begins with, of no settings: many clients of
// gRPC say nothing before they have it. The one that follows it tells the settings.
var settings = []byte{0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0}

// look tells whose a connection is. What was read of it, it gives back.
func (s *sorter) look(c net.Conn) (to *queue, sorted net.Conn) {
	seen := &bytes.Buffer{}
	from := io.TeeReader(c, seen)
	again := func(r io.Reader) net.Conn { return &sortedConn{Conn: c, from: r} }
	var preface [len(http2.ClientPreface)]byte
	for have := 0; have < len(preface); {
		n, err := from.Read(preface[have:])
		if have += n; err != nil || string(preface[:have]) != http2.ClientPreface[:have] {
			return &s.http, again(io.MultiReader(seen, c))
		}
	}
	if _, err := c.Write(settings); err == nil && s.byProgram(from) {
		return &s.grpc, again(io.MultiReader(seen, c))
	}
	return &s.http, again(&unsettled{from: io.MultiReader(seen, c), left: len(http2.ClientPreface)})
}

// byProgram reads up to the first request, and reports whether a gRPC client has sent it.
func (s *sorter) byProgram(from io.Reader) bool {
	framer := http2.NewFramer(nil, from)
	framer.SetMaxReadFrameSize(headerLimit)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = headerLimit
	for range 16 { // a client has little to say before it
		frame, err := framer.ReadFrame()
		if err != nil {
			return false
		}
		request, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		kind, host := "", ""
		for _, f := range request.Fields {
			switch {
			case f.Name == "content-type":
				kind = f.Value
			case f.Name == ":authority":
				host = f.Value
			case foreign(f.Name):
				return false
			}
		}
		kind, ok = strings.CutPrefix(kind, "application/grpc")
		return ok && !request.Truncated && (kind == "" || kind[0] == '+' || kind[0] == ';') && s.allowed(host)
	}
	return false
}

// foreign are the headers that browsers and proxies add.
func foreign(name string) bool {
	return slices.Contains([]string{"origin", "cookie", "referer", "forwarded", "via", "x-real-ip"}, name) ||
		strings.HasPrefix(name, "sec-") || strings.HasPrefix(name, "x-forwarded-")
}

// Accept gives the next connection of this queue.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.ended:
		q.mu.Lock()
		defer q.mu.Unlock()
		return nil, cmp.Or(q.broken, net.ErrClosed)
	}
}

// Close takes no more connections. Where net/http takes none, nobody does.
func (q *queue) Close() error {
	q.end()
	if q == &q.sorter.http {
		return q.Listener.Close()
	}
	return nil
}

// sortedConn is a connection of which something has been read.
type sortedConn struct {
	net.Conn
	from io.Reader
}

func (c *sortedConn) Read(b []byte) (int, error) { return c.from.Read(b) }

// unsettled leaves out the client's answer to the frame of settings that it was sent:
// net/http would wonder at two of them.
type unsettled struct {
	from   io.Reader
	left   int     // bytes until the next frame
	header [9]byte // of a frame
	have   int     // bytes of header that were read
	given  int     // of these, bytes that were given
	done   bool
}

func (u *unsettled) Read(b []byte) (int, error) {
	for !u.done && u.left == 0 {
		n, err := u.from.Read(u.header[u.have:])
		u.have += n
		switch {
		case u.have < len(u.header):
			if err != nil {
				return 0, err
			}
			continue
		case u.header[3] == byte(http2.FrameSettings) && u.header[4]&byte(http2.FlagSettingsAck) != 0:
			u.done = true
		default:
			u.left = int(binary.BigEndian.Uint32(u.header[:4])>>8) + len(u.header)
		}
	}
	if u.done {
		return u.from.Read(b)
	}
	if u.given < u.have {
		n := copy(b, u.header[u.given:u.have])
		u.given += n
		u.left -= n
		if u.given == u.have {
			u.given, u.have = 0, 0
		}
		return n, nil
	}
	n, err := u.from.Read(b[:min(len(b), u.left)])
	u.left -= n
	return n, err
}
