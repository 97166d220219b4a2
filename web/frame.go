package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/a-h/templ"
)

// frame is one message of the live feed: the newest state of some elements as
// of event seq. Pages swap the elements by id and remember seq, so that none
// goes backwards.
type frame struct {
	Seq     int32   `json:"seq"`
	Patches []patch `json:"patches,omitempty"`
	// Say is a change worth telling to those who do not see it.
	Say string `json:"say,omitempty"`
	// Done: the run has finished and everything of it has been sent.
	Done bool `json:"done,omitempty"`
	// Marks are the lines of an editor that have findings.
	Marks []mark `json:"marks,omitempty"`
}

// patch is the new state of the element with that id.
type patch struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
	// Append adds HTML to the element's end and keeps its last Keep children.
	Append bool `json:"append,omitempty"`
	Keep   int  `json:"keep,omitempty"`
}

// fragment is an element that can be drawn on its own.
type fragment struct {
	id   string
	body templ.Component
}

// draw renders fragments into patches.
func draw(ctx context.Context, parts ...fragment) ([]patch, error) {
	out := make([]patch, 0, len(parts))
	var b bytes.Buffer
	for _, p := range parts {
		b.Reset()
		if err := p.body.Render(ctx, &b); err != nil {
			return nil, fmt.Errorf("render %s: %w", p.id, err)
		}
		out = append(out, patch{ID: p.id, HTML: b.String()})
	}
	return out, nil
}

// wantsFrame reports whether the script of the page asks for fresh elements
// instead of a whole page.
func wantsFrame(r *http.Request) bool { return r.URL.Query().Get("frame") != "" }

// sendFrame answers with fresh elements.
func (s *site) sendFrame(w http.ResponseWriter, r *http.Request, parts ...fragment) {
	patches, err := draw(r.Context(), parts...)
	if err != nil {
		s.log.WarnContext(r.Context(), "fragment not drawn", "path", r.URL.Path, "err", err)
		http.Error(w, "the fragment could not be drawn", http.StatusInternalServerError)
		return
	}
	s.writeFrame(w, r, frame{Patches: patches})
}

func (s *site) writeFrame(w http.ResponseWriter, r *http.Request, f frame) {
	w.Header().Set("Content-Type", "application/json")
	out := compressed(w, r)
	defer out.Close()
	if err := json.NewEncoder(out).Encode(f); err != nil && r.Context().Err() == nil {
		s.log.WarnContext(r.Context(), "fragment not sent", "path", r.URL.Path, "err", err)
	}
}
