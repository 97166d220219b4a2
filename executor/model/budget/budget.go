// Package budget keeps what calls of models may cost within bounds: for each run
// in memory, since a run has one owner at a time, and for pipelines, the workspace and
// days together with the other replicas. What a call may cost at most is set
// aside before it, so that calls that are under way at once cannot overdraw a
// budget together, and settled with what it did cost.
//
// A replica draws slices of the shared budgets from the store and sets aside from
// these in memory; it gives back what it does not need. So no row is written for
// each call. What a replica that died had drawn is settled from the logs of its
// runs as soon as somebody needs it.
//
// A call that does not fit lays its step down, see executor.Suspension: people
// approve a raise, or reject it. A raise counts from its decision, which is in the
// log.
package budget

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Config says what is bounded. Zero values mean the defaults named here.
type Config struct {
	Run       pipeline.Budget // of each run; its plan may say less; zero members: no bound
	Pipeline  pipeline.Budget // of all runs of a pipeline together
	Workspace pipeline.Budget // of all runs
	Day       pipeline.Budget // of all runs of a day of UTC

	Store   Store        // needed where Pipeline, Workspace or Day bound anything
	Replica string       // names this process among those that share the store
	Logger  *slog.Logger // default: slog.Default
	Now     func() time.Time
}

// Store keeps the shared budgets, the logs of the runs that spend them, and what
// these ask.
type Store interface {
	store.Budgets
	store.Journals
	Approvals(ctx context.Context, q store.ApprovalQuery) (store.ApprovalPage, error)
	Decide(ctx context.Context, id pipeline.ApprovalID, d pipeline.Decision) (*pipeline.Approval, error)
	// Events are those of a run after the given one, oldest first.
	Events(ctx context.Context, run pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error]
}

// Purse holds the budgets of a server. It is safe for concurrent use.
type Purse struct {
	cfg    Config
	shared *shared // nil: no shared budget bounds anything
}

var _ model.Purse = (*Purse)(nil)

// New returns a Purse of the configuration. Where it has shared budgets, Run must
// be called too.
func New(cfg Config) *Purse {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Purse{cfg: cfg}
	if cfg.Store != nil && (cfg.Pipeline != pipeline.Budget{} || cfg.Workspace != pipeline.Budget{} || cfg.Day != pipeline.Budget{}) {
		p.shared = newShared(cfg)
	}
	return p
}

// Run settles what was spent with the other replicas until ctx ends.
func (p *Purse) Run(ctx context.Context) error {
	if p.shared == nil {
		<-ctx.Done()
		return nil
	}
	return p.shared.run(ctx)
}

// Reserve implements model.Purse.
func (p *Purse) Reserve(ctx context.Context, env executor.Env, e model.Estimate) (model.Reservation, error) {
	if env.Tenure == nil {
		return &reservation{}, nil // outside of a run
	}
	need := pipeline.Amount{Tokens: e.InputTokens + e.OutputTokens, Nanos: pipeline.Nanos(e.USD), Calls: 1}
	a := p.account(env)
	if err := a.load(ctx, env.Tenure); err != nil {
		return nil, fmt.Errorf("read what the run has spent: %w", err)
	}
	asked, err := p.heed(ctx, env, a)
	if err != nil {
		return nil, err
	}
	if over := a.reserve(env, need); over != nil {
		return nil, a.stop(env, over, e, asked, time.Time{})
	}
	r := &reservation{account: a, need: need}
	if p.shared != nil && !e.Replays {
		over, due, err := p.shared.reserve(ctx, env, a, need, r)
		if err != nil || over != nil {
			r.Release()
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("reserve a budget: %w", err)
		case over != nil:
			return nil, a.stop(env, over, e, asked, due)
		}
	}
	return r, nil
}

// heed applies what people have said to the step about spent budgets, and gives
// the approvals that are still open, by whose budget they are.
func (p *Purse) heed(ctx context.Context, env executor.Env, a *account) (map[owner]pipeline.ApprovalID, error) {
	if env.Journal == nil {
		return nil, nil //nolint:nilnil // nothing was asked
	}
	var open map[owner]pipeline.ApprovalID
	past := env.Journal.Events()
	for i := range past {
		o := past[i].Overdraft()
		if o == nil {
			continue
		}
		id := past[i].Data.Call.Approval
		d := env.Journal.Decision(id)
		switch {
		case d == nil:
			if open == nil {
				open = map[owner]pipeline.ApprovalID{}
			}
			open[owner{o.Scope, o.Name}] = id
		case d.Decision != "approve":
			f := pipeline.Failuref(pipeline.CategoryResource, "the budget of the %s is spent, and %s has not raised it%s", called(o), d.Actor, comment(d))
			f.Reason = pipeline.ReasonBudget
			return nil, f
		case o.Scope == pipeline.BudgetRun:
			a.raise(id, o.Raise(d))
		case p.shared != nil:
			if err := p.shared.raise(ctx, id, o, d); err != nil {
				return nil, fmt.Errorf("raise a budget: %w", err)
			}
		}
	}
	return open, nil
}

