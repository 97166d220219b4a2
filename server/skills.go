package server

import (
	"context"
	"crypto/sha256"
	"maps"
	"path"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Skills are those that a server has installed, and those that ship with it.
type Skills interface {
	// Files gives the files of one by path below skills/; nil where there is none of
	// the name.
	Files(name string) (pipeline.Bundle, error)
	// List describes all of them by name.
	List() ([]pipeline.InstalledSkill, error)
	// Get describes one; nil: there is none of the name.
	Get(name string) *pipeline.InstalledSkill
}

// noSkills has none.
type noSkills struct{}

func (noSkills) Files(string) (pipeline.Bundle, error)    { return nil, nil }
func (noSkills) List() ([]pipeline.InstalledSkill, error) { return nil, nil }
func (noSkills) Get(string) *pipeline.InstalledSkill      { return nil }

// skills serves orchestrator.v1.Skills.
type skills struct {
	orchestratorv1.UnimplementedSkillsServer
	*Server
}

var _ orchestratorv1.SkillsServer = skills{}

// ListSkills lists the skills.
func (s skills) ListSkills(context.Context, *orchestratorv1.ListSkillsRequest) (*orchestratorv1.ListSkillsResponse, error) {
	list, err := s.cfg.Skills.List()
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListSkillsResponse{}
	for i := range list {
		one := fromSkill(&list[i])
		one.Text = ""
		resp.Skills = append(resp.Skills, one)
	}
	return resp, nil
}

// GetSkill reads one skill.
func (s skills) GetSkill(_ context.Context, req *orchestratorv1.GetSkillRequest) (*orchestratorv1.Skill, error) {
	one := s.cfg.Skills.Get(req.GetName())
	if one == nil {
		return nil, fault(pipeline.NotFound, "skill_not_found", "there is no skill %s; orchestrator skills list shows those that there are", short(req.GetName()))
	}
	return fromSkill(one), nil
}

func fromSkill(x *pipeline.InstalledSkill) *orchestratorv1.Skill {
	out := &orchestratorv1.Skill{
		Name: x.Name, Description: x.Description, Origin: x.Origin, Problem: x.Problem, Program: x.Command != nil || x.Run != "",
		Network: x.Sandbox != nil && x.Sandbox.Network, Open: x.Open, Tools: x.Tools, Files: x.Files, Digest: string(x.Digest), Text: x.Text,
		Parameters: fromProperties(x.Parameters),
	}
	if x.Returns != nil {
		out.Returns = fromProperties(x.Returns.Properties)
		if len(out.Returns) == 0 {
			out.Returns = []*orchestratorv1.SkillField{{Type: spec.TypeText(x.Returns), Required: true}}
		}
	}
	if p := x.Pin; p != nil {
		out.Pin = &orchestratorv1.SkillPin{Url: p.URL, Path: p.Path, Ref: p.Ref, Commit: p.Commit, AddedAt: fromTime(p.AddedAt)}
	}
	return out
}

func fromProperties(list []pipeline.Property) []*orchestratorv1.SkillField {
	var out []*orchestratorv1.SkillField
	for i := range list {
		p := &list[i]
		f := &orchestratorv1.SkillField{Name: p.Name, Type: spec.TypeText(&p.Type), Required: p.Required, Description: p.Doc}
		if f.Description == "" {
			f.Description = p.Type.Description
		}
		if p.Default != nil {
			f.Default = fromValue(p.Default)
		}
		out = append(out, f)
	}
	return out
}

// withSkills adds the skills of this server to the files of a source that uses
// them, itself or in what it imports, without bringing them. lacks says whether
// there is one that nobody has.
func (s *Server) withSkills(ctx context.Context, source string, files pipeline.Bundle) (all pipeline.Bundle, lacks bool, err error) {
	all = files
	type text struct{ dir, source string }
	read := map[string]bool{}
	for texts := []text{{".", source}}; len(texts) > 0; texts = texts[1:] {
		needs, err := s.uses(ctx, texts[0].source)
		if err != nil {
			return nil, false, err
		}
		for _, n := range needs {
			at := path.Join(texts[0].dir, n.Name)
			if n.Kind == spec.NeedImport {
				if data, ok := files[at]; ok && !read[at] {
					read[at] = true
					texts = append(texts, text{path.Dir(at), string(data)})
				}
				continue
			}
			if files[path.Join(texts[0].dir, "skills", n.Name, "SKILL.md")] != nil || all["skills/"+n.Name+"/SKILL.md"] != nil {
				continue
			}
			skill, err := s.cfg.Skills.Files(n.Name)
			if err != nil {
				return nil, false, err
			}
			lacks = lacks || len(skill) == 0
			for file, data := range skill {
				if len(all) == len(files) {
					all = maps.Clone(files)
					if all == nil {
						all = pipeline.Bundle{}
					}
				}
				all["skills/"+file] = data
			}
		}
	}
	return all, lacks, nil
}

// installed are the names of the skills that may be used here.
func (s *Server) installed(ctx context.Context) []string {
	list, err := s.cfg.Skills.List()
	if err != nil {
		s.log.WarnContext(ctx, "skills not listed", "err", err)
	}
	var names []string
	for i := range list {
		if list[i].Problem == "" {
			names = append(names, list[i].Name)
		}
	}
	return names
}

// uses are the skills and imports of a source; each source is read once.
func (s *Server) uses(ctx context.Context, source string) ([]spec.Need, error) {
	return s.needs.get(ctx, sha256.Sum256([]byte(source)), func() ([]spec.Need, int64, error) {
		var needs []spec.Need
		size := int64(128)
		for _, n := range spec.Needs([]byte(source)) {
			if n.Kind == spec.NeedSkill || n.Kind == spec.NeedImport {
				needs = append(needs, n)
				size += int64(len(n.Name)) + 96
			}
		}
		return needs, size, nil
	})
}
