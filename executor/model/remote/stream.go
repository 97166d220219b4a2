package remote

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

// Source is a service's answer on its way. It is used by one goroutine at a time.
type Source interface {
	// Next waits for the next event and gives its pieces, which may be none; io.EOF:
	// the answer is whole.
	Next() ([]model.Piece, error)
	// Response is the whole answer, once Next has given io.EOF.
	Response() *model.Response
	// Close frees the source. The context that it reads with has ended.
	Close() error
}

// MaxAnswer bounds the bytes of an answer, so that a model that does not end
// cannot fill the memory.
const MaxAnswer = 16 << 20

// Stream is the model.Stream of a Source.
type Stream struct {
	ctx     context.Context
	cancel  context.CancelFunc
	service Service
	form    *Form

	mu     sync.Mutex // held while the source is used
	source Source
	closed bool
	ready  []model.Piece
	size   int
	err    error // io.EOF: the answer is whole
	whole  *model.Response
}

// NewStream reads a source, whose requests were made with a context of ctx's that
// cancel ends.
func NewStream(ctx context.Context, cancel context.CancelFunc, service Service, form *Form, source Source) *Stream {
	return &Stream{ctx: ctx, cancel: cancel, service: service, form: form, source: source}
}

// Next gives the next piece; io.EOF: the answer is whole.
func (s *Stream) Next() (model.Piece, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if len(s.ready) > 0 {
			p := s.ready[0]
			s.ready = s.ready[1:]
			return p, nil
		}
		if s.err == nil {
			s.read()
			continue
		}
		return model.Piece{}, s.err
	}
}

// read takes one event. What ends the stream frees its socket at once.
func (s *Stream) read() {
	if s.closed {
		s.err = s.service.Failed(s.ctx, errors.New("the stream was closed"))
		return
	}
	pieces, err := s.source.Next()
	for _, p := range pieces {
		s.size += len(p.Text)
		if p = s.form.Piece(p); p.Text != "" || p.Name != "" {
			s.ready = append(s.ready, p)
		}
	}
	switch {
	case err == nil && s.size > MaxAnswer:
		s.err = s.service.Invalid("the answer is longer than %d bytes, which is not read", MaxAnswer)
	case err == nil:
		return
	case errors.Is(err, io.EOF):
		s.whole = s.source.Response()
		s.form.Finish(s.whole)
		s.err = io.EOF
		if s.whole.Stop == model.StopFiltered && len(s.whole.Message.Blocks) == 0 {
			s.err = s.service.Filtered("")
		}
	default:
		s.err = s.service.Failed(s.ctx, err)
	}
	s.close()
}

// Response is the whole answer, once Next has given io.EOF.
func (s *Stream) Response() *model.Response {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.whole
}

// Close ends the request, also under a Next that waits.
func (s *Stream) Close() error {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close()
	return nil
}

func (s *Stream) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.cancel()
	_ = s.source.Close() // what is left to read is of no interest, and so is why it broke
}
