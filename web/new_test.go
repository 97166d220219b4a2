package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// post sends a form and follows to the page it leads to.
func post(t testing.TB, addr string, form url.Values) (*html.Node, *http.Response, string) {
	t.Helper()
	res, err := http.PostForm(addr, form)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, res)
}

func TestFormBecomesARunWithTypedInputs(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + "/new"
	_, res, _ := post(t, addr, url.Values{
		"source": {"id: hello\r\nsteps: []\r\n"}, "key": {"k1"}, "do": {"run"}, "labels": {"customer=42\nteam = a b"}, "priority": {"7"},
		"in.repo": {"acme/site"}, "in.depth": {`"deep"`}, "in.budget": {"9007199254740993"}, "in.dry": {"true"}, "in.tags": {"- bug\n- idea"},
		"more": {"extra: {a: [1, 2]}"},
	})
	if !strings.HasPrefix(res.Request.URL.Path, "/runs/") {
		t.Fatalf("led to %s", res.Request.URL)
	}
	req := f.created[0]
	if req.Source != "id: hello\nsteps: []\n" || req.IdempotencyKey != "k1" || req.Priority != 7 || req.Labels["customer"] != "42" || req.Labels["team"] != "a b" {
		t.Errorf("asked for %v", req)
	}
	want := `{"budget":9007199254740993,"depth":"deep","dry":true,"extra":{"a":[1,2]},"repo":"acme/site","tags":["bug","idea"]}`
	if req.Inputs != want {
		t.Errorf("inputs %s\nwant %s", req.Inputs, want)
	}
}

func TestUnchangedPipelineRunsUnderItsName(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + "/new"
	for source, registered := range map[string]bool{demoSource: true, demoSource + "# mine\n": false} {
		f.created = nil
		post(t, addr, url.Values{"source": {source}, "pipeline": {"nightly-triage"}, "version": {"1.2.0"}, "in.repo": {"x"}, "do": {"run"}})
		req := f.created[0]
		if (req.Pipeline == "nightly-triage" && req.Source == "") != registered {
			t.Errorf("registered %v: asked for pipeline %q and a source of %d bytes", registered, req.Pipeline, len(req.Source))
		}
	}
}

func TestRefusedFormKeepsWhatWasTyped(t *testing.T) {
	f := demo()
	f.create = func(*api.CreateRunRequest) (*api.Run, error) {
		st, err := status.New(codes.InvalidArgument, "the inputs do not fit").WithDetails(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "repo", Description: "must be owner/name <i>"}},
		})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	addr := serve(t, f).URL + "/new"
	form := url.Values{"source": {"\n\nid: x # <mine>\n"}, "key": {"k1"}, "do": {"run"}, "in.repo": {"acme"}, "in.budget": {"5"}, "in.depth": {`"deep"`}, "in.tags": {"[a"}, "more": {"x: 1"}}
	doc, res, _ := post(t, addr, form)
	if res.StatusCode != http.StatusBadRequest || len(f.created) != 0 {
		t.Errorf("unreadable input: %s, %d requests", res.Status, len(f.created))
	}
	if got := textOf(byID(t, doc, "about-tags")); !strings.Contains(got, "neither YAML nor JSON") {
		t.Errorf("of the list it says %q", got)
	}
	form.Set("in.tags", "[a]")
	doc, res, _ = post(t, addr, form)
	if res.StatusCode != http.StatusBadRequest || len(f.created) != 1 {
		t.Fatalf("refused: %s, %d requests", res.Status, len(f.created))
	}
	if got := textOf(byID(t, doc, "refused")); !strings.Contains(got, "the inputs do not fit") || !strings.Contains(got, "repo : must be owner/name <i>") {
		t.Errorf("it says %q", got)
	}
	field := byID(t, doc, "in-repo")
	if field.FirstChild == nil || field.FirstChild.Data != "acme" || attr(field, "aria-invalid") != "true" {
		t.Error("the field lost what was typed, or its mark")
	}
	if got := byID(t, doc, "source").FirstChild.Data; got != "\n\nid: x # <mine>\n" {
		t.Errorf("the source came back as %q", got)
	}
	for n := range byID(t, doc, "in-depth").Descendants() {
		if n.Data == "option" && attr(n, "value") == `"deep"` {
			if _, ok := attrs(n)["selected"]; !ok {
				t.Error("the choice is lost")
			}
		}
		if attr(n, "name") == "key" && attr(n, "value") == "k1" {
			t.Error("the next try would count as the refused one")
		}
	}
}

func attrs(n *html.Node) map[string]string {
	out := map[string]string{}
	for _, a := range n.Attr {
		out[a.Key] = a.Val
	}
	return out
}

func TestCheckShowsFindingsInPlace(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	check := func(source string) frame {
		res, err := http.PostForm(addr+"/new/check", url.Values{"source": {source}, "in.repo": {"typed"}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out frame
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	bad := check("id: x\nflaw here\n  doubt <b>\n")
	if len(bad.Patches) != 1 || bad.Patches[0].ID != "findings" || !strings.Contains(bad.Patches[0].HTML, "2:1") {
		t.Errorf("patches %+v", bad.Patches)
	}
	if len(bad.Marks) != 2 || bad.Marks[0].Line != 2 || bad.Marks[0].Severity != "error" || bad.Marks[1].Severity != "warning" {
		t.Errorf("marks %+v", bad.Marks)
	}
	good := check("id: x\n")
	var ids []string
	for _, p := range good.Patches {
		ids = append(ids, p.ID)
	}
	if strings.Join(ids, " ") != "findings inputs holes preview" || !strings.Contains(good.Patches[1].HTML, ">\ntyped</textarea>") {
		t.Errorf("patches %v: %s", ids, good.Patches[1].HTML)
	}
	// The button does the same without the script.
	doc, res, _ := post(t, addr+"/new", url.Values{"source": {"flaw"}, "do": {"check"}})
	if got := textOf(byID(t, doc, "findings")); res.StatusCode != http.StatusOK || !strings.Contains(got, "1:1") || len(f.created) != 0 {
		t.Errorf("%s %q", res.Status, got)
	}
}

func TestInputsAreReadByTheirType(t *testing.T) {
	for _, c := range []struct{ typ, text, want string }{
		{"string", "42", `"42"`},
		{"integer", " 42 ", `42`},
		{"number", "1e3", `1e3`},
		{"boolean", "true", `true`},
		{"enum", `"a"`, `"a"`},
		{"enum", `a`, `"a"`},
		{"any", "hello", `"hello"`},
		{"any", `{"n": 9007199254740993}`, `{"n": 9007199254740993}`},
		{"map", "a: 1", `{"a":1}`},
		{"list<integer>", "[1, 2]", `[1, 2]`},
		{"optional<integer>", "7", `7`},
		{"duration", "5m", `"5m"`},
	} {
		got, err := inputValue(c.typ, c.text)
		if err != nil || string(got) != c.want {
			t.Errorf("%s %q: %s, %v; want %s", c.typ, c.text, got, err, c.want)
		}
	}
	for _, c := range []struct{ typ, text string }{{"integer", "x"}, {"integer", `"1"`}, {"number", "true"}, {"map", "a: ["}} {
		if got, err := inputValue(c.typ, c.text); err == nil {
			t.Errorf("%s %q passed as %s", c.typ, c.text, got)
		}
	}
}
