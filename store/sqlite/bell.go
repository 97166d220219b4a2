package sqlite

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/store"
)

// bells carries bells between processes: each that listens owns a datagram
// socket in one folder, and whoever rings writes to all of them.
type bells struct {
	dir  string
	poke func() // makes the bus call send

	mu        sync.Mutex
	name      string // of our own socket, empty before somebody listens
	in        *net.UnixConn
	reader    sync.WaitGroup
	listeners int

	// Only send uses these.
	backlog map[string]*unheard // sockets whose queue was full
	again   time.Time           // when the bus will call for their sake
}

// unheard is what a slow listener still has to be told.
type unheard struct {
	queued bool
	since  time.Time
	tried  time.Time
}

// maxSocketPath is what the smallest platform allows.
const maxSocketPath = 100

func newBells(path string, poke func()) *bells {
	b := &bells{dir: path + ".bells", poke: poke, backlog: make(map[string]*unheard)}
	if len(b.dir)+1+len(socketName()) > maxSocketPath {
		// Every process computes the same short place.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		sum := sha256.Sum256([]byte(path))
		b.dir = filepath.Join(os.TempDir(), "orchestrator-bells-"+hex.EncodeToString(sum[:8]))
	}
	return b
}

func socketName() string {
	var r [6]byte
	_, _ = rand.Read(r[:]) // never fails
	return hex.EncodeToString(r[:]) + ".sock"
}

// join opens this process's socket for its first listener and returns what
// closes it after the last.
func (b *bells) join(hear func(store.Bell)) (leave func(), err error) {
	if runtime.GOOS == "windows" {
		return nil, errors.New("this platform has no datagram sockets in the file system")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.in == nil {
		name := socketName()
		var in *net.UnixConn
		for range 3 { // a process that leaves may remove the folder
			if err = os.MkdirAll(b.dir, 0o700); err != nil {
				return nil, err
			}
			in, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(b.dir, name), Net: "unixgram"})
			if err == nil {
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("open a socket for bells: %w", err)
		}
		b.in, b.name = in, name
		b.reader.Go(func() { receive(in, hear) })
	}
	b.listeners++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.listeners--; b.listeners == 0 {
			b.shutLocked()
		}
	}, nil
}

func (b *bells) shutLocked() {
	if b.in != nil {
		b.in.Close()
		os.Remove(filepath.Join(b.dir, b.name))
		b.reader.Wait() // it takes no lock
		b.in, b.name = nil, ""
	}
}

func receive(in *net.UnixConn, hear func(store.Bell)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		if err != nil {
			return // closed
		}
		hear(store.DecodeBell(string(buf[:n])))
	}
}

// send tells every other process. It runs on the one goroutine of the bus.
// A listener whose queue is full is told everything a little later, by an empty
// bell.
func (b *bells) send(_ context.Context, bell store.Bell) error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil //nolint:nilerr // nobody listens
	}
	b.mu.Lock()
	own := b.name
	b.mu.Unlock()
	msg := []byte(store.EncodeBell(bell))
	for _, e := range entries {
		name := e.Name()
		switch late := b.backlog[name]; {
		case name == own || !strings.HasSuffix(name, ".sock"):
		case late != nil:
			late.queued = late.queued || bell.Queued
			if time.Since(late.tried) >= backlogPause {
				b.write(name, []byte(store.EncodeBell(store.Bell{All: true, Queued: late.queued})), bell)
			}
		case !bell.Empty():
			b.write(name, msg, bell)
		}
	}
	for name := range b.backlog {
		if !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == name }) {
			delete(b.backlog, name) // it has left
		}
	}
	if now := time.Now(); len(b.backlog) > 0 && now.After(b.again) {
		b.again = now.Add(backlogPause)
		time.AfterFunc(backlogPause+time.Millisecond, b.poke)
	}
	return nil
}

const (
	backlogPause = 500 * time.Millisecond // between two attempts at a listener whose queue is full
	patience     = time.Minute            // until it is given up
)

func (b *bells) write(name string, msg []byte, bell store.Bell) {
	path := filepath.Join(b.dir, name)
	out, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_ = out.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
		_, err = out.Write(msg)
		out.Close()
	}
	switch {
	case err == nil:
		delete(b.backlog, name)
	case errors.Is(err, syscall.ECONNREFUSED):
		os.Remove(path) // its process is gone
		delete(b.backlog, name)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EAGAIN):
		late := b.backlog[name]
		if late == nil {
			late = &unheard{since: time.Now()}
			b.backlog[name] = late
		}
		late.queued, late.tried = late.queued || bell.Queued, time.Now()
		if time.Since(late.since) > patience {
			delete(b.backlog, name)
		}
	default: // gone meanwhile
		delete(b.backlog, name)
	}
}

// close is called after the last send.
func (b *bells) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shutLocked()
	os.Remove(b.dir) // when it is empty
}
