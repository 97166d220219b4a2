package tool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxImage = 5 << 20  // bytes of an image that a model is shown
	maxMedia = 10 << 20 // of audio or a document
	maxBlock = 8        // media in one result
)

// media are the types that models are shown, with what they are as blocks.
var media = map[string]string{
	"image/png": model.BlockImage, "image/jpeg": model.BlockImage, "image/gif": model.BlockImage, "image/webp": model.BlockImage,
	"audio/wav": model.BlockAudio, "audio/x-wav": model.BlockAudio, "audio/mpeg": model.BlockAudio, "audio/mp3": model.BlockAudio, "audio/ogg": model.BlockAudio, "audio/flac": model.BlockAudio,
	"application/pdf": model.BlockDocument,
}

// guarded is a tool that keeps within its time, whose errors a model can read,
// and whose results hold no secret and fit a model's window.
func (s *source) guarded(t Tool) Tool {
	t.compile = s.compiled.compiled
	run := t.Run
	if run == nil {
		return t
	}
	limit, own := t.Timeout, t
	t.Run = func(outer context.Context, env executor.Env, c Call) (Result, error) {
		ctx := outer
		if limit > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(outer, limit)
			defer stop()
		}
		if c.Key != "" {
			env.Key = c.Key
		}
		if env.Log == nil {
			env.Log = func(string, string) {}
		}
		r, err := safely(ctx, env, c, run)
		if err != nil {
			var laid *executor.Suspension
			switch {
			case errors.As(err, &laid), errors.Is(err, executor.ErrJournal):
				return Result{}, err
			case outer.Err() != nil:
				return Result{}, outer.Err()
			case ctx.Err() != nil:
				text := fmt.Sprintf("the tool took longer than %s and was ended.", limit)
				if e := own.EffectWith(c.Arguments); e != pipeline.EffectPure && e != pipeline.EffectIdempotent {
					text += " It may have had its effect all the same: look before you call it again."
				}
				r = failed(r, text)
			default:
				r = failed(r, readable(err))
			}
		}
		return s.bounded(outer, env, r)
	}
	return t
}

// safely calls f; its panic is its error.
func safely(ctx context.Context, env executor.Env, c Call, f func(context.Context, executor.Env, Call) (Result, error)) (r Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			env.Log("system", fmt.Sprintf("a tool broke down: %v\n", p))
			r, err = Result{}, errors.New("the tool broke down inside the server")
		}
	}()
	return f(ctx, env, c)
}

// failed is a result that says what went wrong, before what there is.
func failed(r Result, text string) Result {
	r.Failed = true
	r.Content = append([]model.Block{{Kind: model.BlockText, Text: text}}, r.Content...)
	return r
}

// readable is an error as a model reads it.
func readable(err error) string {
	var p *pipeline.Error
	var f *pipeline.Failure
	switch {
	case errors.As(err, &f):
		return f.Message
	case errors.As(err, &p):
		return p.Text
	}
	return err.Error()
}

// clean is a text without secrets and without what cannot be stored.
func clean(env executor.Env, s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\ufffd")
	}
	if env.Redact != nil {
		s = env.Redact(s)
	}
	return s
}

// bounded makes a result one that fits.
func (s *source) bounded(ctx context.Context, env executor.Env, r Result) (Result, error) {
	var texts, others []model.Block
	size, shown := 0, 0
	for _, b := range r.Content {
		b, ok := s.block(ctx, env, b, shown)
		switch {
		case ok:
			shown++
			others = append(others, b)
		case b.Text != "":
			size += len(b.Text)
			texts = append(texts, b)
		}
	}
	if size > s.cfg.Limit {
		w := s.spool(env)
		for i := range texts {
			if i > 0 {
				_, _ = w.Write(ctx, []byte("\n"))
			}
			if _, err := w.Write(ctx, []byte(texts[i].Text)); err != nil {
				return Result{}, err
			}
		}
		text, err := w.text(ctx)
		if err != nil {
			return Result{}, err
		}
		texts = []model.Block{{Kind: model.BlockText, Text: text}}
	}
	for i := range texts {
		texts[i].Text = clean(env, texts[i].Text)
	}
	r.Content = append(texts, others...)
	if len(r.Content) == 0 {
		r.Content = []model.Block{{Kind: model.BlockText, Text: "(nothing)"}}
	}
	return r, nil
}

// block is a part of a result as a model is shown it. It reports whether that is
// no text. Of the bytes of a medium a copy is kept with the run.
func (s *source) block(ctx context.Context, env executor.Env, b model.Block, shown int) (model.Block, bool) {
	m := b.Media
	if m == nil {
		return model.Block{Kind: model.BlockText, Text: b.Text}, false
	}
	name := m.Name
	if name == "" {
		name = "a file"
	}
	tell := func(why string) (model.Block, bool) {
		return model.Block{Kind: model.BlockText, Text: fmt.Sprintf("[%s of type %s, %d bytes, is not shown: %s]", name, m.Type, len(m.Data), why)}, false
	}
	kind, limit := media[m.Type], maxMedia
	if kind == model.BlockImage {
		limit = maxImage
	}
	switch {
	case m.URL != "" || m.Blob != "":
		return b, true
	case kind == "":
		return tell("models are shown texts, images, audio and PDF")
	case len(m.Data) > limit:
		return tell(fmt.Sprintf("at most %d bytes can be", limit))
	case shown >= maxBlock:
		return tell(fmt.Sprintf("a result shows at most %d", maxBlock))
	}
	own := *m
	if s.cfg.Results != nil && env.Run != "" {
		d, err := s.cfg.Results.PutBlob(ctx, env.Run, m.Data)
		if err != nil {
			return tell("it could not be kept with the run")
		}
		own.Blob = d
	}
	return model.Block{Kind: kind, Media: &own}, true
}
