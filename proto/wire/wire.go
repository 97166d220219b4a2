// Package wire is the JSON form of the API's messages: what REST, the
// WebSocket, the command line and the dashboard's clients read and write.
//
// It differs from protojson in what api.md promises: names are the proto's
// snake_case, every field is present, an absent message is null, counts are
// numbers, and a string field with the option (orchestrator.v1.json) is the
// JSON value that its text holds, spliced in verbatim, so that
// 9007199254740993 arrives as 9007199254740993. Unmarshal is strict: an
// unknown field is an error that names the nearest known one.
//
//	b, err := wire.Marshal(run)
//	err = wire.Unmarshal(body, &orchestratorv1.CreateRunRequest{})
//
// All functions may be called concurrently.
package wire

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// shape is what marshalling needs to know of a message type, found out once.
type shape struct {
	special special
	fields  []field
	byName  map[string]int
}

// special says that a message has a JSON form of its own.
type special int

const (
	plain     special = iota
	timestamp         // RFC 3339
	foreign           // another well-known type: as protojson has it
)

type field struct {
	desc protoreflect.FieldDescriptor
	key  string // with quotes and colon
	name string
	json bool // the string holds JSON text
}

// shapes holds *shape by protoreflect.MessageDescriptor.
var shapes sync.Map

func shapeOf(d protoreflect.MessageDescriptor) *shape {
	if s, ok := shapes.Load(d); ok {
		if s, ok := s.(*shape); ok {
			return s
		}
	}
	s := newShape(d)
	shapes.Store(d, s)
	return s
}

func newShape(d protoreflect.MessageDescriptor) *shape {
	s := &shape{byName: map[string]int{}}
	switch {
	case d.FullName() == "google.protobuf.Timestamp":
		s.special = timestamp
		return s
	case d.FullName().Parent() == "google.protobuf":
		s.special = foreign
		return s
	}
	fields := d.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		name := string(fd.Name())
		s.byName[name] = i
		s.fields = append(s.fields, field{
			desc: fd,
			name: name,
			key:  string(appendString(nil, name)) + ":",
			json: isJSON(fd),
		})
	}
	return s
}

// isJSON reports whether the field is a string that holds JSON text.
func isJSON(fd protoreflect.FieldDescriptor) bool {
	if fd.Kind() != protoreflect.StringKind {
		return false
	}
	o, ok := fd.Options().(*descriptorpb.FieldOptions)
	if !ok || o == nil {
		return false
	}
	v, ok := proto.GetExtension(o, orchestratorv1.E_Json).(bool)
	return ok && v
}
