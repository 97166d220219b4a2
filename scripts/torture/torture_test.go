package torture

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/orchestrator-project/orchestrator/scripts/replica"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

var (
	lasting  = flag.Duration("torture.for", time.Minute, "how long things break")
	seed     = flag.Uint64("torture.seed", 9106, "decides what breaks when; 0: drawn") // in this one's minute everything breaks
	embedded = flag.Bool("torture.sqlite", false, "one replica on the embedded store in place of three on PostgreSQL")
	patient  = flag.Duration("torture.patience", 5*time.Minute, "how long the runs may take after the last fault")
)

// config is what is submitted.
type config struct {
	runs, steps int
	over        time.Duration // the submissions are spread over it
	seed        uint64
}

// The clocks of the replicas are wrong by this much.
var skews = []time.Duration{0, 15 * time.Second, -10 * time.Second}

func TestTorture(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes more than a minute")
	}
	c := config{steps: 8, over: *lasting * 9 / 10, seed: *seed}
	c.runs = max(40, int(c.over/(400*time.Millisecond)))
	if c.seed == 0 {
		c.seed = rand.Uint64() //nolint:gosec // it is told, to be used again
	}
	t.Logf("%d runs of %d steps, faults for %v; again with -torture.seed %d", c.runs, c.steps, *lasting, c.seed)
	home, err := os.MkdirTemp("", "orchestrator-torture")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the logs of the servers and the ledger stand in %s", home)
			return
		}
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	x := &torturer{t: t, random: rand.New(rand.NewPCG(c.seed, 1)), counts: map[string]int{}, failed: make(chan error, 1)} //nolint:gosec // repeatable, not secret
	x.victims = startVictims(t, home, x)
	conn := dialAll(t, x.victims)
	l := newLoad(conn, c, filepath.Join(home, "ledger.txt"))
	x.may = l.spared

	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	if err := x.run(ctx, time.Now().Add(*lasting)); err != nil {
		cancel(err)
		t.Fatalf("%v; the load ended with: %v", err, <-done)
	}
	t.Logf("the last thing has broken; %d runs submitted, %d finished", l.submitted.Load(), l.finished.Load())
	late := time.AfterFunc(*patient, func() {
		cancel(fmt.Errorf("%d of %d runs have not finished %v after the last fault: %s", int64(c.runs)-l.finished.Load(), c.runs, *patient, l.open()))
	})
	defer late.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.check(t)
	for _, name := range slices.Sorted(maps.Keys(x.counts)) {
		t.Logf("%s: %d times", name, x.counts[name])
	}
}

// startVictims starts the replicas; they end with the test.
func startVictims(t *testing.T, home string, x *torturer) []*victim {
	t.Helper()
	url := ""
	if !*embedded {
		x.cluster = storetest.NewCluster(t)
		url = x.cluster.URL
	}
	var list []*victim
	for i, skew := range skews {
		v := &victim{name: fmt.Sprintf("replica %d", i+1)}
		v.config = replica.Config{Binary: build(t, home, i, skew), Home: filepath.Join(home, fmt.Sprint("home", i+1))}
		var err error
		if v.config.Addr, err = replica.FreeAddr(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(v.config.Home, 0o700); err != nil {
			t.Fatal(err)
		}
		log, err := os.Create(filepath.Join(home, fmt.Sprintf("server%d.log", i+1))) //nolint:gosec // in our own folder
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		v.config.Log = log
		// Files that steps of one run leave must be found by the next owner.
		v.config.Environ = []string{"ORCHESTRATOR_EXECUTION_WORKSPACE_ROOT=" + filepath.Join(home, "workspaces")}
		if url != "" {
			if v.proxy, v.config.DatabaseURL, err = startProxy(url); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(v.proxy.close)
		}
		if err := v.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v.end(context.Background(), true) })
		list = append(list, v)
		if *embedded {
			break
		}
	}
	return list
}

// build builds a server whose clock is wrong.
func build(t *testing.T, dir string, i int, skew time.Duration) string {
	t.Helper()
	name := filepath.Join(dir, fmt.Sprint("orchestrator", i+1))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w -X main.clockSkew="+skew.String(), "-o", name, "../../cmd/orchestrator") //nolint:gosec // our own words
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return name
}

// dialAll connects to all replicas: each call goes to another one of those that
// can be reached.
func dialAll(t *testing.T, victims []*victim) *grpc.ClientConn {
	t.Helper()
	r := manual.NewBuilderWithScheme("replicas")
	var addrs []resolver.Address
	for _, v := range victims {
		addrs = append(addrs, resolver.Address{Addr: v.config.Addr})
	}
	r.InitialState(resolver.State{Addresses: addrs})
	again := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	conn, err := grpc.NewClient("replicas:///", grpc.WithAuthority("localhost"), grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
