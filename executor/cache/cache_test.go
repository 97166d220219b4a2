package cache_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/orchestrator-project/orchestrator/executor/cache"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

var quiet = slog.New(slog.DiscardHandler)

// fake is a layer in a map that may be broken.
type fake struct {
	values map[pipeline.Digest]string
	left   time.Duration
	broken error
	asked  int
}

func (f *fake) Cached(_ context.Context, key pipeline.Digest) ([]byte, time.Duration, error) {
	f.asked++
	v, ok := f.values[key]
	if !ok || f.broken != nil {
		return nil, 0, f.broken
	}
	return []byte(v), f.left, nil
}

func (f *fake) PutCached(_ context.Context, key pipeline.Digest, value []byte, ttl time.Duration) error {
	f.asked++
	if f.broken == nil {
		f.values[key], f.left = string(value), ttl
	}
	return f.broken
}

func newFake() *fake { return &fake{values: map[pipeline.Digest]string{}} }

func TestLowerLayersFillThoseAbove(t *testing.T) {
	top, middle, bottom := newFake(), newFake(), newFake()
	metrics := prometheus.NewRegistry()
	c, err := cache.New(quiet, metrics, cache.Layer{Name: "a", Cache: top}, cache.Layer{Name: "b", Cache: middle}, cache.Layer{Name: "c", Cache: bottom})
	if err != nil {
		t.Fatal(err)
	}
	bottom.values["k"], bottom.left = "v", time.Minute
	for range 2 {
		v, left, err := c.Cached(t.Context(), "k")
		if string(v) != "v" || left != time.Minute || err != nil {
			t.Fatalf("got %q for %v, %v", v, left, err)
		}
	}
	if top.left != time.Minute || middle.values["k"] != "v" || bottom.asked != 1 {
		t.Errorf("above stand %v (%v) and %v; below was asked %d times", top.values, top.left, middle.values, bottom.asked)
	}
	if v, _, err := c.Cached(t.Context(), "other"); v != nil || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	want := `
# HELP orchestrator_cache_lookups_total Looks for results of equal steps, by the layer that had one; none: there was none.
# TYPE orchestrator_cache_lookups_total counter
orchestrator_cache_lookups_total{layer="a"} 1
orchestrator_cache_lookups_total{layer="c"} 1
orchestrator_cache_lookups_total{layer="none"} 1
`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "orchestrator_cache_lookups_total"); err != nil {
		t.Error(err)
	}
}

func TestBrokenLayersArePassedOverAndLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top, bottom := newFake(), newFake()
		c, err := cache.New(quiet, nil, cache.Layer{Name: "a", Cache: top}, cache.Layer{Name: "b", Cache: bottom})
		if err != nil {
			t.Fatal(err)
		}
		top.broken = errors.New("away")
		if err := c.PutCached(t.Context(), "k", []byte("v"), time.Hour); err != nil {
			t.Fatalf("the last layer kept it, but: %v", err)
		}
		for range 3 {
			if v, _, err := c.Cached(t.Context(), "k"); string(v) != "v" || err != nil {
				t.Fatalf("got %q, %v", v, err)
			}
		}
		if top.asked != 1 {
			t.Errorf("what is broken was asked %d times", top.asked)
		}
		time.Sleep(6 * time.Second)
		top.broken = nil
		if _, _, err := c.Cached(t.Context(), "k"); err != nil || top.values["k"] != "v" {
			t.Errorf("mended, it holds %v, %v", top.values, err)
		}
		bottom.broken = errors.New("away")
		if err := c.PutCached(t.Context(), "k", []byte("w"), time.Hour); err == nil {
			t.Error("nobody hears that the last layer did not keep it")
		}
	})
}

func TestMemoryForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := cache.Memory(100)
		if err != nil {
			t.Fatal(err)
		}
		get := func(key pipeline.Digest) string {
			v, _, _ := l.Cache.Cached(t.Context(), key)
			return string(v)
		}
		put := func(key pipeline.Digest, value string, ttl time.Duration) {
			if err := l.Cache.PutCached(t.Context(), key, []byte(value), ttl); err != nil {
				t.Fatal(err)
			}
		}
		put("k", "1", time.Minute)
		put("k", "2", time.Hour)
		time.Sleep(30 * time.Minute)
		if got := get("k"); got != "2" {
			t.Errorf("after half of its time it is %q", got)
		}
		time.Sleep(30 * time.Minute)
		if got := get("k"); got != "" {
			t.Errorf("after its time it is %q", got)
		}
		put("gone", "3", 0)
		put("large", strings.Repeat("x", 5<<20), time.Hour)
		if get("gone") != "" || get("large") != "" {
			t.Error("kept what it should not")
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	l, err := cache.Memory(100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		_ = l.Cache.PutCached(t.Context(), pipeline.Digest(fmt.Sprint(i)), []byte("v"), time.Hour)
	}
	held := func() (n int) {
		for i := range 1000 {
			if v, _, _ := l.Cache.Cached(t.Context(), pipeline.Digest(fmt.Sprint(i))); v != nil {
				n++
			}
		}
		return n
	}
	for held() > 110 { // it evicts in the background
		if t.Context().Err() != nil {
			t.Fatalf("it holds %d values", held())
		}
	}
	if held() == 0 {
		t.Error("it holds nothing")
	}
}

// realRedis starts a Redis server for the test, on a socket, and gives its URL.
func realRedis(t *testing.T) string {
	t.Helper()
	name := cmp.Or(os.Getenv("REDIS_SERVER"), "redis-server")
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("no redis-server: install it, or run the tests by make test, which does")
	}
	dir, err := os.MkdirTemp("", "redis") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir) //nolint:noctx // ended by Cleanup
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "ready to accept connections") {
				close(ready)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	select {
	case <-ready:
	case <-ended:
		t.Fatal("redis-server does not start")
	}
	return "unix://" + socket
}

func TestRedisKeepsValues(t *testing.T) {
	url := realRedis(t)
	large := bytes.Repeat([]byte("a long text "), 10_000)
	for _, compress := range []bool{false, true} {
		r, err := cache.OpenRedis(url, compress)
		if err != nil {
			t.Fatal(err)
		}
		other, err := cache.OpenRedis(url, !compress)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range map[pipeline.Digest][]byte{"empty": {}, "small": []byte("v"), "large": large} {
			if err := r.PutCached(t.Context(), key, value, time.Minute); err != nil {
				t.Fatal(err)
			}
			got, left, err := other.Cached(t.Context(), key)
			if !bytes.Equal(got, value) || got == nil || left <= 0 || left > time.Minute || err != nil {
				t.Errorf("%s: %d bytes for %v, %v", key, len(got), left, err)
			}
		}
		if err := r.PutCached(t.Context(), "small", nil, 0); err != nil {
			t.Fatal(err)
		}
		for _, key := range []pipeline.Digest{"small", "never"} {
			if got, _, err := other.Cached(t.Context(), key); got != nil || err != nil {
				t.Errorf("%s: %q, %v", key, got, err)
			}
		}
		if err := errors.Join(r.Ping(t.Context()), r.Close(), other.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestDamagedValuesInRedisCountAsNone(t *testing.T) {
	url := realRedis(t)
	r, err := cache.OpenRedis(url, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	opt, _ := redis.ParseURL(url)
	c := redis.NewClient(opt)
	defer func() { _ = c.Close() }()
	for _, raw := range []string{"", "z", "zgarbage", "x?"} {
		if err := c.Set(t.Context(), "orchestrator:cache:k", raw, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		if v, _, err := r.Cached(t.Context(), "k"); len(v) > 0 || err != nil {
			t.Errorf("%q is read as %q, %v", raw, v, err)
		}
	}
}

func TestRedisAwayCostsNoResult(t *testing.T) {
	st := storetest.Open(t)
	r, err := cache.OpenRedis("redis://127.0.0.1:1/0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	c, err := cache.New(quiet, nil, r.Layer(), cache.Layer{Name: "store", Cache: st})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutCached(t.Context(), "k", []byte("v"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if v, _, err := c.Cached(t.Context(), "k"); string(v) != "v" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
}

func TestAddressesOfRedisDoNotLeak(t *testing.T) {
	_, err := cache.OpenRedis("redis://user:hunter2@host:notaport/0", true)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
