package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// importPiece is the size in bytes of the messages that carry a file.
const importPiece = 256 << 10

func (c *cli) runsExportCommand() *cobra.Command {
	output, tape := "", ""
	cmd := &cobra.Command{
		Use:   "export RUN",
		Short: "Write a finished run into one file",
		Long: `Writes a finished run into one file: its log, its definition with the files that travel with it, what its steps printed and published, and what people were asked. Another server, or the embedded store, takes the file with runs import. Secrets are blotted out in it, as they are in the store. The files of the run's workspace stay behind.

With --cassette it writes the answers that models have given instead, of any run, also of one under way. orchestrator replay answers from the file again, and a model of the provider cassette does.

Without --output the file is run-ID.tar.zst in the present directory; - is standard output.`,
		Example: `
orchestrator runs export last
orchestrator runs export last --cassette report.cassette.yaml
orchestrator runs export last --output - | ssh other orchestrator runs import -`,
		Args: args(1, 1, "the id of a run, or last", "orchestrator runs export last"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				id, err := cl.findRun(ctx, args[0])
				if err != nil {
					return err
				}
				req := &api.ExportRunRequest{Id: id}
				if tape != "" {
					req.Format, output = "cassette", tape
				}
				stream, err := cl.runs.ExportRun(ctx, req)
				if err != nil {
					return err
				}
				return c.saveRun(id, output, stream)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file to write; - is standard output")
	cmd.Flags().StringVar(&tape, "cassette", "", "write the answers of models into this file; - is standard output")
	cmd.MarkFlagsMutuallyExclusive("output", "cassette")
	return cmd
}

// saveRun writes what a stream sends. The file takes its name once it is whole.
func (c *cli) saveRun(id, output string, stream api.Runs_ExportRunClient) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if output == "-" {
		if c.terminal {
			return usage("add --output FILE, or send it on with > FILE", "the file is not text; it is not printed on a terminal")
		}
		_, err := copyRun(c.out, first, stream)
		return err
	}
	if output == "" {
		output = "run-" + id + ".tar.zst"
	}
	cannot := func(err error) error {
		return &failure{code: exitInvalid, what: "cannot write " + output, why: cause(err)}
	}
	file, err := os.CreateTemp(filepath.Dir(output), ".orchestrator-export-*")
	if err != nil {
		return cannot(err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name()) // unless it has its name
	}()
	size, err := copyRun(file, first, stream)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return cannot(err)
	}
	if err := os.Rename(file.Name(), output); err != nil {
		return cannot(err)
	}
	fmt.Fprintf(c.painted(c.err), "%s wrote run %s: %s\n", painted("COMPLETED", icon("COMPLETED")), id, bytesText(size))
	fmt.Fprintln(c.out, output)
	return nil
}

func copyRun(w io.Writer, piece *api.ExportRunResponse, stream api.Runs_ExportRunClient) (size int64, err error) {
	for {
		n, err := w.Write(piece.GetData())
		size += int64(n)
		if err != nil {
			return size, &failure{code: exitInvalid, what: "cannot write the file", why: cause(err)}
		}
		piece, err = stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

func (c *cli) runsImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in a run that another store has exported",
		Long:  `Takes in the file that runs export has written; - is standard input. The run keeps its id and has the label imported=true. It can be looked at, compared, forked and replayed; it never runs itself. A file that is not whole is refused, and nothing of it is stored.`,
		Example: `
orchestrator runs import run-0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f.tar.zst
orchestrator runs list --label imported=true`,
		Args: args(1, 1, "the file of a run, or -", "orchestrator runs import run.tar.zst"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := c.in
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return &failure{code: exitInvalid, what: "cannot read " + args[0], why: cause(err)}
				}
				defer func() { _ = file.Close() }() // it was only read
				in = file
			}
			return c.reading(cmd, func(ctx context.Context, cl *client) error { return c.sendRun(ctx, cl, in) })
		},
	}
	c.jsonFlag(cmd, "print the run as one JSON document")
	return cmd
}

func (c *cli) sendRun(ctx context.Context, cl *client, in io.Reader) error {
	stream, err := cl.runs.ImportRun(ctx)
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(in, importPiece)
	for {
		piece := make([]byte, importPiece)
		n, err := io.ReadFull(r, piece)
		if n > 0 && stream.Send(&api.ImportRunRequest{Data: piece[:n]}) != nil {
			break // the answer says why
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return &failure{code: exitInvalid, what: "cannot read the file", why: cause(err)}
		}
	}
	run, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if c.asJSON {
		return c.printJSON(run)
	}
	s := run.GetStatus().String()
	fmt.Fprintf(c.painted(c.out), "%s imported run %s of %s, which is %s\n", painted("COMPLETED", icon("COMPLETED")), run.GetId(), run.GetPipeline(), word(s))
	look(c.painted(c.err), [2]string{c.again("runs get " + run.GetId()), "look at it"}, [2]string{c.again("runs fork " + run.GetId()), "start a run of its results"})
	return nil
}
