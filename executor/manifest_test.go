package executor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestSavingWaitsForNoPipe holds that what takes the place of a file after it was
// listed neither hangs the saving nor is taken for a file, and that holes in a file
// count as if they were full.
func TestSavingWaitsForNoPipe(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "was-a-file")
	if err := os.WriteFile(at, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found, err := survey(root)
	if err != nil || found.files != 1 || found.large {
		t.Fatalf("got %+v, %v", found, err)
	}
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at, 0o600); err != nil {
		t.Fatal(err)
	}
	put := func([]byte) (pipeline.Digest, error) { return "", errors.New("nothing is to be stored") }
	if omitted, err := found.pack(root, &manifest{}, put); err != nil || len(omitted) != 1 {
		t.Errorf("omitted %q, %v", omitted, err)
	}
	if _, err := readUpTo(root, "was-a-file", 10); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v", err)
	}

	f, err := root.Create("sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip("this file system has no files that large: ", err)
	}
	if found, err = survey(root); err != nil || !found.large {
		t.Errorf("a file of 1 TiB: large %t, %v", found.large, err)
	}
}
