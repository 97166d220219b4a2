package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// The times of a WebSocket.
const (
	socketPing  = 30 * time.Second // between pings; also how long a pong may take
	socketWrite = time.Minute      // how long a client may leave one message unread
)

// webSocketPath takes the run's id out of /v1/runs/{id}/ws.
func webSocketPath(path string) (run string, ok bool) {
	run, ok = strings.CutPrefix(path, "/v1/runs/")
	if !ok {
		return "", false
	}
	run, ok = strings.CutSuffix(run, "/ws")
	return run, ok && run != "" && !strings.Contains(run, "/")
}

// serveWebSocket is WatchRun with one JSON event per message. A client that
// reads slowly holds up its own stream only. The close code says why it
// ended: 1000 the run has finished, 1001 the server goes away (come again
// with after), 1011 an error, which the last message tells.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, run string) {
	if !isWebSocket(r) {
		w.Header().Set("Upgrade", "websocket")
		reject(w, http.StatusUpgradeRequired, codes.InvalidArgument, "upgrade_required", "this path speaks WebSocket; events:watch is the same as lines")
		return
	}
	after, err := queryAfter(r.URL.Query())
	if err != nil {
		st, _ := toStatus(err, "")
		writeError(w, st, 0)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, requestIDKey, r.Header.Get("X-Request-Id"))
	stream, err := orchestratorv1.NewRunsClient(s.client).WatchRun(ctx, &orchestratorv1.WatchRunRequest{Id: run, After: after})
	if err != nil {
		writeError(w, status.Convert(err), 0)
		return
	}
	// An error that is found before the first event is answered in HTTP.
	if header, err := stream.Header(); err != nil || len(header.Get(streamHeader)) == 0 {
		_, err := stream.Recv()
		writeError(w, status.Convert(err), 0)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the origin was checked with all others
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow() //nolint:errcheck // closed already, or the client is gone
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// The client has nothing to say; reading handles its pongs and its close.
	gone := c.CloseRead(ctx)
	wg.Go(func() {
		pingSocket(gone, c)
		cancel()
	})
	code, reason := feedSocket(gone, c, stream)
	// Before the context ends, which would cut the connection off.
	_ = c.Close(code, reason) // the client may be gone
}

// pingSocket pings until ctx ends or no pong comes.
func pingSocket(ctx context.Context, c *websocket.Conn) {
	t := time.NewTicker(socketPing)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		late, cancel := context.WithTimeout(ctx, socketPing)
		err := c.Ping(late)
		cancel()
		if err != nil {
			return
		}
	}
}

// feedSocket sends events until the stream or the client ends.
func feedSocket(ctx context.Context, c *websocket.Conn, stream orchestratorv1.Runs_WatchRunClient) (websocket.StatusCode, string) {
	write := func(b []byte) error {
		late, cancel := context.WithTimeout(ctx, socketWrite)
		defer cancel()
		return c.Write(late, websocket.MessageText, b)
	}
	var buf []byte
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return websocket.StatusNormalClosure, "the run has finished"
		}
		if err != nil {
			st := status.Convert(err)
			if write(errorText(st, 0, "")) != nil || st.Code() != codes.Unavailable {
				return websocket.StatusInternalError, "see the last message"
			}
			return websocket.StatusGoingAway, "come again with after"
		}
		if buf, err = wire.Append(buf[:0], e); err != nil {
			return websocket.StatusInternalError, "an event could not be written"
		}
		if err := write(buf); err != nil {
			return websocket.StatusPolicyViolation, "the messages were not read in time"
		}
	}
}

func queryAfter(q url.Values) (int32, error) {
	for key := range q {
		if key != "after" {
			return 0, refuse(key, "unknown_parameter", "unknown query parameter; there is: after")
		}
	}
	if !q.Has("after") {
		return 0, nil
	}
	n, err := strconv.ParseInt(q.Get("after"), 10, 32)
	if err != nil || n < 0 {
		return 0, refuse("after", "invalid_after", "must be a sequence number from 0")
	}
	return int32(n), nil
}
