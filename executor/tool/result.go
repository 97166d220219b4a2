package tool

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxFound = 50       // lines that a search gives
	maxLine  = 64 << 10 // bytes of a line that a search looks at
	maxShown = 400      // bytes of a line that it gives
)

// readResult is the tool that reads on in results that were too long to show.
func (s *source) readResult() Tool {
	most := int64(max(256, s.cfg.Limit-512))
	t := Tool{
		Name:        ReadResult,
		Description: "Reads on in a result that was too long to be shown whole. Give the handle that stands in it, and either an offset in bytes with a length, or a regular expression to search for: that gives the lines that match, with their offsets.",
		Effect:      pipeline.EffectPure,
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"handle"},
			"properties": map[string]any{
				"handle": map[string]any{"type": "string", "description": "as it stands in the result"},
				"offset": map[string]any{"type": "integer", "minimum": int64(0), "default": int64(0), "description": "where to begin, in bytes; of a search, too"},
				"length": map[string]any{"type": "integer", "minimum": int64(1), "maximum": most, "default": min(most, 16<<10), "description": "how many bytes to read"},
				"search": map[string]any{"type": "string", "maxLength": int64(1000), "description": "a regular expression; (?i) before it ignores case"},
			},
		},
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			handle, _ := c.Arguments["handle"].(string)
			k, err := s.open(ctx, env, handle)
			if err != nil {
				return Result{}, err
			}
			offset := number(c.Arguments, "offset", 0)
			if pattern, ok := c.Arguments["search"].(string); ok && pattern != "" {
				return k.search(ctx, pattern, offset)
			}
			return k.read(ctx, offset, min(most, number(c.Arguments, "length", min(most, 16<<10))))
		},
	}
	return s.guarded(t)
}

// kept is a result that is kept with a run.
type kept struct {
	s    *source
	run  pipeline.RunID
	list index
}

// open finds what a handle names, in this run alone.
func (s *source) open(ctx context.Context, env executor.Env, handle string) (*kept, error) {
	unknown := fmt.Errorf("there is no result with the handle %q in this run; copy it as it stands in the result", upTo(handle, 100))
	digest, many := strings.CutPrefix(handle, partsPrefix)
	if !strings.HasPrefix(digest, "sha256:") {
		return nil, unknown
	}
	data, err := s.cfg.Results.Blob(ctx, env.Run, pipeline.Digest(digest))
	switch {
	case pipeline.KindOf(err) == pipeline.NotFound:
		return nil, unknown
	case err != nil:
		return nil, fmt.Errorf("the result cannot be read now: %w", err)
	}
	k := &kept{s: s, run: env.Run}
	if !many {
		k.list = index{int64(len(data)), []part{{pipeline.Digest(digest), int64(len(data))}}}
		return k, nil
	}
	if json.Unmarshal(data, &k.list) != nil {
		return nil, unknown
	}
	return k, nil
}

// reader is a function that reads.
type reader func(b []byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }

// at reads what is kept from an offset on, part by part.
func (k *kept) at(ctx context.Context, skip int64) io.Reader {
	next := 0
	var now []byte
	return reader(func(b []byte) (int, error) {
		for len(now) == 0 {
			if next == len(k.list.Parts) {
				return 0, io.EOF
			}
			p := k.list.Parts[next]
			next++
			if skip >= p.Size {
				skip -= p.Size
				continue
			}
			data, err := k.s.cfg.Results.Blob(ctx, k.run, p.Digest)
			if err != nil {
				return 0, err
			}
			now, skip = data[min(skip, int64(len(data))):], 0
		}
		n := copy(b, now)
		now = now[n:]
		return n, nil
	})
}

func (k *kept) read(ctx context.Context, offset, length int64) (Result, error) {
	if offset >= k.list.Size {
		return Result{}, fmt.Errorf("the result has %d bytes; there is nothing at %d", k.list.Size, offset)
	}
	b := make([]byte, min(length, k.list.Size-offset)+utf8.UTFMax)
	n, err := io.ReadFull(k.at(ctx, offset), b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Result{}, fmt.Errorf("the result cannot be read now: %w", err)
	}
	b = b[:n]
	begin := 0
	for begin < min(n, utf8.UTFMax) && !utf8.RuneStart(b[begin]) {
		begin++
	}
	end := min(int64(n), length)
	for end < int64(n) && !utf8.RuneStart(b[end]) {
		end++
	}
	first, last := offset+int64(begin), offset+end
	text := fmt.Sprintf("[bytes %d to %d of %d]\n%s", first, last, k.list.Size, b[begin:max(int64(begin), end)])
	if last < k.list.Size {
		text += fmt.Sprintf("\n[it goes on at offset %d]", last)
	}
	return Text(text), nil
}

func (k *kept) search(ctx context.Context, pattern string, offset int64) (Result, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return Result{}, fmt.Errorf("search is not a regular expression (RE2): %w", err)
	}
	var out strings.Builder
	found := 0
	in := bufio.NewReaderSize(k.at(ctx, offset), maxLine)
	for at := offset; ; {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return Result{}, fmt.Errorf("the result cannot be read now: %w", err)
		}
		if m := re.FindIndex(line); m != nil && len(line) > 0 {
			if found++; found > maxFound {
				fmt.Fprintf(&out, "[more lines match; go on with offset %d]\n", at)
				break
			}
			begin := max(0, m[0]-maxShown/2)
			for begin > 0 && !utf8.RuneStart(line[begin]) {
				begin--
			}
			fmt.Fprintf(&out, "%d: %s\n", at+int64(begin), strings.TrimRight(upTo(string(line[begin:]), maxShown), "\r\n"))
		}
		at += int64(len(line))
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if found == 0 {
		return Text("No line matches."), nil
	}
	return Text(out.String()), nil
}
