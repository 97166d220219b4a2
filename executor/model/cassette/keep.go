package cassette

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/store"
)

// Open reads a cassette whose texts hold none of the secrets, nor what looks like a
// key: requests are compared without them. Where the file may be missing, it begins
// empty. secrets may be nil.
func Open(file string, missing bool, secrets func() []string) (*Provider, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the file that the operator named
	if err != nil && (!missing || !errors.Is(err, os.ErrNotExist)) {
		return nil, fmt.Errorf("read the cassette: %w", err)
	}
	p, err := Parse(file, text)
	if err != nil {
		return nil, err
	}
	p.hide(secrets)
	return p, nil
}

// hide compares requests without secrets from now on.
func (p *Provider) hide(secrets func() []string) {
	p.redact = func(text string) string {
		if secrets == nil {
			return redacted(text, nil)
		}
		return redacted(text, secrets())
	}
}

// keyOf names a request by what a recording of it holds.
func (p *Provider) keyOf(r *model.Request) string {
	if p.redact == nil {
		return KeyOf(r)
	}
	canon, _ := clean(canonical(r), p.redact).(map[string]any)
	return digest(canon)
}

// Keep adds an answer to the file, which is whole at any time. What others have
// added to the file meanwhile, in this process or another one, stays.
func (p *Provider) Keep(ctx context.Context, r *model.Request, a *model.Response, redact func(string) string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(p.file), 0o750); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	// Beside the file, which is replaced and would take its lock along.
	lock, err := store.LockFile(ctx, p.file+".lock", lockWait)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer lock.Release()
	text, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("record: %w", err)
	}
	now, err := Parse(p.file, text)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	list := append(now.list, Recording{
		Step: r.Step, Agent: r.Agent, Turn: r.Turn, Param: r.Param, Phase: string(r.Phase), Model: a.Model, Request: r, Answer: a,
	})
	text, err = Write(list, func(s string) string {
		if redact != nil {
			s = redact(s)
		}
		if p.redact != nil {
			s = p.redact(s)
		}
		return s
	})
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if now, err = Parse(p.file, text); err != nil { // as others will read it
		return fmt.Errorf("record: %w", err)
	}
	if err := replace(p.file, text); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	p.list, p.at = now.list, now.at
	return nil
}

// lockWait is how long somebody else may be writing.
const lockWait = 30 * time.Second

// replace writes a file so that nobody finds a part of it.
func replace(file string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
