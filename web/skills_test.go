package web

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// installed are the skills of the fake: one of each origin, with and without what
// skills may have.
var installed = []*api.Skill{
	{Name: "changed", Origin: "git", Problem: "the skill changed is not what was copied from https://example.org/s at 0123456789: its files have changed since.", Pin: &api.SkillPin{Url: "https://example.org/s", Commit: strings.Repeat("01", 20)}},
	{
		Name: "reviewer", Description: "Reviews a text for <b>style</b>. It reads the whole of it.", Origin: "git", Digest: "sha256:1", Open: true, Network: true, Program: true,
		Parameters: []*api.SkillField{
			{Name: "text", Type: "string", Required: true, Description: "What to review"},
			{Name: "rules", Type: "list<string>", Default: `["short", "plain"]`},
		},
		Returns: []*api.SkillField{{Type: "string", Required: true}}, Tools: []string{"read_file"}, Files: []string{"SKILL.md", "review.py"},
		Pin:  &api.SkillPin{Url: "https://example.org/team/skills.git", Path: "reviewer", Ref: "v1.2", Commit: strings.Repeat("ab", 20), AddedAt: timestamppb.New(time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC))},
		Text: "# How to review\n\nRead <script>alert(1)</script> it twice.\n",
	},
	{Name: "validator", Description: "Checks data.", Origin: "default", Digest: "sha256:2", Files: []string{"SKILL.md"}},
}

func (*minds) ListSkills(context.Context, *api.ListSkillsRequest) (*api.ListSkillsResponse, error) {
	return &api.ListSkillsResponse{Skills: installed}, nil
}

func (*minds) GetSkill(_ context.Context, r *api.GetSkillRequest) (*api.Skill, error) {
	i := slices.IndexFunc(installed, func(x *api.Skill) bool { return x.GetName() == r.GetName() })
	if i < 0 {
		return nil, status.Error(codes.NotFound, "there is no skill "+r.GetName())
	}
	return installed[i], nil
}

func TestSkillsAreListedAndShown(t *testing.T) {
	url := serve(t, newFake()).URL
	list, _, _ := get(t, url+"/skills")
	for id, want := range map[string][]string{
		"skill-changed":   {"Cannot be used", "from a git repository"},
		"skill-reviewer":  {"Reviews a text for <b>style</b>.", "network", "ababababa"},
		"skill-validator": {"Checks data.", "ships with the program"},
	} {
		for _, text := range want {
			if row := textOf(byID(t, list, id)); !strings.Contains(row, text) {
				t.Errorf("%s lacks %q: %q", id, text, row)
			}
		}
	}
	for name, want := range map[string][]string{
		"reviewer": {
			"runs a program in the sandbox", "https://example.org/team/skills.git", "asked for as v1.2", "required", `["short", "plain"]`, "list<string>",
			"And whatever else", "the value", "Read <script>alert(1)</script> it twice.", "review.py", "read_file",
		},
		"changed":   {"its files have changed since"},
		"validator": {"It takes none.", "is read by a model"},
	} {
		doc, _, _ := get(t, url+"/skills/"+name)
		for _, text := range want {
			if main := textOf(byID(t, doc, "main")); !strings.Contains(main, text) {
				t.Errorf("the page of %s lacks %q: %q", name, text, main)
			}
		}
	}
	if _, res, _ := get(t, url+"/skills/none%20such"); res.StatusCode != http.StatusNotFound {
		t.Errorf("a skill that is not there: %d", res.StatusCode)
	}
}

func TestBrowserGoesFromTheToolsToASkill(t *testing.T) {
	ctx := webtest.Browser(t)
	open(t, ctx, serve(t, newFake()).URL+"/tools")
	for _, link := range []string{"/skills", "/skills/reviewer", "/skills"} {
		webtest.Run(t, ctx, chromedp.Navigate(webtest.Eval[string](t, ctx, `document.querySelector('#main a[href="`+link+`"]').href`)), chromedp.WaitReady("#main"))
	}
	webtest.Run(t, ctx, chromedp.Navigate(webtest.Eval[string](t, ctx, `document.querySelector("#skill-reviewer a").href`)), chromedp.WaitReady("#main"))
	if h := webtest.Eval[string](t, ctx, `document.querySelector("h1").textContent`); h != "reviewer" {
		t.Errorf("it is at %q", h)
	}
}
