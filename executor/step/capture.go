package step

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	quiet     = 200 * time.Millisecond // after which a line without an end is shown
	longLine  = 64 << 10               // bytes of a line that are shown before its end
	tailBytes = 2 << 10                // what a failure shows of the last output
	keptTail  = 8 << 10                // what is kept of it, so that a secret at the cut is still whole
	tailLines = 10
)

// capture is the two output streams of a program: it passes them to the log as
// they come and keeps standard output, the step's value.
type capture struct {
	stdout, stderr *pump
	drained        chan struct{} // closed when both streams have ended
	full           chan struct{} // closed when standard output is too large to be a value
	pumps          sync.WaitGroup

	log  func(stream, text string)
	mu   sync.Mutex // guards left
	left int        // bytes that the log may still take; negative: it was told so
}

// pump reads one stream. Its goroutine owns all fields until capture.drained.
type pump struct {
	c      *capture
	stream string
	r, w   *os.File
	line   []byte // read but not yet shown
	kept   []byte // of stdout: the value
	tail   []byte // the last of it, at most twice keptTail
}

func newCapture(log func(stream, text string)) (*capture, error) {
	c := &capture{log: log, left: maxLog, drained: make(chan struct{}), full: make(chan struct{})}
	c.stdout = &pump{c: c, stream: "stdout"}
	c.stderr = &pump{c: c, stream: "stderr"}
	for _, p := range []*pump{c.stdout, c.stderr} {
		var err error
		if p.r, p.w, err = os.Pipe(); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// close frees a capture whose program never started.
func (c *capture) close() {
	for _, p := range []*pump{c.stdout, c.stderr} {
		if p.r != nil {
			p.r.Close()
			p.w.Close()
		}
	}
}

// started begins to read; the writing ends are the program's by now.
func (c *capture) started() {
	for _, p := range []*pump{c.stdout, c.stderr} {
		c.pumps.Go(p.run)
	}
	go func() { // ends with the pumps, which finish waits for
		c.pumps.Wait()
		close(c.drained)
	}()
}

// finish gives up on output that others still hold open and returns when
// nothing is read any more.
func (c *capture) finish() {
	late := time.NewTimer(quiet) // the kernel may still be closing what was killed
	defer late.Stop()
	select {
	case <-c.drained:
	case <-late.C:
	}
	c.stdout.r.Close()
	c.stderr.r.Close()
	<-c.drained
}

func (p *pump) run() {
	buf := make([]byte, 32<<10)
	for {
		n, err := p.r.Read(buf)
		p.take(buf[:n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.show(wholeRunes(p.line))
			_ = p.r.SetReadDeadline(time.Time{})
		case err != nil:
			p.show(len(p.line))
			return
		case len(p.line) > 0:
			_ = p.r.SetReadDeadline(time.Now().Add(quiet))
		default:
			_ = p.r.SetReadDeadline(time.Time{})
		}
	}
}

func (p *pump) take(b []byte) {
	if len(b) == 0 {
		return
	}
	if p == p.c.stdout && len(p.kept) <= maxValue {
		if p.kept = append(p.kept, b...); len(p.kept) > maxValue {
			close(p.c.full)
		}
	}
	if p.tail = append(p.tail, b...); len(p.tail) > 2*keptTail {
		p.tail = append(p.tail[:0], p.tail[len(p.tail)-keptTail:]...)
	}
	p.line = append(p.line, b...)
	if i := bytes.LastIndexByte(p.line, '\n'); i >= 0 {
		p.show(i + 1)
	}
	if len(p.line) > longLine {
		p.show(wholeRunes(p.line))
	}
}

// show passes the first n bytes of what is pending to the log.
func (p *pump) show(n int) {
	if n == 0 {
		return
	}
	text := strings.ToValidUTF8(string(p.line[:n]), "\ufffd")
	p.line = append(p.line[:0], p.line[n:]...)
	c := p.c
	c.mu.Lock()
	was := c.left
	if was >= 0 {
		c.left -= len(text)
	}
	fits := c.left >= 0
	c.mu.Unlock()
	switch {
	case fits:
		c.log(p.stream, text)
	case was >= 0:
		c.log("system", "The log ends here: this attempt has written more than "+size(maxLog)+".\n")
	}
}

// wholeRunes is how much of b does not end within a character.
func wholeRunes(b []byte) int {
	for i := 1; i <= min(len(b), utf8.UTFMax-1); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}

// tooLarge reports whether standard output is more than a value may hold.
func (c *capture) tooLarge() bool { return len(c.stdout.kept) > maxValue }

// text is standard output without its final newline.
func (c *capture) text() string {
	s := strings.ToValidUTF8(string(c.stdout.kept), "\ufffd")
	if t, ok := strings.CutSuffix(s, "\n"); ok {
		s = strings.TrimSuffix(t, "\r")
	}
	return s
}

// value is standard output in the form that the step asked for.
func (c *capture) value(form string) (any, error) {
	switch form {
	case captureLines:
		if len(c.stdout.kept)+3*bytes.Count(c.stdout.kept, []byte{'\n'}) > maxValue {
			return nil, tooLarge("the list of lines is larger than %s; write the output to a file instead", size(maxValue))
		}
		return splitLines(strings.ToValidUTF8(string(c.stdout.kept), "\ufffd")), nil
	case captureJSON:
		v, err := pipeline.DecodeValue(c.stdout.kept)
		if err != nil {
			f := pipeline.Failuref(pipeline.CategoryContract,
				"one JSON value is expected on standard output: %v; it begins %q", err, head(c.text(), 80))
			f.Reason = "not_json"
			return nil, f
		}
		return v, nil
	}
	return c.text(), nil
}

// tail is the end of what the program said, as the end of a message: of
// standard error, or of standard output where that is empty. What redact blots
// out is gone before anything is cut.
func (c *capture) tail(redact func(string) string) string {
	for _, p := range []*pump{c.stderr, c.stdout} {
		text := strings.ToValidUTF8(string(p.tail), "\ufffd")
		if redact != nil {
			text = redact(text)
		}
		text = strings.TrimSpace(text)
		if len(text) > tailBytes {
			text = text[len(text)-tailBytes:]
			for text != "" && !utf8.RuneStart(text[0]) {
				text = text[1:]
			}
			text = strings.TrimSpace(text)
		}
		if text == "" {
			continue
		}
		lines := strings.Split(text, "\n")
		if len(lines) == 1 {
			return ": " + text
		}
		if len(lines) > tailLines {
			lines = lines[len(lines)-tailLines:]
		}
		return ":\n" + strings.Join(lines, "\n")
	}
	return ""
}
