package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Marshal returns m as one line of JSON. It fails only when a field that
// should hold JSON text holds something else.
func Marshal(m proto.Message) ([]byte, error) { return Append(nil, m) }

// Append appends m as one line of JSON.
func Append(b []byte, m proto.Message) ([]byte, error) {
	return appendMessage(b, m.ProtoReflect())
}

func appendMessage(b []byte, m protoreflect.Message) ([]byte, error) {
	if !m.IsValid() {
		return append(b, "null"...), nil
	}
	s := shapeOf(m.Descriptor())
	switch s.special {
	case plain:
	case timestamp:
		return appendTime(b, m), nil
	case foreign:
		j, err := protojson.Marshal(m.Interface())
		if err != nil {
			return b, fmt.Errorf("write %s: %w", m.Descriptor().Name(), err)
		}
		return append(b, j...), nil
	}
	b = append(b, '{')
	first := true
	for i := range s.fields {
		f := &s.fields[i]
		if f.desc.ContainingOneof() != nil && !m.Has(f.desc) {
			continue // of the members of a oneof only the one that is set
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, f.key...)
		var err error
		if b, err = appendField(b, m, f); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendField(b []byte, m protoreflect.Message, f *field) ([]byte, error) {
	var err error
	switch {
	case f.desc.IsMap():
		return appendMap(b, m.Get(f.desc).Map(), f)
	case f.desc.IsList():
		l := m.Get(f.desc).List()
		b = append(b, '[')
		for i := range l.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, l.Get(i), f); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	case f.desc.Message() != nil && !m.Has(f.desc):
		return append(b, "null"...), nil
	}
	return appendValue(b, m.Get(f.desc), f)
}

func appendMap(b []byte, m protoreflect.Map, f *field) ([]byte, error) {
	keys := make([]string, 0, m.Len())
	values := make(map[string]protoreflect.Value, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		keys = append(keys, k.String())
		values[k.String()] = v
		return true
	})
	sort.Strings(keys)
	b = append(b, '{')
	elem := &field{desc: f.desc.MapValue(), name: f.name}
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		var err error
		if b, err = appendValue(b, values[k], elem); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, v protoreflect.Value, f *field) ([]byte, error) {
	switch f.desc.Kind() {
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.StringKind:
		if f.json {
			return appendJSON(b, v.String(), f.name)
		}
		return appendString(b, v.String()), nil
	case protoreflect.BytesKind:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"'), nil
	case protoreflect.EnumKind:
		if d := f.desc.Enum().Values().ByNumber(v.Enum()); d != nil {
			return appendString(b, string(d.Name())), nil
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10), nil
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		// Text, as protojson has it: a JSON number would lose digits in browsers.
		return append(strconv.AppendInt(append(b, '"'), v.Int(), 10), '"'), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return append(strconv.AppendUint(append(b, '"'), v.Uint(), 10), '"'), nil
	case protoreflect.FloatKind:
		return appendFloat(b, v.Float(), 32), nil
	case protoreflect.DoubleKind:
		return appendFloat(b, v.Float(), 64), nil
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendMessage(b, v.Message())
	}
	return b, fmt.Errorf("write %s: a field of kind %s has no JSON form", f.name, f.desc.Kind())
}

func appendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

// appendJSON splices JSON text in. Line breaks between its tokens are taken
// out, since a message is one line of a stream.
func appendJSON(b []byte, text, name string) ([]byte, error) {
	if text == "" {
		return append(b, "null"...), nil
	}
	if strings.ContainsAny(text, "\n\r") {
		var c bytes.Buffer
		if err := json.Compact(&c, []byte(text)); err != nil {
			return b, fmt.Errorf("write %s: not JSON: %w", name, err)
		}
		return append(b, c.Bytes()...), nil
	}
	start := len(b)
	b = append(b, text...)
	if !json.Valid(b[start:]) {
		return b[:start], fmt.Errorf("write %s: not JSON", name)
	}
	return b, nil
}

// appendTime writes a Timestamp as RFC 3339 in UTC, with as many digits of the
// second as it has.
func appendTime(b []byte, m protoreflect.Message) []byte {
	fields := m.Descriptor().Fields()
	t := time.Unix(m.Get(fields.ByNumber(1)).Int(), m.Get(fields.ByNumber(2)).Int()).UTC()
	b = t.AppendFormat(append(b, '"'), time.RFC3339Nano)
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, and
// what would end a script element or a line of JavaScript is escaped.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != '<' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		bad := r == utf8.RuneError && n == 1
		if bad || r == '\u2028' || r == '\u2029' {
			b = append(b, s[start:i]...)
			if bad {
				b = append(b, "\ufffd"...)
			} else {
				b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&15])
			}
			start = i + n
		}
		i += n
	}
	return append(append(b, s[start:]...), '"')
}
