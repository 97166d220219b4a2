package step

import (
	"context"
	"encoding/base64"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const convertDoc = `Gives a table in another format, as a text or as a file.

    - id: sheet
      tool: data
      action: convert
      parameters: {source: data/weather.csv, path: out/weather.xlsx}

source is what load_data takes: a file, a text, or rows. The result is written to path, whole or not at all; without path it is content: a text, or base64 of parquet and xlsx, as encoding says. to is csv, tsv, json, jsonl, yaml, parquet or xlsx; default: by the extension of path.

Columns come in the order of the source, in parquet sorted; of rows, json and yaml they are sorted. In csv, tsv and xlsx null is an empty cell, and a list or map is its JSON; in parquet a column of lists or maps is of the type JSON, and one of several kinds is of texts.`

// Convert is a table and what to make of it.
type Convert struct {
	Source    any    `param:"required" doc:"a file, or the data itself"`
	From      string `default:"\"auto\"" doc:"the format of the source; default: found out"`
	To        string `default:"\"auto\"" doc:"csv, tsv, json, jsonl, yaml, parquet or xlsx; default: by the extension of path"`
	Path      string `doc:"the file to write; default: none, the result has the content"`
	Delimiter string `doc:"of csv, read and written, one character; default: found out, and a comma"`
	Sheet     any    `doc:"of xlsx: the sheet to read; default: the first"`
}

type convertResult struct {
	Content  any    `doc:"the text, or base64; null where path is given"`
	Encoding string `doc:"of content: text or base64"`
	Path     any    `doc:"the file that was written, or null"`
	Format   string `doc:"what the result is"`
	Rows     int64  `doc:"how many"`
	Size     int64  `doc:"in bytes"`
}

func convertAction() executor.Action {
	return executor.NewAction[Convert](executor.Describe{
		Tool: "data", Name: "convert", Bare: true, Doc: convertDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: convertResult{},
	})
}

// Run loads, then writes.
func (c Convert) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	to, err := formatName("to", c.To)
	if err != nil {
		return executor.Output{}, err
	}
	if to == "auto" {
		if to = formatOf[strings.ToLower(filepath.Ext(c.Path))]; to == "" {
			return executor.Output{}, invalid("parameter to is missing; it can be %s", strings.Join(formats, ", "))
		}
	}
	t, err := LoadData{Source: c.Source, Format: c.From, Delimiter: c.Delimiter, Header: true, Sheet: c.Sheet}.read(env)
	if err != nil {
		return executor.Output{}, err
	}
	b, err := c.encode(t, to)
	if err != nil {
		return executor.Output{}, err
	}
	out := map[string]any{
		"content": nil, "encoding": "text", "path": nil, "format": to, "rows": int64(len(t.data)), "size": int64(len(b)),
	}
	if to == "parquet" || to == "xlsx" {
		out["encoding"] = "base64"
	}
	if c.Path == "" {
		if out["content"] = string(b); out["encoding"] == "base64" {
			out["content"] = base64.StdEncoding.EncodeToString(b)
		}
		return bounded("the content", out)
	}
	root, name, err := openWorkspace(env, c.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	if ctx.Err() != nil {
		return executor.Output{}, ended(ctx)
	}
	if err := replace(root, name, b); err != nil {
		return executor.Output{}, err
	}
	out["path"] = filepath.ToSlash(name)
	return executor.Output{Value: out}, nil
}

func (c Convert) encode(t *loaded, to string) ([]byte, error) {
	rows, err := table("source", t.data)
	if err != nil {
		return nil, err
	}
	switch to {
	case "csv":
		comma := ','
		if c.Delimiter != "" {
			if comma, err = (LoadData{Delimiter: c.Delimiter}).comma(nil, to); err != nil {
				return nil, err
			}
		}
		return writeCSV(rows, t.columns, comma)
	case "tsv":
		return writeCSV(rows, t.columns, '\t')
	case "json":
		return contentBytes(t.data, "text", true)
	case "jsonl":
		var b []byte
		for _, r := range t.data {
			b = append(pipeline.AppendValue(b, r), '\n')
		}
		return b, nil
	case "yaml":
		return writeYAML(t.data)
	case "parquet":
		return writeParquet(rows, t.columns)
	}
	return writeXLSX(rows, t.columns)
}
