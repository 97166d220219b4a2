package main

import "testing"

func TestSmallHeapsHaveRoomForGarbage(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 800}, {1 << 20, 800}, {16 << 20, 400}, {32 << 20, 200}, {64 << 20, 100}, {1 << 40, 100}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("with %d bytes in use: %d %%, want %d %%", c.live, got, c.want)
		}
	}
}
