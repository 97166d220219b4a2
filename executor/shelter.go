package executor

import (
	"context"
	"time"
)

// Sheltered is a context for what must come to an end although its step is cancelled,
// such as a call that may have effects and the record of it: it ends when ctx has
// ended for that long, or by stop, which is to be called in any case.
func Sheltered(ctx context.Context, grace time.Duration) (inner context.Context, stop func()) {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	off := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(inner, func() { t.Stop() })
	})
	return inner, func() { off(); cancel(nil) }
}
