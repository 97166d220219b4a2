package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// call is one call on its way: one event of the journal.
type call struct {
	router *Router
	env    executor.Env
	asked  *Request
	key    pipeline.Digest
	parts  []digest // of the request's parts
	given  []digest // of the messages that the caller gave
	frame  int      // bytes of its tools and its schema
	talk   *talk
	n      int32
	begun  time.Time

	sent     *Request // as it went out, in the words of the pipeline
	sentAs   []digest // of its messages
	cut      *compacted
	choice   map[string]any
	provider string
	payer    *target // whose prices count, if not those of the model that was chosen
	priced   bool
	tries    int
	rules    []string
	first    time.Duration // until the first piece of the answer
	spent    *pipeline.Usage
	charged  *pipeline.Usage // that of the newest model
	heard    int             // bytes of the answer that the newest request has brought
	replayed bool            // that answer was recorded earlier
}

// make asks one model after the other until one answers.
func (c *call) make(ctx context.Context) (*Response, error) {
	s, err := c.router.pick(ctx, c)
	if err != nil {
		return nil, err
	}
	var switched []any
	for i, t := range s.targets {
		c.choice, c.provider = s.choice(t, switched), t.Provider
		a, err := c.askOne(ctx, t)
		if err == nil {
			c.talk.mu.Lock()
			c.talk.model = t.name
			c.talk.mu.Unlock()
			return a, nil
		}
		if i+1 == len(s.targets) || ctx.Err() != nil || !passesOn(err) {
			return nil, err
		}
		c.router.met.switched.WithLabelValues(t.metric()).Inc()
		switched = append(switched, map[string]any{"model": t.name, "reason": err.Error()})
	}
	return nil, refused("no_model", "no model was chosen")
}

// passesOn reports whether another model may answer where this one has not.
func passesOn(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	switch e.Class {
	case ClassInvalid:
		return e.Status == 404 // it is not there any more
	case ClassFiltered, ClassCancelled:
		return false
	}
	return true
}

// askOne asks one model within its budget; a conversation that is too long for it
// is shortened once.
func (c *call) askOne(ctx context.Context, t *target) (*Response, error) {
	p := c.router.cfg.Scripted
	if p == nil {
		var err error
		if p, err = c.router.provider(t.endpoint); err != nil {
			return nil, &Error{Class: ClassInvalid, Status: 404, Message: err.Error(), Cause: err}
		}
	}
	c.replace(c.talk.shortened(c.asked, c.given))
	a, err := c.tryAll(ctx, t, p)
	if e, ok := errors.AsType[*Error](err); ok && e.Class == ClassContextLength && c.asked.Phase != PhaseCompact {
		shorter, failed := c.compact(ctx, t)
		if failed != nil {
			return nil, failed
		}
		if shorter == nil {
			return nil, err
		}
		c.replace(shorter)
		a, err = c.tryAll(ctx, t, p)
	}
	return a, err
}

// replace settles what is sent: the request itself, or a shorter one.
func (c *call) replace(k *compacted) {
	c.cut = k
	if k == nil {
		c.sent, c.sentAs = c.asked, c.given
		return
	}
	own := *c.asked
	own.Messages = k.apply(c.asked.Messages)
	c.sent = &own
	c.sentAs = slices.Concat(c.given[:k.from], []digest{k.said}, c.given[k.to:])
}

// tryAll asks a model until it answers, or trying again is of no use.
func (c *call) tryAll(ctx context.Context, t *target, p Provider) (*Response, error) {
	c.charged = nil
	a, err := c.repeat(ctx, t, p)
	c.router.observe(c, t, err, time.Since(c.begun))
	if err == nil {
		a.Usage = c.spent // with that of answers that broke off before
	}
	return a, err
}

