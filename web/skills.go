package web

import (
	"net/http"
	"net/url"
	"time"

	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (s *site) skillList(w http.ResponseWriter, r *http.Request) {
	list, err := s.skills.ListSkills(r.Context(), &api.ListSkillsRequest{}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"Skills", "models", skillsPage(list.GetSkills())})
}

func (s *site) skill(w http.ResponseWriter, r *http.Request) {
	one, err := s.skills.GetSkill(r.Context(), &api.GetSkillRequest{Name: chi.URLParam(r, "name")}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{one.GetName(), "models", skillPage(one, time.Now())})
}

func pathOfSkill(name string) string { return "/skills/" + url.PathEscape(name) }

// skillOrigin says in words where a skill comes from.
func skillOrigin(origin string) string {
	switch origin {
	case "default":
		return "ships with the program"
	case "git":
		return "from a git repository"
	case "home":
		return "a folder of the home"
	}
	return origin
}

// skillKind says in words what using a skill does.
func skillKind(x *api.Skill) string {
	if x.GetProgram() {
		return "runs a program in the sandbox"
	}
	return "is read by a model"
}

// pinnedRef is what a skill was asked for by, where that is not its commit.
func pinnedRef(p *api.SkillPin) string {
	if p.GetRef() == "" {
		return "by its commit"
	}
	return "asked for as " + p.GetRef()
}
