package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Error says what is wrong with JSON that was meant to be a message.
type Error struct {
	Field string // as in labels.team; empty: the document
	Text  string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Text
	}
	return e.Field + ": " + e.Text
}

// Unmarshal reads one JSON object into m, which should be empty. Fields that
// are missing or null stay unset. Its errors are *Error and safe to show.
func Unmarshal(data []byte, m proto.Message) error {
	if !utf8.Valid(data) {
		return &Error{Text: "the text is not UTF-8"}
	}
	return readMessage(data, m.ProtoReflect(), "")
}

// members calls f for each member of the JSON object in data.
func members(data []byte, at string, f func(key string, value json.RawMessage) error) error {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil {
		return syntax(data, at, err)
	}
	if t != json.Delim('{') {
		return &Error{Field: at, Text: "must be a JSON object"}
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return syntax(data, at, err)
		}
		key, ok := t.(string)
		if !ok {
			return &Error{Field: at, Text: "must be a JSON object"}
		}
		if seen[key] {
			return &Error{Field: join(at, key), Text: "stands there twice"}
		}
		seen[key] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return syntax(data, at, err)
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return syntax(data, at, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &Error{Field: at, Text: "more follows after the JSON object"}
	}
	return nil
}

// syntax turns an error of encoding/json into ours, with the line and column.
func syntax(data []byte, at string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Field: at, Text: "the JSON text ends too early"}
	}
	// The decoder's offsets count from its last token: scan the whole text again.
	var whole json.RawMessage
	var se *json.SyntaxError
	if at == "" && errors.As(json.Unmarshal(data, &whole), &se) {
		before := data[:min(max(int(se.Offset)-1, 0), len(data))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
		return &Error{Text: fmt.Sprintf("not JSON: line %d, column %d: %v", line, column, se)}
	}
	return &Error{Field: at, Text: "not JSON: " + err.Error()}
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func readMessage(data []byte, m protoreflect.Message, at string) error {
	s := shapeOf(m.Descriptor())
	switch s.special {
	case plain:
	case timestamp:
		return readTime(data, m, at)
	case foreign:
		if err := protojson.Unmarshal(data, m.Interface()); err != nil {
			return &Error{Field: at, Text: "must be a " + string(m.Descriptor().Name())}
		}
		return nil
	}
	return members(data, at, func(key string, value json.RawMessage) error {
		i, ok := s.byName[key]
		if !ok {
			return unknownField(s, at, key)
		}
		f := &s.fields[i]
		if string(value) == "null" {
			return nil
		}
		return readField(value, m, f, join(at, key))
	})
}

func unknownField(s *shape, at, key string) error {
	names := make([]string, len(s.fields))
	for i := range s.fields {
		names[i] = s.fields[i].name
	}
	text := fmt.Sprintf("unknown field %q", clip(key))
	if n := nearest(key, names); n != "" {
		text += fmt.Sprintf("; did you mean %q?", n)
	}
	return &Error{Field: at, Text: text}
}

// clip shortens text of the caller that stands in a message.
func clip(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "..."
}

func readField(data json.RawMessage, m protoreflect.Message, f *field, at string) error {
	switch {
	case f.desc.IsMap():
		mp := m.Mutable(f.desc).Map()
		elem := &field{desc: f.desc.MapValue(), name: f.name}
		return members(data, at, func(key string, value json.RawMessage) error {
			k, err := mapKey(key, f.desc.MapKey(), at)
			if err != nil {
				return err
			}
			v, err := readValue(value, mp.NewValue, elem, join(at, key))
			if err != nil {
				return err
			}
			mp.Set(k, v)
			return nil
		})
	case f.desc.IsList():
		var elems []json.RawMessage
		if err := json.Unmarshal(data, &elems); err != nil {
			return &Error{Field: at, Text: "must be a list"}
		}
		l := m.Mutable(f.desc).List()
		for i, e := range elems {
			v, err := readValue(e, l.NewElement, f, fmt.Sprintf("%s[%d]", at, i))
			if err != nil {
				return err
			}
			l.Append(v)
		}
		return nil
	}
	v, err := readValue(data, func() protoreflect.Value { return m.NewField(f.desc) }, f, at)
	if err != nil {
		return err
	}
	m.Set(f.desc, v)
	return nil
}

func mapKey(key string, d protoreflect.FieldDescriptor, at string) (protoreflect.MapKey, error) {
	if d.Kind() == protoreflect.StringKind {
		return protoreflect.ValueOfString(key).MapKey(), nil
	}
	v, err := readNumber([]byte(key), d.Kind(), at)
	if err != nil {
		return protoreflect.MapKey{}, err
	}
	return v.MapKey(), nil
}

func readValue(data json.RawMessage, fresh func() protoreflect.Value, f *field, at string) (protoreflect.Value, error) {
	switch f.desc.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		v := fresh()
		return v, readMessage(data, v.Message(), at)
	case protoreflect.BoolKind:
		switch string(data) {
		case "true":
			return protoreflect.ValueOfBool(true), nil
		case "false":
			return protoreflect.ValueOfBool(false), nil
		}
		return protoreflect.Value{}, &Error{Field: at, Text: "must be true or false"}
	case protoreflect.StringKind:
		if f.json {
			return protoreflect.ValueOfString(string(data)), nil
		}
		s, ok := readString(data)
		if !ok {
			return protoreflect.Value{}, &Error{Field: at, Text: "must be text"}
		}
		return protoreflect.ValueOfString(s), nil
	case protoreflect.BytesKind:
		s, ok := readString(data)
		b, err := base64.StdEncoding.DecodeString(s)
		if !ok || err != nil {
			return protoreflect.Value{}, &Error{Field: at, Text: "must be text in base64"}
		}
		return protoreflect.ValueOfBytes(b), nil
	case protoreflect.EnumKind:
		return readEnum(data, f.desc.Enum(), at)
	default:
		return readNumber(data, f.desc.Kind(), at)
	}
}

