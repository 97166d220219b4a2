package pipeline

import (
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// packer writes the parts of a snapshot. Values are kept aside and written at
// the end: what is done at once is short, however long the values are.
type packer struct {
	b      []byte
	values []packedValue
}

// packedValue is a value with its place in the packer's bytes.
type packedValue struct {
	at int
	v  any
}

func (p *packer) count(n int)     { p.b = binary.AppendUvarint(p.b, uint64(max(n, 0))) }
func (p *packer) number(n int64)  { p.b = binary.AppendVarint(p.b, n) }
func (p *packer) value(v any)     { p.values = append(p.values, packedValue{len(p.b), v}) }
func (p *packer) truth(flag bool) { p.b = append(p.b, map[bool]byte{true: 1}[flag]) }

func (p *packer) text(s string) {
	p.count(len(s))
	p.b = append(p.b, s...)
}

func (p *packer) bytes(b []byte) {
	p.count(len(b))
	p.b = append(p.b, b...)
}

func (p *packer) time(t time.Time) {
	if t.IsZero() {
		p.truth(false)
		return
	}
	p.truth(true)
	p.number(t.Unix())
	p.count(t.Nanosecond())
}

// data writes what a record's Data can say; its format is that of the log.
func (p *packer) data(d *Data) {
	if b := AppendData(nil, d); len(b) > len("{}") {
		p.bytes(b)
		return
	}
	p.count(0)
}

func (p *packer) failure(f *Failure) { p.data(&Data{Error: f}) }

// mapping keeps the map as it is now.
func (p *packer) mapping(m map[string]any) {
	if m == nil {
		p.value(nil)
		return
	}
	p.value(maps.Clone(m))
}

// all is everything with the values in their places.
func (p *packer) all() []byte {
	out := make([]byte, 0, len(p.b)+64*len(p.values))
	from := 0
	for _, v := range p.values {
		out = appendPacked(append(out, p.b[from:v.at]...), v.v)
		from = v.at
	}
	return append(out, p.b[from:]...)
}

// The first byte of a packed value.
const (
	packedNull = iota
	packedFalse
	packedTrue
	packedInt
	packedFloat
	packedString
	packedList
	packedMap
)

// appendPacked appends a value so that it reads back as it would from JSON.
func appendPacked(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, packedNull)
	case bool:
		if v {
			return append(b, packedTrue)
		}
		return append(b, packedFalse)
	case int64:
		return binary.AppendVarint(append(b, packedInt), v)
	case int:
		return binary.AppendVarint(append(b, packedInt), int64(v))
	case int32:
		return binary.AppendVarint(append(b, packedInt), int64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(b, packedNull)
		}
		return binary.BigEndian.AppendUint64(append(b, packedFloat), math.Float64bits(v))
	case string:
		return appendPackedText(append(b, packedString), v)
	case []any:
		b = binary.AppendUvarint(append(b, packedList), uint64(len(v)))
		for _, e := range v {
			b = appendPacked(b, e)
		}
		return b
	case map[string]any:
		b = binary.AppendUvarint(append(b, packedMap), uint64(len(v)))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			b = appendPacked(appendPackedText(b, k), v[k])
		}
		return b
	}
	plain, err := DecodeValue(EncodeValue(v)) // a Go type that stands for a value
	if err != nil {
		return append(b, packedNull)
	}
	return appendPacked(b, plain)
}

// appendPackedText replaces what is not UTF-8 as AppendString does.
func appendPackedText(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = strings.Map(func(r rune) rune { return r }, s)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// errPacked is the error of bytes that no packer wrote.
var errPacked = errors.New("it is damaged")

// unpacker reads what a packer wrote; after the first error all it reads is zero.
type unpacker struct {
	b   []byte
	err error
}

func (u *unpacker) fail() {
	if u.err == nil {
		u.err = errPacked
	}
	u.b = nil
}

// count reads a number of things that take at least a byte each.
func (u *unpacker) count() int {
	n := u.size()
	if n > len(u.b) {
		u.fail()
		return 0
	}
	return n
}

// size reads a number that is not negative.
func (u *unpacker) size() int {
	n, k := binary.Uvarint(u.b)
	if k <= 0 || n > math.MaxInt32 {
		u.fail()
		return 0
	}
	u.b = u.b[k:]
	return int(n)
}

func (u *unpacker) number() int64 {
	n, k := binary.Varint(u.b)
	if k <= 0 {
		u.fail()
		return 0
	}
	u.b = u.b[k:]
	return n
}

// short reads a number of 32 bits that is not negative.
func (u *unpacker) short() int32 {
	n := u.number()
	if n < 0 || n > math.MaxInt32 {
		u.fail()
		return 0
	}
	return int32(n)
}

func (u *unpacker) octet() byte {
	if len(u.b) == 0 {
		u.fail()
		return 0
	}
	c := u.b[0]
	u.b = u.b[1:]
	return c
}

func (u *unpacker) truth() bool {
	c := u.octet()
	if c > 1 {
		u.fail()
	}
	return c == 1
}

func (u *unpacker) bytes() []byte {
	n := u.count()
	b := u.b[:n]
	u.b = u.b[n:]
	return b
}

func (u *unpacker) text() string { return string(u.bytes()) }

func (u *unpacker) time() time.Time {
	if !u.truth() {
		return zeroTime
	}
	s, ns := u.number(), u.size()
	if u.err != nil || ns >= 1e9 {
		u.fail()
		return zeroTime
	}
	return time.Unix(s, int64(ns)).UTC()
}

func (u *unpacker) data() Data {
	b := u.bytes()
	if len(b) == 0 {
		return Data{}
	}
	d, err := DecodeData(b)
	if err != nil {
		u.fail()
	}
	return d
}

func (u *unpacker) failure() *Failure { return u.data().Error }

func (u *unpacker) value() any { return u.valueAt(0) }

func (u *unpacker) valueAt(depth int) any {
	if depth > maxValueDepth {
		u.fail()
		return nil
	}
	switch u.octet() {
	case packedNull:
	case packedFalse:
		return false
	case packedTrue:
		return true
	case packedInt:
		return u.number()
	case packedFloat:
		if len(u.b) < 8 {
			u.fail()
			return nil
		}
		f := math.Float64frombits(binary.BigEndian.Uint64(u.b))
		u.b = u.b[8:]
		return f
	case packedString:
		return u.text()
	case packedList:
		n := u.count()
		list := make([]any, 0, min(n, 1<<12))
		for range n {
			list = append(list, u.valueAt(depth+1))
		}
		return list
	case packedMap:
		n := u.count()
		m := make(map[string]any, min(n, 1<<10))
		for range n {
			k := u.text()
			m[k] = u.valueAt(depth + 1)
		}
		return m
	default:
		u.fail()
	}
	return nil
}

func (u *unpacker) mapping() map[string]any {
	m, _ := u.value().(map[string]any)
	return m
}

func (u *unpacker) list() []any {
	l, _ := u.value().([]any)
	return l
}
