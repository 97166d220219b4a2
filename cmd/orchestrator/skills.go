package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// skillsOf are the skills of an installation.
func skillsOf(home string) skill.Library {
	return skill.Library{Dir: filepath.Join(home, "skills")}
}

func (c *cli) skillsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "skills",
		Short: "See skills, try them out, and copy more from git repositories",
		Long: `A skill is a folder with a manual, SKILL.md, and often a program. Pipelines find it in skills/NAME beside them, then in ~/.orchestrator/skills/NAME, then among those that ship with the program. Its files travel with the pipeline.

A skill of a git repository is copied into the home and pinned to one commit; it is used only while its files are those of that commit.`,
		Example: `
orchestrator skills list
orchestrator skills test file-processor -p file=README.md
orchestrator skills add https://github.com/acme/skills@v1.2 --path skills/summarize`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.skillsListCommand(), c.skillsGetCommand(), c.skillsTestCommand(), c.skillsAddCommand(), c.skillsUpdateCommand(), c.skillsRemoveCommand())
	return cmd
}

func (c *cli) skillsListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the skills that pipelines find without bringing them",
		Example: `
orchestrator skills list
orchestrator skills list --json`,
		Args: args(0, 0, "no arguments", "orchestrator skills list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.compiling(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.skills.ListSkills(ctx, &api.ListSkillsRequest{})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				w := c.painted(c.out)
				if len(resp.GetSkills()) == 0 {
					fmt.Fprintln(w, "there are no skills")
					look(w, [2]string{"orchestrator skills add URL", "copy one from a git repository"})
					return nil
				}
				rows := [][]string{{dim("SKILL"), dim("FROM"), dim("BY"), dim("WHAT IT DOES")}}
				for _, s := range resp.GetSkills() {
					does := harmlessLine(cut(s.GetDescription(), 90))
					if s.GetProblem() != "" {
						does = painted("FAILED", icon("FAILED")+" "+harmlessLine(cut(s.GetProblem(), 90)))
					}
					rows = append(rows, []string{s.GetName(), skillOrigin(s), skillMeans(s), does})
				}
				table(w, rows)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

// compiling does something with an API that needs no store.
func (c *cli) compiling(cmd *cobra.Command, do func(context.Context, *client) error) error {
	ctx, stop := c.endOnSignal(cmd.Context())
	defer stop()
	cl, err := c.compiler(ctx)
	if err != nil {
		return err
	}
	defer cl.close()
	return do(ctx, cl)
}

// skillOrigin is where a skill comes from, in a few words.
func skillOrigin(s *api.Skill) string {
	if p := s.GetPin(); p != nil {
		return "git " + p.GetCommit()[:min(10, len(p.GetCommit()))]
	}
	return s.GetOrigin()
}

// skillMeans is what carries a skill out.
func skillMeans(s *api.Skill) string {
	switch {
	case s.GetProgram():
		return "program"
	case s.GetProblem() != "":
		return ""
	}
	return "model"
}

func (c *cli) skillsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get SKILL",
		Short:   "Show a skill: what it takes and gives, its files, its text",
		Example: "\norchestrator skills get code-analyzer",
		Args:    args(1, 1, "the name of a skill", "orchestrator skills get code-analyzer"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.compiling(cmd, func(ctx context.Context, cl *client) error {
				s, err := cl.skills.GetSkill(ctx, &api.GetSkillRequest{Name: words[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(s)
				}
				c.printSkill(s)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printSkill(s *api.Skill) {
	w := c.painted(c.out)
	rows := [][]string{{dim("skill"), s.GetName() + dim("  "+skillOrigin(s))}}
	if s.GetProblem() != "" {
		rows = append(rows, []string{dim("problem"), painted("FAILED", harmlessLine(s.GetProblem()))})
	}
	if s.GetDescription() != "" {
		rows = append(rows, []string{dim("what"), harmlessLine(s.GetDescription())})
	}
	switch {
	case s.GetProgram() && s.GetNetwork():
		rows = append(rows, []string{dim("by"), "its program, in a sandbox with a network"})
	case s.GetProgram():
		rows = append(rows, []string{dim("by"), "its program, in a sandbox without a network"})
	case s.GetProblem() == "":
		rows = append(rows, []string{dim("by"), "a model, which is given the text"})
	}
	if p := s.GetPin(); p != nil {
		from := p.GetUrl()
		if p.GetPath() != "" {
			from += " " + p.GetPath()
		}
		at := p.GetCommit()
		if p.GetRef() != "" {
			at += dim("  " + p.GetRef() + " when it was copied, ")
		} else {
			at += "  "
		}
		rows = append(rows, []string{dim("source"), harmlessLine(from)}, []string{dim("commit"), at + dim(p.GetAddedAt().AsTime().Local().Format("2006-01-02"))})
	}
	if len(s.GetTools()) > 0 {
		rows = append(rows, []string{dim("tools"), harmlessLine(strings.Join(s.GetTools(), ", "))})
	}
	if len(s.GetFiles()) > 0 {
		rows = append(rows, []string{dim("files"), harmlessLine(cut(strings.Join(s.GetFiles(), ", "), 400))})
	}
	table(w, rows)
	for _, part := range []struct {
		what string
		list []*api.SkillField
	}{{"takes", s.GetParameters()}, {"gives", s.GetReturns()}} {
		if len(part.list) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", dim(part.what))
		rows = nil
		for _, f := range part.list {
			note := ""
			switch {
			case f.GetDefault() != "":
				note = "default " + f.GetDefault()
			case f.GetRequired() && part.what == "takes":
				note = "required"
			}
			rows = append(rows, []string{"  " + f.GetName(), f.GetType(), harmlessLine(note), harmlessLine(f.GetDescription())})
		}
		table(w, rows)
	}
	if s.GetText() != "" {
		fmt.Fprintf(w, "\n%s\n", harmless(s.GetText()))
	}
}

func (c *cli) skillsTestCommand() *cobra.Command {
	f := &runFlags{}
	var params []string
	given := ""
	cmd := &cobra.Command{
		Use:   "test SKILL",
		Short: "Run a skill once, as a step would",
		Long:  `Runs a pipeline of one step with the skill and prints what it gives. skills/SKILL in the current folder comes first, as beside a pipeline. Parameters are held against the skill's manual; a value that is JSON counts as such unless the manual wants a text. A skill without a program asks a model: --script FILE answers in its place.`,
		Example: `
orchestrator skills test file-processor -p file=README.md
orchestrator skills test validator --parameters '{"data": {"a": null}}' --json`,
		Args: args(1, 1, "the name of a skill", "orchestrator skills test validator -p data=5"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.testSkill(cmd.Context(), words[0], params, given, f)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&params, "param", "p", nil, "a parameter as name=value (repeatable)")
	fl.StringVar(&given, "parameters", "", "all parameters as a JSON object; -p adds to them")
	fl.StringVar(&f.script, "script", "", "a file of scripted answers that stands in for the model")
	fl.StringVar(&f.workspace, "workspace", "", "the directory that the skill works in; default the current one")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, only what it gives")
	c.jsonFlag(cmd, "print the run with its step as one JSON document")
	return cmd
}

// testSkill runs a pipeline that does nothing but use a skill.
func (c *cli) testSkill(ctx context.Context, name string, params []string, given string, f *runFlags) error {
	cl, err := c.runner(ctx, f)
	if err != nil {
		return err
	}
	defer cl.close()
	values := map[string]any{}
	if given != "" {
		v, err := pipeline.DecodeValue([]byte(given))
		m, ok := v.(map[string]any)
		if err != nil || !ok {
			return usage(`--parameters '{"data": 5}'`, "--parameters is not a JSON object")
		}
		values = m
	}
	texts := map[string]bool{} // parameters that are texts, as far as the manual is known here
	if s, err := cl.skills.GetSkill(ctx, &api.GetSkillRequest{Name: name}); err == nil {
		for _, p := range s.GetParameters() {
			texts[p.GetName()] = p.GetType() == "string" || p.GetType() == "path"
		}
	}
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return usage("-p file=README.md", "%q is not name=value", p)
		}
		values[key] = value
		if v, err := pipeline.DecodeValue([]byte(value)); err == nil && !texts[key] {
			values[key] = v
		}
	}
	src := &source{file: "skill-test.yaml", text: skillPipeline(name, values)}
	if src.files, err = pack(src.file, src.text, c.skills()); err != nil {
		return err
	}
	req, err := c.request(ctx, cl, src, f)
	if err != nil {
		return err
	}
	if len(values) > 0 {
		req.Inputs = string(pipeline.EncodeValue(map[string]any{"given": values}))
	}
	run, err := c.createRun(ctx, cl, req)
	if err != nil {
		return c.refused(ctx, cl, src, err)
	}
	c.keepStandIn(cl, run.GetId(), f.standIn())
	return c.seeThrough(ctx, cl, run.GetId(), f.quiet, time.Time{})
}

// skillPipeline is the text of a pipeline of one step. What it is given are
// inputs, so that no value is taken for a template.
func skillPipeline(name string, values map[string]any) string {
	var b strings.Builder
	b.WriteString("name: skill-test\n")
	if len(values) > 0 {
		b.WriteString("inputs: {given: {type: map, additional: true}}\n")
	}
	fmt.Fprintf(&b, "steps:\n  - id: skill\n    skill: %s\n", pipeline.EncodeValue(name))
	if len(values) > 0 {
		b.WriteString("    parameters:\n")
		for _, key := range sortedKeys(values) {
			k := string(pipeline.EncodeValue(key))
			fmt.Fprintf(&b, "      %s: '{{ given[%s] }}'\n", k, strings.ReplaceAll(k, "'", "''"))
		}
	}
	b.WriteString("outputs: {result: '{{ skill }}'}\n")
	return b.String()
}

func (c *cli) skillsAddCommand() *cobra.Command {
	dir := ""
	cmd := &cobra.Command{
		Use:   "add URL[@COMMIT]",
		Short: "Copy a skill from a git repository into the home",
		Long: `Fetches one commit and copies the folder with SKILL.md out of it into ~/.orchestrator/skills. Behind @ stands a commit with all its digits, a branch or a tag; a branch or tag, or the repository's HEAD where nothing stands there, is resolved now, and the commit is recorded. Nothing changes later but by: orchestrator skills update

Repositories are reached by https, ssh and from this disk. Nothing is checked out and nothing of the repository runs: no hooks, filters or submodules. Symbolic links and submodules in the folder are refused, as is more than 1000 files or 8 MiB. Your git configuration is not read: access comes from ssh or a .netrc.

The program of a skill runs in a sandbox; read the skill all the same before you use it.`,
		Example: `
orchestrator skills add https://github.com/acme/summarize
orchestrator skills add https://github.com/acme/skills@v1.2 --path skills/summarize
orchestrator skills add git@github.com:acme/skills@1f0c3b1d2e4a5968778695a4b3c2d1e0f9a8b7c6 --path review`,
		Args: args(1, 1, "the address of a git repository", "orchestrator skills add https://github.com/acme/summarize"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.changing(cmd, "add", func(ctx context.Context, own skill.Library) error {
				src, err := skill.ParseSource(words[0], dir)
				if err != nil {
					return err
				}
				s, err := own.Add(ctx, src)
				if err != nil {
					return err
				}
				return c.tellCopied(s, "added")
			})
		},
	}
	cmd.Flags().StringVar(&dir, "path", "", "the skill's folder in the repository; default the whole")
	c.jsonFlag(cmd, "print where the skill comes from as one JSON document")
	return cmd
}

func (c *cli) skillsUpdateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "update SKILL",
		Short:   "Copy a skill anew from where it came from",
		Long:    `Takes the commit that the skill's branch or tag means now, and records it. A skill that was added by its commit is copied from the same commit, which undoes changes of its files.`,
		Example: "\norchestrator skills update summarize",
		Args:    args(1, 1, "the name of a skill", "orchestrator skills update summarize"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.changing(cmd, "update", func(ctx context.Context, own skill.Library) error {
				s, differs, err := own.Update(ctx, words[0])
				switch {
				case err != nil:
					return err
				case differs:
					return c.tellCopied(s, "updated")
				}
				return c.tellCopied(s, "unchanged")
			})
		},
	}
	c.jsonFlag(cmd, "print where the skill comes from as one JSON document")
	return cmd
}

func (c *cli) skillsRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove SKILL",
		Short:   "Remove a skill that was copied from a git repository",
		Example: "\norchestrator skills remove summarize",
		Args:    args(1, 1, "the name of a skill", "orchestrator skills remove summarize"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.changing(cmd, "remove", func(ctx context.Context, own skill.Library) error {
				if err := own.Remove(ctx, words[0]); err != nil {
					return err
				}
				fmt.Fprintf(c.out, "removed %s\n", words[0])
				return nil
			})
		},
	}
}

// changing changes the skills of this machine's home.
func (c *cli) changing(cmd *cobra.Command, verb string, do func(ctx context.Context, own skill.Library) error) error {
	if c.remote() {
		return usage("run it on the machine of the server, or leave out --server", "skills %s changes the home of this machine, not a server's", verb)
	}
	ctx, stop := c.endOnSignal(cmd.Context())
	defer stop()
	err := do(ctx, c.skills())
	if ctx.Err() != nil {
		return errInterrupted
	}
	if e, ok := errors.AsType[*pipeline.Error](err); ok {
		code := exitRefused
		if e.Kind == pipeline.Invalid || e.Kind == pipeline.NotFound || e.Kind == pipeline.Conflict {
			code = exitInvalid
		}
		return &failure{code: code, what: "cannot " + verb + " the skill", why: harmless(e.Text)}
	}
	return err
}

func (c *cli) tellCopied(s *pipeline.InstalledSkill, what string) error {
	if c.asJSON {
		_, err := fmt.Fprintln(c.out, string(pipeline.EncodeValue(map[string]any{
			"name": s.Name, "state": what, "url": s.Pin.URL, "path": s.Pin.Path, "ref": s.Pin.Ref, "commit": s.Pin.Commit, "digest": string(s.Pin.Digest),
		})))
		return err
	}
	w := c.painted(c.out)
	fmt.Fprintf(w, "%s %s at %s%s\n", what, s.Name, s.Pin.Commit, dim("  "+plural(len(s.Files), "file")))
	if s.Problem != "" {
		fmt.Fprintln(c.painted(c.err), painted("WAITING", "it cannot be used: "+harmlessLine(s.Problem)))
	}
	look(c.painted(c.err), [2]string{"orchestrator skills get " + s.Name, "what it takes and says"})
	return nil
}

// completeSkill offers the skills by name.
func (c *cli) completeSkill(copied bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.completing(c.compiler, func(ctx context.Context, cl *client) []string {
			resp, err := cl.skills.ListSkills(ctx, &api.ListSkillsRequest{})
			if err != nil {
				return nil
			}
			var out []string
			for _, s := range resp.GetSkills() {
				if !copied || s.GetPin() != nil || s.GetOrigin() == pipeline.SkillGit {
					out = append(out, s.GetName()+"\t"+harmlessLine(cut(s.GetDescription(), 60)))
				}
			}
			return out
		})
	}
}