func readString(data json.RawMessage) (string, bool) {
	if len(data) == 0 || data[0] != '"' {
		return "", false
	}
	var s string
	return s, json.Unmarshal(data, &s) == nil
}

func readEnum(data json.RawMessage, d protoreflect.EnumDescriptor, at string) (protoreflect.Value, error) {
	if s, ok := readString(data); ok {
		if v := d.Values().ByName(protoreflect.Name(s)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
		names := make([]string, d.Values().Len())
		for i := range names {
			names[i] = string(d.Values().Get(i).Name())
		}
		text := fmt.Sprintf("unknown value %q", clip(s))
		if n := nearest(s, names); n != "" {
			text += fmt.Sprintf("; did you mean %q?", n)
		}
		return protoreflect.Value{}, &Error{Field: at, Text: text}
	}
	n, err := strconv.ParseInt(string(data), 10, 32)
	if err != nil {
		return protoreflect.Value{}, &Error{Field: at, Text: "must be a name, as in " + string(d.Values().Get(0).Name())}
	}
	return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)), nil
}

func readNumber(data []byte, k protoreflect.Kind, at string) (protoreflect.Value, error) {
	none := protoreflect.Value{}
	text := string(data)
	switch k {
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || !isNumber(text) {
			return none, &Error{Field: at, Text: "must be a number"}
		}
		if k == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(x)), nil
		}
		return protoreflect.ValueOfFloat64(x), nil
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		if s, ok := readString(data); ok {
			text = s
		}
	default:
	}
	n, ok := whole(text)
	if !ok {
		return none, &Error{Field: at, Text: "must be a whole number"}
	}
	fits := func(low, high float64) bool { return float64(n) >= low && float64(n) <= high }
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		if fits(math.MinInt32, math.MaxInt32) {
			return protoreflect.ValueOfInt32(int32(n)), nil //nolint:gosec // it fits
		}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		if fits(0, math.MaxUint32) {
			return protoreflect.ValueOfUint32(uint32(n)), nil //nolint:gosec // it fits
		}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(n), nil
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		if n >= 0 {
			return protoreflect.ValueOfUint64(uint64(n)), nil
		}
	default:
	}
	return none, &Error{Field: at, Text: "is out of range"}
}

// isNumber reports whether s, which ParseFloat accepts, is a JSON number too.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') && json.Valid([]byte(s))
}

// whole reads an integer; 3.0 and 3e2 are whole as well.
func whole(s string) (int64, bool) {
	if !isNumber(s) {
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
		return 0, false
	}
	return int64(x), true
}

func readTime(data []byte, m protoreflect.Message, at string) error {
	s, ok := readString(data)
	t, err := time.Parse(time.RFC3339Nano, s)
	if !ok || err != nil {
		return &Error{Field: at, Text: "must be a time, as in 2026-01-31T12:00:00Z"}
	}
	fields := m.Descriptor().Fields()
	m.Set(fields.ByNumber(1), protoreflect.ValueOfInt64(t.Unix()))
	m.Set(fields.ByNumber(2), protoreflect.ValueOfInt32(int32(t.Nanosecond()))) //nolint:gosec // below 1e9
	return nil
}