func comment(d *pipeline.Decision) string {
	if d.Comment == "" {
		return ""
	}
	return ": " + d.Comment
}

// owner is whose budget it is.
type owner struct{ scope, name string }

// called names an overdraft's budget for people.
func called(o *pipeline.Overdraft) string {
	switch o.Scope {
	case pipeline.BudgetRun, pipeline.BudgetWorkspace:
		return o.Scope
	}
	return o.Scope + " " + o.Name
}

// account is what a run may spend and has spent.
type account struct {
	mu     sync.Mutex
	loaded bool
	base   pipeline.Amount // as it was set; zero members: no bound
	limit  pipeline.Amount // with all raises
	spent  pipeline.Amount
	paid   pipeline.Amount            // of spent, what was not replayed: what shared budgets are charged with
	held   pipeline.Amount            // set aside
	day    string                     // key of the day that it spends on; empty: none bounds it
	late   map[string]pipeline.Amount // of paid, what belongs to days that are over and is not settled
	raises map[pipeline.ApprovalID]bool
	asked  map[pipeline.Path]*question // that attempts under way have asked
}

// question is a budget's approval that an attempt asks for.
type question struct {
	journal *executor.Journal // of the attempt
	owner   owner
	stop    *executor.Suspension
}

// account is that of the run that env belongs to.
func (p *Purse) account(env executor.Env) *account {
	type key struct{}
	a, _ := env.Tenure.Keep(key{}, func() any {
		a := &account{base: p.cfg.Run.Amount(), spent: pipeline.AmountOf(&env.Tenure.Usage), paid: pipeline.PaidOf(&env.Tenure.Usage)}
		if s := env.Tenure.Settings; s != nil && s.Budget != nil {
			a.base = stricter(a.base, s.Budget.Amount())
		}
		a.limit = a.base
		return a
	}).(*account)
	return a
}

// stricter is what both bounds allow; a zero member bounds nothing.
func stricter(a, b pipeline.Amount) pipeline.Amount {
	pick := func(a, b int64) int64 {
		if a == 0 || b != 0 && b < a {
			return b
		}
		return a
	}
	return pipeline.Amount{Tokens: pick(a.Tokens, b.Tokens), Nanos: pick(a.Nanos, b.Nanos), Calls: pick(a.Calls, b.Calls)}
}

// load applies the raises that the run's log holds.
func (a *account) load(ctx context.Context, t *executor.Tenure) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.loaded || a.base == (pipeline.Amount{}) {
		return nil
	}
	asked := map[pipeline.ApprovalID]*pipeline.Overdraft{}
	raises := map[pipeline.ApprovalID]pipeline.Amount{}
	err := t.Past(ctx, func(e pipeline.Event) {
		if o := e.Overdraft(); o != nil && o.Scope == pipeline.BudgetRun {
			asked[e.Data.Call.Approval] = o
		}
		if d := e.Data.Decision; d != nil && e.Type == pipeline.ApprovalIsDecided && asked[d.Approval] != nil {
			raises[d.Approval] = asked[d.Approval].Raise(d)
		}
	})
	if err != nil {
		return err
	}
	for id, by := range raises {
		a.lift(id, by)
	}
	a.loaded = true
	return nil
}

func (a *account) raise(id pipeline.ApprovalID, by pipeline.Amount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lift(id, by)
}

func (a *account) lift(id pipeline.ApprovalID, by pipeline.Amount) {
	if a.raises[id] {
		return
	}
	if a.raises == nil {
		a.raises = map[pipeline.ApprovalID]bool{}
	}
	a.raises[id] = true
	a.limit = a.limit.Plus(by)
}

// reserve sets the amount aside, or tells what it goes beyond.
func (a *account) reserve(env executor.Env, need pipeline.Amount) *pipeline.Overdraft {
	a.mu.Lock()
	defer a.mu.Unlock()
	over := a.spent.Plus(a.held).Plus(need).Exceeds(a.base, a.limit)
	if over == nil {
		a.held = a.held.Plus(need)
		return nil
	}
	return &pipeline.Overdraft{Scope: pipeline.BudgetRun, Name: string(env.Run), Members: over, Limit: a.limit, Needs: need}
}

