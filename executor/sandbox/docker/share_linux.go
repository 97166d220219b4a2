package docker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

// share lets the container's user, which is nobody, use what the program was given,
// by access control lists: the workspace belongs to the server's user, and so do
// the files that nobody makes there, as far as using them goes.
func share(s sandbox.Spec) error {
	if err := grant(s.Workspace, true); err != nil {
		return err
	}
	for _, dir := range s.Readable {
		if err := grant(dir, false); err != nil {
			return err
		}
	}
	return nil
}

// grant walks through a folder without ever leaving it: programs may be changing it.
func grant(dir string, write bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed while we walk
		case err != nil && d != nil && belongsToNobody(d):
			return fs.SkipDir // made by a container, closed by it
		case err != nil:
			return err
		case !d.IsDir() && !d.Type().IsRegular():
			return nil
		}
		f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || belongsToNobody(d) {
				return nil
			}
			return err
		}
		defer f.Close()
		if err := open(f, write); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		return nil
	})
}

func belongsToNobody(d fs.DirEntry) bool {
	info, err := d.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == nobodyID
}

// open gives nobody the owner's rights on one file, or, without write, those to
// read. What is made in a folder inherits them, and the server's user has them too.
func open(f *os.File, write bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == nobodyID {
		return nil
	}
	mode := uint16(info.Mode().Perm()) //nolint:gosec // nine bits
	rights := mode >> 6
	if !write {
		rights &^= 2
	}
	if rights&^(mode&7) == 0 {
		return nil // everybody has them
	}
	if err := unix.Fsetxattr(int(f.Fd()), "system.posix_acl_access", acl(mode, map[uint32]uint16{nobodyID: rights}), 0); err != nil {
		return err
	}
	if !info.IsDir() || !write {
		return nil
	}
	return unix.Fsetxattr(int(f.Fd()), "system.posix_acl_default", acl(mode, map[uint32]uint16{nobodyID: 7, st.Uid: 7}), 0)
}

// acl is an access control list as the kernel reads it: the mode's rights and
// those of some users. The mask, which bounds the latter, lets them through.
func acl(mode uint16, users map[uint32]uint16) []byte {
	const userObject, user, groupObject, mask, others = 0x01, 0x02, 0x04, 0x10, 0x20
	const version, nobodyInParticular = 2, math.MaxUint32
	b := binary.LittleEndian.AppendUint32(nil, version)
	entry := func(tag, rights uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, rights)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	through := mode >> 3 & 7
	entry(userObject, mode>>6, nobodyInParticular)
	for _, id := range slices.Sorted(maps.Keys(users)) {
		entry(user, users[id], id)
		through |= users[id]
	}
	entry(groupObject, mode>>3&7, nobodyInParticular)
	entry(mask, through, nobodyInParticular)
	entry(others, mode&7, nobodyInParticular)
	return b
}
