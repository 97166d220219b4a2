package worker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const (
	maxMessage = 64 << 20 // bytes of what a server sends, as a bundle
	maxUnsent  = 4 << 20  // bytes of output that wait for a link before attempts do
	firstWait  = 100 * time.Millisecond
	longWait   = 3 * time.Second // a worker that comes back late finds its attempts given to others
	// secondWay is when to look again whether a server can be reached by this
	// address alone.
	secondWay = 30 * time.Second
	// repeatAfter is when a result that was not acknowledged is said again.
	repeatAfter = 5 * time.Second
)

// link is the connection to one server; it is there for as long as the worker is.
type link struct {
	w       *worker
	address string
	conn    *grpc.ClientConn
	api     api.WorkersClient
	bell    chan struct{} // capacity 1: there is something to send
	stop    context.CancelFunc

	// Guarded by worker.mu.
	up     bool
	unsent []*api.ConnectRequest
	size   int // bytes of unsent
}

// connect opens a link, unless there is one. w.mu is held.
func (w *worker) connect(address string) {
	address = normal(address)
	if w.links[address] != nil || w.draining && len(w.links) > 0 {
		return
	}
	conn, err := dial(address, w.cfg.Dial)
	if err != nil {
		w.log.Error("server has no usable address", "server", address, "err", err)
		if len(w.links) == 0 {
			w.fail(err)
		}
		return
	}
	l := &link{w: w, address: address, conn: conn, api: api.NewWorkersClient(conn), bell: make(chan struct{}, 1)}
	w.links[address] = l
	ctx, stop := context.WithCancel(w.online)
	l.stop = stop
	w.connecting.Go(func() {
		defer func() { _ = conn.Close() }()
		defer stop()
		l.keep(ctx)
	})
}

// meet connects to the servers that share the work, and gives up those that are
// gone, unless they were named to this worker. w.mu is held.
func (w *worker) meet(peers []string) {
	for _, p := range peers {
		w.connect(normal(p))
	}
	for address, l := range w.links {
		if !l.up && !slices.ContainsFunc(append(slices.Clone(peers), w.cfg.Servers...), func(s string) bool { return normal(s) == address }) {
			l.stop()
			delete(w.links, address)
		}
	}
}

// normal is an address with its scheme.
func normal(address string) string {
	address = strings.TrimRight(address, "/")
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	return address
}

// dial makes a connection to an address as in http://host:port. Nothing is sent yet.
func dial(address string, more []grpc.DialOption) (*grpc.ClientConn, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a server; write it like http://127.0.0.1:8080", address)
	}
	creds, port := insecure.NewCredentials(), "80"
	if u.Scheme == "https" {
		creds, port = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), "443"
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), port)
	}
	return grpc.NewClient("dns:///"+host, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds), grpc.WithUserAgent("orchestrator-worker"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	}, more...)...)
}

// say queues a message; what is not sent when the link ends is lost. w.mu is held.
func (l *link) say(m *api.ConnectRequest) {
	if !l.up {
		return
	}
	l.unsent = append(l.unsent, m)
	l.size += proto.Size(m) + 1
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// keep connects again and again until ctx ends.
func (l *link) keep(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		begun := time.Now()
		err := l.serve(ctx)
		l.down()
		if ctx.Err() != nil {
			return
		}
		if l.refused(err) {
			return
		}
		if time.Since(begun) > longWait {
			wait = firstWait
		}
		if status.Code(err) == codes.Aborted && l.w.served() { // this server is reached by another address already
			l.w.log.Debug("not connected twice", "server", l.address, "err", err)
			wait = secondWay
		} else {
			l.w.log.Warn("not connected; trying again", "server", l.address, "err", err)
		}
		t := time.NewTimer(wait/2 + rand.N(wait)) //nolint:gosec // jitter
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		wait = min(2*wait, longWait)
	}
}

// refused ends the worker where a server says that it will never take it in.
func (l *link) refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.w.fail(fmt.Errorf("the server %s does not take this worker: %s", l.address, status.Convert(err).Message()))
		return true
	default:
		return false
	}
}

// down notes that the link has ended. The servers that are left learn what the
// worker holds, and get the results that this one has not acknowledged.
func (l *link) down() {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	was := l.up
	l.up, l.unsent, l.size = false, nil, 0
	w.moved.Broadcast()
	if !was {
		return
	}
	var held []string
	for token, a := range w.attempts {
		if a.link == l {
			held = append(held, token)
		}
	}
	other := w.anyLink()
	if other == nil || len(held) == 0 {
		return
	}
	other.say(&api.ConnectRequest{Message: &api.ConnectRequest_Held{Held: &api.WorkerHeld{Tokens: held}}})
	for _, token := range held {
		w.attempts[token].resume(other)
	}
}

