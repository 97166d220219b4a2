package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// SnapshotFormat is the version of a snapshot's encoding. A snapshot of another
// version is no error of anybody's: the log is folded instead.
const SnapshotFormat = 3

// ErrSnapshot is the error of a snapshot that cannot be used: its version is
// unknown, it is damaged, or it is of another plan.
var ErrSnapshot = errors.New("pipeline: the snapshot cannot be used")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is all that a machine has learned from its events, as of Seq. It
// shares values with the machine, which never change, and nothing else: it may
// be encoded by another goroutine while the machine goes on.
type Snapshot struct {
	Seq int32 // of the newest event that it knows
	p   packer
}

// Encode writes the snapshot: a byte with the version, the state, and the
// CRC-32C of both, big endian.
func (s *Snapshot) Encode() []byte {
	b := s.p.all()
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Snapshot takes a snapshot. It costs the size of what is under way, not of the
// values. Tasks that Next has given and that are not answered are part of it.
func (m *Machine) Snapshot() *Snapshot {
	s := &Snapshot{Seq: m.Seq}
	p := &s.p
	p.b = append(make([]byte, 0, 4096), SnapshotFormat)
	p.number(int64(m.Seq))
	m.packRun(p)
	p.text(m.cancel)
	p.truth(m.finishing)
	p.truth(m.late)
	p.truth(m.handed)
	p.number(int64(m.critical))
	p.number(int64(m.begun))
	p.number(m.order)
	p.text(string(m.uploads))
	p.data(&Data{Workspace: m.files, Trace: m.trace})
	p.mapping(m.answers)
	p.count(len(m.signals))
	for _, name := range slices.Sorted(maps.Keys(m.signals)) {
		p.text(name)
		p.value(m.signals[name])
	}
	p.mapping(m.approved)
	p.mapping(m.sessions)
	p.count(len(m.answer))
	for _, path := range slices.Sorted(maps.Keys(m.answer)) {
		p.text(string(path))
		p.count(len(m.answer[path]))
		for _, key := range slices.Sorted(maps.Keys(m.answer[path])) {
			p.data(&Data{Auto: m.answer[path][key]})
		}
	}
	m.packUnit(p, m.unit)
	return s
}

// packRun writes what events have said of the run; RunFinished leaves no more to
// be done, so its words are there for completeness.
func (m *Machine) packRun(p *packer) {
	r := &m.Run
	p.text(string(r.Status))
	p.text(r.Reason)
	p.data(&Data{Error: r.Error, Usage: &r.Usage})
	p.mapping(r.Outputs)
	p.time(r.StartedAt)
	p.time(r.FinishedAt)
}

func (m *Machine) packUnit(p *packer, u *unit) {
	p.failure(u.soft)
	p.truth(u.abort)
	p.mapping(u.state)
	p.count(len(u.versions))
	for _, name := range slices.Sorted(maps.Keys(u.versions)) {
		p.data(&Data{Published: u.versions[name]})
	}
	p.count(len(u.consumed))
	if len(u.consumed) > 0 {
		defs := stepsOf(u.def)
		number := make(map[*StepDef]int, len(defs))
		for i, d := range defs {
			number[d] = i
		}
		keys := slices.SortedFunc(maps.Keys(u.consumed), func(a, b consumption) int {
			if a.def != b.def {
				return number[a.def] - number[b.def]
			}
			if a.artifact < b.artifact {
				return -1
			}
			return 1
		})
		for _, k := range keys {
			p.count(number[k.def])
			p.text(k.artifact)
			p.number(int64(u.consumed[k]))
		}
	}
	p.truth(u.root != nil)
	if u.root != nil {
		m.packFrame(p, u.root)
	}
	p.truth(u.finally != nil)
	if u.finally != nil {
		m.packFrame(p, u.finally)
	}
}

// stepsOf lists the steps that stand in a pipeline, those of its blocks included.
func stepsOf(u *Unit) []*StepDef {
	var list []*StepDef
	var walk func(b *Body)
	walk = func(b *Body) {
		for _, s := range b.Steps {
			list = append(list, s)
			if s.Loop != nil {
				walk(&s.Loop.Body)
			}
			for i := range s.Branches {
				walk(&s.Branches[i].Body)
			}
		}
	}
	walk(&u.Root)
	walk(&u.Finally)
	return list
}

func (m *Machine) packFrame(p *packer, f *frame) {
	p.failure(f.failed)
	p.text(f.halt)
	p.count(f.jumps)
	p.number(f.order)
	if f.space.tops[0] == f {
		p.truth(f.space.visits != nil)
		p.count(len(f.space.visits))
		for _, id := range slices.Sorted(maps.Keys(f.space.visits)) {
			p.text(id)
			p.number(int64(f.space.visits[id]))
		}
	}
	for _, x := range f.insts {
		m.packInst(p, x)
	}
}

// The marks of an instance.
const (
	markAsked = 1 << iota
	markOut
	markStop
	markRuled
	markBlock
	markNamed // an event has named it
	markKnown // it has more than a place
	markJournal
	markAll = 1<<iota - 1
)

func (m *Machine) packInst(p *packer, x *inst) {
	marks := 0
	for mark, set := range map[int]bool{
		markAsked: x.asked, markOut: x.out > 0 && x.out == x.token && x.skip == "" && !x.step.Status.Final(), markStop: x.stop, markRuled: x.ruled,
		markBlock: x.block != nil, markNamed: x.number > 0, markJournal: x.journal != nil,
		markKnown: x.skip != "" || x.tries > 0 || x.base > 0 || x.offered > 0 || !x.due.IsZero() || x.since > 0 || x.rule != nil ||
			len(x.before) > 0 || x.decision != nil || m.deaths[x.path] > 0,
	} {
		if set {
			marks |= mark
		}
	}
	p.count(marks)
	p.number(int64(x.visit))
	p.count(x.turn)
	p.count(x.waits)
	p.number(x.order)
	if marks&markKnown != 0 {
		p.text(x.skip)
		p.count(x.tries)
		p.number(int64(x.base))
		p.number(int64(x.offered))
		p.time(x.due)
		p.number(int64(x.since))
		p.count(m.deaths[x.path])
		rule := 0
		for i := range x.def.OnError {
			if x.rule == &x.def.OnError[i] {
				rule = i + 1
			}
		}
		p.count(rule)
		p.count(len(x.before))
		for _, name := range slices.Sorted(maps.Keys(x.before)) {
			p.text(name)
			p.number(int64(x.before[name]))
		}
		p.data(&Data{Decision: x.decision})
	}
	if j := x.journal; j != nil {
		p.number(int64(j.first))
		p.number(int64(j.calls))
		p.count(len(j.open))
		for _, id := range j.open {
			p.text(string(id))
		}
		if x.number == 0 {
			p.data(&Data{Usage: &x.step.Usage})
		}
	}
	if marks&markNamed != 0 {
		p.number(int64(x.number))
		packStep(p, &x.step, x.block != nil && x.items != nil)
	}
	if x.block != nil {
		m.packBlock(p, x)
	}
}

// packStep writes a step; of a loop with items, they stand in the block.
func packStep(p *packer, s *Step, items bool) {
	p.text(string(s.Kind))
	p.text(s.Action)
	p.text(string(s.Status))
	p.text(s.Reason)
	p.number(int64(s.Attempt))
	if items {
		p.value(nil)
	} else {
		p.value(s.Parameters)
	}
	p.value(s.Output)
	p.time(s.StartedAt)
	p.time(s.FinishedAt)
	p.number(int64(s.Children))
	p.text(string(s.ReusedFrom))
	d := Data{Error: s.Error, Waiting: s.Waiting, Worker: s.Worker, Remote: s.Remote, Reason: s.Lost, Model: s.Model, Cached: s.CacheHit, Published: s.Artifacts}
	if s.Usage != (Usage{}) {
		d.Usage = &s.Usage
	}
	if s.Called {
		d.Call = &Invocation{}
	}
	p.data(&d)
}

func (m *Machine) packBlock(p *packer, x *inst) {
	p.truth(x.items != nil)
	if x.items != nil {
		p.value(x.items)
	}
	p.count(x.opened)
	if x.step.Status.Final() { // its output holds them
		p.value(nil)
		p.value(nil)
	} else {
		p.value(anyList(slices.Clone(x.result)))
		p.value(anyList(slices.Clone(x.errs)))
	}
	p.failure(x.failed)
	p.truth(x.halted)
	p.truth(x.ended)
	p.truth(x.close)
	p.truth(x.testing)
	switch {
	case x.def.Loop != nil:
		p.count(len(x.active))
		for _, f := range x.passes() {
			p.count(f.index)
			m.packFrame(p, f)
		}
	case x.def.Call != nil:
		p.mapping(x.unit.inputs)
		p.mapping(x.unit.vars)
		m.packUnit(p, x.unit)
	default:
		arm := 0
		for i := range x.def.Branches {
			if x.arm != nil && x.arm.body == &x.def.Branches[i].Body {
				arm = i + 1
			}
		}
		p.count(arm)
		if x.arm != nil {
			m.packFrame(p, x.arm)
		}
	}
}

// anyList is a list as a value; nil is null.
func anyList(l []any) any {
	if l == nil {
		return nil
	}
	return l
}

// RestoreMachine returns the machine of a run as it was when its snapshot was
// taken: it gives the tasks that were not answered then and goes on from there.
// The run's vars and the bundle's folder are to be set again. Of run, only the
// facts that never change are taken. The error is ErrSnapshot.
func RestoreMachine(plan *Plan, run Run, snapshot []byte) (*Machine, error) {
	n := len(snapshot) - crc32.Size
	if n < 1 {
		return nil, fmt.Errorf("%w: it is cut off", ErrSnapshot)
	}
	if snapshot[0] != SnapshotFormat {
		return nil, fmt.Errorf("%w: its version is %d, not %d", ErrSnapshot, snapshot[0], SnapshotFormat)
	}
	if crc32.Checksum(snapshot[:n], castagnoli) != binary.BigEndian.Uint32(snapshot[n:]) {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, errPacked)
	}
	r := restoring{unpacker: unpacker{b: snapshot[1:n]}, m: NewMachine(plan, run)}
	r.machine()
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, r.err)
	}
	return r.m, nil
}