// reserve sets aside what the next request may cost.
func (c *call) reserve(ctx context.Context, t *target, p Provider) (Reservation, error) {
	if c.router.cfg.Purse == nil {
		return nothing{}, nil
	}
	e := c.estimate(t)
	_, e.Replays = p.(Keeper)
	e.Replays = e.Replays && t.record == nil
	return c.router.cfg.Purse.Reserve(ctx, c.env, e)
}

// repeat tries again as long as that may help. Each request that brings anything is
// within the budgets by itself.
func (c *call) repeat(ctx context.Context, t *target, p Provider) (*Response, error) {
	held, err := c.reserve(ctx, t, p)
	if err != nil {
		return nil, err
	}
	defer func() { held.Release() }()
	for try := 1; ; try++ {
		if l := c.router.cfg.Limiter; l != nil {
			if err := l.Wait(ctx, t.endpoint.account(), c.router.cfg.Registry.limits(t.Entry), c.inputTokens()+c.outputTokens(t)); err != nil {
				return nil, err
			}
		}
		done, err := c.router.breakers.of(t.id()).Allow()
		if err != nil {
			return nil, &Error{Class: ClassOverloaded, Message: t.name + " has failed too often just now and is left alone for a while", Cause: err}
		}
		c.heard = 0
		a, err := c.send(ctx, t, p)
		done(err)
		if err == nil {
			c.pay(t, a, held)
			return a, nil
		}
		if c.heard > 0 { // somebody is paid for an answer that was cut off
			c.pay(t, &Response{}, held)
		}
		e, ok := errors.AsType[*Error](err)
		if !ok || ctx.Err() != nil {
			return nil, err
		}
		if e.Rule != "" {
			c.rules = append(c.rules, e.Rule)
		}
		wait, again := c.router.cfg.Retry.wait(try, e)
		if c.heard > 0 && c.env.Delta != nil {
			c.env.Delta(pipeline.Delta{Call: c.n, Agent: c.asked.Agent, Kind: pipeline.DeltaReset})
		}
		if !again {
			return nil, err
		}
		c.router.met.retries.WithLabelValues(t.metric(), e.Class).Inc()
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		if c.heard > 0 {
			next, err := c.reserve(ctx, t, p)
			if err != nil {
				return nil, err
			}
			held = next
		}
	}
}

// pay charges what an answer has used.
func (c *call) pay(t *target, a *Response, held Reservation) {
	u := c.usage(t, a)
	c.spent, c.charged = Sum(c.spent, u), Sum(c.charged, u)
	held.Settle(*u)
}

// send sends the request once and waits for the whole answer. It is the one place
// where a provider is called.
func (c *call) send(ctx context.Context, t *target, p Provider) (*Response, error) {
	c.tries++
	q, begun := c.outgoing(t), time.Now()
	ctx, span := c.traced(ctx, t, q)
	c.provider, c.payer, c.replayed = t.Provider, nil, false
	a, err := c.exchange(ctx, t, p, q)
	c.told(span, t, a, err, time.Since(begun))
	return a, err
}

func (c *call) exchange(ctx context.Context, t *target, p Provider, q *Request) (*Response, error) {
	q, err := c.withMedia(ctx, q)
	if err != nil {
		return nil, err
	}
	a, err := c.drained(ctx, t, p, q)
	if t.missed(err) {
		a, err = c.taken(ctx, t, p, q, err)
	} else {
		_, c.replayed = p.(Keeper)
	}
	if err != nil {
		return nil, err
	}
	if a.Rule != "" {
		c.rules = append(c.rules, a.Rule)
	}
	a.N, a.Tries, a.Provider = c.n, c.tries, c.provider
	return a, nil
}

