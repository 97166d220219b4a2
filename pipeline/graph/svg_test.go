package graph

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestAnSVGIsOneWellFormedDocument(t *testing.T) {
	steps := func(ids ...string) []*pipeline.StepDef {
		var list []*pipeline.StepDef
		for i, id := range ids {
			s := &pipeline.StepDef{ID: id, Kind: pipeline.KindSet}
			if i > 0 {
				s.Deps = []pipeline.Dep{{On: i - 1, Cause: "reference"}}
			}
			list = append(list, s)
		}
		return list
	}
	hostile := "a <script>&\"' \x01 b"
	one := hostile
	root := steps("first", "second", "choose")
	root[1].Name = hostile
	root[2].Kind = pipeline.KindMatch
	root[2].Branches = []pipeline.Branch{{Case: &one, Body: pipeline.Body{Steps: steps("x", "y")}}, {Body: pipeline.Body{}}}
	svg := Layout(&pipeline.Plan{Unit: pipeline.Unit{Root: pipeline.Body{Steps: root}}}).SVG(hostile)
	d := xml.NewDecoder(strings.NewReader(svg))
	elements := map[string]int{}
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := tok.(xml.StartElement); ok {
			elements[e.Name.Local]++
		}
	}
	if elements["script"] > 0 || elements["title"] != 1 {
		t.Errorf("elements: %v", elements)
	}
	for _, id := range []string{"first", "a &lt;script&gt;", "choose", "x", "y"} {
		if !strings.Contains(svg, ">"+id) {
			t.Errorf("%s is not drawn", id)
		}
	}
	if strings.Count(svg, "class=\"frame\"") != 2 || strings.Count(svg, "class=\"head\"") < 3 {
		t.Errorf("arms or edges are missing:\n%s", svg)
	}
}

func TestAnEmptyPlanIsDrawnToo(t *testing.T) {
	if svg := Layout(&pipeline.Plan{}).SVG(""); !strings.HasPrefix(svg, "<svg ") {
		t.Error(svg)
	}
}
