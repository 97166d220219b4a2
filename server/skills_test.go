package server

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// shelf is skills that are a text each.
type shelf map[string]string

func (s shelf) Files(name string) (pipeline.Bundle, error) {
	text, ok := s[name]
	if !ok {
		return nil, nil
	}
	return pipeline.Bundle{name + "/SKILL.md": []byte(text)}, nil
}

func (s shelf) List() ([]pipeline.InstalledSkill, error) {
	var list []pipeline.InstalledSkill
	for name := range s {
		one := pipeline.InstalledSkill{}
		one.Name = name
		list = append(list, one)
	}
	return list, nil
}

func (shelf) Get(name string) *pipeline.InstalledSkill { return nil }

func TestSourcesGetTheSkillsThatTheyDoNotBring(t *testing.T) {
	s := &Server{cfg: Config{Skills: shelf{"a": "server's a", "b": "server's b", "c": "server's c"}}, needs: newLRU[[32]byte, []spec.Need](1 << 20)}
	const source = "imports: {sub: parts/sub.yaml}\nsteps:\n- {id: x, skill: a}\n- {id: y, skill: b}\n- {id: z, skill: none}\n"
	files := pipeline.Bundle{
		"parts/sub.yaml":          []byte("steps: [{id: x, skill: c}, {id: y, skill: d}, {id: z, skill: a}]\nimports: {up: sub.yaml}\n"),
		"skills/a/SKILL.md":       []byte("own a"),
		"parts/skills/d/SKILL.md": []byte("own d"),
	}
	all, lacks, err := s.withSkills(t.Context(), source, files)
	if err != nil || !lacks {
		t.Fatalf("lacks %t, %v", lacks, err)
	}
	got := map[string]string{}
	for name, data := range all {
		if _, brought := files[name]; !brought || name == "skills/a/SKILL.md" {
			got[name] = string(data)
		}
	}
	want := map[string]string{"skills/a/SKILL.md": "own a", "skills/b/SKILL.md": "server's b", "skills/c/SKILL.md": "server's c"}
	if diff := cmp.Diff(want, got); diff != "" || len(files) != 3 {
		t.Errorf("the files: %s", diff)
	}
}

func TestAMissingSkillIsToldTheNearest(t *testing.T) {
	s := &Server{
		cfg:   Config{Skills: shelf{"file-processor": "x"}, Catalog: func() pipeline.Catalog { return pipeline.Catalog{} }},
		needs: newLRU[[32]byte, []spec.Need](1 << 20), plans: newLRU[pipeline.Digest, *compiled](1 << 20),
	}
	got, err := s.compile(t.Context(), "", "id: p\nsteps: [{id: a, skill: file-procesor}]\n", nil)
	if err != nil || !got.diags.HasErrors() || !strings.Contains(got.diags.List[0].Message, `there is no skill "file-procesor" (did you mean "file-processor"?)`) {
		t.Errorf("got %+v, %v", got, err)
	}
}
