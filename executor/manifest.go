package executor

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxSaved      = 64 << 20 // bytes of a directory that are saved
	maxSavedFiles = 20_000   // what it may hold, folders and links included
	packBytes     = 4 << 20  // of a blob that holds the contents of files
	// mature is how old a file is at least whose size and time tell that it has
	// not changed: of a younger one, the time may not tell two writes apart.
	mature = 2 * time.Second
)

// manifest lists what a run's directory holds. The contents of files stand in
// packs, blobs of the run, many in one. A content that several files have, or that
// an earlier manifest has, is stored once.
type manifest struct {
	Taken   int64             `json:"taken"` // nanoseconds since 1970
	Packs   []pipeline.Digest `json:"packs"`
	Entries []entry           `json:"entries"`
}

// entry is a file, a link or a folder.
type entry struct {
	Path   string          `json:"path"` // relative to the directory, with slashes
	Mode   fs.FileMode     `json:"mode"` // permissions and type
	Time   int64           `json:"time,omitempty"`
	Size   int64           `json:"size,omitempty"`
	Digest pipeline.Digest `json:"digest,omitempty"` // of the content
	Parts  []part          `json:"parts,omitempty"`
	Link   string          `json:"link,omitempty"` // where it leads
}

// part is a piece of a content.
type part struct {
	Pack int   `json:"pack"` // index
	At   int64 `json:"at,omitempty"`
	Size int64 `json:"size"`
}

// same reports whether two manifests would be restored to the same.
func (m *manifest) same(o *manifest) bool {
	return slices.EqualFunc(m.Entries, o.Entries, func(a, b entry) bool {
		return a.Path == b.Path && a.Mode == b.Mode && a.Size == b.Size && a.Digest == b.Digest && a.Link == b.Link
	})
}

// found is what a look at a directory gives.
type found struct {
	manifest // without contents
	files    int32
	size     int64
	large    bool     // too much to be saved: not all entries are there
	omitted  []string // links that lead out, what is no file, and what cannot be read
}

// survey lists what a directory holds.
func survey(root *os.Root) (*found, error) {
	s := &found{manifest: manifest{Taken: time.Now().UnixNano()}}
	err := fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if name == "." {
			return err
		}
		if err != nil {
			s.omitted = append(s.omitted, name)
			return nil //nolint:nilerr // it is told
		}
		info, err := d.Info()
		if err != nil { // it is gone
			return nil //nolint:nilerr // and so it is not listed
		}
		e := entry{Path: name, Mode: info.Mode()}
		switch {
		case d.IsDir():
		case info.Mode().IsRegular():
			e.Size, e.Time = info.Size(), info.ModTime().UnixNano()
			s.files++
			s.size += e.Size
		case info.Mode().Type() == fs.ModeSymlink:
			e.Link, err = root.Readlink(filepath.FromSlash(name))
			if err != nil || leadsOut(root, name, e.Link) {
				s.omitted = append(s.omitted, name)
				return nil //nolint:nilerr // likewise
			}
		default:
			s.omitted = append(s.omitted, name)
			return nil
		}
		if s.large = s.large || s.size > maxSaved || len(s.Entries) == maxSavedFiles; !s.large {
			s.Entries = append(s.Entries, e)
		}
		return nil
	})
	return s, err
}

// leadsOut reports whether a link leads out of the root, by its words or by the
// links that it passes.
func leadsOut(root *os.Root, name, link string) bool {
	if path.IsAbs(link) || filepath.IsAbs(link) || !filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), link))) {
		return true
	}
	_, err := root.Stat(filepath.FromSlash(name))
	return err != nil && !errors.Is(err, fs.ErrNotExist)
}

// packing stores the contents of files.
type packing struct {
	m    *manifest
	old  *manifest
	put  func([]byte) (pipeline.Digest, error)
	left int64 // bytes that may still be saved

	pack []byte
	at   int                        // the index that it will have
	has  map[pipeline.Digest][]part // the contents that are stored
	were map[string]*entry          // of old, by path
	from map[int]int                // indexes of old packs in m
}

var errTooMuch = errors.New("the files have grown beyond what is saved")

// pack stores the contents of a manifest's files, but for those that an older one
// has: put stores a blob.
func (m *manifest) pack(root *os.Root, old *manifest, put func([]byte) (pipeline.Digest, error)) (omitted []string, err error) {
	p := &packing{m: m, old: old, put: put, left: maxSaved, at: -1, has: map[pipeline.Digest][]part{}, were: map[string]*entry{}, from: map[int]int{}}
	byContent := map[pipeline.Digest]*entry{}
	for i := range old.Entries {
		e := &old.Entries[i]
		p.were[e.Path] = e
		if e.Digest != "" {
			byContent[e.Digest] = e
		}
	}
	kept := m.Entries[:0]
	for _, e := range m.Entries {
		if e.Mode.IsRegular() {
			was := p.were[e.Path]
			known := was != nil && was.Mode.IsRegular() && was.Size == e.Size && was.Time == e.Time && old.Taken-was.Time > int64(mature)
			var data []byte
			if known {
				e.Digest = was.Digest
			} else if data, err = readUpTo(root, e.Path, p.left); errors.Is(err, errTooMuch) {
				return omitted, err
			} else if err != nil {
				omitted = append(omitted, e.Path)
				continue
			} else {
				e.Size, e.Digest = int64(len(data)), digestOf(data)
			}
			if p.left -= e.Size; p.left < 0 {
				return omitted, errTooMuch
			}
			if e.Parts, err = p.place(e.Digest, byContent[e.Digest], data); err != nil {
				return omitted, err
			}
		}
		kept = append(kept, e)
	}
	m.Entries = kept
	return omitted, p.flush()
}

