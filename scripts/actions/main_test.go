package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReferenceIsFresh(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/actions.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(), string(page)); diff != "" {
		t.Errorf("docs/reference/actions.md is stale, run make generate: %s", diff)
	}
}