// drained waits for the answer of a target's provider, and shows its pieces.
func (c *call) drained(ctx context.Context, t *target, p Provider, q *Request) (*Response, error) {
	stream, err := p.Call(ctx, q)
	if err != nil {
		return nil, err
	}
	a, err := Drain(stream, func(piece Piece) {
		if c.first == 0 {
			c.first = max(time.Since(c.begun), 1)
		}
		c.heard += len(piece.Text)
		if c.env.Delta != nil {
			c.env.Delta(pipeline.Delta{Call: c.n, Agent: c.asked.Agent, Kind: piece.Kind, Name: piece.Name, Text: piece.Text})
		}
	})
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, &Error{Class: ClassMalformed, Message: fmt.Sprintf("%s has given no answer", t.name)}
	}
	if a.Model == "" {
		a.Model = t.own()
	}
	return a, nil
}

// outgoing is the request in the provider's own words.
func (c *call) outgoing(t *target) *Request {
	q := *c.sent
	if c.router.cfg.Scripted == nil {
		t.phrase(&q)
	}
	if c.router.cfg.Scripted != nil || t.Provider == ProviderScript || t.Provider == ProviderCassette {
		q.Uses = UsesOf(c.env)
	}
	return &q
}

// phrase puts a request into the words of a target.
func (t *target) phrase(q *Request) {
	switch {
	case t.Provider == ProviderScript: // it knows models by the pipeline's words
	case t.served != "":
		q.Model = t.served
	default:
		q.Model = t.own()
	}
	if a := t.alias; a != nil {
		if q.Temperature == nil {
			q.Temperature = a.Temperature
		}
		if q.MaxTokens == 0 {
			q.MaxTokens = a.MaxTokens
		}
	}
	if q.Schema != nil && q.Mode == "" && t.Capabilities.Structured != nil && !*t.Capabilities.Structured {
		q.Mode = ModePrompt
		if yes(t.Capabilities.Tools) && len(q.Tools) == 0 {
			q.Mode = ModeTool
		}
	}
}

// The values of Request.Mode.
const (
	ModeNative = "native"
	ModeTool   = "tool"
	ModePrompt = "prompt"
)

// bytesPerToken is what a token has on the average, where nobody has counted.
const bytesPerToken = 4

// inputTokens is about how many tokens the request has.
func (c *call) inputTokens() int64 { return tokensOf(c.current(), c.frame) }

func (c *call) current() *Request {
	if c.sent != nil {
		return c.sent
	}
	return c.asked
}

// tokensOf is about how many tokens a request has whose tools and schema take so many
// bytes.
func tokensOf(q *Request, frame int) int64 {
	n := len(q.System) + frame
	for i := range q.Messages {
		n += sizeOf(q.Messages[i].Blocks) + 8
	}
	return int64((n + bytesPerToken - 1) / bytesPerToken)
}

func sizeOf(blocks []Block) int {
	n := 0
	for i := range blocks {
		b := &blocks[i]
		n += len(b.Text)
		if u := b.ToolUse; u != nil {
			n += len(u.Name) + len(u.Arguments)
		}
		if t := b.ToolResult; t != nil {
			n += sizeOf(t.Content)
		}
		if m := b.Media; m != nil {
			n += mediaBytes
		}
	}
	return n
}

// mediaBytes is what an image or document counts as, in bytes of text.
const mediaBytes = 6000

// outputTokens is how long the answer may be.
func (c *call) outputTokens(t *target) int64 {
	switch {
	case c.asked.MaxTokens > 0:
		return c.asked.MaxTokens
	case t.alias != nil && t.alias.MaxTokens > 0:
		return t.alias.MaxTokens
	}
	most := int64(4096)
	if m := t.Capabilities.MaxOutput; m > 0 {
		most = min(most, m)
	}
	return most
}

func (c *call) estimate(t *target) Estimate {
	e := Estimate{
		Request: c.asked, Model: t.name, Provider: t.Provider,
		InputTokens: tokensAtMost(c.current(), c.frame), OutputTokens: c.outputTokens(t),
	}
	if t.record != nil { // it may have to be asked
		t = t.record
	}
	var p Price
	if p, e.Priced = t.Price(c.begun); e.Priced {
		in := p.Input
		if p.CacheWrite != nil {
			in = max(in, *p.CacheWrite) // the prompt may go into the service's cache
		}
		e.USD = (float64(e.InputTokens)*in + float64(e.OutputTokens)*p.Output) / million
	}
	return e
}

