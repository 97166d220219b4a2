package model

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// breaking is a provider whose first streams break off after some text.
type breaking struct {
	service
	broken int // how many of them
}

func (b *breaking) Call(ctx context.Context, r *Request) (Stream, error) {
	if len(b.asked) < b.broken {
		b.asked = append(b.asked, r)
		return &torn{}, nil
	}
	return b.service.Call(ctx, r)
}

// torn is a stream of one piece of 40 bytes.
type torn struct{ told bool }

func (s *torn) Next() (Piece, error) {
	if s.told {
		return Piece{}, &Error{Class: ClassNetwork, Message: "cut", Cause: io.ErrUnexpectedEOF}
	}
	s.told = true
	return Piece{Kind: BlockText, Text: "forty bytes of an answer that breaks off"}, nil
}
func (*torn) Response() *Response { return nil }
func (*torn) Close() error        { return nil }

// till keeps what was set aside and charged.
type till struct {
	reserved int
	replays  []bool
	charged  []pipeline.Usage
	open     int
}

func (p *till) Reserve(_ context.Context, _ executor.Env, e Estimate) (Reservation, error) {
	p.reserved, p.open = p.reserved+1, p.open+1
	p.replays = append(p.replays, e.Replays)
	return &held{till: p}, nil
}

type held struct {
	till *till
	over bool
}

func (h *held) end() bool {
	if h.over {
		return false
	}
	h.over = true
	h.till.open--
	return true
}

func (h *held) Settle(u pipeline.Usage) {
	if h.end() {
		h.till.charged = append(h.till.charged, u)
	}
}
func (h *held) Release() { h.end() }

// Each answer that broke off was paid for: it is reserved, charged and recorded, beside
// the one that came.
func TestAnswersThatBreakOffArePaid(t *testing.T) {
	for _, c := range []struct {
		broken, reserved, charged int
		fails                     bool
	}{{0, 1, 1, false}, {2, 3, 3, false}, {4, 4, 4, true}} {
		synctest.Test(t, func(t *testing.T) {
			s := &breaking{service: service{f: echo}, broken: c.broken}
			_, cfg := routed(t, nil, "m")
			purse := &till{}
			cfg.Purse, cfg.Open = purse, func(Endpoint) (Provider, error) { return s, nil }
			r := NewRouter(*cfg)
			b := &book{}
			a, err := r.Ask(t.Context(), b.attempt(), ask("hello"))
			if (err != nil) != c.fails {
				t.Fatalf("%d broken: %v", c.broken, err)
			}
			if purse.reserved != c.reserved || len(purse.charged) != c.charged || purse.open != 0 {
				t.Errorf("%d broken: %+v", c.broken, purse)
			}
			var sum pipeline.Usage
			for i := range purse.charged {
				sum.Add(&purse.charged[i])
			}
			said := b.events[0].Data.Usage
			if said == nil || *said != sum || sum.Estimated != (c.broken > 0) || sum.OutputTokens < int32(10*c.broken) { //nolint:gosec // few
				t.Errorf("%d broken: recorded %+v, charged %+v", c.broken, said, sum)
			}
			if !c.fails && *a.Usage != sum {
				t.Errorf("%d broken: the answer says %+v of %+v", c.broken, a.Usage, sum)
			}
		})
	}
}

// keeper is a provider of recorded answers.
type keeper struct{ service }

func (*keeper) Keep(context.Context, *Request, *Response, func(string) string) error { return nil }

func TestRecordedAnswersAreMarkedAsReplayed(t *testing.T) {
	s := &keeper{service{f: func(n int, r *Request) (*Response, error) {
		a, err := echo(n, r)
		a.Usage.CostUSD = 0.25
		return a, err
	}}}
	purse := &till{}
	r := NewRouter(Config{Scripted: s, Purse: purse})
	a, err := r.Ask(t.Context(), (&book{}).attempt(), ask("hello"))
	if err != nil || a.Usage.CostUSD != 0.25 || a.Usage.ReplayedUSD != 0.25 || a.Usage.ReplayedTokens != 1100 || a.Usage.ReplayedCalls != 1 {
		t.Fatalf("%+v, %v", a.Usage, err)
	}
	if len(purse.replays) != 1 || !purse.replays[0] || pipeline.PaidOf(&purse.charged[0]) != (pipeline.Amount{}) {
		t.Errorf("%+v", purse)
	}
}
