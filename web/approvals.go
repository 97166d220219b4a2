package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/go-chi/chi/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of what is shown of the approvals.
const (
	approvalsPage = 50
	countMost     = 99          // the navigation says 99+ beyond
	countWait     = time.Second // a page does not wait longer for that number
)

// approvalTabs are the parts of the inbox; the first is shown when the address
// names none.
var approvalTabs = []struct{ ID, Title string }{
	{"open", "Open"}, {"decided", "Decided"}, {"expired", "Expired"}, {"withdrawn", "Withdrawn"}, {"all", "All"},
}

// approvalsData is what the inbox shows.
type approvalsData struct {
	Tab       string
	Run       string // only of this run; or empty
	Approvals []*api.Approval
	Next      string // address of the next page, or empty
	First     string // address of the first page, or empty when this is it
	Feed      string // address of the live feed, or empty
	Now       time.Time
}

// address of a tab.
func (d approvalsData) tab(id string) string {
	if id == approvalTabs[0].ID {
		id = ""
	}
	return link("/approvals", "status", id, "run", d.Run)
}

// question is one approval with its form.
type question struct {
	*api.Approval
	Back    string // where a decision leads
	Typed   string // the answer as it was typed, when it was refused
	Comment string // so was the comment
	Args    string // so were the arguments of a tool's call
	Wrong   string // why it was refused
	Late    bool   // somebody else was faster
	Now     time.Time
}

// openApprovals is how many approvals are open, for the navigation; empty if
// there is none or nobody can tell.
func (s *site) openApprovals(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, countWait)
	defer cancel()
	list, err := s.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", PageSize: countMost + 1}, bigAnswers)
	switch n := len(list.GetApprovals()); {
	case err != nil || n == 0:
		return ""
	case n > countMost:
		return itoa(countMost) + "+"
	default:
		return itoa(int32(n))
	}
}

func (s *site) approvalList(w http.ResponseWriter, r *http.Request) {
	d, err := s.approvalsData(r.Context(), r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, page{"Approvals", "approvals", approvalsListPage(d)})
}

func (s *site) approvalsData(ctx context.Context, q url.Values) (approvalsData, error) {
	d := approvalsData{Tab: cmp.Or(q.Get("status"), approvalTabs[0].ID), Run: q.Get("run"), Now: time.Now()}
	req := &api.ListApprovalsRequest{Status: d.Tab, RunId: d.Run, PageSize: approvalsPage, PageToken: q.Get("page")}
	if d.Tab == "all" {
		req.Status = ""
	}
	list, err := s.approvals.ListApprovals(ctx, req, bigAnswers)
	if err != nil {
		return d, err
	}
	d.Approvals = list.GetApprovals()
	if next := list.GetNextPageToken(); next != "" {
		d.Next = link("/approvals", "status", q.Get("status"), "run", d.Run, "page", next)
	}
	if q.Get("page") != "" {
		d.First = d.tab(d.Tab)
	} else {
		d.Feed = link("/live", "inbox", "1", "status", q.Get("status"), "run", d.Run)
	}
	return d, nil
}

func (s *site) approval(w http.ResponseWriter, r *http.Request) {
	a, err := s.approvals.GetApproval(r.Context(), &api.GetApprovalRequest{Id: chi.URLParam(r, "id")}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showApproval(w, r, http.StatusOK, question{Approval: a})
}

func (s *site) showApproval(w http.ResponseWriter, r *http.Request, code int, q question) {
	q.Now, q.Back = time.Now(), cmp.Or(q.Back, pathOfApproval(q.GetId()))
	s.show(w, r, code, page{clip(q.GetQuestion(), 60), "approvals", approvalPage(q)})
}

// decide carries a decision to the API. What is refused comes back with what
// was typed; who comes second sees what was decided.
func (s *site) decide(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), chi.URLParam(r, "id")
	if err := r.ParseForm(); err != nil {
		s.complain(w, r, http.StatusBadRequest, problem{Title: "This cannot be read", Text: "The form is too large or broken."})
		return
	}
	a, err := s.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: id}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	form := r.PostForm
	q := question{
		Approval: a, Typed: strings.ReplaceAll(form.Get("value"), "\r\n", "\n"), Comment: strings.ReplaceAll(form.Get("comment"), "\r\n", "\n"),
		Back: backTo(form.Get("back"), pathOfApproval(id), pathOfRun(a.GetRunId())),
	}
	q.Args = strings.ReplaceAll(form.Get("arguments"), "\r\n", "\n")
	req := &api.DecideApprovalRequest{Id: id, Decision: form.Get("decision"), Comment: strings.TrimSpace(q.Comment)}
	if req.GetDecision() == approveForRun {
		req.Decision, req.Remember = "approve", true
	}
	if req.GetDecision() == "approve" && a.GetKind() == "tool" {
		req.Value, err = q.edited()
	} else {
		req.Value, err = answerValue(a, req.GetDecision(), q.Typed)
	}
	if err != nil {
		q.Wrong = err.Error()
		s.showApproval(w, r, http.StatusBadRequest, q)
		return
	}
	if _, err = s.approvals.DecideApproval(ctx, req, bigAnswers); err == nil {
		http.Redirect(w, r, q.Back, http.StatusSeeOther)
		return
	}
	p, code := describe(err)
	switch status.Code(err) {
	case codes.InvalidArgument:
		q.Wrong = p.Text
	case codes.Aborted:
		if q.Approval, err = s.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: id}, bigAnswers); err != nil {
			s.fail(w, r, err)
			return
		}
		q.Late, q.Wrong = q.GetStatus() != "open", p.Text
	default:
		s.fail(w, r, err)
		return
	}
	s.showApproval(w, r, code, q)
}

