package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// requestIDKey carries the request's id in metadata, both ways.
const requestIDKey = "x-request-id"

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// requestID is the id that the caller gave, if it is a decent one, or a new one.
func requestID(given string) string {
	if requestIDForm.MatchString(given) {
		return given
	}
	return strings.ToLower(rand.Text()[:16])
}

func requestIDOf(ctx context.Context) string {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(requestIDKey); len(v) > 0 {
			return requestID(v[0])
		}
	}
	return requestID("")
}

// unary wraps every call: id, recovery, error mapping, log, metrics.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	id := requestIDOf(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDKey, id)) // fails only on streams that have ended
	begin := time.Now()
	ctx = within(ctx, incoming{ctx})
	err = s.guard(func() error {
		var err error
		resp, err = next(ctx, req)
		return err
	})
	return resp, s.finish(ctx, info.FullMethod, id, begin, err)
}

// stream is unary for streams.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := ss.Context()
	id := requestIDOf(ctx)
	_ = ss.SetHeader(metadata.Pairs(requestIDKey, id))
	begin := time.Now()
	s.metrics.streams.Inc()
	defer s.metrics.streams.Dec()
	err := s.guard(func() error { return next(srv, ss) })
	return s.finish(ctx, info.FullMethod, id, begin, err)
}

// guard turns a panic into an error: one request never ends the server.
func (s *Server) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// finish maps the error and tells log and metrics.
func (s *Server) finish(ctx context.Context, method, id string, begin time.Time, err error) error {
	took := time.Since(begin)
	name := method[strings.LastIndexByte(method, '/')+1:]
	code := codes.OK
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded) {
			err = ctx.Err() // whatever broke, it broke because the caller left
		}
		st, internal := toStatus(err, id)
		code = st.Code()
		if internal {
			s.log.LogAttrs(ctx, slog.LevelError, "request failed", slog.String("request", id), slog.String("method", name), slog.Any("err", err))
		}
		err = cut(st).Err()
	}
	s.metrics.request(name, code, took)
	if p, ok := peer.FromContext(ctx); ok {
		if _, native := p.Addr.(*net.TCPAddr); native { // Handler has not seen it
			s.metrics.served("grpc", http.StatusOK)
		}
	}
	s.log.LogAttrs(ctx, slog.LevelDebug, "request", slog.String("request", id), slog.String("method", name),
		slog.String("code", code.String()), slog.Duration("took", took))
	return err
}

// cut shortens the message of a status: it travels in a header, and may quote
// the caller's text.
func cut(st *status.Status) *status.Status {
	const most = 2000
	if len(st.Message()) <= most {
		return st
	}
	p := st.Proto()
	p.Message = strings.ToValidUTF8(p.GetMessage()[:most], "") + "..."
	return status.FromProto(p)
}

// errDraining ends the streams of a server that shuts down: clients come back.
var errDraining = status.Error(codes.Unavailable, "the server is shutting down")
