package cassette

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
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
	lock, err := lockFile(ctx, p.file+".lock")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	defer lock.Close()
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

// lockFile waits for its turn to write. The lock is that of a file beside the cassette,
// which is replaced itself and would take its lock along; it ends with Close, or with
// the process.
func lockFile(ctx context.Context, name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // beside the file that the operator named
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, errors.New(name+" is locked by another process"))
	defer cancel()
	for {
		ours, err := tryLock(f)
		if ours {
			return f, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

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
