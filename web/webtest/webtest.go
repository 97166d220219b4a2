// Package webtest drives a real Chromium for tests of the pages: it opens
// pages, reads what the browser made of them, takes pictures and runs axe, the
// accessibility checker, on them.
//
// A machine without Chromium or npm fails these tests with the command that
// mends it; nothing is skipped.
//
//	ctx := webtest.Browser(t)
//	webtest.Run(t, ctx, chromedp.Navigate(url), chromedp.WaitReady("#main"))
//	webtest.Accessible(t, ctx)
package webtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Limit is how long one test may use its browser.
const Limit = 15 * time.Minute

// chromium finds the browser.
func chromium(t testing.TB) string {
	t.Helper()
	if given := os.Getenv("CHROMIUM"); given != "" {
		return given
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("browser tests need Chromium: apt-get install -y chromium")
	return ""
}

// Browser starts a Chromium of its own and returns the context of its first
// tab. The browser ends with the test. What a page's scripts throw, and what
// its content security policy refuses, fails the test.
func Browser(t testing.TB) context.Context {
	t.Helper()
	dir, err := os.MkdirTemp("", "browser") // a short name: the path of a socket in it must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 100 { // its last processes may still write when the first has ended
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium(t)), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.Env("TMPDIR=" + dir), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WindowSize(1440, 900),
	}
	ctx, stopAll := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stopTab := chromedp.NewContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, Limit)
	listening := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-listening
		stopTab()
		stopAll()
	})
	messages := chromedp.Console(ctx)
	go func() {
		defer close(listening)
		for m, err := range messages {
			if err != nil || ctx.Err() != nil {
				return
			}
			// The browser's own word for a page that does not exist, or for a
			// server that a test has cut off, is no fault of the page.
			if m.IsException() || m.Type == "error" && m.Source != "network" {
				t.Errorf("the page's console: %s", m)
			}
		}
	}()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return ctx
}

// Run does what the actions say, or fails the test.
func Run(t testing.TB, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// Eval evaluates JavaScript in the page; a promise is waited for.
func Eval[T any](t testing.TB, ctx context.Context, expr string) T { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expr, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return v
}

// Until waits for a JavaScript expression to become true.
func Until(t testing.TB, ctx context.Context, expr string, within time.Duration) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expr, chromedp.WithPollingTimeout(within), chromedp.WithPollingInterval(20*time.Millisecond)))
	if err != nil {
		t.Fatalf("the page never got to %s: %v", expr, err)
	}
}

// Scheme makes pages light or dark, as the reader's system would, and still.
func Scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		return err
	})
}

// Size makes the window that wide and high; narrow ones are phones.
func Size(width, height int64) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600,
		})
		return err
	})
}

// Accessible fails the test for everything that axe finds on the open page
// under WCAG 2.2 A and AA and its best practices.
func Accessible(t testing.TB, ctx context.Context) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	if !Eval[bool](t, ctx, `typeof axe === "object"`) {
		Eval[bool](t, ctx, axe(t)+";true")
	}
	found := Eval[string](t, ctx, `axe.run(document, {
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
	}).then(r => JSON.stringify(r.violations))`)
	var violations []struct {
		ID, Help string
		Nodes    []struct {
			HTML           string
			FailureSummary string
		}
	}
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		var b strings.Builder
		for i, n := range v.Nodes {
			if i == 5 {
				fmt.Fprintf(&b, "\n  and %d more", len(v.Nodes)-i)
				break
			}
			fmt.Fprintf(&b, "\n  %.300s\n    %s", n.HTML, strings.ReplaceAll(n.FailureSummary, "\n", "\n    "))
		}
		t.Errorf("axe: %s: %s%s", v.ID, v.Help, b.String())
	}
}

// axe reads axe-core: the file that AXE_CORE_JS names, or what scripts/needs
// has installed.
func axe(t testing.TB) string {
	t.Helper()
	source, err := loadAxe()
	if err != nil {
		t.Fatalf("browser tests need axe-core: go run ./scripts/needs -for axe -- go test ./web (%v)", err)
	}
	return source
}

var loadAxe = sync.OnceValues(func() (string, error) {
	path := os.Getenv("AXE_CORE_JS")
	if path == "" {
		_, here, _, _ := runtime.Caller(0)
		path = filepath.Join(filepath.Dir(here), "..", "..", ".cache", "npm", "node_modules", "axe-core", "axe.min.js")
	}
	b, err := os.ReadFile(path)
	return string(b), err
})
