package web

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
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
		out = appendLines(out, l)
	}
}

// lineMost bounds one line on the screen.
const lineMost = 4000

// appendLines adds what a message of the log says, which may be several lines.
func appendLines(out []logLine, l *api.LogLine) []logLine {
	id := "l:" + l.GetPath() + ":" + itoa(l.GetAttempt()) + ":" + itoa(l.GetN())
	text := strings.TrimSuffix(l.GetText(), "\n")
	for n := int32(1); ; n++ {
		line, rest, more := strings.Cut(text, "\n")
		if len(line) > lineMost {
			line = line[:lineMost] + "\u2026"
		}
		out = append(out, logLine{
			ID: id, Path: l.GetPath(), At: human.Moment(l.GetAt()), Stream: l.GetStream(), Pieces: ansi(line),
			Same: len(out) > 0 && out[len(out)-1].Path == l.GetPath(),
		})
		if !more {
			return out
		}
		id, text = "l:"+l.GetPath()+":"+itoa(l.GetAttempt())+":"+itoa(l.GetN())+":"+itoa(n), rest
	}
}
