package spec

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// failureWords are what on_failure can be beside the id of a step.
var failureWords = []string{"fail", "continue", "skip", "retry"}

// onFailure reads what a failure means for others. What repeats the step is read
// by repetition.
func (c *compiler) onFailure(f *fields, s *step, doings []string) {
	n := f.get("on_failure")
	if n == nil {
		return
	}
	w := where{step: s, path: "on_failure"}
	switch {
	case n.kind == scalar && n.text == "retry":
		for _, d := range doings {
			if !slices.Contains(workDoings, d) && (d != "for" || len(doings) == 1) {
				c.error(fault{code: "E0110", at: n.at, msg: fmt.Sprintf("on_failure: retry means nothing for %s", d), hint: "give it to the steps within"}, w)
			}
		}
	case n.kind == scalar && stepID(n.text) && !slices.Contains(failureWords, n.text):
		s.jumps = append(s.jumps, jump{n, "on_failure", &s.routes().Failure})
	default:
		s.def.OnFailure = c.oneOf(n, w, failureWords...)
	}
}

// repetition reads retry, max_retries and on_failure: retry.
func (c *compiler) repetition(f *fields, s *step) {
	w := where{step: s}
	var r *pipeline.Retry
	if n := f.get("retry"); n != nil {
		r = c.retry(n, w.in("retry"))
	}
	if p := f.pair("max_retries"); p != nil {
		k, ok := c.integer(p.value, w.in("max_retries"), 0)
		if retry := f.get("retry"); retry != nil && (retry.kind != mapping || retry.get("max_attempts") != nil) {
			c.error(fault{code: "E0102", at: p.key.at, msg: "max_retries and retry both say how often"}, w)
		}
		if ok {
			if r == nil {
				r = &pipeline.Retry{}
			}
			r.MaxAttempts, r.Reported = k+1, true
		}
	}
	if n := f.get("on_failure"); n != nil && n.kind == scalar && n.text == "retry" {
		if r == nil {
			r = &pipeline.Retry{MaxAttempts: defaultAttempts}
		}
		r.Reported = true
	}
	s.def.Retry = r
}

const defaultAttempts = 3

var retryCategories = []string{
	pipeline.CategoryRateLimit, pipeline.CategoryTimeout, pipeline.CategoryResource, pipeline.CategoryValidation, pipeline.CategorySystem,
	pipeline.CategoryModel, pipeline.CategoryTool, pipeline.CategoryContract, pipeline.CategoryFailed, pipeline.CategoryUnknown,
}

// retry reads a retry policy.
func (c *compiler) retry(n *node, w where) *pipeline.Retry {
	if n.kind == scalar {
		if v, bad := n.value(); bad == nil && v == false {
			return &pipeline.Retry{MaxAttempts: 1}
		}
	}
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "retry must be a mapping, not " + n.what(), hint: "as in retry: {max_attempts: 3}, or max_retries: 2"}, w)
		return nil
	}
	f := c.fields(n, inRetry, w)
	r := &pipeline.Retry{MaxAttempts: defaultAttempts}
	if v := f.get("max_attempts"); v != nil {
		r.MaxAttempts, _ = c.integer(v, w.in("max_attempts"), 1)
	}
	r.Backoff = c.oneOf(f.get("backoff"), w.in("backoff"), "exponential", "linear", "constant")
	r.Jitter = c.oneOf(f.get("jitter"), w.in("jitter"), "full", "none")
	if v := f.get("initial"); v != nil {
		r.Initial, _ = c.duration(v, w.in("initial"))
	}
	if v := f.get("max"); v != nil {
		r.Max, _ = c.duration(v, w.in("max"))
	}
	if v := f.get("timeout_factor"); v != nil {
		x, _ := v.value()
		switch x := x.(type) {
		case int64:
			r.TimeoutFactor = float64(x)
		case float64:
			r.TimeoutFactor = x
		}
		if r.TimeoutFactor < 1 || r.TimeoutFactor > 100 {
			c.error(fault{code: "E0104", at: v.at, msg: "timeout_factor must be a number from 1 to 100"}, w.in("timeout_factor"))
		}
	}
	if v := f.get("on"); v != nil {
		r.On = c.retryOn(v, w.in("on"))
	}
	return r
}

func (c *compiler) retryOn(n *node, w where) []string {
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	var on []string
	for _, item := range items {
		if item.kind == scalar {
			if slices.Contains(retryCategories, item.text) {
				on = append(on, item.text)
				continue
			}
			if code, ok := mustPlain(item.text).(int64); ok && code > 0 && code < 256 {
				on = append(on, strconv.FormatInt(code, 10))
				continue
			}
		}
		x := fault{code: "E0104", at: item.at, msg: fmt.Sprintf("%s is neither a category of failure nor an exit code", idText(item)), hint: "categories are " + quoteList(retryCategories)}
		if item.kind == scalar {
			if s := c.suggest(item.text, retryCategories); s != "" {
				x.msg += fmt.Sprintf(" (did you mean %q?)", s)
			}
		}
		c.error(x, w)
	}
	return on
}