// due is what a run owes to shared budgets.
type due struct {
	paid pipeline.Amount            // in all
	late map[string]pipeline.Amount // of paid, what belongs to days that are over, and due has not given before
	held pipeline.Amount            // of calls under way
	over bool                       // it spends nothing any more
}

// due is what the run owes. From then on it spends on the day of the key; empty: on the
// same one.
func (a *account) due(day string) due {
	a.mu.Lock()
	defer a.mu.Unlock()
	if day != "" {
		a.day = day
	}
	d := due{paid: a.paid, late: a.late, held: a.held}
	a.late = nil
	return d
}

// giveBack is for what due has given and was not settled.
func (a *account) giveBack(late map[string]pipeline.Amount) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, amount := range late {
		a.postpone(key, amount)
	}
}

// postpone notes what was paid on a day that is over. mu is held.
func (a *account) postpone(key string, paid pipeline.Amount) {
	if a.late == nil {
		a.late = map[string]pipeline.Amount{}
	}
	a.late[key] = a.late[key].Plus(paid)
}

// stop is the error of a call that does not fit. Calls of one attempt that go
// beyond the same budget share one question.
func (a *account) stop(env executor.Env, o *pipeline.Overdraft, e model.Estimate, open map[owner]pipeline.ApprovalID, due time.Time) error {
	text := describe(o, e)
	if env.Journal == nil {
		f := pipeline.Failuref(pipeline.CategoryResource, "%s", text)
		f.Reason = pipeline.ReasonBudget
		return f
	}
	whose := owner{o.Scope, o.Name}
	if id, ok := open[whose]; ok {
		return &executor.Suspension{Reason: pipeline.ReasonBudget, Open: []pipeline.ApprovalID{id}, Due: due}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.asked[env.Path]; q != nil && q.journal == env.Journal && q.owner == whose {
		return q.stop
	}
	q := &pipeline.Approval{
		ID: pipeline.NewApprovalID(), Kind: pipeline.ApprovalBudget, Question: text, Schema: pipeline.RaiseType(), Deadline: due,
	}
	if !due.IsZero() {
		q.OnTimeout = "approve"
	}
	call := pipeline.Invocation{N: env.Journal.Next(), Request: o.Value()}
	if r := e.Request; r != nil {
		call.In, call.Agent, call.Turn, call.Phase, call.Param = r.In, r.Agent, int32(r.Turn), string(r.Phase), r.Param //nolint:gosec // turns are few
	}
	s := &executor.Suspension{
		Reason: pipeline.ReasonBudget, Due: due,
		Asks: []executor.Asked{{Approval: q, Type: pipeline.ModelCalled, Call: call}},
	}
	if a.asked == nil {
		a.asked = map[pipeline.Path]*question{}
	}
	a.asked[env.Path] = &question{journal: env.Journal, owner: whose, stop: s}
	return s
}

// describe says what is spent and what would help.
func describe(o *pipeline.Overdraft, e model.Estimate) string {
	m, who := o.Members[0], e.Model
	if who == "" {
		who = "a model"
	}
	text := fmt.Sprintf("The budget of the %s, %s, does not hold the next call of %s, which may take %s", called(o), o.Limit.Of(m), who, o.Needs.Of(m))
	if m == "tokens" {
		text += fmt.Sprintf(" (prompt at most about %d, answer at most %d)", e.InputTokens, e.OutputTokens)
	}
	return text + ". Raise it, and the step goes on?"
}

// reservation is what was set aside for one call.
type reservation struct {
	account *account
	need    pipeline.Amount
	parts   []part // of shared budgets

	mu   sync.Mutex
	over bool
}

func (r *reservation) Settle(u pipeline.Usage) { r.end(pipeline.AmountOf(&u), pipeline.PaidOf(&u)) }
func (r *reservation) Release()                { r.end(pipeline.Amount{}, pipeline.Amount{}) }

func (r *reservation) end(cost, paid pipeline.Amount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.account == nil {
		return
	}
	r.over = true
	a := r.account
	a.mu.Lock()
	a.held = a.held.Minus(r.need)
	a.spent, a.paid = a.spent.Plus(cost), a.paid.Plus(paid)
	for _, p := range r.parts { // a call is of the day on which it was begun
		if p.slice.owner.scope == pipeline.BudgetDay && p.slice.key != a.day && paid != (pipeline.Amount{}) {
			a.postpone(p.slice.key, paid)
		}
	}
	a.mu.Unlock()
	for i := range r.parts {
		r.parts[i].settle(r.need, paid)
	}
}