// backTo is where a form leads: the page that it stood on, if that is one of
// those it may stand on; else the first of these.
func backTo(given string, pages ...string) string {
	if u, err := url.Parse(given); err == nil && u.Host == "" && u.Scheme == "" && slices.Contains(pages, u.Path) {
		return u.RequestURI()
	}
	return pages[0]
}

// answerValue reads what was typed as the JSON value of a decision.
func answerValue(a *api.Approval, decision, text string) (string, error) {
	switch {
	case decision == "":
		return "", errors.New("say what is decided")
	case (decision == "done" || decision == "approve" && a.GetKind() == "budget") && strings.TrimSpace(text) != "":
		raw, err := fromYAML(text)
		return string(raw), err
	case decision != "answer":
		return "", nil
	case len(answerChoices(a)) > 0: // the form offers JSON values
		if !json.Valid([]byte(text)) {
			return "", errors.New("choose one of the answers")
		}
		return text, nil
	}
	if strings.TrimSpace(text) == "" && widget(answerType(a)) != "text" {
		return "", errors.New("the answer is missing")
	}
	raw, err := inputValue(answerType(a), text)
	return string(raw), err
}

// answerType is the type of an answer; what has none is text.
func answerType(a *api.Approval) string { return cmp.Or(a.GetType(), "string") }

// answerChoices are the answers that can be chosen: those the question lists, or
// yes and no. Name is for people, Value is JSON.
func answerChoices(a *api.Approval) []member {
	if list := jsonList(a.GetChoices()); len(list) > 0 {
		return list
	}
	if widget(a.GetType()) == "boolean" {
		return []member{{"Yes", "true"}, {"No", "false"}}
	}
	return nil
}

// kindWord says what an approval asks for.
func kindWord(kind string) string {
	switch kind {
	case "ask":
		return "Question"
	case "approve":
		return "Approval"
	case "tool":
		return "Tool call"
	case "needs_decision":
		return "Unclear outcome"
	case "budget":
		return "Budget"
	}
	return human.Phrase(kind)
}

// timeoutWord says what the deadline does.
func timeoutWord(a *api.Approval) string {
	switch a.GetOnTimeout() {
	case "default":
		return "then the answer is " + clip(typed(a.GetDefault()), 60)
	case "approve":
		return "then it counts as approved"
	case "reject":
		return "then it counts as rejected"
	}
	return "then the step fails"
}

// decided is the last decision, or nil.
func decided(a *api.Approval) *api.Decision {
	if n := len(a.GetDecisions()); n > 0 {
		return a.GetDecisions()[n-1]
	}
	return nil
}

// said puts a decision into a few words.
func said(d *api.Decision) string {
	switch d.GetDecision() {
	case "approve":
		return "approved"
	case "reject":
		return "rejected"
	case "answer":
		return "answered"
	case "retry":
		return "chose to try again"
	case "done":
		return "declared it done"
	case "fail":
		return "let it fail"
	}
	return human.Phrase(d.GetDecision())
}

// by is who decided.
func by(d *api.Decision) string {
	if d.GetActor() == "deadline" {
		return "The deadline"
	}
	return d.GetActor()
}

func pathOfApproval(id string) string { return "/approvals/" + url.PathEscape(id) }

// asked reads the open approvals of one run, the newest first, and whether there
// are more than a page shows.
func (s *site) asked(ctx context.Context, run string) ([]*api.Approval, bool, error) {
	list, err := s.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", RunId: run, PageSize: asksShown}, bigAnswers)
	return list.GetApprovals(), list.GetNextPageToken() != "", err
}

// can reports whether that can be decided.
func (q question) can(decision string) bool { return slices.Contains(q.GetAllowed(), decision) }

// given is what stands in the field of the answer: what was typed, else the
// default.
func (q question) given() string {
	if q.Typed != "" || q.GetDefault() == "" || q.GetDefault() == "null" {
		return q.Typed
	}
	if len(answerChoices(q.Approval)) > 0 {
		return q.GetDefault()
	}
	return typed(q.GetDefault())
}

// answerAbout ties the field of an answer to what is wrong with it.
func answerAbout(q question) templ.Attributes {
	if q.Wrong == "" {
		return nil
	}
	return templ.Attributes{"aria-describedby": "wrong-" + q.GetId()}
}

// approveForRun is the decision of the button that approves all further calls of
// a tool, too.
const approveForRun = "approve for the run"

// arguments are what stands in the field of a call's arguments: what was typed,
// else those that the agent wants.
func (q question) arguments() string {
	if q.Args != "" {
		return q.Args
	}
	return first(pretty(q.GetDefault(), 1<<20))
}

// edited is the JSON of changed arguments; empty: they are as they were.
func (q question) edited() (string, error) {
	text := strings.TrimSpace(q.Args)
	if text == "" || text == strings.TrimSpace(first(pretty(q.GetDefault(), 1<<20))) {
		return "", nil
	}
	var args map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &args); err != nil || args == nil {
		return "", errors.New("the arguments are no JSON object: " + jsonFault(text, err))
	}
	return text, nil
}

// jsonFault says where JSON breaks off.
func jsonFault(text string, err error) string {
	if bad, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + strings.Count(text[:min(int(bad.Offset), len(text))], "\n")
		return "line " + itoa(int32(line)) + ": " + bad.Error()
	}
	return "it begins with " + clip(text, 20)
}
