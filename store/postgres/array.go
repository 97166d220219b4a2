package postgres

import (
	"encoding/binary"
	"math"
	"time"
)

// Object ids of the array elements.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt4        = 23
	oidText        = 25
	oidFloat8      = 701
	oidDate        = 1082
	oidTimestamptz = 1184
	oidUUID        = 2950
)

const (
	arrayHeader = 20
	epochDay    = 10957               // 2000-01-01, where Postgres begins to count
	epochMicros = 946_684_800_000_000 // the same in microseconds
)

// array writes a column of many rows in the wire's binary form. Its buffer is
// used again for the next batch; there is no reflection on the way.
type array struct {
	buf  []byte
	oid  uint32
	n    int32
	null bool
}

func (a *array) reset(oid uint32) {
	if cap(a.buf) < arrayHeader {
		a.buf = make([]byte, arrayHeader, 4096)
	}
	a.buf, a.oid, a.n, a.null = a.buf[:arrayHeader], oid, 0, false
}

// bytes finishes the array as a parameter.
func (a *array) bytes() []byte {
	b := a.buf
	dims := uint32(1)
	if a.n == 0 {
		dims, b = 0, b[:12]
	}
	flags := uint32(0)
	if a.null {
		flags = 1
	}
	binary.BigEndian.PutUint32(b[0:], dims)
	binary.BigEndian.PutUint32(b[4:], flags)
	binary.BigEndian.PutUint32(b[8:], a.oid)
	if a.n > 0 {
		binary.BigEndian.PutUint32(b[12:], uint32(a.n))
		binary.BigEndian.PutUint32(b[16:], 1)
	}
	return b
}

// element is the element at a place of the buffer, nil where it is NULL, and the
// place of the next one. The first one is at arrayHeader.
func (a *array) element(at int) (value []byte, next int) {
	size := int32(binary.BigEndian.Uint32(a.buf[at:]))
	at += 4
	if size < 0 {
		return nil, at
	}
	return a.buf[at : at+int(size)], at + int(size)
}

func (a *array) putNull() {
	a.n++
	a.null = true
	a.buf = binary.BigEndian.AppendUint32(a.buf, 0xffffffff)
}

func (a *array) putInt4(v int32) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 4)
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(v))
}

func (a *array) putInt8(v int64) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 8)
	a.buf = binary.BigEndian.AppendUint64(a.buf, uint64(v))
}

func (a *array) putBool(v bool) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, 1)
	if v {
		a.buf = append(a.buf, 1)
	} else {
		a.buf = append(a.buf, 0)
	}
}

func (a *array) putFloat8(v float64) { a.putInt8(int64(math.Float64bits(v))) }

// putDay takes days since 1970.
func (a *array) putDay(day int64) { a.putInt4(int32(day - epochDay)) }

func (a *array) putTime(t time.Time) { a.putInt8(t.UnixMicro() - epochMicros) }

// putTimeOrNull writes the zero time as NULL.
func (a *array) putTimeOrNull(t time.Time) {
	if t.IsZero() {
		a.putNull()
		return
	}
	a.putTime(t)
}

func (a *array) putText(s string) {
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(s)))
	a.buf = append(a.buf, s...)
}

// putBytes writes nil as NULL.
func (a *array) putBytes(b []byte) {
	if b == nil {
		a.putNull()
		return
	}
	a.n++
	a.buf = binary.BigEndian.AppendUint32(a.buf, uint32(len(b)))
	a.buf = append(a.buf, b...)
}

func putInt8(b []byte, v int64) { binary.BigEndian.PutUint64(b, uint64(v)) }
