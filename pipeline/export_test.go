package pipeline

import (
	"reflect"
	"strings"
)

// FieldsOf lists the fields of the types that a snapshot is made of.
func FieldsOf() map[string]string {
	out := map[string]string{}
	for _, t := range []reflect.Type{
		reflect.TypeFor[Machine](), reflect.TypeFor[unit](), reflect.TypeFor[frame](), reflect.TypeFor[space](), reflect.TypeFor[inst](),
		reflect.TypeFor[block](), reflect.TypeFor[Step](),
	} {
		var names []string
		for f := range t.Fields() {
			names = append(names, f.Name)
		}
		out[t.Name()] = strings.Join(names, " ")
	}
	return out
}