// readUpTo reads a file of at most so many bytes.
func readUpTo(root *os.Root, name string, most int64) ([]byte, error) {
	// What was a file may be a pipe by now, which would never be opened.
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fs.ErrInvalid)
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = errTooMuch
	}
	return data, err
}

// place says where a content stands, and puts it there if it is new.
func (p *packing) place(d pipeline.Digest, was *entry, data []byte) ([]part, error) {
	parts, ok := p.has[d]
	switch {
	case ok:
	case was != nil:
		for _, old := range was.Parts {
			i, ok := p.from[old.Pack]
			if !ok {
				i = len(p.m.Packs)
				p.from[old.Pack] = i
				p.m.Packs = append(p.m.Packs, p.old.Packs[old.Pack])
			}
			parts = append(parts, part{Pack: i, At: old.At, Size: old.Size})
		}
	default:
		for len(data) > 0 {
			if p.at < 0 {
				p.at = len(p.m.Packs)
				p.m.Packs = append(p.m.Packs, "")
			}
			n := min(len(data), packBytes-len(p.pack))
			parts = append(parts, part{Pack: p.at, At: int64(len(p.pack)), Size: int64(n)})
			p.pack = append(p.pack, data[:n]...)
			data = data[n:]
			if len(p.pack) == packBytes {
				if err := p.flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	p.has[d] = parts
	return parts, nil
}

// flush stores the pack.
func (p *packing) flush() (err error) {
	if p.at >= 0 {
		p.m.Packs[p.at], err = p.put(p.pack)
		p.pack, p.at = p.pack[:0], -1
	}
	return err
}

// errManifest is the error of a manifest that cannot be restored.
var errManifest = errors.New("the list of the files is damaged")

// check refuses a manifest that was not made by pack.
func (m *manifest) check() error {
	total := int64(0)
	for i := range m.Entries {
		e := &m.Entries[i]
		sum := int64(0)
		for _, p := range e.Parts {
			if p.Pack < 0 || p.Pack >= len(m.Packs) || p.At < 0 || p.Size < 0 || p.At > packBytes || p.Size > packBytes {
				return errManifest
			}
			sum += p.Size
		}
		total += sum
		if !filepath.IsLocal(filepath.FromSlash(e.Path)) || sum != e.Size || total > maxSaved || i >= maxSavedFiles {
			return errManifest
		}
	}
	return nil
}

// unpack writes what the manifest lists into an empty directory: get reads a blob.
// Nothing is written outside, whatever the manifest says.
func (m *manifest) unpack(root *os.Root, get func(pipeline.Digest) ([]byte, error)) error {
	if err := m.check(); err != nil {
		return err
	}
	packs := map[int][]byte{}
	for i := range m.Entries {
		e := &m.Entries[i]
		name := filepath.FromSlash(e.Path)
		switch {
		case e.Mode.IsDir():
			if err := root.MkdirAll(name, 0o700); err != nil {
				return err
			}
		case e.Mode.IsRegular():
			data := make([]byte, 0, e.Size)
			for _, p := range e.Parts {
				if packs[p.Pack] == nil {
					if len(packs) == 2 { // most files of a pack follow one another
						clear(packs)
					}
					b, err := get(m.Packs[p.Pack])
					if err != nil {
						return err
					}
					packs[p.Pack] = b
				}
				pack := packs[p.Pack]
				if p.At+p.Size > int64(len(pack)) {
					return errManifest
				}
				data = append(data, pack[p.At:p.At+p.Size]...)
			}
			if digestOf(data) != e.Digest {
				return errManifest
			}
			if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
				return err
			}
			if err := root.WriteFile(name, data, 0o600); err != nil { // as safe as when a step wrote it
				return err
			}
			if err := errors.Join(root.Chmod(name, e.Mode.Perm()), root.Chtimes(name, time.Time{}, time.Unix(0, e.Time))); err != nil {
				return err
			}
		}
	}
	return m.finish(root)
}

// finish makes the links, through which nothing has been written, and then takes
// from the folders the rights that they did not give.
func (m *manifest) finish(root *os.Root) error {
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Mode.Type() == fs.ModeSymlink {
			if err := root.Symlink(e.Link, filepath.FromSlash(e.Path)); err != nil {
				return err
			}
		}
	}
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Mode.Type() == fs.ModeSymlink && leadsOut(root, e.Path, e.Link) {
			if err := root.Remove(filepath.FromSlash(e.Path)); err != nil {
				return err
			}
		}
	}
	for i := len(m.Entries) - 1; i >= 0; i-- {
		if e := &m.Entries[i]; e.Mode.IsDir() {
			if err := root.Chmod(filepath.FromSlash(e.Path), e.Mode.Perm()); err != nil {
				return err
			}
		}
	}
	return nil
}