// usage is what an answer has used, with its cost: as the provider says, else
// estimated.
func (c *call) usage(t *target, a *Response) *pipeline.Usage {
	if c.payer != nil {
		t = c.payer
	}
	u := pipeline.Usage{}
	if a.Usage != nil {
		u = *a.Usage
	} else {
		u.InputTokens = clip32(c.inputTokens())
		u.OutputTokens = clip32(int64((max(sizeOf(a.Message.Blocks), c.heard) + bytesPerToken - 1) / bytesPerToken))
		u.Estimated = true
	}
	u.Calls = 1
	p, ok := t.Price(c.begun)
	switch {
	case u.CostUSD > 0:
	case ok:
		u.CostUSD = p.Cost(&u)
	case !t.free():
		c.choice["price"], u.Unpriced = "unknown", 1 // so that nobody takes it for free
	}
	c.priced = ok || u.CostUSD > 0
	if c.replayed {
		paid := pipeline.AmountOf(&u)
		u.ReplayedTokens, u.ReplayedUSD, u.ReplayedCalls = clip32(paid.Tokens), u.CostUSD, u.Calls
	}
	return &u
}

func clip32(n int64) int32 { return int32(min(n, 1<<31-1)) } //nolint:gosec // clipped

// nothing is what is reserved where nothing bounds the calls.
type nothing struct{}

func (nothing) Settle(pipeline.Usage) {}
func (nothing) Release()              {}

// recordWait bounds how long a call that was made is kept from being lost, once
// its step was told to end.
const recordWait = 10 * time.Second

// record puts the call into the journal. A call that was not sent is none; one
// that failed is made again by the next attempt, so that it has no key.
func (c *call) record(ctx context.Context, a *Response, err error) error {
	if c.env.Journal == nil || c.tries == 0 {
		return nil
	}
	i := &pipeline.Invocation{
		N: c.n, In: c.asked.In, State: pipeline.InvocationFinished, Agent: c.asked.Agent, Turn: int32(c.asked.Turn), //nolint:gosec // turns are few
		Phase: string(c.asked.Phase), Param: c.asked.Param, Provider: c.provider, Choice: c.choice,
		Tries: int32(c.tries), Rules: c.rules, Took: time.Since(c.begun), Wait: c.first, //nolint:gosec // tries are few
	}
	d := pipeline.Data{Call: i, Usage: c.spent}
	if err == nil {
		i.Key, i.Response, d.Model = c.key, responseValue(a), a.Model
	} else {
		i.Failed = true
		d.Error = recordedFailure(ctx, c.router.failure(ctx, err))
	}
	c.talk.mu.Lock()
	base := c.talk.line
	c.talk.mu.Unlock()
	m := base.addition(c.sent, c.parts, c.sentAs)
	c.cut.note(m)
	i.Request = m
	within, done := executor.Sheltered(ctx, recordWait)
	defer done()
	if err := c.env.Journal.Append(within, pipeline.Event{Type: pipeline.ModelCalled, Path: c.env.Path, Data: d}); err != nil {
		return err
	}
	c.talk.mu.Lock()
	defer c.talk.mu.Unlock()
	c.talk.line = after(c.n, c.parts, c.sentAs, a)
	if c.cut != nil {
		c.talk.compacted = c.cut
	}
	return nil
}

func recordedFailure(ctx context.Context, err error) *pipeline.Failure {
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		return f
	}
	if ctx.Err() != nil {
		return pipeline.Failuref(pipeline.CategoryCancelled, "cancelled")
	}
	return pipeline.Failuref(pipeline.CategoryModel, "%v", err)
}
