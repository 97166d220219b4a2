package web

import (
	"context"
	"errors"
	"io"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// logTail is how many lines of a log a page shows; the live feed keeps as many.
const logTail = 500

// logLine is one printed line, ready to be shown.
type logLine struct {
	ID     string // the same line has the same id wherever it is drawn
	Path   string
	At     time.Time
	Stream string
	Pieces []piece
	Same   bool // the line before is of the same step: its name need not stand again
}

// logsData is the log of a run.
type logsData struct {
	Lines []logLine
	Live  bool
	Run   string
}

// readLogs reads the newest lines of a run or of one of its steps.
func (s *site) readLogs(ctx context.Context, run, step string, tail int32) ([]logLine, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream however we leave
	stream, err := s.runs.ReadLogs(ctx, &api.ReadLogsRequest{Id: run, Step: step, Tail: tail}, bigAnswers)
	if err != nil {
		return nil, err
	}
	var out []logLine
	for {
		l, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out[max(0, len(out)-int(tail)):], nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, lineOf(l, out))
	}
}

// lineMost bounds one line on the screen.
const lineMost = 4000

func lineOf(l *api.LogLine, before []logLine) logLine {
	text := l.GetText()
	if len(text) > lineMost {
		text = text[:lineMost] + "\u2026"
	}
	out := logLine{ID: "l:" + l.GetPath() + ":" + itoa(l.GetAttempt()) + ":" + itoa(l.GetN()), Path: l.GetPath(), At: moment(l.GetAt()), Stream: l.GetStream(), Pieces: ansi(text)}
	if n := len(before); n > 0 {
		out.Same = before[n-1].Path == out.Path
	}
	return out
}
