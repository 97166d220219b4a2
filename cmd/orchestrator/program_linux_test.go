package main

import (
	"bytes"
	"os"
	"testing"
)

func TestTheProgramGoesOnWithoutThePagesItHasGivenBack(t *testing.T) {
	before, err := os.ReadFile("testdata/script/help.txtar")
	if err != nil {
		t.Fatal(err)
	}
	first, err := releaseProgram()
	if err != nil || first <= 0 {
		t.Fatalf("gave back %d bytes: %v", first, err)
	}
	again, err := releaseProgram()
	if err != nil || again >= first {
		t.Errorf("gave back %d bytes, then %d: %v", first, again, err)
	}
	after, err := os.ReadFile("testdata/script/help.txtar")
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("reading a file has changed: %v", err)
	}
}

func TestStretchesOfMemoryAreRead(t *testing.T) {
	const code, data, heap = "00400000-02d4d000 r-xp 00001000 fe:00 10674910                           /bin/x",
		"05eee000-060e0000 rw-p 05aee000 fe:00 10674910                           /bin/x", "c000000000-c000400000 rw-p 00000000 00:00 0 "
	got, ok := stretchOf(code)
	if want := (stretch{from: 0x400000, to: 0x2d4d000, inode: 10674910, clean: true}); !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
	for _, line := range []string{data, heap} {
		if got, ok := stretchOf(line); !ok || got.clean {
			t.Errorf("%s: %+v, %v", line, got, ok)
		}
	}
	if got, ok := stretchOf("Rss:               30836 kB"); ok {
		t.Errorf("a figure is %+v", got)
	}
}
