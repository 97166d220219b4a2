package main

import (
	"context"
	"fmt"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) runsArtifactsCommand() *cobra.Command {
	ver, output := int32(0), ""
	cmd := &cobra.Command{
		Use:   "artifacts RUN [NAME]",
		Short: "List what a run has published, or print one artifact",
		Long:  `Without a name, lists the versions of the run's artifacts. With one, prints its newest version: the content of a file as it is, another value as YAML.`,
		Example: `
orchestrator runs artifacts last
orchestrator runs artifacts last report > report.md
orchestrator runs artifacts last model --version 2 --output model.bin`,
		Args: args(1, 2, "the id of a run, or last, and perhaps the name of an artifact", "orchestrator runs artifacts last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (ver != 0 || output != "") {
				return usage("orchestrator runs artifacts "+args[0]+" NAME", "--version and --output are of one artifact: name it")
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				if len(args) == 1 {
					return c.listArtifacts(ctx, cl, id)
				}
				got, err := cl.artifacts.GetArtifact(ctx, &api.GetArtifactRequest{RunId: id, Artifact: args[1], Version: ver})
				if err != nil {
					return err
				}
				return c.printArtifact(got, output)
			})
		},
	}
	cmd.Flags().Int32Var(&ver, "version", 0, "a version; default the newest")
	cmd.Flags().StringVarP(&output, "output", "o", "", "a file to write to in place of standard output")
	c.jsonFlag(cmd, "print what is known of the artifacts as one JSON document")
	return cmd
}

func (c *cli) listArtifacts(ctx context.Context, cl *client, run string) error {
	resp, err := cl.artifacts.ListArtifacts(ctx, &api.ListArtifactsRequest{RunId: run})
	if err != nil {
		return err
	}
	if c.asJSON {
		return c.printJSON(resp)
	}
	w := c.painted(c.out)
	if len(resp.GetArtifacts()) == 0 {
		fmt.Fprintln(w, "the run has published nothing")
		return nil
	}
	rows := [][]string{{dim("ARTIFACT"), dim("VERSION"), dim("STEP"), dim("SIZE"), dim("VALUE")}}
	for _, a := range resp.GetArtifacts() {
		size := ""
		if a.GetDigest() != "" {
			size = bytesText(int64(a.GetSize()))
		}
		rows = append(rows, []string{a.GetArtifact(), fmt.Sprint(a.GetVersion()), a.GetProducer(), size, dim(cut(plainText(a.GetValue()), 60))})
	}
	table(w, rows)
	return nil
}

func bytesText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	return mebibytes(n)
}

// printArtifact prints one version, or writes it to a file.
func (c *cli) printArtifact(got *api.ArtifactContent, output string) error {
	a := got.GetArtifact()
	content := got.GetContent()
	if a.GetDigest() == "" {
		text, err := yamlText(a.GetValue())
		if err != nil {
			return err
		}
		content = []byte(text)
	}
	if output != "" {
		if err := os.WriteFile(output, content, 0o600); err != nil {
			return &failure{code: exitInvalid, what: "cannot write " + output, why: cause(err)}
		}
		if !c.asJSON {
			fmt.Fprintf(c.painted(c.err), "%s version %d of %s: %s\n", painted("COMPLETED", icon("COMPLETED")), a.GetVersion(), a.GetArtifact(), bytesText(int64(len(content))))
		}
	}
	switch {
	case c.asJSON:
		return c.printJSON(a)
	case output != "":
		return nil
	case c.terminal && !utf8.Valid(content):
		return usage("add --output FILE, or send it on with > FILE", "%s is not text; it is not printed on a terminal", a.GetArtifact())
	case c.terminal:
		content = []byte(harmless(string(content)))
	}
	_, err := c.out.Write(content)
	return err
}