// served reports whether any server is there.
func (w *worker) served() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.anyLink() != nil
}

// final reports whether asking again would give the same answer.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.ResourceExhausted:
		return false
	default:
		return true
	}
}

// anyLink is one that is up, or nil. w.mu is held.
func (w *worker) anyLink() *link {
	for _, l := range w.links {
		if l.up {
			return l
		}
	}
	return nil
}

// serve is one connection, from hello to its end.
func (l *link) serve(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	stream, err := l.api.Connect(ctx)
	if err != nil {
		return err
	}
	l.w.mu.Lock()
	hello := l.w.hello()
	l.w.mu.Unlock()
	if err := stream.Send(&api.ConnectRequest{Message: &api.ConnectRequest_Hello{Hello: hello}}); err != nil {
		return ended(stream, err)
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	switch {
	case welcome == nil:
		return errors.New("the server did not begin with a welcome")
	case welcome.GetProtocol() != protocol:
		return status.Errorf(codes.InvalidArgument, "the server speaks version %d of the protocol, this worker version %d; use a worker of the server's version", welcome.GetProtocol(), protocol)
	}
	l.w.log.Info("connected", "server", l.address, "version", welcome.GetVersion())
	l.opened(welcome) //nolint:contextcheck // links live as long as the worker
	beat := time.Duration(welcome.GetHeartbeat() * float64(time.Second))
	sent := make(chan error, 1)
	l.w.connecting.Go(func() {
		sent <- l.send(ctx, stream, max(beat, 10*time.Millisecond))
		end()
	})
	for {
		m, err := stream.Recv()
		if err != nil {
			end()
			if serr := <-sent; serr != nil && ctx.Err() == nil {
				return serr
			}
			return err
		}
		l.heard(m) //nolint:contextcheck // attempts outlive the stream
	}
}

// ended is why a stream has ended, which its Recv tells.
func ended(stream grpc.BidiStreamingClient[api.ConnectRequest, api.ConnectResponse], err error) error {
	if _, rerr := stream.Recv(); rerr != nil {
		return rerr
	}
	return err
}

// opened takes what could not be said before.
func (l *link) opened(welcome *api.WorkerWelcome) {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	l.up = true
	l.say(w.heartbeat())
	if w.draining {
		l.say(&api.ConnectRequest{Message: &api.ConnectRequest_Drain{Drain: &api.WorkerDrain{}}})
	}
	for _, a := range w.attempts {
		if a.link == l || !a.link.up {
			a.resume(l)
		}
	}
	w.meet(welcome.GetPeers())
}

// send sends what there is, and heartbeats, until the stream ends.
func (l *link) send(ctx context.Context, stream grpc.BidiStreamingClient[api.ConnectRequest, api.ConnectResponse], beat time.Duration) error {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	again := time.NewTicker(repeatAfter)
	defer again.Stop()
	w := l.w
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.bell:
		case <-tick.C:
			w.mu.Lock()
			l.say(w.heartbeat())
			w.mu.Unlock()
		case <-again.C:
			w.mu.Lock()
			for _, a := range w.attempts {
				if a.link == l && a.result != nil && time.Since(a.said) > repeatAfter {
					a.tell()
				}
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		list := l.unsent
		l.unsent = nil
		w.mu.Unlock()
		for _, m := range list {
			if err := stream.Send(m); err != nil {
				return nil // Recv tells why
			}
			w.mu.Lock()
			l.size = max(0, l.size-proto.Size(m)-1)
			w.mu.Unlock()
			w.moved.Broadcast()
		}
	}
}

// heard acts on what a server says.
func (l *link) heard(m *api.ConnectResponse) {
	switch {
	case m.GetAssign() != nil:
		l.w.assigned(l, m.GetAssign())
	case m.GetCancel() != nil:
		l.w.cancelled(m.GetCancel().GetToken())
	case m.GetAcknowledge() != nil:
		l.w.acknowledged(m.GetAcknowledge().GetToken())
	case m.GetDrain() != nil:
		l.w.drain()
		l.w.leave()
	case m.GetPeers() != nil:
		l.w.mu.Lock()
		defer l.w.mu.Unlock()
		l.w.meet(m.GetPeers().GetPeers())
	}
}
