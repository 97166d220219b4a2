package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
	"github.com/orchestrator-project/orchestrator/store"
)

// Archives takes in runs of other servers.
type Archives interface {
	// Import stores the finished run of an archive, which stays readable until it
	// returns. One that is not whole gives Invalid, a run that is there already
	// Conflict; both store nothing.
	Import(ctx context.Context, archive io.ReadSeeker) (*pipeline.Run, error)
}

const (
	// archivePiece is the size in bytes of the messages that carry an archive.
	archivePiece = 256 << 10
	// importsAtOnce bounds the archives that lie on the disk.
	importsAtOnce = 4
	contentZstd   = "application/zstd"
	// importTimeout is how long the file of a REST request may take to arrive.
	importTimeout = 10 * time.Minute
)

// pieces sends what is written to it as messages of a stream.
type pieces struct {
	stream orchestratorv1.Runs_ExportRunServer
	buf    []byte
}

func (p *pieces) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), archivePiece-len(p.buf))
		p.buf, b = append(p.buf, b[:k]...), b[k:]
		if len(p.buf) == archivePiece {
			if err := p.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (p *pieces) flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	err := p.stream.Send(&orchestratorv1.ExportRunResponse{Data: p.buf})
	p.buf = nil
	return err
}

// formatCassette asks for the answers of models.
const formatCassette = "cassette"

// ExportRun sends the run's archive, or its cassette.
func (s runs) ExportRun(req *orchestratorv1.ExportRunRequest, stream orchestratorv1.Runs_ExportRunServer) error {
	id, err := runID(req.GetId())
	if err != nil {
		return err
	}
	p := &pieces{stream: stream}
	switch req.GetFormat() {
	case "", "archive":
	case formatCassette:
		file, err := s.cfg.Recorder.Cassette(stream.Context(), id)
		if err != nil {
			return err
		}
		if _, err := p.Write(file); err != nil {
			return err
		}
		return p.flush()
	default:
		return refuse("format", "unknown_format", "%q is neither archive nor %s", req.GetFormat(), formatCassette)
	}
	if err := store.ExportRun(stream.Context(), s.cfg.Store, id, p); err != nil {
		return err
	}
	return p.flush()
}

// ImportRun takes an archive in. It lies in a file until it is stored: it is read
// more than once.
func (s runs) ImportRun(stream orchestratorv1.Runs_ImportRunServer) error {
	select {
	case s.imports <- struct{}{}:
		defer func() { <-s.imports }()
	default:
		return fault(pipeline.Exhausted, "too_many_imports", "%d runs are being imported; try again", importsAtOnce)
	}
	file, err := os.CreateTemp("", "orchestrator-import-*")
	if err != nil {
		return fmt.Errorf("keep the archive: %w", err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	size := 0
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if size += len(piece.GetData()); size > store.MaxArchive {
			return fault(pipeline.TooLarge, "archive_too_large", "the archive is larger than %d MiB", store.MaxArchive>>20)
		}
		if _, err := file.Write(piece.GetData()); err != nil {
			return fmt.Errorf("keep the archive: %w", err)
		}
	}
	run, err := s.cfg.Archives.Import(stream.Context(), file)
	if err != nil {
		return err
	}
	return stream.SendAndClose(fromRun(run))
}

// archivePath tells the requests that carry an archive.
func archivePath(r *http.Request) (run string, export, imports bool) {
	if r.Method == http.MethodPost && r.URL.Path == "/v1/runs:import" {
		return "", false, true
	}
	stem, verb, ok := cutLast(r.URL.Path, ":")
	run, isRun := strings.CutPrefix(stem, "/v1/runs/")
	if r.Method == http.MethodGet && ok && isRun && verb == "export" && !strings.Contains(run, "/") {
		return run, true, false
	}
	return "", false, false
}

// serveArchive is ExportRun and ImportRun for HTTP. It reports whether the request
// was one of these.
func (s *Server) serveArchive(w http.ResponseWriter, r *http.Request) bool {
	run, export, imports := archivePath(r)
	if !export && !imports {
		return false
	}
	if !s.gate.enter() {
		reject(w, 0, codes.Unavailable, "shutting_down", "the server is shutting down")
		return true
	}
	defer s.gate.leave()
	ctx := metadata.AppendToOutgoingContext(r.Context(), requestIDKey, r.Header.Get("X-Request-Id"))
	client := orchestratorv1.NewRunsClient(s.client)
	var err error
	if export {
		err = serveExport(ctx, client, run, r.URL.Query().Get("format"), w)
	} else {
		err = serveImport(ctx, client, w, r)
	}
	if err != nil {
		writeError(w, status.Convert(err), 0)
	}
	return true
}

// serveExport answers with the file. A failure after its beginning cuts the
// answer off: the file then has no end and is refused wherever it is imported.
func serveExport(ctx context.Context, client orchestratorv1.RunsClient, run, format string, w http.ResponseWriter) error {
	kind, name := contentZstd, "run-"+run+".tar.zst"
	if format == formatCassette {
		kind, name = "application/yaml", "run-"+run+".cassette.yaml"
	}
	stream, err := client.ExportRun(ctx, &orchestratorv1.ExportRunRequest{Id: run, Format: format})
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		piece, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && first:
			return err
		case err != nil:
			panic(http.ErrAbortHandler)
		case first:
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Disposition", `attachment; filename="`+name+`"`)
		}
		if _, err := w.Write(piece.GetData()); err != nil {
			return nil //nolint:nilerr // the client is gone
		}
	}
}

func serveImport(ctx context.Context, client orchestratorv1.RunsClient, w http.ResponseWriter, r *http.Request) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != contentZstd {
		reject(w, http.StatusUnsupportedMediaType, codes.InvalidArgument, "unsupported_media_type", "send the header Content-Type: %s", contentZstd)
		return nil // it is answered
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(importTimeout)) // not every writer knows deadlines
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	stream, err := client.ImportRun(ctx)
	if err != nil {
		return err
	}
	for {
		buf := make([]byte, archivePiece) // a message that is sent must not be changed
		n, err := r.Body.Read(buf)
		if n > 0 && stream.Send(&orchestratorv1.ImportRunRequest{Data: buf[:n]}) != nil {
			swallow(rc, w, r)
			break // the answer says why
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			reject(w, 0, codes.InvalidArgument, "broken_body", "the body did not arrive in full")
			return nil // it is answered
		}
	}
	run, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	b, err := wire.Marshal(run)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentJSON)
	_, _ = w.Write(append(b, '\n')) // the client may be gone
	return nil
}
