package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
)

// Bundle is the files that travel with a pipeline, by path: relative to the
// pipeline's own folder, with slashes, clean and without "..". What a pipeline
// uses from elsewhere, such as a skill of the home folder, stands in it as if it
// were there.
type Bundle map[string][]byte

// Digest names the bundle's content; it is empty for an empty bundle.
func (b Bundle) Digest() Digest {
	if len(b) == 0 {
		return ""
	}
	h := sha256.New()
	part := func(p []byte) {
		h.Write(strconv.AppendInt(nil, int64(len(p)), 10))
		h.Write([]byte{':'})
		h.Write(p)
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		part([]byte(name))
		part(b[name])
	}
	return Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// Size is how many bytes the files have together.
func (b Bundle) Size() int64 {
	var n int64
	for _, data := range b {
		n += int64(len(data))
	}
	return n
}
