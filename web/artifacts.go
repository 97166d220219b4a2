package web

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// versionsShown is how many versions of each artifact the page shows.
const versionsShown = 100

// artifactsData is what a run has published, artifact by artifact.
type artifactsData struct {
	Groups []artifactGroup
	Ended  bool
}

// artifactGroup is one artifact with its versions, the newest first.
type artifactGroup struct {
	Name     string
	Versions []artifactRow
	Left     int // older versions that are not shown
}

// artifactRow is one version.
type artifactRow struct {
	*api.Artifact
	Href   string // of its producer
	Load   string // where its content is
	Newest bool
}

func (s *site) artifactsData(ctx context.Context, v *view, sc screen) (artifactsData, error) {
	d := artifactsData{Ended: v.final()}
	list, err := s.artifacts.ListArtifacts(ctx, &api.ListArtifactsRequest{RunId: sc.Run}, bigAnswers)
	if err != nil {
		return d, err
	}
	at := map[string]int{}
	for _, a := range list.GetArtifacts() {
		i, known := at[a.GetArtifact()]
		if !known {
			i = len(d.Groups)
			at[a.GetArtifact()] = i
			d.Groups = append(d.Groups, artifactGroup{Name: a.GetArtifact()})
		}
		g := &d.Groups[i]
		g.Versions = append(g.Versions, artifactRow{
			Artifact: a, Href: sc.with("step", a.GetProducer()),
			Load: link(pathOfRun(sc.Run)+"/artifact", "name", a.GetArtifact(), "version", itoa(a.GetVersion())),
		})
	}
	for i := range d.Groups {
		g := &d.Groups[i]
		slices.Reverse(g.Versions)
		g.Versions[0].Newest = true
		if g.Left = len(g.Versions) - versionsShown; g.Left > 0 {
			g.Versions = g.Versions[:versionsShown]
		}
	}
	return d, nil
}

// artifact sends the content of one version as a file to keep. It is text or
// bytes and never anything that a browser would show or run.
func (s *site) artifact(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	got, err := s.artifacts.GetArtifact(r.Context(), &api.GetArtifactRequest{
		RunId: chi.URLParam(r, "id"), Artifact: q.Get("name"), Version: number(q.Get("version")),
	}, bigAnswers)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	name, content := fileName(got.GetArtifact()), got.GetContent()
	if got.GetArtifact().GetDigest() == "" {
		content = []byte(got.GetArtifact().GetValue() + "\n")
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if readable(content) {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("Content-Length", strconv.Itoa(len(content)))
	if _, err := w.Write(content); err != nil && r.Context().Err() == nil {
		s.log.WarnContext(r.Context(), "artifact not sent", "path", r.URL.Path, "err", err)
	}
}

// fileName is what a version is kept as: the name of its file, or that of the
// artifact, without anything that a name should not hold.
func fileName(a *api.Artifact) string {
	name := a.GetArtifact() + ".json"
	if a.GetDigest() != "" {
		name = path.Base(strings.ReplaceAll(typed(a.GetValue()), `\`, "/"))
	}
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || strings.ContainsRune(`/\:*?"<>|`, r) || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if name = strings.TrimLeft(name, "."); name == "" || name == "_" {
		return "artifact"
	}
	return name
}

// readable reports whether content is text.
func readable(content []byte) bool {
	return utf8.Valid(content) && !bytes.ContainsFunc(content, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != '\x1b' && r != '\f'
	})
}

// bytesOf is a size as people read it.
func bytesOf(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
