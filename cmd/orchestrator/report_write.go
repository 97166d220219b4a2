package main

import (
	"fmt"
	"html/template"
	"io"
	"strings"
)

// writeMarkdown writes a report as Markdown. What comes from the run can neither
// form it nor hold HTML.
func writeMarkdown(w io.Writer, a *account) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Run of %s: %s\n\n", plainMarkdown(a.Run.GetPipeline()), word(a.Run.GetStatus().String()))
	rows := [][]string{}
	for _, x := range a.Head() {
		rows = append(rows, []string{x[0], x[1]})
	}
	markdownTable(&b, []string{"", ""}, rows)
	if where, text := a.Failure(); where != "" {
		fmt.Fprintf(&b, "\n## Error\n\n%s\n\n", plainMarkdown(where))
		fenced(&b, "text", text)
	}
	values, err := a.Values()
	if err != nil {
		return err
	}
	for _, v := range values {
		fmt.Fprintf(&b, "\n## %s\n\n", v[0])
		fenced(&b, "yaml", v[1])
	}
	for _, t := range a.Tables() {
		fmt.Fprintf(&b, "\n## %s\n\n", t.Title)
		markdownTable(&b, t.Head, t.Rows)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// fenced writes text between fences that do not occur in it.
func fenced(b *strings.Builder, kind, text string) {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	fmt.Fprintf(b, "%s%s\n%s\n%s\n", fence, kind, strings.TrimRight(text, "\n"), fence)
}

var markdownEscapes = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "|", `\|`, "#", `\#`, "~", `\~`, "\n", " ")

// plainMarkdown is text that stands for itself.
func plainMarkdown(s string) string { return markdownEscapes.Replace(harmlessLine(s)) }

func markdownTable(b *strings.Builder, head []string, rows [][]string) {
	line := func(cells []string) {
		b.WriteByte('|')
		for _, c := range cells {
			b.WriteString(" " + plainMarkdown(c) + " |")
		}
		b.WriteByte('\n')
	}
	line(head)
	b.WriteString("|" + strings.Repeat(" --- |", len(head)) + "\n")
	for _, r := range rows {
		line(r)
	}
}

var reportPage = template.Must(template.New("report").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{.Title}}</title><style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#1a1d23}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;border-top:1px solid #8884;overflow-wrap:anywhere}
pre{font:14px/1.4 ui-monospace,monospace;padding:.8rem;border:1px solid #8888;border-radius:.3rem;white-space:pre-wrap;overflow-wrap:anywhere}
.facts th{width:8rem;font-weight:normal;opacity:.75}
@media(prefers-color-scheme:dark){body{background:#101317;color:#e7eaef}}
</style></head><body><main>
<h1>{{.Title}}</h1>
<table class="facts"><tbody>{{range .Account.Head}}<tr><th scope="row">{{index . 0}}</th><td>{{index . 1}}</td></tr>
{{end}}</tbody></table>
{{if .Where}}<h2>Error</h2><p>{{.Where}}</p><pre>{{.Failure}}</pre>
{{end}}{{range .Values}}<h2>{{index . 0}}</h2><pre>{{index . 1}}</pre>
{{end}}{{range .Account.Tables}}<h2>{{.Title}}</h2>
<table><thead><tr>{{range .Head}}<th scope="col">{{.}}</th>{{end}}</tr></thead><tbody>
{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>
{{end}}</tbody></table>
{{end}}</main></body></html>
`))

// writeHTML writes a report as one page without scripts.
func writeHTML(w io.Writer, a *account) error {
	values, err := a.Values()
	if err != nil {
		return err
	}
	page := struct {
		Title, Where, Failure string
		Account               *account
		Values                [][2]string
	}{Title: "Run of " + a.Run.GetPipeline() + ": " + word(a.Run.GetStatus().String()), Account: a, Values: values}
	page.Where, page.Failure = a.Failure()
	if err := reportPage.Execute(w, page); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}
