package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"charm.land/lipgloss/v2"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// printJSON prints a message as an indented JSON document, with members added
// behind its own.
func (c *cli) printJSON(m proto.Message, more ...member) error {
	b, err := wire.Marshal(m)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	for _, x := range more {
		b = bytes.TrimSuffix(b, []byte("}"))
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:", x.name)
		b = append(append(b, x.json...), '}')
	}
	return c.printRaw(b)
}

// member is a further member of a JSON object.
type member struct {
	name string
	json []byte
}

func (c *cli) printRaw(b []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err := c.out.Write(out.Bytes())
	return err
}

// list is the JSON form of messages.
func list[M proto.Message](messages []M) ([]byte, error) {
	b := []byte{'['}
	for i, m := range messages {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = wire.Append(b, m); err != nil {
			return nil, fmt.Errorf("write JSON: %w", err)
		}
	}
	return append(b, ']'), nil
}

// printRunJSON prints a run with its steps.
func (c *cli) printRunJSON(run *api.Run, steps []*api.Step) error {
	b, err := list(steps)
	if err != nil {
		return err
	}
	return c.printJSON(run, member{"steps", b})
}

// yamlText is a JSON text as YAML, for people.
func yamlText(text string) (string, error) {
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return "", fmt.Errorf("read a value: %w", err)
	}
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return "", fmt.Errorf("write YAML: %w", err)
	}
	return b.String(), nil
}

// printOutputs prints a run's outputs as YAML. It is the last thing on
// standard output.
func (c *cli) printOutputs(run *api.Run) error {
	if run.GetOutputs() == "" {
		return nil
	}
	text, err := yamlText(run.GetOutputs())
	if err != nil {
		return err
	}
	_, err = io.WriteString(c.out, text)
	return err
}

// tellOutcome says in a few lines why a run did not succeed.
func tellOutcome(w io.Writer, run *api.Run) {
	e := run.GetError()
	if e == nil {
		return
	}
	where := "the run"
	if e.GetStep() != "" {
		where = "step " + e.GetStep()
	}
	kind := ""
	if k := e.GetKind(); k != "failed" && k != "unknown" {
		kind = " (" + human.Phrase(k) + ")"
	}
	fmt.Fprintf(w, "%s %s failed%s\n", lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true).Render("Error:"), where, kind)
	fmt.Fprintln(w, indent(harmless(e.GetMessage())))
}

// look says where more is to be learned.
func look(w io.Writer, lines ...[2]string) {
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	for _, l := range lines {
		fmt.Fprintln(w, dim(fmt.Sprintf("%-*s  %s", width, l[0], l[1])))
	}
}
