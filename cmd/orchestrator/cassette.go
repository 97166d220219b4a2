package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/cassette"
)

// recordings is the provider that answers from a cassette. Of one that records, the
// file may be missing.
func recordings(file string, records bool) (model.Provider, error) {
	if !records {
		if _, err := readFile("cassette", file); err != nil {
			return nil, err
		}
	}
	p, err := cassette.Open(file, records, keysOf(os.Environ()))
	if err != nil {
		return nil, unreadable("the cassette "+file+" is not valid", err)
	}
	return p, nil
}

// keysOf are the values of variables that hold keys, by their names.
func keysOf(environ []string) func() []string {
	return func() []string {
		var list []string
		for _, kv := range environ {
			name, value, _ := strings.Cut(kv, "=")
			for _, word := range []string{"KEY", "TOKEN", "SECRET", "PASSWORD"} {
				if strings.Contains(strings.ToUpper(name), word) {
					list = append(list, value)
					break
				}
			}
		}
		return list
	}
}

func (c *cli) replayCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "replay CASSETTE FILE",
		Short: "Run a pipeline with the recorded answers of models",
		Long: `Runs the pipeline in FILE as run does, but for its models: each of their requests is answered from the cassette, and no service is called. Everything else is real. A request that was not recorded fails its step and says how the nearest recording differs.

A cassette is made from any run: orchestrator runs export RUN --cassette CASSETTE`,
		Example: `
orchestrator replay report.cassette.yaml report.yaml -i depth=3`,
		Args: args(2, 2, "a cassette and the file of a pipeline", "orchestrator replay report.cassette.yaml report.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.cassette = args[0]
			return c.run(cmd.Context(), args[1], f)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVarP(&f.inputs, "input", "i", nil, "an input as name=value; name=@file reads the value from a file (repeatable)")
	fl.StringVar(&f.inputsFile, "inputs", "", "a YAML or JSON file with the inputs by name; - is standard input")
	f.answerFlags.add(fl)
	fl.StringVar(&f.workspace, "workspace", "", "the directory that the steps work in; default the current one")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, only the outputs")
	c.jsonFlag(cmd, "print the run with its steps as one JSON document")
	return cmd
}
