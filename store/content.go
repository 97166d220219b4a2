package store

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	// MaxBundle is the size in bytes that the files of a bundle may have together.
	MaxBundle = 32 << 20
	// MaxBlob is the size in bytes that one content of a run may have.
	MaxBlob = 16 << 20
	// CacheSweep is how many expired values a PutCached removes: more than it
	// adds, so that they do not pile up, and few, so that it stays quick.
	CacheSweep = 8
)

// EncodeBundle checks a bundle against its digest and writes it as zstd of, for
// each file in the order of the names, the lengths of name and content as
// uvarints, the name and the content. Size is the length before compression.
func EncodeBundle(d pipeline.Digest, b pipeline.Bundle) (data []byte, size int, err error) {
	if n := b.Size(); n > MaxBundle {
		return nil, 0, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "bundle_too_large",
			Text: fmt.Sprintf("the files of the pipeline have %d bytes together, more than the %d MiB that travel with it; keep large files elsewhere and name them by a path", n, MaxBundle>>20),
		}
	}
	if got := b.Digest(); got != d {
		return nil, 0, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "bundle_digest",
			Text: fmt.Sprintf("the files of the pipeline have the digest %s, not %s: send them again", got, d),
		}
	}
	var raw []byte
	for _, name := range slices.Sorted(maps.Keys(b)) {
		raw = binary.AppendUvarint(raw, uint64(len(name)))
		raw = binary.AppendUvarint(raw, uint64(len(b[name])))
		raw = append(raw, name...)
		raw = append(raw, b[name]...)
	}
	return encoder().EncodeAll(raw, nil), len(raw), nil
}

// DecodeBundle reads what EncodeBundle wrote.
func DecodeBundle(data []byte, size int) (pipeline.Bundle, error) {
	raw, err := OpenBlob(data, size)
	if err != nil {
		return nil, err
	}
	b := make(pipeline.Bundle)
	for len(raw) > 0 {
		name, n := binary.Uvarint(raw)
		content, m := binary.Uvarint(raw[max(n, 0):])
		head := n + m
		if n <= 0 || m <= 0 || name > uint64(len(raw)-head) || content > uint64(len(raw)-head)-name {
			return nil, errors.New("read bundle: it is cut off")
		}
		raw = raw[head:]
		b[string(raw[:name])] = slices.Clone(raw[name : name+content])
		raw = raw[name+content:]
	}
	return b, nil
}

// BundleNotFound is the error of a bundle that there is not.
func BundleNotFound(d pipeline.Digest) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "bundle_not_found", Text: fmt.Sprintf("there are no files with the digest %s", d)}
}

// CheckBlob refuses content that is too large for PutBlob.
func CheckBlob(data []byte) error {
	if len(data) > MaxBlob {
		return &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "blob_too_large",
			Text: fmt.Sprintf("content of %d bytes is more than the %d MiB that are kept with a run; keep it in a file and name that", len(data), MaxBlob>>20),
		}
	}
	return nil
}

// BlobDigest is the digest that names a blob's hash.
func BlobDigest(sha [32]byte) pipeline.Digest {
	return pipeline.Digest("sha256:" + hex.EncodeToString(sha[:]))
}

// BlobSHA is the hash that a digest names; of another text it gives the error
// of a blob that there is not.
func BlobSHA(d pipeline.Digest) ([32]byte, error) {
	text, _ := strings.CutPrefix(string(d), "sha256:")
	sha, err := hex.DecodeString(text)
	if err != nil || len(sha) != sha256.Size {
		return [32]byte{}, BlobNotFound(d)
	}
	return [32]byte(sha), nil
}

// BlobNotFound is the error of content that the run does not have.
func BlobNotFound(d pipeline.Digest) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "blob_not_found", Text: fmt.Sprintf("the run has no content with the digest %s", d)}
}
