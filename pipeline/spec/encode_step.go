package spec

import "github.com/orchestrator-project/orchestrator/pipeline"

func (e *encoder) step(s *pipeline.StepDef) {
	e.object(func() {
		e.must("id", s.ID)
		e.text("name", s.Name)
		e.text("description", s.Description)
		e.must("kind", string(s.Kind))
		e.mustPos(s.Pos)
		listOf(e, "deps", s.Deps, func(d *pipeline.Dep) {
			e.object(func() {
				e.number("on", int64(d.On))
				e.must("cause", d.Cause)
				e.pos(d.Pos)
			})
		})
		e.template("condition", s.Condition)
		e.int("timeout", int64(s.Timeout))
		e.retry(s.Retry)
		e.text("on_failure", s.OnFailure)
		listOf(e, "on_error", s.OnError, e.rule)
		if r := s.Routes; r != nil {
			e.key("routes")
			e.object(func() {
				e.index("success", r.Success)
				e.index("failure", r.Failure)
				e.index("false", r.False)
				e.index("always", r.Always)
			})
		}
		e.int("max_visits", int64(s.MaxVisits))
		e.entries("state", s.State)
		e.text("effect", string(s.Effect))
		if x := s.Cache; x != nil {
			e.key("cache")
			e.object(func() {
				e.int("ttl", int64(x.TTL))
				e.ptr("key", x.Key)
			})
		}
		e.bool("critical", s.Critical)
		e.contracts(s)
		e.surroundings(s)
		e.work(s)
		e.control(s)
		e.loop(s.Loop)
		e.ptr("match", s.Match)
		listOf(e, "branches", s.Branches, func(b *pipeline.Branch) {
			e.object(func() {
				e.template("condition", b.Condition)
				if b.Case != nil {
					e.must("case", *b.Case)
				}
				e.body("body", &b.Body)
			})
		})
		if x := s.Compete; x != nil {
			e.key("compete")
			e.object(func() {
				e.bool("judge", x.Judge)
				e.text("tie_break", x.TieBreak)
				e.ptr("ledger", x.Ledger)
			})
		}
	})
}

func (e *encoder) rule(r *pipeline.Rule) {
	e.object(func() {
		e.texts("category", r.Category)
		e.texts("codes", r.Codes)
		e.text("pattern", r.Pattern)
		e.must("do", r.Do)
		e.retry(r.Retry)
		e.ptr("value", r.Value)
		e.text("model", r.Model)
		e.index("to", r.To)
		e.pos(r.Pos)
	})
}

// contracts writes what a step promises and what it is handed.
func (e *encoder) contracts(s *pipeline.StepDef) {
	if x := s.Returns; x != nil {
		e.key("returns")
		e.object(func() {
			e.must("from", x.From)
			e.ptr("file", x.File)
			e.key("type")
			e.kind(&x.Type)
		})
	}
	listOf(e, "publish", s.Publish, func(p *pipeline.Publish) {
		e.object(func() {
			e.must("artifact", p.Artifact)
			e.must("from", p.From)
			e.pos(p.Pos)
		})
	})
	listOf(e, "consume", s.Consume, func(x *pipeline.Consume) {
		e.object(func() {
			e.must("artifact", x.Artifact)
			e.texts("from", x.From)
			e.text("fresh", x.Fresh)
			e.text("as", x.As)
			e.pos(x.Pos)
		})
	})
	listOf(e, "artifacts", s.Artifacts, e.field)
	if x := s.Files; x != nil {
		e.key("files")
		e.object(func() {
			listOf(e, "required", x.Required, e.field)
			listOf(e, "optional", x.Optional, e.field)
			e.text("mode", x.Mode)
			e.text("position", x.Position)
		})
	}
}

func (e *encoder) surroundings(s *pipeline.StepDef) {
	e.texts("worker", s.Worker)
	if x := s.Resources; x != nil {
		e.key("resources")
		e.object(func() {
			e.float("cpu", x.CPU)
			e.float("memory_gb", x.MemoryGB)
			e.float("gpu", x.GPU)
		})
	}
	e.sandbox(s.Sandbox)
}

func (e *encoder) work(s *pipeline.StepDef) {
	e.text("action", s.Action)
	e.auto("action_auto", s.ActionAuto)
	if x := s.Skill; x != nil {
		e.key("skill")
		e.skill(x)
	}
	if x := s.Agent; x != nil {
		e.key("agent")
		e.agent(x)
	}
	e.entries("parameters", s.Parameters)
	e.ptr("prompt", s.Prompt)
	e.ptr("model", s.Model)
	e.needs(s.Needs)
	if x := s.Session; x != nil {
		e.key("session")
		e.object(func() {
			e.must("name", x.Name)
			e.bool("start", x.Start)
		})
	}
	listOf(e, "command", s.Command, e.field)
	e.ptr("run", s.Run)
	e.entries("env", s.Env)
	e.texts("secrets", s.Secrets)
	e.text("capture", s.Capture)
}

func (e *encoder) control(s *pipeline.StepDef) {
	e.entries("set", s.Set)
	e.template("assert", s.Assert)
	if x := s.Wait; x != nil {
		e.key("wait")
		e.object(func() {
			e.ptr("for", x.For)
			e.ptr("until", x.Until)
			e.ptr("signal", x.Signal)
			e.ptr("files", x.Files)
			e.int("count", int64(x.Count))
			e.int("poll", int64(x.Poll))
		})
	}
	if x := s.Ask; x != nil {
		e.key("ask")
		e.object(func() {
			e.bool("approve", x.Approve)
			e.ptr("question", &x.Question)
			e.ptr("choices", x.Choices)
			if x.Schema != nil {
				e.key("schema")
				e.kind(x.Schema)
			}
			e.ptr("default", x.Default)
			e.ptr("assignees", x.Assignees)
			e.int("quorum", int64(x.Quorum))
			e.int("deadline", int64(x.Deadline))
			e.text("on_timeout", x.OnTimeout)
		})
	}
	e.call("call", s.Call)
}

func (e *encoder) loop(l *pipeline.Loop) {
	if l == nil {
		return
	}
	e.key("loop")
	e.object(func() {
		e.ptr("items", l.Items)
		e.text("variable", l.Variable)
		e.int("parallel", int64(l.Parallel))
		e.template("collect", l.Collect)
		e.text("on_item_error", l.OnItemError)
		e.template("condition", l.Condition)
		e.template("until", l.Until)
		e.int("max", int64(l.Max))
		e.text("on_exhausted", l.OnExhausted)
		e.entries("exhausted", l.Exhausted)
		e.bool("single", l.Single)
		e.body("body", &l.Body)
	})
}

func (e *encoder) auto(k string, a *pipeline.Auto) {
	if a != nil {
		e.key(k)
		e.autoValue(a)
	}
}

func (e *encoder) autoValue(a *pipeline.Auto) {
	e.object(func() {
		e.must("key", a.Key)
		e.template("prompt", a.Prompt)
		e.key("type")
		e.kind(&a.Type)
		e.texts("hint", a.Hint)
		e.text("task", a.Task)
		e.text("model", a.Model)
		e.ptr("fallback", a.Fallback)
		e.mustPos(a.Pos)
	})
}
