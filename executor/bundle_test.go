package executor

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestOldBundlesAreRemoved(t *testing.T) {
	now := time.Now()
	e := &Executor{cfg: Config{Bundles: t.TempDir(), Now: func() time.Time { return now }}}
	put := func(name string, age time.Duration, size int64) string {
		dir := filepath.Join(e.cfg.Bundles, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil { // takes no room on the disk
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	put("oldest", 5*freshness, maxBundles/2)
	e.bundles.hold(put("held", 4*freshness, maxBundles/2), 1)
	put("older", 3*freshness, maxBundles/4)
	put("old", 2*freshness, maxBundles/4)
	put("fresh", time.Hour, 0)
	put(unpacking+"1", 2*freshness, 0)
	put(unpacking+"2", time.Hour, 0)
	e.sweep(put("new", 0, maxBundles/4))
	entries, err := os.ReadDir(e.cfg.Bundles)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, x := range entries {
		left = append(left, x.Name())
	}
	if want := []string{"fresh", "held", "new", "old", unpacking + "2"}; !slices.Equal(left, want) {
		t.Errorf("left are %v, want %v", left, want)
	}
}
