package executor

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// filler sets every field of a step that can be set, each template with a number
// of its own.
type filler struct {
	templates int
	places    []string // of the templates, by number
}

func (f *filler) fill(v reflect.Value, place string, depth int) {
	switch v.Interface().(type) {
	case *pipeline.Template:
		if depth > 12 {
			return
		}
		t := &pipeline.Template{ID: f.templates, Src: "{{ " + strconv.Itoa(f.templates) + " }}"}
		f.templates++
		f.places = append(f.places, place)
		if depth < 6 {
			f.fill(reflect.ValueOf(&t.Autos).Elem(), place+".autos", depth+1)
		}
		v.Set(reflect.ValueOf(t))
		return
	case pipeline.Body:
		if depth > 4 {
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), place, depth+1)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 || v.Type() == reflect.TypeFor[[]pipeline.Property]() || depth > 12 {
			return
		}
		if _, entries := reflect.TypeAssert[[]pipeline.Entry](v); entries && depth > 8 {
			return
		}
		if _, fields := reflect.TypeAssert[[]pipeline.Field](v); fields && depth > 8 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(v.Index(0), place+"[0]", depth+1)
	case reflect.Struct:
		if _, is := reflect.TypeAssert[pipeline.Type](v); is {
			return // holds no templates
		}
		for i := range v.NumField() {
			f.fill(v.Field(i), place+"."+v.Type().Field(i).Name, depth+1)
		}
	}
}

// A new field of a step that may hold templates is compiled, or this fails.
func TestEveryTemplateOfAStepIsCompiled(t *testing.T) {
	f := &filler{}
	def := &pipeline.StepDef{}
	f.fill(reflect.ValueOf(def).Elem(), "step", 0)
	if f.templates < 60 {
		t.Fatalf("only %d places of templates found", f.templates)
	}
	plan := &pipeline.Plan{Templates: f.templates, Units: []*pipeline.Unit{{}}}
	plan.Root.Steps = []*pipeline.StepDef{def}
	p, err := newProgram(plan)
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range p.templates {
		if x == nil {
			t.Errorf("%s is not compiled", f.places[i])
		}
	}
}
