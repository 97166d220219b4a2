package torture

import (
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// proxy stands between a replica and the database and breaks what passes.
type proxy struct {
	target   string
	listener net.Listener
	work     sync.WaitGroup
	closing  chan struct{}
	lose     atomic.Bool  // the answer to the next batch is lost, and its connection with it
	hold     atomic.Int64 // nanoseconds for which the next batch is held up in its middle; 0: not

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// batch is the size in bytes from which on what a client sends is taken for a
// batch of records: what it waits for the disk with.
const batch = 512

// startProxy gives a proxy to the database of a URL, and the URL that leads
// through it.
func startProxy(database string) (*proxy, string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed by close
	if err != nil {
		return nil, "", err
	}
	p := &proxy{target: u.Host, listener: l, closing: make(chan struct{}), conns: map[net.Conn]bool{}}
	p.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c) })
		}
	})
	u.Host = l.Addr().String()
	return p, u.String(), nil
}

func (p *proxy) close() {
	close(p.closing)
	_ = p.listener.Close()
	p.cut()
	p.work.Wait()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", p.target) //nolint:noctx // of this machine
	if err != nil {
		return // it is being restarted
	}
	defer func() { _ = server.Close() }()
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var lost atomic.Bool // the next answer of the server is not passed on
	var both sync.WaitGroup
	both.Go(func() {
		defer func() { _ = client.Close() }()
		_ = pass(server, client, func([]byte) error {
			if lost.Load() {
				return errors.New("lost")
			}
			return nil
		})
	})
	both.Go(func() {
		defer func() { _ = server.Close() }()
		_ = pass(client, server, func(data []byte) error {
			if len(data) < batch {
				return nil
			}
			if p.lose.CompareAndSwap(true, false) {
				lost.Store(true)
			}
			if d := p.hold.Swap(0); d > 0 {
				half := len(data) / 2
				if _, err := server.Write(data[:half]); err != nil {
					return err
				}
				copy(data, data[half:])
				select {
				case <-time.After(time.Duration(d)):
				case <-p.closing:
				}
				return rest(len(data) - half)
			}
			return nil
		})
	})
	both.Wait()
}

// rest says that only the first so many bytes of what was read are to be passed on.
type rest int

func (rest) Error() string { return "a part of it has been passed on" }

// pass copies what it reads, each time after asking look, whose error ends it
// unless it is a rest.
func pass(from io.Reader, to io.Writer, look func([]byte) error) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if err := look(buf[:n]); err != nil {
			left, ok := errors.AsType[rest](err)
			if !ok {
				return err
			}
			n = int(left)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}
