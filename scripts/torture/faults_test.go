package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/scripts/replica"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

const (
	leastGap = 300 * time.Millisecond // between two faults
	meanGap  = 2500 * time.Millisecond
	frozen   = 20 * time.Second // longer than a lease of 15 s lasts
)

// victim is a replica with what stands between it and the database.
type victim struct {
	name   string
	config replica.Config
	proxy  *proxy // nil: the store is embedded

	mu      sync.Mutex
	process *replica.Replica
	frozen  bool
}

func (v *victim) start(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process != nil {
		return nil
	}
	// The database may just be away.
	for {
		p, err := replica.Start(ctx, v.config)
		if err == nil {
			v.process = p
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// end ends the process: at once, as kill -9 does, or in good order.
func (v *victim) end(ctx context.Context, atOnce bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process == nil {
		return
	}
	if atOnce {
		v.process.Kill()
	} else {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_ = v.process.Stop(ctx) // what is too slow is killed
	}
	v.process = nil
}

// signal sends the process a signal, if there is one.
func (v *victim) signal(s os.Signal) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.process == nil {
		return false
	}
	v.frozen = s == syscall.SIGSTOP
	return v.process.Signal(s) == nil
}

func (v *victim) isFrozen() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.frozen
}

// torturer breaks things, one after the other, in the order that its seed says.
type torturer struct {
	t       *testing.T
	victims []*victim
	cluster *storetest.Cluster // nil: the store is embedded
	random  *rand.Rand
	may     func() bool // whether a replica may be lost now
	counts  map[string]int
	later   sync.WaitGroup
	failed  chan error // of what happens later; capacity 1
}

// fault is something that breaks; it reports whether it could.
type fault struct {
	name   string
	weight int
	loses  bool // a replica's attempts
	do     func(ctx context.Context, v *victim) (bool, error)
}

func (x *torturer) faults() []fault {
	list := []fault{
		{"kill -9", 4, true, x.kill},
		{"stop and start", 2, false, x.restart},
	}
	if x.cluster == nil {
		return list
	}
	return append(list,
		fault{"freeze for 20 s", 2, true, x.freeze},
		fault{"crash of the database", 2, false, x.crash},
		fault{"cut at COMMIT", 6, false, func(_ context.Context, v *victim) (bool, error) { v.proxy.lose.Store(true); return true, nil }},
		fault{"cut connections", 3, false, func(_ context.Context, v *victim) (bool, error) { v.proxy.cut(); return true, nil }},
		fault{"stop inside a batch", 1, true, func(_ context.Context, v *victim) (bool, error) {
			v.proxy.hold.Store(int64(frozen))
			return true, nil
		}},
	)
}

// run breaks things until ctx ends, and then mends all of them.
func (x *torturer) run(ctx context.Context, until time.Time) error {
	list := x.faults()
	weights := 0
	for _, f := range list {
		weights += f.weight
	}
	begun := time.Now()
	for time.Now().Before(until) {
		if err := pause(ctx, leastGap+time.Duration(x.random.Int64N(int64(2*(meanGap-leastGap))))); err != nil {
			return err
		}
		n := x.random.IntN(weights)
		i := slices.IndexFunc(list, func(f fault) bool { n -= f.weight; return n < 0 })
		v := x.victims[x.random.IntN(len(x.victims))]
		if list[i].loses && !x.may() {
			continue
		}
		done, err := list[i].do(ctx, v)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", list[i].name, v.name, err)
		}
		if done {
			x.counts[list[i].name]++
			x.t.Logf("%5.1f s: %s: %s", time.Since(begun).Seconds(), v.name, list[i].name)
		}
	}
	x.later.Wait()
	select {
	case err := <-x.failed:
		return err
	default:
	}
	for _, v := range x.victims {
		if v.proxy != nil {
			v.proxy.lose.Store(false)
			v.proxy.hold.Store(0)
		}
		if err := v.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// soon does something after a while, unless the test ends before.
func (x *torturer) soon(ctx context.Context, d time.Duration, f func() error) {
	x.later.Go(func() {
		err := pause(ctx, d)
		if e := f(); err == nil {
			err = e
		}
		if err != nil {
			select {
			case x.failed <- err:
			default:
			}
		}
	})
}

func (x *torturer) kill(ctx context.Context, v *victim) (bool, error) {
	if v.isFrozen() {
		return false, nil
	}
	v.end(ctx, true)
	x.soon(ctx, time.Duration(x.random.Int64N(int64(4*time.Second))), func() error { return v.start(ctx) })
	return true, nil
}

func (x *torturer) restart(ctx context.Context, v *victim) (bool, error) {
	if v.isFrozen() {
		return false, nil
	}
	x.soon(ctx, 0, func() error {
		v.end(ctx, false)
		return v.start(ctx)
	})
	return true, nil
}

// freeze stops a replica for longer than its lease lasts, one at a time.
func (x *torturer) freeze(ctx context.Context, v *victim) (bool, error) {
	if slices.ContainsFunc(x.victims, (*victim).isFrozen) || !v.signal(syscall.SIGSTOP) {
		return false, nil
	}
	x.soon(ctx, frozen, func() error { v.signal(syscall.SIGCONT); return nil })
	return true, nil
}

// crash restarts the database, as after a loss of power.
func (x *torturer) crash(context.Context, *victim) (bool, error) {
	x.cluster.Kill()
	x.cluster.Restart(x.t)
	return true, nil
}
