package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// rootCommand is the whole command line.
func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "orchestrator",
		Short: "Run AI pipelines durably",
		Long: `Orchestrator runs pipelines of commands, data steps and model calls, and keeps every step's result: what was interrupted continues where it stopped.

Without a server every command works by itself, on the store in ~/.orchestrator. With --server URL (or ORCHESTRATOR_SERVER) the same commands speak to a running server.`,
		Example: `
# check a pipeline, then run it
orchestrator validate hello.yaml
orchestrator run hello.yaml -i name=World

# look at what happened
orchestrator runs list
orchestrator runs get last

# the dashboard and the API on http://127.0.0.1:8080
orchestrator serve`,
		Args: noSuchVerb,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			c.entered = true
			if !cmd.Flags().Changed("server") {
				c.server, _ = c.env("ORCHESTRATOR_SERVER")
			}
			if c.server != "" {
				if _, err := address(c.server); err != nil {
					return err
				}
				c.server = strings.TrimRight(c.server, "/")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&c.server, "server", "", "a server to work on, as in http://127.0.0.1:8080")
	root.PersistentFlags().StringVar(&c.configFile, "config", "", "the configuration file; default config.yaml in the home")
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: "pipelines", Title: "pipelines"},
		&cobra.Group{ID: "runs", Title: "runs"},
		&cobra.Group{ID: "operations", Title: "operations"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("pipelines", c.runCommand(), c.replayCommand(), c.validateCommand(), c.explainCommand(), c.pipelinesCommand(), c.schedulesCommand(), c.schemaCommand())
	add("runs", c.runsCommand(), c.reportCommand(), c.queuesCommand(), c.budgetsCommand(), c.approvalsCommand(), c.signalCommand())
	add("operations", c.serveCommand(), c.storageCommand(), c.backupCommand(), c.restoreCommand(), c.workerCommand(), c.workersCommand(), c.modelsCommand(), c.toolsCommand(), c.skillsCommand(), c.doctorCommand(), c.versionCommand(), configurationTopic())
	root.SetCompletionCommandGroupID("operations")
	root.SetHelpCommandGroupID("operations")
	c.completeFlags(root)
	return root
}

// configurationTopic is a page of help about the settings.
func configurationTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "configuration",
		Short: "All settings: config.yaml and the environment",
		Long:  configReference(),
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}

// jsonFlag gives a verb its --json.
func (c *cli) jsonFlag(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVar(&c.asJSON, "json", false, what)
}

// args checks the number of arguments and says what they are.
func args(least, most int, what, example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < least {
			return usage(example, "%s needs %s", cmd.CommandPath(), what)
		}
		if most >= 0 && len(given) > most {
			return usage(example, "%s takes only %s; there is %q too", cmd.CommandPath(), what, given[most])
		}
		return nil
	}
}

// noSuchVerb refuses arguments of a command that only holds others.
func noSuchVerb(cmd *cobra.Command, given []string) error {
	if len(given) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := ""
	if n := expr.Suggest(given[0], names); n != "" {
		hint = " (did you mean " + n + "?)"
	}
	return usage("the commands are "+strings.Join(names, ", "), "%s has no command %q%s", cmd.CommandPath(), given[0], hint)
}

// flagError explains a flag that cannot be meant.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, f.Name) }
		cmd.Flags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		if n := expr.Suggest(name, names); n != "" {
			text += " (did you mean --" + n + "?)"
		}
	}
	return usage(cmd.CommandPath()+" --help explains the flags", "%s", text)
}
