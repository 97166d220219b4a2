package storetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// childEnv hands the place of the store to a child process of KillNine.
const childEnv = "ORCHESTRATOR_STORETEST_CHILD"

// Child is the life of a process that KillNine has started: it commits to one
// run for ever and says what was acknowledged. Call it first in TestMain; it
// returns at once in any other process.
func Child(open func(place string) (store.Store, error)) {
	place := os.Getenv(childEnv)
	if place == "" {
		return
	}
	err := func() error {
		ctx := context.Background()
		s, err := open(place)
		if err != nil {
			return err
		}
		l, err := s.OpenLane(ctx, store.ReplicaID(fmt.Sprint("child-", os.Getpid())))
		if err != nil {
			return err
		}
		r := newRun(pipeline.RunRunning)
		b := &store.Batch{Create: []store.Create{created(r)}}
		for seq := int32(1); ; seq += 4 {
			if _, err := l.Commit(ctx, b); err != nil {
				return err
			}
			fmt.Println(r.ID, seq)
			b = &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(seq+1, seq+4)}}}
		}
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// KillNine starts processes of this test binary that write to the store at
// place, ends them by SIGKILL while they write, and checks that whatever they
// were told is recorded, without gaps, and that their runs are queued again.
func KillNine(t *testing.T, s store.Store, place string) {
	const children = 3
	type child struct {
		cmd   *exec.Cmd
		lines *bufio.Scanner
		run   pipeline.RunID
		acked int32
	}
	var list []*child
	for range children {
		c := &child{cmd: exec.Command(os.Args[0])}
		c.cmd.Env = append(os.Environ(), childEnv+"="+place)
		c.cmd.Stderr = os.Stderr
		out, err := c.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.cmd.Process.Kill() })
		c.lines = bufio.NewScanner(out)
		list = append(list, c)
	}
	read := func(c *child) bool {
		if !c.lines.Scan() {
			return false
		}
		id, seq, _ := strings.Cut(c.lines.Text(), " ")
		c.run = pipeline.RunID(id)
		if _, err := fmt.Sscan(seq, &c.acked); err != nil {
			t.Fatalf("child says %q", c.lines.Text())
		}
		return true
	}
	for _, c := range list {
		for c.acked < 50 {
			if !read(c) {
				t.Fatal("a child has ended")
			}
		}
	}
	for _, c := range list {
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for read(c) { // what it was told before it died
		}
		_ = c.cmd.Wait() // killed
	}
	l := openLane(t, s, "survivor")
	start := time.Now()
	total := 0
	eventually(t, "the runs of the dead are queued", func() bool {
		n, err := s.Reclaim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		total += n
		return total == children
	})
	t.Logf("reclaimed after %v", time.Since(start))
	runs, err := l.Claim(t.Context(), children+1)
	if err != nil || len(runs) != children {
		t.Fatalf("claimed %d runs, %v", len(runs), err)
	}
	for _, c := range list {
		got := events(t, s, c.run, 0)
		if int32(len(got)) < c.acked {
			t.Errorf("%d records, but %d were acknowledged", len(got), c.acked)
		}
		for i, e := range got {
			if e.Seq != int32(i)+1 {
				t.Fatalf("record %d stands at place %d", e.Seq, i+1)
			}
		}
	}
}
